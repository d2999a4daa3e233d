"""What a connector may spend: requests a minute, retries, calls at once.

Each is shared by all calls of one connector in this process, so that one busy conversation cannot use up what the
service allows everyone, and retries cannot turn a slow service into a dead one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from trimtab.domain.errors import InvalidInput, ToolBusy

Clock = Callable[[], float]


@dataclass(frozen=True)
class Rate:
    """At most `calls` requests in `per` seconds, as the service's terms say. Retries count, answers from the cache do
    not. A request waits for its turn where that fits its deadline, at most `patience` seconds."""

    calls: int
    per: float = 60.0
    patience: float = 2.0

    def __post_init__(self) -> None:
        if self.calls < 1 or self.per <= 0:
            raise InvalidInput(f"A rate of {self.calls} calls in {self.per:g} seconds permits nothing. Raise it.")


class RateBudget:
    """A bucket of `calls` that refills evenly over `per` seconds. None is no limit."""

    def __init__(self, rate: Rate | None, clock: Clock = time.monotonic) -> None:
        self.rate = rate
        self._clock = clock
        self._level = float(rate.calls) if rate else 0.0
        self._at = clock()

    @property
    def left(self) -> int | None:
        """Requests that could be sent now; None without a limit."""
        if self.rate is None:
            return None
        self._refill(self.rate)
        return max(int(self._level), 0)

    def take(self) -> float:
        """Take one request's share. Returns the seconds to wait before it may be sent; the share is taken either way,
        so give it back (`put_back`) where nobody waits."""
        if self.rate is None:
            return 0.0
        self._refill(self.rate)
        self._level -= 1.0
        return max(-self._level, 0.0) * self.rate.per / self.rate.calls

    def put_back(self) -> None:
        self._level += 1.0

    def _refill(self, rate: Rate) -> None:
        now = self._clock()
        self._level = min(self._level + (now - self._at) * rate.calls / rate.per, float(rate.calls))
        self._at = now


class RetryBudget:
    """Retries are at most a tenth of the requests, so a service that is down is asked at most 1.1 times as often.

    A few retries are lent to a connector that was just started, and earned back before more are granted. Unused ones
    do not pile up: after a good day a bad minute has no more of them than `most`.
    """

    SHARE = 0.1

    def __init__(self, lent: int = 2, most: int = 5) -> None:
        self._most = float(most)
        self._level = float(lent)
        self._owed = float(lent)
        self.spent = 0

    def earn(self) -> None:
        """A request is sent for the first time."""
        paid = min(self._owed, self.SHARE)
        self._owed -= paid
        self._level = min(self._level + self.SHARE - paid, self._most)

    def spend(self) -> bool:
        """Whether one more retry is granted."""
        if self._level < 1.0:
            return False
        self._level -= 1.0
        self.spent += 1
        return True


class Bulkhead:
    """At most `places` calls of a connector at once; another waits `patience` seconds for its turn."""

    def __init__(self, name: str, places: int, patience: float) -> None:
        self._name = name
        self._patience = patience
        self._free = asyncio.Semaphore(places)
        self.running = 0

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold one.

        Raises:
            ToolBusy: none became free in time.
        """
        try:
            async with asyncio.timeout(self._patience if self._free.locked() else None):
                await self._free.acquire()
        except TimeoutError:
            raise ToolBusy(
                f"Connector {self._name!r} is busy with {self.running} other calls. Try again in a moment.",
                retry_after=self._patience,
                reason="busy",
            ) from None
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._free.release()
