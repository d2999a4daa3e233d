"""Server-sent events (WHATWG HTML, section 9.2), written and nothing more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import orjson
from starlette.responses import StreamingResponse

KEEP_ALIVE = b": still here\n\n"


def line(data: Any, *, id: int | None = None, event: str | None = None) -> bytes:
    """One event. JSON has no raw newline, so one data line is enough."""
    head = (f"id: {id}\n" if id is not None else "") + (f"event: {event}\n" if event else "")
    payload = data if isinstance(data, bytes) else orjson.dumps(data)
    return head.encode() + b"data: " + payload + b"\n\n"


def response(body: AsyncIterator[bytes]) -> StreamingResponse:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(body, media_type="text/event-stream", headers=headers)
