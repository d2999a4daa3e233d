"""How a connector has been doing: its last calls, and what can be read off them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from .circuit import State

KEPT = 200


@dataclass(frozen=True)
class CallRecord:
    """One finished call. It has neither arguments nor results: those belong to whoever asked."""

    at: float
    """When it began, Unix seconds."""
    connector: str
    tool: str
    """``weather.forecast``"""
    effect: str
    ok: bool
    seconds: float
    reason: str = ""
    """Why it failed, for machines: ``busy``, ``rate``, ``circuit_open``, ``unreachable``, ``deadline``, ``status``,
    ``too_large``, ``malformed``, ``not_permitted``, ``auth``, ``invalid_input``, ``stopped`` or ``failed``."""
    message: str = ""
    """The same for people; empty when it went well."""
    requests: int = 0
    """What was sent to the service, retries included."""
    cached: bool = False
    """All that was read came from the cache."""
    stale: bool = False
    """The service could not be asked, and an older answer was used."""


@dataclass(frozen=True)
class Health:
    """Of the calls since the start, the last 200 at most."""

    breaker: State = "closed"
    error_rate: float = 0.0
    """0..1; what the caller did wrong is not counted."""
    p95: float = 0.0
    """Seconds within which 95 of 100 calls ended; 0 before the first."""
    running: int = 0
    rate_left: int | None = None
    """Requests that may be sent now; None where no budget is declared."""
    rate_limit: int | None = None
    rate_per: float | None = None
    """The budget is `rate_limit` requests in so many seconds."""
    requests: int = 0
    retries: int = 0
    recent: tuple[CallRecord, ...] = ()
    """Newest last."""


class History:
    """The last calls of one connector."""

    def __init__(self) -> None:
        self.records: deque[CallRecord] = deque(maxlen=KEPT)

    @property
    def error_rate(self) -> float:
        counted = [record for record in self.records if record.reason not in ("invalid_input", "stopped")]
        return sum(not record.ok for record in counted) / len(counted) if counted else 0.0

    @property
    def p95(self) -> float:
        seconds = sorted(record.seconds for record in self.records)
        return seconds[min(int(len(seconds) * 0.95), len(seconds) - 1)] if seconds else 0.0
