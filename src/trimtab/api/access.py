"""Who is asking, and how much they may. A dependency of each route, never a check of its path.

Only the `Authorization: Bearer` header counts; a key in a query, a cookie or another header is no key. Rates are
counted per key in a sliding minute, in this process.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from trimtab.app import Trimtab
from trimtab.domain.errors import Forbidden, TooManyRequests, Unauthenticated
from trimtab.own_database import LOCAL_USER
from trimtab.store import people

KEY_CACHE_SECONDS = 5.0
"""A revoked key is refused after at most this long."""
WINDOW = 60.0
MOST_STREAMS = 32
"""Event streams one key may have open; more where the settings let it have more requests open."""


@dataclass(frozen=True)
class Caller:
    id: str
    """The user's id: owner of all that is read and written."""
    name: str
    key_id: str


@dataclass
class _Use:
    """What one key has been doing."""

    at: deque[float] = field(default_factory=deque)
    running: int = 0
    watching: int = 0
    """Event streams that are open."""


class Gate:
    """Keys and their use. One for a server."""

    def __init__(self, trimtab: Trimtab) -> None:
        self._trimtab = trimtab
        self._known: dict[str, tuple[float, Caller]] = {}
        self._use: dict[str, _Use] = {}

    async def caller(self, header: str | None) -> Caller:
        """The owner of the key in an Authorization header.

        Raises:
            Unauthenticated: no key, a malformed header, or a key that is unknown or revoked.
        """
        scheme, _, key = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip() or len(key) > 512:
            raise Unauthenticated(
                "This needs a key: send the header 'Authorization: Bearer <key>'. The first start printed one and "
                "keeps it in the file 'key'; `trimtab config key` makes another."
            )
        digest = people.digest(key.strip())
        known = self._known.get(digest)
        if known and known[0] > time.monotonic():
            return known[1]
        row = await self._trimtab.database.read(people.user_of_key, key.strip())
        if row is None:
            self._known.pop(digest, None)
            raise Unauthenticated("This key is unknown or was revoked. `trimtab config key` makes a new one.")
        caller = Caller(row["id"], row["name"], row["key_id"])
        if len(self._known) > 1000:
            self._known.clear()
        self._known[digest] = (time.monotonic() + KEY_CACHE_SECONDS, caller)
        return caller

    def enter(self, caller: Caller) -> _Use:
        """Count a request in.

        Raises:
            TooManyRequests: too many in the last minute, or at the same time.
        """
        settings = self._trimtab.settings
        use = self._use.setdefault(caller.key_id, _Use())
        now = time.monotonic()
        while use.at and use.at[0] <= now - WINDOW:
            use.at.popleft()
        if len(use.at) >= settings.rate_per_minute:
            wait = max(1.0, use.at[0] + WINDOW - now)
            raise TooManyRequests(
                f"More than {settings.rate_per_minute} requests in a minute. Wait {wait:.0f} s.", retry_after=wait
            )
        if use.running >= settings.concurrent:
            raise TooManyRequests(f"More than {settings.concurrent} requests at the same time. Wait for one to end.")
        use.at.append(now)
        use.running += 1
        return use

    def watch(self, caller: Caller) -> Callable[[], Awaitable[None]]:
        """Count an event stream in; returns what counts it out again, to be called once.

        Raises:
            TooManyRequests: the key has as many open as it may.
        """
        use = self._use.setdefault(caller.key_id, _Use())
        most = max(MOST_STREAMS, self._trimtab.settings.concurrent)
        if use.watching >= most:
            raise TooManyRequests(f"{most} event streams of this key are open already. Close one of them.")
        use.watching += 1

        async def left() -> None:
            use.watching -= 1

        return left


def gate_of(request: Request) -> Gate:
    gate: Gate = request.app.state.gate
    return gate


def trimtab_of(request: Request) -> Trimtab:
    trimtab: Trimtab = request.app.state.trimtab
    return trimtab


async def _caller(request: Request) -> AsyncIterator[Caller]:
    gate = gate_of(request)
    caller = await gate.caller(request.headers.get("authorization"))
    request.state.owner = caller.id
    # Watching is not working: a page that polls for events must not use up the rate.
    if request.method == "GET":
        yield caller
        return
    use = gate.enter(caller)
    try:
        yield caller
    finally:
        use.running -= 1


Known = Annotated[Caller, Depends(_caller)]
"""A route that takes this needs a valid key; it gets the key's owner."""


async def _operator(caller: Known) -> Caller:
    if caller.name != LOCAL_USER:
        raise Forbidden(
            f"Only whoever runs this Trimtab may do this: use the key of the user '{LOCAL_USER}' (the file 'key')."
        )
    return caller


Operator = Annotated[Caller, Depends(_operator)]
"""A route that takes this is for whoever runs this installation: it changes what everybody gets."""

App = Annotated[Trimtab, Depends(trimtab_of)]
"""The running installation."""


def public(row: dict[str, Any], *hidden: str) -> dict[str, Any]:
    """A database row without the columns that are nobody's business outside."""
    return {key: value for key, value in row.items() if key not in ("owner_id", *hidden)}
