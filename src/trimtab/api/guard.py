"""What every request passes before any route: an id, a cap on its body, and errors as JSON.

Written as plain ASGI, since it must see a body while it streams in, and must not buffer a response that streams out.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trimtab.domain import ids
from trimtab.domain.errors import TooLarge, TooManyRequests, TrimtabError

_log = logging.getLogger(__name__)

BODY_LIMIT = 1_000_000
BODY_SECONDS = 30.0
"""For a whole body that is not an upload, from the first look at it; uvicorn itself has no limit for a slow one."""
UPLOAD_SECONDS = 600.0
_SAFE_ID = re.compile(r"^[\w-]{1,64}$")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
)


class Guard:
    """ASGI middleware. `uploads` are the paths whose bodies may be as large as `upload_limit`."""

    def __init__(self, app: ASGIApp, *, uploads: frozenset[str], upload_limit: int, hosts: frozenset[str]) -> None:
        self._app = app
        self._uploads = uploads
        self._upload_limit = upload_limit
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _SAFE_ID.match(given) else ids.new("req")
        scope.setdefault("state", {})["request_id"] = request_id

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                extra = [(n, v) for n, v in _HEADERS if n not in present]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode()), *extra]
            await send(message)

        if fault := self._host_fault(headers):
            await error_response(fault, 421, "wrong_host")(scope, receive, tagged)
            return
        upload = scope["path"] in self._uploads and scope["method"] == "POST"
        limit = self._upload_limit if upload else BODY_LIMIT
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            await of_error(_too_large(limit))(scope, receive, tagged)
            return
        capped = _Capped(receive, limit, UPLOAD_SECONDS if upload else BODY_SECONDS)
        await self._app(scope, _Known(capped, scope) if upload else capped, tagged)

    def _host_fault(self, headers: dict[bytes, bytes]) -> str:
        """A page elsewhere that points its own name at this machine (DNS rebinding) sends that name as Host."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if "*" in self._hosts or name in self._hosts:
            return ""
        return f"This server does not answer for {name[:100]!r}. Use the address it printed when it started."


class _Refused(HTTPException):
    """One of our errors, raised while a body is read: FastAPI lets only an HTTPException through there."""

    def __init__(self, error: TrimtabError) -> None:
        super().__init__(error.status, error.message)
        self.error = error


class _Capped:
    """`receive` that counts, and gives up on a body that is too long or, as a whole, too slow."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive = receive
        self._limit = limit
        self._seconds = seconds
        self._until: float | None = None
        self._seen = 0
        self._done = False

    async def __call__(self) -> Message:
        if self._done:
            return await self._receive()
        if self._until is None:
            self._until = asyncio.get_running_loop().time() + self._seconds
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, "The request's body took too long to arrive. Send it again.") from None
        if message["type"] == "http.request":
            self._seen += len(message.get("body", b""))
            self._done = not message.get("more_body", False)
            if self._seen > self._limit:
                raise _Refused(_too_large(self._limit))
        return message


class _Known:
    """`receive` that looks at the key before it takes the first byte: a stranger's upload is not stored, not even read.

    Routes look at it as well; FastAPI reads a body before it asks them.
    """

    def __init__(self, receive: Receive, scope: Scope) -> None:
        self._receive = receive
        self._scope = scope
        self._known = False

    async def __call__(self) -> Message:
        if not self._known:
            header = dict(self._scope["headers"]).get(b"authorization", b"").decode("latin-1")
            try:
                await self._scope["app"].state.gate.caller(header)
            except TrimtabError as error:
                raise _Refused(error) from None
            self._known = True
        return await self._receive()


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request's body is larger than {limit:,} bytes. Send less, or upload it as a document.")


def error_response(message: str, status: int, code: str, detail: dict[str, Any] | None = None) -> Response:
    """The one shape of an error on the wire. OpenAI's clients read `message`, `type` and `code`."""
    body = {"error": {"message": message, "type": code, "code": code, "param": None, "detail": detail or {}}}
    try:
        content = orjson.dumps(body, default=str)
    except TypeError:  # half of a surrogate pair in what the client sent and the message repeats
        content = json.dumps(body, default=str).encode()
    return Response(content, status, media_type="application/json")


def of_error(error: TrimtabError) -> Response:
    response = error_response(error.message, error.status, error.code, error.detail)
    if isinstance(error, TooManyRequests):
        response.headers["Retry-After"] = str(math.ceil(error.retry_after))
    elif error.status in (429, 503):
        response.headers["Retry-After"] = "1"
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


async def on_trimtab_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, TrimtabError)
    return of_error(error)


async def on_http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, _Refused):
        return of_error(error.error)
    codes = {404: "not_found", 405: "method_not_allowed", 408: "timeout", 413: "too_large"}
    response = error_response(str(error.detail), error.status_code, codes.get(error.status_code, "http_error"))
    response.headers.update(error.headers or {})
    return response


async def on_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems: Any = error.errors()
    first = problems[0] if problems else {"loc": (), "msg": "not readable"}
    where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    message = f"The request is wrong{f' at {where!r}' if where else ''}: {first['msg']}."
    return error_response(message, 400, "invalid_input", {"where": where})


async def on_any(request: Request, error: Exception) -> Response:
    _log.error("request %s failed", request.scope.get("state", {}).get("request_id"), exc_info=error)
    message = f"Something went wrong inside Trimtab ({type(error).__name__}). The server's log has the details."
    return error_response(message, 500, "internal_error")
