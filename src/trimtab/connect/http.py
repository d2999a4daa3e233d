"""The HTTP client a tool is given. It enforces what the connector declared.

    reply = await http.get("/v1/{city}", path={"city": city}, params={"days": 3})
    reply.json()

Declared hosts only, checked addresses only (`transport`), arguments quoted into the URL (`reach`), a deadline over
everything, a cap on bytes after decompression, retries of what is safe to repeat (`retry`), redirects checked hop by
hop without credentials for another origin. Whatever goes wrong is a `ToolError` that a model and a person can read.
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import re
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from trimtab.domain.errors import ToolError

from . import retry as retrying
from .reach import Reach, same_origin
from .transport import connect_problem

Shape = TypeVar("Shape")

REDIRECTS = frozenset({301, 302, 303, 307, 308})
CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization"})
OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "te", "upgrade"})
_HEADER_NAME = re.compile(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")
_CHARSET = re.compile(r"charset=[\"']?([A-Za-z0-9_.:-]+)", re.I)


@dataclass(frozen=True)
class Limits:
    """What one HTTP request may cost. Seconds and bytes; `total` covers look-up, retries and redirects too."""

    connect: float = 3.0
    read: float = 10.0
    total: float = 15.0
    max_bytes: int = 2_000_000
    """Counted after decompression."""
    redirects: int = 3


@dataclass(frozen=True)
class Reply:
    """A finished response."""

    status: int
    url: str
    headers: Mapping[str, str]
    """Lower-case names."""
    content: bytes

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").split(";")[0].strip().lower()

    @property
    def text(self) -> str:
        """Decoded by the declared charset, else UTF-8; undecodable bytes are replaced."""
        named = _CHARSET.search(self.headers.get("content-type", ""))
        try:
            return self.content.decode(named[1] if named else "utf-8", errors="replace")
        except LookupError:
            return self.content.decode("utf-8", errors="replace")

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            ToolError: it is not JSON, or too deeply nested to read.
        """
        try:
            return jsonlib.loads(self.content)
        except (ValueError, RecursionError) as error:
            raise ToolError(f"{httpx.URL(self.url).host} answered with something that is not JSON.") from error

    def into(self, shape: type[Shape]) -> Shape:
        """The body as JSON, checked to be a pydantic model, dataclass or other type.

        Raises:
            ToolError: it is not JSON, or not of that shape.
        """
        try:
            return TypeAdapter(shape).validate_python(self.json())
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(step) for step in first["loc"])
            raise ToolError(
                f"{httpx.URL(self.url).host} answered in a shape that is not understood ({where}: {first['msg']}). "
                "The service may have changed."
            ) from None


@dataclass(frozen=True)
class Credential:
    """A key to add to requests to the origin first asked. Never shown by `repr`."""

    header: str = ""
    query: str = ""
    value: str = field(default="", repr=False)


class Http:
    """Bound to one connector and one call; made by the toolbox, closed by it."""

    def __init__(
        self,
        reach: Reach,
        *,
        limits: Limits = Limits(),
        retry: retrying.Retry = retrying.Retry(),
        transport: httpx.AsyncBaseTransport,
        credential: Credential | None = None,
        user_agent: str = "Trimtab",
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._reach = reach
        self._limits = limits
        self._retry = retry
        self._transport = transport
        self._credential = credential
        self._user_agent = user_agent
        self._sleep = sleep

    async def get(self, url: str, **options: Any) -> Reply:
        """Ask for something. Options as in `request`."""
        return await self.request("GET", url, **options)

    async def post(self, url: str, **options: Any) -> Reply:
        """Send something. Repeated after a failure only when `idempotency_key` is given."""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Any) -> Reply:
        return await self.request("PUT", url, **options)

    async def delete(self, url: str, **options: Any) -> Reply:
        return await self.request("DELETE", url, **options)

    async def open(self, url: str, *, ok: tuple[int, ...] = ()) -> Reply:
        """GET a complete URL that a person or a page gave, not a template."""
        return await self._send("GET", self._reach.free(url), {}, None, keyed=False, ok=ok)

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
        Statuses of 400 and above are errors, except those in `ok`.

        Raises:
            ToolError: not permitted, not reachable, too slow, too large, or refused by the service.
        """
        target = self._reach.build(url, path or {}, params)
        sent = checked_headers(headers or {})
        body: bytes | None = None
        if json is not None:
            body, sent["content-type"] = jsonlib.dumps(json).encode(), "application/json"
        elif form is not None:
            body = str(httpx.QueryParams(dict(form))).encode()
            sent["content-type"] = "application/x-www-form-urlencoded"
        if idempotency_key:
            sent |= checked_headers({"Idempotency-Key": idempotency_key})
        return await self._send(method.upper(), target, sent, body, keyed=bool(idempotency_key), ok=ok)

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
        if idempotency_key:
            sent |= checked_headers({"Idempotency-Key": idempotency_key})
        target = self._reach.free(url)
        return await self._send(method.upper(), target, sent, content, keyed=bool(idempotency_key), ok=ok)

    async def _send(
        self,
        method: str,
        url: httpx.URL,
        headers: dict[str, str],
        body: bytes | None,
        *,
        keyed: bool,
        ok: tuple[int, ...],
    ) -> Reply:
        host = url.host
        url, headers = self._with_credential(url, headers)
        try:
            async with asyncio.timeout(self._limits.total) as deadline:
                reply = await self._attempts(method, url, headers, body, keyed=keyed, deadline=deadline)
        except TimeoutError:
            raise ToolError(f"{host} did not finish answering within {self._limits.total:g} seconds.") from None
        if reply.status >= 400 and reply.status not in ok:
            raise ToolError(status_problem(host, reply), status=reply.status)
        return reply

    async def _attempts(
        self,
        method: str,
        url: httpx.URL,
        headers: dict[str, str],
        body: bytes | None,
        *,
        keyed: bool,
        deadline: asyncio.Timeout,
    ) -> Reply:
        """Try, and try again where that is safe and there is time for it."""
        attempts = self._retry.attempts if retrying.repeatable(method, keyed=keyed) else 1
        for attempt in range(attempts):
            last = attempt + 1 == attempts
            asked: float | None = None
            reply: Reply | None = None
            try:
                reply = await self._follow(method, url, headers, body)
                if last or reply.status not in retrying.RETRIED_STATUSES:
                    return reply
                asked = retrying.retry_after(reply.headers.get("retry-after"))
            except httpx.HTTPError as error:
                if last or not isinstance(error, httpx.TransportError):
                    raise ToolError(transport_problem(url.host, error)) from error
            wait = self._retry.wait(attempt, asked)
            if reply is not None and wait > _left(deadline):
                return reply
            await self._sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    async def _follow(self, method: str, url: httpx.URL, headers: dict[str, str], body: bytes | None) -> Reply:
        """One request and the redirects it leads to, each hop checked like a first request."""
        for _ in range(self._limits.redirects + 1):
            reply = await self._once(method, url, headers, body)
            location = reply.headers.get("location")
            if reply.status not in REDIRECTS or not location:
                return reply
            target = self._reach.check(_join(url, location))
            if url.scheme == "https" and target.scheme == "http":
                raise ToolError(f"{url.host} redirected from https to plain http. That was not followed.")
            if reply.status == 303 or (reply.status in (301, 302) and method == "POST"):
                method, body = "GET", None
                headers = {k: v for k, v in headers.items() if k != "content-type"}
            if not same_origin(url, target):
                headers = self._without_credential(headers)
            url = target
        raise ToolError(f"{url.host} redirected more than {self._limits.redirects} times. It was not followed further.")

    async def _once(self, method: str, url: httpx.URL, headers: dict[str, str], body: bytes | None) -> Reply:
        timeouts = httpx.Timeout(self._limits.read, connect=self._limits.connect).as_dict()
        sent = {"accept": "*/*", "user-agent": self._user_agent, **headers, "accept-encoding": "gzip, deflate"}
        request = httpx.Request(method, url, headers=sent, content=body, extensions={"timeout": timeouts})
        response = await self._transport.handle_async_request(request)
        try:
            content = await self._read(response, url.host)
        finally:
            await response.aclose()
        plain = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status_code, str(url), plain, content)

    async def _read(self, response: httpx.Response, host: str) -> bytes:
        cap = self._limits.max_bytes
        decoder = _Decoder(response.headers.get("content-encoding", ""), host)
        parts: list[bytes] = []
        size = received = 0
        assert isinstance(response.stream, httpx.AsyncByteStream)
        async for chunk in response.stream:
            piece = decoder.decode(chunk, cap + 1 - size)
            parts.append(piece)
            size += len(piece)
            received += len(chunk)
            if size > cap or received > cap:
                raise ToolError(f"{host} sent more than {cap:,} bytes, which is more than this tool reads.")
        if received:
            decoder.finish()
        return b"".join(parts)

    def _with_credential(self, url: httpx.URL, headers: dict[str, str]) -> tuple[httpx.URL, dict[str, str]]:
        key = self._credential
        if key is None:
            return url, headers
        if key.query:
            return url.copy_merge_params({key.query: key.value}), headers
        return url, headers | checked_headers({key.header: key.value})

    def _without_credential(self, headers: dict[str, str]) -> dict[str, str]:
        dropped = CREDENTIALS | ({self._credential.header.lower()} if self._credential else set())
        return {name: value for name, value in headers.items() if name not in dropped}


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Lower-case names and safe values.

    Raises:
        ToolError: a name is not one or is ours to set; a value has a line break or another control character.
    """
    checked: dict[str, str] = {}
    for name, value in headers.items():
        if not _HEADER_NAME.match(name) or name.lower() in OURS:
            raise ToolError(f"Header {name[:40]!r} cannot be set.")
        if len(value) > 8000 or not all(char == "\t" or 32 <= ord(char) < 127 for char in value):
            raise ToolError(f"The value of header {name!r} has characters that a header cannot carry.")
        checked[name.lower()] = value
    return checked


def status_problem(host: str, reply: Reply) -> str:
    """A sentence for a status of 400 or above. The body is not repeated: it is the service's text, not ours."""
    told = {
        401: "refused the key. Check it in your settings",
        403: "refused access. The key may lack a permission",
        404: "has nothing under that address",
        429: "asks for fewer requests. Try again later",
    }
    wait = retrying.retry_after(reply.headers.get("retry-after"))
    if reply.status == 429 and wait:
        return f"{host} asks for fewer requests. Try again in {wait:.0f} seconds (status 429)."
    if reply.status in told:
        return f"{host} {told[reply.status]} (status {reply.status})."
    if reply.status >= 500:
        return f"{host} has a problem of its own (status {reply.status}). Try again later."
    return f"{host} did not accept the request (status {reply.status})."


def transport_problem(host: str, error: httpx.HTTPError) -> str:
    if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
        return connect_problem(host, error)
    if isinstance(error, httpx.TimeoutException):
        return f"{host} stopped answering. Try again later."
    return f"{host} broke off its answer or sent one that is not HTTP ({type(error).__name__}). Try again later."


def _join(url: httpx.URL, location: str) -> httpx.URL:
    if "\\" in location or any(ord(char) < 32 or ord(char) == 127 for char in location) or len(location) > 8000:
        raise ToolError(f"{url.host} redirected to something that is not a web address.")
    try:
        return url.join(location)
    except (httpx.InvalidURL, ValueError) as error:
        raise ToolError(f"{url.host} redirected to something that is not a web address.") from error


def _left(deadline: asyncio.Timeout) -> float:
    end = deadline.when()
    return float("inf") if end is None else end - asyncio.get_running_loop().time()


class _Decoder:
    """From chunks to at most so many decoded bytes at a time.

    Ours, not httpx's: that one decodes a whole chunk at once, and 64 kB of gzip may hold 64 MB.
    """

    def __init__(self, encoding: str, host: str) -> None:
        self._host = host
        self._name = encoding.strip().lower()
        self._begun = False
        self._zlib: Any = None
        if self._name in ("gzip", "x-gzip", "deflate"):
            self._zlib = zlib.decompressobj(47)  # 47: gzip or zlib, told apart by the header
        elif self._name not in ("", "identity"):
            raise ToolError(f"{host} sent its answer in an encoding that was not asked for ({self._name[:40]}).")

    def decode(self, chunk: bytes, room: int) -> bytes:
        if self._zlib is None:
            return chunk[:room]
        if self._name == "deflate" and not self._begun and chunk:
            self._begun = True
            if chunk[0] & 0x0F != 8:  # raw deflate without zlib's header, as some servers send it
                self._zlib = zlib.decompressobj(-15)
        try:
            return bytes(self._zlib.decompress(chunk, room))
        except zlib.error as error:
            raise self._damaged() from error

    def finish(self) -> None:
        """A compressed body that stops in the middle is damaged, even where no byte of it is wrong."""
        if self._zlib is not None and not self._zlib.eof:
            raise self._damaged()

    def _damaged(self) -> ToolError:
        return ToolError(f"{self._host} sent a compressed answer that is damaged.")
