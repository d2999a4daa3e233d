"""How long what a service said may be used again. The rules and the store are in `caching`."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.domain.errors import InvalidInput


@dataclass(frozen=True)
class Cache:
    """Seconds. The service's own headers win over both.

    `lifetime` is how long a reply is fresh where the service does not say. `stale_if_error` is how much older it may
    be when the service cannot be asked; such an answer is marked as old. `max_bytes` is of memory, for the connector.
    """

    lifetime: float = 0.0
    stale_if_error: float = 0.0
    max_bytes: int = 8_000_000

    def __post_init__(self) -> None:
        if self.lifetime < 0 or self.stale_if_error < 0 or self.max_bytes < 0:
            raise InvalidInput("A cache's lifetime, stale_if_error and max_bytes cannot be negative.")
