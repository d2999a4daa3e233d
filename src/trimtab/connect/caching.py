"""What a service said before, used again as RFC 9111 permits.

The rules are hishel's (its state machine of the RFC, as a private cache); the store is ours: in memory, of bounded
size, one for each connector. Keys hold a fingerprint of the credential, so what one account was told is never told to
another, and the credential itself is not kept: the client adds it after the cache was asked.

The service's own headers decide. Where they say nothing, a reply is fresh for the declared `lifetime`. When the service
cannot be asked (no answer, or 500, 502, 503, 504), a reply that is too old by at most `stale_if_error` is used and
marked as stale (RFC 5861), unless the service forbade it (`must-revalidate`, `no-cache`).
"""

from __future__ import annotations

import hashlib
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime

import hishel

from trimtab.domain.errors import ToolBusy, ToolError

from .cache import Cache
from .circuit import FAILED_STATUSES
from .reply import Reply

Send = Callable[[Mapping[str, str]], Awaitable[Reply]]
"""Ask the service with these headers."""

OWN_WORD = re.compile(r"\b(max-age|s-maxage|no-store|no-cache|must-revalidate|immutable)\b", re.I)
SECONDS = re.compile(r"\b(max-age|stale-if-error)\s*=\s*\"?(\d{1,9})", re.I)
CACHED_METHODS = ["GET", "HEAD"]
UNREACHED = frozenset({"unreachable", "deadline", "circuit_open", "rate"})


@dataclass
class _Kept:
    entry: hishel.Entry
    content: bytes
    key: str
    at: float
    """When the service last said so, Unix seconds."""


class Store:
    """Entries by key, the least recently used dropped beyond `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._size = 0
        self._kept: OrderedDict[uuid.UUID, _Kept] = OrderedDict()
        self._by_key: dict[str, list[uuid.UUID]] = {}

    def entries(self, key: str) -> list[hishel.Entry]:
        return [self._kept[known].entry for known in self._by_key.get(key, ())]

    def get(self, entry: uuid.UUID) -> _Kept:
        self._kept.move_to_end(entry)
        return self._kept[entry]

    def put(self, key: str, entry: hishel.Entry, content: bytes) -> None:
        """One that says the same thing (same request, same `Vary`) replaces the older."""
        for other in list(self._by_key.get(key, ())):
            if self._kept[other].entry.request == entry.request:
                self.remove(other)
        if _weight(content) > self._max // 4:
            return
        self._kept[entry.id] = _Kept(entry, content, key, time.time())
        self._by_key.setdefault(key, []).append(entry.id)
        self._size += _weight(content)
        while self._size > self._max:
            self.remove(next(iter(self._kept)))

    def refreshed(self, entry: hishel.Entry) -> None:
        """The service confirmed it and sent new headers."""
        if entry.id in self._kept:
            self._kept[entry.id].entry = entry
            self._kept[entry.id].at = time.time()

    def remove(self, entry: uuid.UUID) -> None:
        kept = self._kept.pop(entry, None)
        if kept is not None:
            self._size -= _weight(kept.content)
            self._by_key[kept.key].remove(entry)
            if not self._by_key[kept.key]:
                del self._by_key[kept.key]

    def __len__(self) -> int:
        return len(self._kept)


class Cached:
    """The cache of one connector."""

    def __init__(self, policy: Cache) -> None:
        self._policy = policy
        self.store = Store(policy.max_bytes)

    async def answer(self, method: str, url: str, headers: Mapping[str, str], *, identity: str, send: Send) -> Reply:
        """The reply to a request, from the store where that is permitted, else from the service.

        Raises:
            ToolError: of `send`, when nothing that is kept may stand in.
        """
        key = hashlib.sha256(f"{identity}\n{url}".encode()).hexdigest()
        request = hishel.Request(method, url, hishel.Headers(dict(headers)))
        reply: Reply | None = None
        state: hishel.AnyState = hishel.IdleClient(options=_options())
        for _ in range(12):  # the longest way through the states is shorter
            match state:
                case hishel.IdleClient():
                    state = state.next(request, self.store.entries(key))
                case hishel.CacheMiss() | hishel.NeedRevalidation():
                    found = await self._asked(state.request, request, key, send)
                    if found.stale:
                        return found
                    reply = found
                    state = state.next(self._response(found))
                case hishel.NeedToBeUpdated():
                    for entry in state.updating_entries:
                        self.store.refreshed(entry)
                    state = state.next()
                case hishel.InvalidateEntries():
                    for known in state.entry_ids:
                        self.store.remove(known)
                    state = state.next()
                case hishel.FromCache():
                    return self._kept(state.entry, url, stale=False, confirmed=reply is not None)
                case hishel.StoreAndUse():
                    assert reply is not None
                    self.store.put(key, hishel.Entry(uuid.uuid4(), request, state.response), reply.content)
                    return reply
                case hishel.CouldNotBeStored():
                    assert reply is not None
                    return reply
        raise AssertionError("a request leads through a handful of states")

    async def _asked(self, asked: hishel.Request, request: hishel.Request, key: str, send: Send) -> Reply:
        """The service's reply, or a stale one in its place."""
        try:
            reply = await send(dict(asked.headers.items()))
        except ToolError as error:
            old = None
            if error.detail.get("reason") in UNREACHED or isinstance(error, ToolBusy):
                old = self._old(request, key)
            if old is None:
                raise
            return old
        return (self._old(request, key) or reply) if reply.status in FAILED_STATUSES else reply

    def _old(self, request: hishel.Request, key: str) -> Reply | None:
        """What may stand in while the service cannot be asked."""
        plain = replace(request, headers=hishel.Headers({k: v for k, v in request.headers.items() if k not in WISHES}))
        state = hishel.IdleClient(options={**_options(), "allow_stale": True}).next(plain, self.store.entries(key))
        if not isinstance(state, hishel.FromCache):
            return None
        headers = state.entry.response.headers
        too_old = float(headers.get("age", "0")) - _lifetime(headers)
        own = _seconds(headers, "stale-if-error")
        if too_old > (self._policy.stale_if_error if own is None else own):
            return None
        return self._kept(state.entry, request.url, stale=True, confirmed=False)

    def _kept(self, entry: hishel.Entry, url: str, *, stale: bool, confirmed: bool) -> Reply:
        kept = self.store.get(entry.id)
        headers = dict(entry.response.headers.items())
        return Reply(
            entry.response.status_code,
            url,
            headers,
            kept.content,
            at=time.time() if confirmed else kept.at,
            from_cache=not confirmed,
            stale=stale,
        )

    def _response(self, reply: Reply) -> hishel.Response:
        """The reply as the rules see it: dated, and with the declared lifetime where the service named none."""
        headers = {name: value for name, value in reply.headers.items() if name != "transfer-encoding"}
        _set_back(headers, reply.at)
        said = headers.get("cache-control", "")
        silent = not OWN_WORD.search(said) and "expires" not in headers and "pragma" not in headers
        if silent and reply.status == 200 and self._policy.lifetime:
            headers["cache-control"] = ", ".join(filter(None, (said, f"max-age={int(self._policy.lifetime)}")))
        return hishel.Response(reply.status, hishel.Headers(headers))


def _set_back(headers: dict[str, str], now: float) -> None:
    """Date the reply by its real age (RFC 9111, 4.2.3), `Expires` along with it: the rules look at `Date` alone, not at
    the `Age` that a cache on the way adds, and a missing or future date would pass for new."""
    dated = _moment(headers.get("date", ""))
    age = max(now - dated, 0.0) if dated is not None else 0.0
    said = headers.pop("age", "").strip()
    if said.isascii() and said.isdigit() and len(said) < 10:
        age = max(age, float(said))
    until = _moment(headers.get("expires", ""))
    if until is not None:
        headers["expires"] = formatdate(now - age + until - (now if dated is None else dated), usegmt=True)
    headers["date"] = formatdate(now - age, usegmt=True)


def _moment(header: str) -> float | None:
    """An HTTP date in Unix seconds; None when it is none."""
    try:
        when = parsedate_to_datetime(header)
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


WISHES = frozenset({"cache-control", "pragma", "if-none-match", "if-modified-since"})


def _options() -> hishel.CacheOptions:
    return {"shared": False, "supported_methods": CACHED_METHODS, "allow_stale": False}


def _lifetime(headers: hishel.Headers) -> float:
    """Seconds for which it was fresh; 0 when it only could be guessed."""
    own = _seconds(headers, "max-age")
    if own is not None:
        return own
    until, since = (_moment(headers.get(name, "") or "") for name in ("expires", "date"))
    return max(until - since, 0.0) if until is not None and since is not None else 0.0


def _seconds(headers: hishel.Headers, word: str) -> float | None:
    for name, value in SECONDS.findall(headers.get("cache-control", "") or ""):
        if name.lower() == word:
            return float(value)
    return None


def _weight(content: bytes) -> int:
    return len(content) + 2000  # an entry's headers and keys, roughly
