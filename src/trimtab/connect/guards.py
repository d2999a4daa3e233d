"""What protects a service from a connector, and other connectors from this one: shared by all of its calls.

One `Guards` belongs to one connector in one toolbox. A client that is given none has an own one without a breaker.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .budget import Rate, RateBudget, RetryBudget
from .circuit import Breaker, Circuits

if TYPE_CHECKING:
    from .caching import Cached

NEVER = Breaker(failures=1 << 62)


class Guards:
    """`cached` is the connector's HTTP cache, where it declares one."""

    def __init__(
        self,
        *,
        rate: Rate | None = None,
        breaker: Breaker = NEVER,
        cached: Cached | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rate = RateBudget(rate, clock)
        self.retries = RetryBudget()
        self.circuits = Circuits(breaker, clock)
        self.cached = cached
        self.sent = 0
        """Requests that went out, retries and redirects included."""
