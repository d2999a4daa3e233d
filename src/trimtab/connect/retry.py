"""When to ask again, and how long to wait first.

Only what can be repeated without harm is: GET, HEAD, PUT, DELETE, and any request that carries an idempotency key.
Waiting is capped exponential back-off with full jitter (the AWS Builders' Library's advice), or what the server asked
for in Retry-After.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
RETRIED_STATUSES = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Retry:
    """Seconds. The wait before attempt n+1 is uniform in [0, min(cap, base * 2**n))."""

    attempts: int = 3
    base: float = 0.3
    cap: float = 4.0
    uniform: Callable[[float, float], float] = random.uniform

    def wait(self, attempt: int, retry_after: float | None = None) -> float:
        """How long to wait after failed attempt number `attempt`, counted from 0."""
        if retry_after is not None:
            return retry_after
        return self.uniform(0.0, min(self.cap, self.base * 2**attempt))


def repeatable(method: str, *, keyed: bool) -> bool:
    return keyed or method.upper() in IDEMPOTENT


def retry_after(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds from a Retry-After header (a number or an HTTP date); None when absent or unreadable."""
    if not header:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())
