"""A loopback server whose every byte the test decides, for what no well-behaved server does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Behave = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Sink:
    """`heads` are the request heads that arrived."""

    port: int = 0
    heads: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(behave: Behave, host: str = "127.0.0.1") -> AsyncIterator[Sink]:
    """Run `behave(request head, writer)` for each request; connections close after it returns."""
    sink = Sink()
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = await reader.readuntil(b"\r\n\r\n")
            sink.heads.append(head)
            await behave(head, writer)
            await writer.drain()
        tasks.discard(task)
        writer.close()

    server = await asyncio.start_server(handle, host, 0)
    sink.port = server.sockets[0].getsockname()[1]
    try:
        yield sink
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def response(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
    """A whole response; header names with ``_`` for ``-``."""
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
