"""Connections that go where they were checked to go.

A name is resolved once, every address it has must be allowed, and the connection is opened to one of those very
addresses; the Host header and the TLS name stay those of the URL. A resolver that answers differently the second time
(DNS rebinding) is never asked a second time. Proxy settings of the environment are ignored: a proxy would resolve the
name again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any

import certifi
import httpx

from trimtab.domain.errors import ToolBusy, ToolError

from . import addresses

Resolver = Callable[[str, int], Sequence[str]]
"""Host and port to numeric addresses. Blocking; raises `OSError` (`socket.gaierror`) when there are none."""

MAX_TRIED = 3
_lookups = threading.BoundedSemaphore(32)
_OFFLINE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL}


def system_resolver(host: str, port: int) -> list[str]:
    """What the operating system says, in its order of preference, without repeats."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@functools.cache
def tls(ca_file: str = "") -> ssl.SSLContext:
    """One context for the process; reading the authorities takes some 20 ms."""
    return ssl.create_default_context(cafile=ca_file or certifi.where())


class PinnedTransport(httpx.AsyncBaseTransport):
    """An httpx transport that resolves once, validates all, connects to what it validated.

    Raises:
        ToolError: an address is refused, the name is unknown, or nothing answers.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        resolver: Resolver = system_resolver,
        ca_file: str = "",
        lookup_timeout: float = 3.0,
        inner: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._private = allow_private
        self._resolver = resolver
        self._lookup_timeout = lookup_timeout
        # `inner` opens the sockets. It is asked for numeric addresses only, each of them checked.
        self._inner = inner or httpx.AsyncHTTPTransport(verify=tls(ca_file), trust_env=False, retries=0, http2=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.raw_host.decode("ascii")
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        found = await self._addresses(host, port)
        failure: httpx.TransportError | None = None
        for address in found[:MAX_TRIED]:
            try:
                return await self._inner.handle_async_request(_pinned(request, host, address))
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure or httpx.ConnectError(f"{host} has no address")

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            async with asyncio.timeout(self._lookup_timeout):
                found = list(await _in_thread(lambda: self._resolver(host.strip("[]"), port)))
        except TimeoutError:
            raise ToolError(
                f"Could not reach {host}: looking up its name took too long. {CHECK}", reason="unreachable"
            ) from None
        except (OSError, UnicodeError) as error:
            raise ToolError(
                f"Could not reach {host}: {_lookup_problem(error)}. {CHECK}", reason="unreachable"
            ) from error
        refused = [address for address in found if not addresses.allowed(address, private=self._private)]
        if refused or not found:
            raise ToolError(
                f"{host} was not opened: its address is private, local or reserved. "
                "Only addresses on the public internet are reached, unless the connector's settings allow private "
                "ones.",
                reason="not_permitted",
            )
        return found

    async def aclose(self) -> None:
        await self._inner.aclose()


CHECK = "Check the internet connection, then ask again."


def connect_problem(host: str, error: BaseException) -> str:
    """A sentence for a connection that could not be opened."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError):
            return f"Could not reach {host}: its certificate was not accepted ({seen.reason or 'TLS error'})."
        if isinstance(seen, OSError) and seen.errno in _OFFLINE:
            return f"Could not reach {host}: no internet connection. {CHECK}"
        if isinstance(seen, ConnectionRefusedError):
            return f"Could not reach {host}: nothing answers there. It may be down; try again later."
        seen = seen.__cause__ or seen.__context__
    return f"Could not reach {host}: the connection could not be opened. {CHECK}"


def _lookup_problem(error: Exception) -> str:
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
        return "no internet connection (its name cannot be looked up)"
    return "there is no host of that name, or no internet connection"


def _pinned(request: httpx.Request, host: str, address: str) -> httpx.Request:
    url = request.url.copy_with(host=address)
    return httpx.Request(
        method=request.method,
        url=url,
        headers=request.headers,  # Host was set from the original URL when the request was built
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": host.strip("[]")},
    )


async def _in_thread(lookup: Callable[[], Sequence[str]]) -> Sequence[str]:
    """Run a blocking lookup in a daemon thread: one that hangs must hold up neither the deadline nor the exit."""
    if not _lookups.acquire(blocking=False):
        raise ToolBusy("Too many names are being looked up at once. Try again in a moment.", reason="busy")
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Sequence[str]] = loop.create_future()

    def tell(method: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            method(value)

    def run() -> None:
        try:
            done, value = future.set_result, lookup()
        except BaseException as error:
            done, value = future.set_exception, error  # type: ignore[assignment]
        finally:
            _lookups.release()
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(tell, done, value)

    threading.Thread(target=run, name="trimtab-lookup", daemon=True).start()
    return await future
