"""Server-sent events (WHATWG HTML, section 9.2), written and nothing more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

KEEP_ALIVE = b": still here\n\n"


def line(data: Any, *, id: int | None = None, event: str | None = None) -> bytes:
    """One event. JSON has no raw newline, so one data line is enough."""
    head = (f"id: {id}\n" if id is not None else "") + (f"event: {event}\n" if event else "")
    payload = data if isinstance(data, bytes) else orjson.dumps(data)
    return head.encode() + b"data: " + payload + b"\n\n"


class _Stream(StreamingResponse):
    """A stream that ends everything it drew from, also when its client left before the first byte."""

    def __init__(self, body: AsyncIterator[bytes], ended: Callable[[], Awaitable[object]]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(body, media_type="text/event-stream", headers=headers)
        self._ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._ended()


def response(body: AsyncIterator[bytes], ended: Callable[[], Awaitable[object]]) -> StreamingResponse:
    """Send `body`; `ended` is called once, however the sending ends."""
    return _Stream(body, ended)
