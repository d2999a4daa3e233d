"""The HTTP client a tool is given. It enforces what the connector declared.

    reply = await http.get("/v1/{city}", path={"city": city}, params={"days": 3})
    reply.json()

Declared hosts only, checked addresses only (`transport`), arguments quoted into the URL (`reach`), a deadline over
everything, a cap on bytes after decompression, redirects checked hop by hop without credentials for another origin.
One hop goes through, from the outside in: the cache (`caching`), the credential (`credentials`), retries of what is
safe to repeat (`retry`, `budget`), the breaker (`circuit`), the rate budget. Whatever goes wrong is a `ToolError` that
a model and a person can read, with a `reason` for machines.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import re
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx

from trimtab.domain.errors import ToolBusy, ToolError
from trimtab.domain.tool import Effect

from . import retry as retrying
from .budget import Rate
from .circuit import FAILED_STATUSES, Circuit
from .credentials import NOBODY, Account, Credential, Fixed
from .decoding import Decoder
from .guards import Guards
from .pages import Listing, Pages, listing
from .problems import status_problem, too_late, transport_problem
from .reach import DEFAULT_PORTS, Reach, same_origin
from .reply import Limits, Reply

REDIRECTS = frozenset({301, 302, 303, 307, 308})
CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization"})
OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "te", "upgrade"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
IDEMPOTENCY_KEY = "idempotency-key"
_HEADER_NAME = re.compile(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")

__all__ = ["Credential", "Http", "Limits", "Reply", "checked_headers"]


@dataclass(frozen=True)
class Declared:
    """What the connector and the tool said about requests, beside their hosts. The defaults permit everything."""

    effect: Effect = Effect.IRREVERSIBLE
    read_by_post: bool = False
    idempotency_header: str = ""
    pages: Pages | None = None
    tool: str = "This tool"


@dataclass(frozen=True)
class _Request:
    """One hop to be made."""

    method: str
    url: httpx.URL
    headers: dict[str, str]
    body: bytes | None
    keyed: bool
    until: float
    """Of the event loop's clock."""
    credentialed: bool = True
    """Still at the origin that the credential is for."""


class Http:
    """Bound to one connector and one call; made by the toolbox, closed by it."""

    def __init__(
        self,
        reach: Reach,
        *,
        limits: Limits = Limits(),
        retry: retrying.Retry = retrying.Retry(),
        transport: httpx.AsyncBaseTransport,
        credential: Credential | Account | None = None,
        user_agent: str = "Trimtab",
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        guards: Guards | None = None,
        declared: Declared = Declared(),
        call_key: str = "",
        until: float = float("inf"),
    ) -> None:
        self._reach = reach
        self._limits = limits
        self._retry = retry
        self._transport = transport
        self._credential = credential
        self._account: Account = _account(credential)
        own = credential.header.lower() if isinstance(credential, Credential) else ""
        self._private = CREDENTIALS | {own} - {""}
        """Headers for the origin first asked alone."""
        self._user_agent = user_agent
        self._sleep = sleep
        self._guards = guards or Guards()
        self._declared = declared
        self._call_key = call_key or uuid.uuid4().hex
        self._until = until
        self._writes = 0
        self.sent = 0
        """Requests that went out."""
        self.replies: list[Reply] = []
        """What was read, in order, without the bodies."""

    async def get(self, url: str, **options: Any) -> Reply:
        """Ask for something. Options as in `request`."""
        return await self.request("GET", url, **options)

    async def post(self, url: str, **options: Any) -> Reply:
        """Send something. Repeated after a failure only when `idempotency_key` is given, or the connector declares
        `idempotency_header`."""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Any) -> Reply:
        return await self.request("PUT", url, **options)

    async def delete(self, url: str, **options: Any) -> Reply:
        return await self.request("DELETE", url, **options)

    async def open(self, url: str, *, ok: tuple[int, ...] = ()) -> Reply:
        """GET a complete URL that a person or a page gave, not a template."""
        return await self._send("GET", self._reach.free(url), {}, None, key="", ok=ok)

    async def request(
        self,
        method: str,
        url: str,
        *,
        path: Mapping[str, Any] | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        form: Mapping[str, Any] | None = None,
        idempotency_key: str = "",
        ok: tuple[int, ...] = (),
    ) -> Reply:
        """Send one request and return the whole reply.

        `url` is a path (when one host is declared) or ``https://host/path``, with ``{names}`` filled from `path`.
        Statuses of 400 and above are errors, except those in `ok`. What is not a GET carries an `Idempotency-Key`: the
        given one, or one of its own.

        Raises:
            ToolError: not permitted, not reachable, too slow, too large, or refused by the service.
            ToolBusy: nothing was sent, because of the connector's own limits or a service that is down.
        """
        target = self._reach.build(url, path or {}, params)
        sent = checked_headers(headers or {})
        body: bytes | None = None
        if json is not None:
            body, sent["content-type"] = jsonlib.dumps(json).encode(), "application/json"
        elif form is not None:
            body = str(httpx.QueryParams(dict(form))).encode()
            sent["content-type"] = "application/x-www-form-urlencoded"
        return await self._send(method.upper(), target, sent, body, key=idempotency_key, ok=ok)

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
        idempotency_key: str = "",
        ok: tuple[int, ...] = (),
    ) -> Reply:
        """Send a request whose complete URL and body were written elsewhere, for services with ways of their own.

        Quoting arguments into `url` is the caller's business; where it leads is checked like that of any other.
        Statuses and errors as in `request`.
        """
        sent = checked_headers(headers or {})
        return await self._send(method.upper(), self._reach.free(url), sent, content, key=idempotency_key, ok=ok)

    async def items(self, url: str, *, limit: int = 100, pages: Pages | None = None, **options: Any) -> Listing:
        """GET page after page as the connector declared, until there are `limit` items or the pages end.

        Each page is a request with `options` as in `request`, within the same deadline and budgets.
        """
        style = pages or self._declared.pages
        if style is None:
            raise ToolError(f"{self._declared.tool} reads pages, and its connector declares no `pages`.")
        given = dict(options.pop("params", None) or {})
        return await listing(
            style,
            lambda params: self.get(url, params={**given, **params}, **options),
            lambda target: self.send("GET", target, headers=options.get("headers")),
            limit,
        )

    async def _send(
        self,
        method: str,
        url: httpx.URL,
        headers: dict[str, str],
        body: bytes | None,
        *,
        key: str,
        ok: tuple[int, ...],
    ) -> Reply:
        host = url.host
        keyed, headers = self._permitted(method, headers, key)
        now = asyncio.get_running_loop().time()
        until = min(now + self._limits.total, self._until)
        try:
            async with asyncio.timeout_at(until):
                reply = await self._follow(_Request(method, url, headers, body, keyed, until))
        except TimeoutError:
            raise too_late(host, min(self._limits.total, until - now)) from None
        self.replies.append(replace(reply, content=b""))
        if reply.status >= 400 and reply.status not in ok:
            raise status_problem(host, reply)
        return reply

    def _permitted(self, method: str, headers: dict[str, str], key: str) -> tuple[bool, dict[str, str]]:
        """Whether this request may be repeated, and its headers with the key by which a repetition is known."""
        declared = self._declared
        reading = method in SAFE or (declared.effect is Effect.READ and declared.read_by_post and method == "POST")
        if reading and not key:
            return False, headers
        if declared.effect is Effect.READ and not reading:
            raise ToolError(
                f"{declared.tool} is declared to read and was about to send {method}. It was not sent. Declare its "
                "effect, or read_by_post=True if the service wants a POST for reading.",
                reason="not_permitted",
            )
        self._writes += 1
        name = declared.idempotency_header.lower()
        if name or IDEMPOTENCY_KEY not in headers:
            made = key or f"{self._call_key}-{self._writes}"
            headers = headers | checked_headers({name or IDEMPOTENCY_KEY: made})
        return bool(key or name), headers

    async def _follow(self, request: _Request) -> Reply:
        """One request and the redirects it leads to, each hop checked like a first request."""
        for _ in range(self._limits.redirects + 1):
            reply = await self._hop(request)
            location = reply.headers.get("location")
            if reply.status not in REDIRECTS or not location:
                return reply
            request = self._redirected(request, reply.status, self._reach.check(_join(request.url, location)))
        raise ToolError(
            f"{request.url.host} redirected more than {self._limits.redirects} times. It was not followed further.",
            reason="malformed",
        )

    def _redirected(self, request: _Request, status: int, target: httpx.URL) -> _Request:
        url, method, body, headers = request.url, request.method, request.body, request.headers
        if url.scheme == "https" and target.scheme == "http":
            raise ToolError(
                f"{url.host} redirected from https to plain http. That was not followed.", reason="not_permitted"
            )
        if status == 303 or (status in (301, 302) and method == "POST"):
            method, body = "GET", None
            headers = {k: v for k, v in headers.items() if k != "content-type"}
        credentialed = request.credentialed and same_origin(url, target)
        if not credentialed:
            headers = {k: v for k, v in headers.items() if k not in self._private}
        return replace(request, method=method, url=target, headers=headers, body=body, credentialed=credentialed)

    async def _hop(self, request: _Request) -> Reply:
        cached = self._guards.cached
        if cached is None:
            return await self._signed(request)
        headers = request.headers
        if self._declared.effect is not Effect.READ and request.method in SAFE:
            # What somebody is about to change is looked at afresh, whatever the cache holds.
            headers = {**headers, "cache-control": "no-cache"}
        return await cached.answer(
            request.method,
            str(request.url),
            headers,
            identity=self._account.identity if request.credentialed else "",
            send=lambda changed: self._signed(replace(request, headers=dict(changed))),
        )

    async def _signed(self, request: _Request) -> Reply:
        """With the credential; once more with another one when it was refused, as the service did nothing then."""
        if not request.credentialed:
            return await self._attempts(request, None)
        credential = await self._account.credential()
        reply = await self._attempts(request, credential)
        if reply.status == 401 and credential is not None:
            other = await self._account.renewed(credential)
            if other is not None:
                return await self._attempts(request, other)
        return reply

    async def _attempts(self, request: _Request, credential: Credential | None) -> Reply:
        """Try, and try again where that is safe, granted and there is time for it."""
        circuit = self._circuit(request.url)
        repeatable = retrying.repeatable(request.method, keyed=request.keyed)
        attempts = self._retry.attempts if repeatable else 1
        reply: Reply | None = None
        failure: httpx.HTTPError | None = None
        for attempt in range(attempts):
            try:
                await self._admitted(circuit, request, first=attempt == 0)
            except ToolBusy:
                if attempt == 0:
                    raise
                break  # what went wrong before says more
            if attempt == 0:
                self._guards.retries.earn()
            reply, failure = await self._tried(circuit, request, credential)
            asked = _asked(reply)
            if asked:
                circuit.hold(asked)
            again = reply.status in retrying.RETRIED_STATUSES if reply else isinstance(failure, httpx.TransportError)
            wait = self._retry.wait(attempt, asked)
            if not again or attempt + 1 == attempts or wait > _left(request.until) or not self._guards.retries.spend():
                break
            await self._sleep(wait)
        if reply is not None:
            return reply
        assert failure is not None
        raise transport_problem(request.url.host, failure) from failure

    async def _admitted(self, circuit: Circuit, request: _Request, *, first: bool) -> None:
        """Wait for this request's share of the rate budget.

        Raises:
            ToolBusy: the breaker is open, or the share is too far away.
        """
        circuit.admit(first=first)
        rate = self._guards.rate
        wait = rate.take()
        if not wait:
            return
        patience = min(rate.rate.patience if rate.rate else 0.0, _left(request.until))
        try:
            if wait > patience:
                raise _spent(rate.rate, wait)
            await self._sleep(wait)
        except BaseException:
            rate.put_back()
            circuit.released()
            raise

    async def _tried(
        self, circuit: Circuit, request: _Request, credential: Credential | None
    ) -> tuple[Reply | None, httpx.HTTPError | None]:
        """One request on the wire, and what it says about the service's health."""
        try:
            reply = await self._once(request, credential)
        except httpx.HTTPError as error:
            circuit.failed()
            return None, error
        except ToolError as error:
            _judge(circuit, error)
            raise
        except BaseException:  # cancelled: by its own deadline, which the service missed, or by somebody
            if _left(request.until) <= 0.001:
                circuit.failed()
            else:
                circuit.released()
            raise
        if reply.status in FAILED_STATUSES:
            circuit.failed()
        else:
            circuit.succeeded()
        return reply, None

    async def _once(self, request: _Request, credential: Credential | None) -> Reply:
        url, headers = _with(credential, request.url, request.headers)
        timeouts = httpx.Timeout(self._limits.read, connect=self._limits.connect).as_dict()
        sent = {"accept": "*/*", "user-agent": self._user_agent, **headers, "accept-encoding": "gzip, deflate"}
        wire = httpx.Request(request.method, url, headers=sent, content=request.body, extensions={"timeout": timeouts})
        self.sent += 1
        self._guards.sent += 1
        response = await self._transport.handle_async_request(wire)
        try:
            content = await self._read(response, url.host)
        finally:
            await response.aclose()
        plain = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status_code, str(request.url), plain, content)

    async def _read(self, response: httpx.Response, host: str) -> bytes:
        cap = self._limits.max_bytes
        decoder = Decoder(response.headers.get("content-encoding", ""), host)
        parts: list[bytes] = []
        size = received = 0
        assert isinstance(response.stream, httpx.AsyncByteStream)
        async for chunk in response.stream:
            piece = decoder.decode(chunk, cap + 1 - size)
            parts.append(piece)
            size += len(piece)
            received += len(chunk)
            if size > cap or received > cap:
                raise ToolError(
                    f"{host} sent more than {cap:,} bytes, which is more than this tool reads.", reason="too_large"
                )
        if received:
            decoder.finish()
        return b"".join(parts)

    def _circuit(self, url: httpx.URL) -> Circuit:
        port = url.port or DEFAULT_PORTS.get(url.scheme, 0)
        return self._guards.circuits.of(url.scheme, url.host, port)


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Lower-case names and safe values.

    Raises:
        ToolError: a name is not one or is ours to set; a value has a line break or another control character.
    """
    checked: dict[str, str] = {}
    for name, value in headers.items():
        if not _HEADER_NAME.match(name) or name.lower() in OURS:
            raise ToolError(f"Header {name[:40]!r} cannot be set.", reason="not_permitted")
        if len(value) > 8000 or not all(char == "\t" or 32 <= ord(char) < 127 for char in value):
            raise ToolError(
                f"The value of header {name!r} has characters that a header cannot carry.", reason="not_permitted"
            )
        checked[name.lower()] = value
    return checked


def _account(given: Credential | Account | None) -> Account:
    if given is None:
        return NOBODY
    return Fixed(given) if isinstance(given, Credential) else given


def _with(credential: Credential | None, url: httpx.URL, headers: dict[str, str]) -> tuple[httpx.URL, dict[str, str]]:
    if credential is None:
        return url, headers
    if credential.query:
        return url.copy_merge_params({credential.query: credential.value}), headers
    return url, headers | checked_headers({credential.header: credential.value})


def _judge(circuit: Circuit, error: ToolError) -> None:
    """Whether an error of ours tells that the service is down, well, or nothing."""
    reason = error.detail.get("reason")
    if reason == "unreachable":
        circuit.failed()
    elif reason in ("too_large", "malformed"):
        circuit.succeeded()
    else:
        circuit.released()


def _asked(reply: Reply | None) -> float | None:
    if reply is None or reply.status not in (429, 503):
        return None
    return retrying.retry_after(reply.headers.get("retry-after"))


def _spent(rate: Rate | None, wait: float) -> ToolBusy:
    limit = f"{rate.calls} requests in {rate.per:g} seconds" if rate else "none"
    return ToolBusy(
        f"The budget of this connector is used up ({limit}). Try again in {wait:.0f} seconds.",
        retry_after=wait,
        reason="rate",
    )


def _join(url: httpx.URL, location: str) -> httpx.URL:
    if "\\" in location or any(ord(char) < 32 or ord(char) == 127 for char in location) or len(location) > 8000:
        raise ToolError(f"{url.host} redirected to something that is not a web address.", reason="malformed")
    try:
        return url.join(location)
    except (httpx.InvalidURL, ValueError) as error:
        raise ToolError(f"{url.host} redirected to something that is not a web address.", reason="malformed") from error


def _left(until: float) -> float:
    return until - asyncio.get_running_loop().time()
