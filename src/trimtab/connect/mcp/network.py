"""The HTTP client an MCP server is reached with: it goes where it was checked to go, and reads only so much.

The SDK's transport is built on httpx2, whose classes are not httpx's; so the rules of `trimtab.connect.transport` are
applied here once more. A name is resolved once, every address must be allowed, and one of those very addresses is
opened. A request that cannot be made is answered with a JSON-RPC error: an exception would end the whole connection,
with everything else that is under way on it.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import anyio
import httpx2
from anyio import CapacityLimiter, to_thread

from .. import addresses
from ..transport import Resolver, tls

MAX_BODY = 8_000_000
"""Bytes of one answer that is not an event stream."""
MAX_EVENT = 4_000_000
MAX_TRIED = 3
LOOKUP_SECONDS = 3.0
UNREACHABLE = -32099
"""Code of the JSON-RPC error that stands for a request that was not made, or whose answer was not taken."""
SESSION_LOST = -32098
"""The same for a session that the server does not know any more."""


class Refused(Exception):
    """Why a request is not made, for a person."""


class Guarded(httpx2.AsyncBaseTransport):
    """An httpx2 transport that opens checked addresses only. `local` allows this machine and its own networks."""

    def __init__(self, *, local: bool, resolver: Resolver, ca_file: str = "") -> None:
        self._local = local
        self._resolver = resolver
        self._lookups = CapacityLimiter(4)
        self._inner = httpx2.AsyncHTTPTransport(verify=tls(ca_file), trust_env=False, retries=0)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        host = request.url.raw_host.decode("ascii")
        try:
            response = await self._sent(request, host)
        except Refused as error:
            return _unreachable(f"{host} was not asked: {error}")
        except httpx2.TransportError as error:
            if isinstance(error, httpx2.ReadTimeout):
                return _unreachable(f"{host} did not answer in time.")
            return _unreachable(f"Could not reach {host}: {_reason(error)}")
        if response.status_code in (401, 403):
            await response.aclose()
            return _unreachable(f"{host} wants other credentials. Name them with --header, e.g. Authorization=MY_TOKEN")
        if response.status_code == 404 and "mcp-session-id" in request.headers:
            await response.aclose()
            return _error(SESSION_LOST, f"{host} does not know our session any more.")
        return _bounded(response)

    async def _sent(self, request: httpx2.Request, host: str) -> httpx2.Response:
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        failure: httpx2.TransportError | None = None
        for address in (await self._addresses(request.url.scheme, host, port))[:MAX_TRIED]:
            try:
                return await self._inner.handle_async_request(_pinned(request, host, address))
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = error
        raise failure or Refused("it has no address.")

    async def _addresses(self, scheme: str, host: str, port: int) -> Sequence[str]:
        try:
            with anyio.fail_after(LOOKUP_SECONDS):
                found: Sequence[str] = await to_thread.run_sync(
                    self._resolver, host.strip("[]"), port, abandon_on_cancel=True, limiter=self._lookups
                )
        except TimeoutError:
            raise Refused("looking up its name took too long.") from None
        except (OSError, UnicodeError) as error:
            raise Refused("there is no host of that name, or no internet connection.") from error
        if not found or not all(addresses.allowed(address, private=self._local) for address in found):
            raise Refused("its address is private, local or reserved, and it was not added with --local.")
        if scheme != "https" and not all(_own(address) for address in found):
            raise Refused("without encryption only servers on your own network are asked.")
        return found

    async def aclose(self) -> None:
        await self._inner.aclose()


def client(headers: Mapping[str, str], *, local: bool, resolver: Resolver, ca_file: str = "") -> httpx2.AsyncClient:
    """For one server, with its own headers and no other's. Close it."""
    return httpx2.AsyncClient(
        transport=Guarded(local=local, resolver=resolver, ca_file=ca_file),
        # Uncompressed answers only: what a compressed one grows to is known when it is too late.
        headers={**headers, "Accept-Encoding": "identity"},
        timeout=httpx2.Timeout(10.0, read=300.0),
        follow_redirects=False,
        trust_env=False,
    )


class _Limited(httpx2.AsyncByteStream):
    """A body that fails when it grows too large."""

    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        seen = 0
        async for piece in self._inner:
            seen += len(piece)
            if seen > MAX_BODY:
                raise httpx2.StreamError(f"The answer is larger than {MAX_BODY:,} bytes.")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


def _bounded(response: httpx2.Response) -> httpx2.Response:
    coded = response.headers.get("content-encoding", "identity").strip().lower()
    events = response.headers.get("content-type", "").lower().startswith("text/event-stream")
    stream: Any = response.stream
    if coded != "identity":
        stream = _Nothing(stream)
    elif not events:  # events are bounded one by one, by the SDK
        stream = _Limited(stream)
    return httpx2.Response(
        response.status_code, headers=_plain(response.headers), stream=stream, extensions=response.extensions
    )


class _Nothing(_Limited):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        raise httpx2.StreamError("The answer is compressed, which was not asked for.")
        yield b""


def _plain(headers: httpx2.Headers) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers.raw if name.lower() != b"content-encoding"]


def _pinned(request: httpx2.Request, host: str, address: str) -> httpx2.Request:
    return httpx2.Request(
        method=request.method,
        url=request.url.copy_with(host=address),
        headers=request.headers,  # Host was set from the original URL when the request was built
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": host.strip("[]")},
    )


def _own(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return any(ip.version == net.version and ip in net for net in addresses.PRIVATE)


def _reason(error: httpx2.TransportError) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _unreachable(message: str) -> httpx2.Response:
    return _error(UNREACHABLE, message)


def _error(code: int, message: str) -> httpx2.Response:
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}
    return httpx2.Response(502, headers={"Content-Type": "application/json"}, content=json.dumps(error).encode())
