"""Stop asking a service that is down, and notice soon when it is back.

A circuit is closed while calls go well. When half of the last calls failed, and at least five, it opens: calls are
refused at once, with the time until the next try. After that time one call goes through as a probe (half-open); its
success closes the circuit, its failure opens it again. An origin has a circuit of its own, so that one dead page does
not cost a connector that reads any page.

A failure is no answer, a broken one, or a status of 500, 502, 503 or 504. What a caller did wrong (400, 404) is not,
and neither is 429: that is the service protecting itself, and its `Retry-After` is kept instead (`hold`).
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from trimtab.domain.errors import ToolBusy

State = Literal["closed", "open", "half-open"]
Clock = Callable[[], float]
FAILED_STATUSES = frozenset({500, 502, 503, 504})
MAX_HOLD = 300.0
MAX_ORIGINS = 256


@dataclass(frozen=True)
class Breaker:
    """Seconds and counts. Open for little more than a second: one probe in that time is no load, and a service that
    is back is used again within two."""

    window: int = 20
    failures: int = 5
    open_for: float = 1.5


class Circuit:
    """The state of one origin."""

    def __init__(self, policy: Breaker, host: str, clock: Clock = time.monotonic) -> None:
        self._policy = policy
        self._host = host
        self._clock = clock
        self._recent: deque[bool] = deque(maxlen=policy.window)
        self._open_until = 0.0
        self._open = False
        self._probing = False
        self._held_until = 0.0

    @property
    def state(self) -> State:
        if not self._open:
            return "closed"
        return "half-open" if self._probing or self._clock() >= self._open_until else "open"

    def admit(self, *, first: bool = True) -> None:
        """Ask before each request; answer with `succeeded`, `failed` or `released`. `first` is false for retries,
        which have already waited as long as the service asked.

        Raises:
            ToolBusy: nothing is to be sent now.
        """
        now = self._clock()
        if first and now < self._held_until:
            left = self._held_until - now
            raise ToolBusy(
                f"{self._host} asked for fewer requests. Try again in {left:.0f} seconds.",
                retry_after=left,
                reason="rate",
            )
        if not self._open:
            return
        if self._probing or now < self._open_until:
            left = max(self._open_until - now, 0.1)
            raise ToolBusy(
                f"{self._host} has been failing and is not asked just now. Try again in {left:.0f} seconds.",
                retry_after=left,
                reason="circuit_open",
            )
        self._probing = True

    def succeeded(self) -> None:
        if self._open:
            self._recent.clear()
        self._open = self._probing = False
        self._recent.append(True)

    def failed(self) -> None:
        self._recent.append(False)
        failures = self._recent.count(False)
        if self._probing or (failures >= self._policy.failures and failures * 2 >= len(self._recent)):
            self._open, self._probing = True, False
            self._open_until = self._clock() + self._policy.open_for

    def released(self) -> None:
        """The request ended without telling anything about the service: it was cancelled, or never sent."""
        self._probing = False

    def hold(self, seconds: float) -> None:
        """The service asked for so many seconds of peace; five minutes at most are kept."""
        self._held_until = max(self._held_until, self._clock() + min(seconds, MAX_HOLD))


class Circuits:
    """A circuit an origin, the least recently used forgotten beyond 256."""

    def __init__(self, policy: Breaker = Breaker(), clock: Clock = time.monotonic) -> None:
        self._policy = policy
        self._clock = clock
        self._of: OrderedDict[tuple[str, str, int], Circuit] = OrderedDict()

    def of(self, scheme: str, host: str, port: int) -> Circuit:
        key = (scheme, host, port)
        if key not in self._of:
            self._of[key] = Circuit(self._policy, host, self._clock)
            if len(self._of) > MAX_ORIGINS:
                self._of.popitem(last=False)
        self._of.move_to_end(key)
        return self._of[key]

    @property
    def state(self) -> State:
        """The worst of all."""
        states = {circuit.state for circuit in self._of.values()}
        if "open" in states:
            return "open"
        return "half-open" if "half-open" in states else "closed"
