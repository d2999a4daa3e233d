"""The way to a server on this machine: HTTP/1.1, one connection a request.

httpx stays the client; this is its one replaceable method. Its own transport parses in Python, sets a deadline by a
task and registers the socket anew for each read. The adapter cost 450 microseconds of processor time a streamed token
with that, and 100 (whole answers) to 180 (streams) with this and with fewer objects a token, measured with sixteen
answers at once on a busy machine; what it takes, the engine on the same cores lacks. Bytes that came while nobody read
are handed on together.

It does no TLS, no proxies and no kept connections: for other servers httpx's own transport is right.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import httptools
import httpx

_MOST_UNREAD = 1 << 20
"""Bytes of an answer kept for a slow reader; then the server has to wait."""


class LoopbackTransport(httpx.AsyncBaseTransport):
    """`httpx.AsyncClient(transport=LoopbackTransport())`; errors and time limits are httpx's."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        limits = request.extensions.get("timeout", {})
        data = _head(request) + await request.aread()
        exchange = await _connected(request, limits.get("connect"))
        try:
            exchange.transport.write(data)
            await exchange.wait(lambda: exchange.answering, limits.get("read"))
        except BaseException:
            exchange.transport.abort()
            raise
        body = _Body(exchange, limits.get("read"))
        return httpx.Response(exchange.parser.get_status_code(), headers=exchange.headers, stream=body)


def _head(request: httpx.Request) -> bytes:
    method, path = request.method.encode("ascii"), request.url.raw_path
    fields = [(name, value) for name, value in request.headers.raw if name.lower() != b"connection"]
    lines = [b"%s: %s" % field for field in [*fields, (b"Connection", b"close")]]
    if any(b"\r" in line or b"\n" in line for line in (path, *lines)):
        raise httpx.LocalProtocolError("A header or the address has a line break.", request=request)
    return b"\r\n".join((b"%s %s HTTP/1.1" % (method, path), *lines, b"", b""))


async def _connected(request: httpx.Request, seconds: float | None) -> _Exchange:
    loop = asyncio.get_running_loop()
    host, port = request.url.host, request.url.port or 80
    try:
        async with asyncio.timeout(seconds):
            _, exchange = await loop.create_connection(lambda: _Exchange(loop), host, port)
    except TimeoutError as error:
        raise httpx.ConnectTimeout(f"No connection to {host} in time.", request=request) from error
    except OSError as error:
        raise httpx.ConnectError(str(error), request=request) from error
    return exchange


class _Exchange(asyncio.Protocol):
    """One answer as it arrives."""

    transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.headers: list[tuple[bytes, bytes]] = []
        self.answering = self.complete = False
        self.error: httpx.TransportError | None = None
        self.unread: list[bytes] = []
        self._size = 0
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False

    def take(self) -> bytes:
        """What has come and was not taken."""
        data = self.unread[0] if len(self.unread) == 1 else b"".join(self.unread)
        self.unread.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()
        return data

    async def wait(self, ready: Callable[[], object], seconds: float | None) -> None:
        """Until `ready` holds.

        Raises:
            httpx.TransportError: the connection failed before.
            httpx.ReadTimeout: nothing came for so long.
        """
        while not ready():
            if self.error is not None:
                raise self.error
            self._waiter = self._loop.create_future()
            timer = self._loop.call_later(seconds, self._silent) if seconds is not None else None
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()

    def _silent(self) -> None:
        self._fail(httpx.ReadTimeout("The server was silent."))

    def _fail(self, error: httpx.TransportError) -> None:
        self.error = self.error or error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.transport.abort()
            self._fail(httpx.RemoteProtocolError(f"The server speaks no HTTP: {error}"))
            return
        if self._size > _MOST_UNREAD and not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.complete:
            return
        sized = any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self.headers)
        if exc is None and self.answering and not sized:
            self.complete = True  # an answer without a size ends with its connection
            self._wake()
        else:
            self._fail(httpx.RemoteProtocolError(f"The connection broke: {exc or 'closed by the server'}"))

    # what the parser calls

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self.parser.get_status_code() < 200:
            self.headers.clear()  # an interim answer
        else:
            self.answering = True

    def on_body(self, data: bytes) -> None:
        self.unread.append(data)
        self._size += len(data)

    def on_message_complete(self) -> None:
        if self.answering:
            self.complete = True
            self.transport.close()


class _Body(httpx.AsyncByteStream):
    def __init__(self, exchange: _Exchange, seconds: float | None) -> None:
        self._exchange = exchange
        self._seconds = seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        exchange = self._exchange
        while True:
            await exchange.wait(lambda: exchange.unread or exchange.complete, self._seconds)
            if not exchange.unread:
                return
            yield exchange.take()

    async def aclose(self) -> None:
        self._exchange.transport.abort()
