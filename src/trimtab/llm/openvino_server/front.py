"""The process that speaks HTTP: the OpenAI protocol on loopback, for whoever has the key.

Started by `worker.py`. It checks requests, makes token ids of texts and texts of token ids, and ends with the worker.
Plain ASGI with Starlette's requests and responses: a client that leaves must be seen while nothing is sent to it yet.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import socket
import sys
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from ..openvino_folder import ModelCard, read_card
from .body import parse
from .desk import Desk
from .link import FrontLink
from .making import Making
from .metrics import Metrics
from .prompt import Prompter
from .refusal import Refusal, too_long
from .text import Vocabulary

_BODY_BYTES = 16 << 20
_JSON = "application/json"


class Front:
    """The ASGI application."""

    def __init__(self, config: dict[str, Any], desk: Desk, prompter: Prompter, card: ModelCard) -> None:
        self._config = config
        self._desk = desk
        self._card = card
        self._prompter = prompter
        vocabulary = Vocabulary(prompter.tokenizer, prompter.special_ids, card.end_ids)
        self._making = Making(config, desk, prompter, vocabulary, card.vocabulary)
        self._key = hashlib.sha256(config["key"].encode()).digest()
        self._routes: dict[tuple[str, str], Callable[[Request, Send], Awaitable[Response | None]]] = {
            ("POST", "/v1/chat/completions"): self._completions,
            ("POST", "/v1/completions"): self._completions,
            ("GET", "/v1/models"): self._models,
            ("POST", "/tokenize"): self._tokenize,
            ("GET", "/metrics"): self._metrics,
            ("POST", "/lora-adapters"): self._add_adapter,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope, receive, send)
        try:
            response = await self._answer(request, send)
        except Refusal as refusal:
            self._desk.metrics.refused += 1
            response = _refused(refusal)
        except ClientDisconnect:
            return
        except Exception as error:  # its words may quote the request, so only its kind and place are told
            place = traceback.extract_tb(error.__traceback__)[-1]
            print(f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}", file=sys.stderr)
            response = _refused(Refusal(500, "the engine failed on this request", "internal_error"))
        if response is not None:
            await response(scope, receive, send)

    async def _answer(self, request: Request, send: Send) -> Response | None:
        if request.scope["path"] == "/health":
            return await self._health()
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(hashlib.sha256(given.encode("utf-8", "replace")).digest(), self._key):
            raise Refusal(401, "the key is missing or wrong", "authentication_error")
        route = self._routes.get((request.method, request.scope["path"]))
        if route is None:
            raise Refusal(404, "there is nothing at this address", "not_found_error")
        return await route(request, send)

    async def _health(self) -> Response:
        try:
            await self._desk.call("ping", 4.0)
        except TimeoutError:
            return _json({"status": "the pipeline does not answer"}, 503)
        return _json({"status": "ok"})

    async def _models(self, _request: Request, _send: Send) -> Response:
        meta = {
            "n_ctx": self._config["slot_context"],
            "n_ctx_train": self._card.context_length,
            "n_vocab": self._card.vocabulary,
        }
        model = {"id": self._config["name"], "object": "model", "created": 0, "owned_by": "trimtab", "meta": meta}
        return _json({"object": "list", "data": [model]})

    async def _metrics(self, _request: Request, _send: Send) -> Response:
        try:
            reply = await self._desk.call("ping", 4.0)
        except TimeoutError:
            raise Refusal(503, "the pipeline does not answer", "unavailable_error", retry_after=5) from None
        return PlainTextResponse(self._desk.metrics.text(reply["stats"]), media_type="text/plain; version=0.0.4")

    async def _tokenize(self, request: Request, _send: Send) -> Response:
        body = parse(await _body(request))
        text = body.get("content")
        if not isinstance(text, str):
            raise Refusal(400, "`content` must be a text")
        if len(text) > self._making.most_chars:
            raise too_long(len(text), self._making.most_chars, "characters")
        special, literal = body.get("add_special") is True, body.get("parse_special") is not True
        ids = await asyncio.to_thread(self._prompter.tokenize, text, special=special, parse=not literal)
        return _json({"tokens": ids})

    async def _add_adapter(self, request: Request, _send: Send) -> Response:
        path = parse(await _body(request)).get("path")
        if not isinstance(path, str) or not Path(path).is_absolute():
            raise Refusal(400, "`path` must be the adapter file's absolute path")
        try:
            reply = await self._desk.call("adapter", 300.0, path=path)
        except TimeoutError:
            raise Refusal(503, "the adapter was not read in time", "unavailable_error", retry_after=5) from None
        if reply.get("error"):
            raise Refusal(400, reply["error"])
        return _json({"id": reply["adapters"] - 1})

    async def _completions(self, request: Request, send: Send) -> Response | None:
        chat = request.scope["path"] == "/v1/chat/completions"
        making = await self._making.begin(parse(await _body(request)), chat=chat)
        try:
            if making.want.stream:
                await _unless_gone(request, _stream(making.pieces(), send))
                return None
            whole = await _unless_gone(request, making.whole())
            return _json(whole) if whole is not None else None
        finally:
            making.close()


async def _body(request: Request) -> bytes:
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > _BODY_BYTES:
            raise Refusal(413, f"the request has more than {_BODY_BYTES} bytes")
    return bytes(data)


async def _unless_gone(request: Request, work: Any) -> Any:
    """What `work` gives, or None if the client leaves first; then the work is cancelled."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        return None
    finally:
        for other in (task, gone):
            other.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _stream(pieces: AsyncIterator[dict[str, Any]], send: Send) -> None:
    """Server-sent events. A refusal before the first piece is an ordinary answer; after it, an event."""
    begun = False
    async with aclosing(pieces) as source:  # type: ignore[type-var]
        try:
            async for piece in source:
                if not begun:
                    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
                    await send({"type": "http.response.start", "status": 200, "headers": headers})
                    begun = True
                data = b"data: " + orjson.dumps(piece) + b"\n\n"
                await send({"type": "http.response.body", "body": data, "more_body": True})
            end = b"data: [DONE]\n\n"
        except Refusal as refusal:
            if not begun:
                raise
            end = b"data: " + orjson.dumps(refusal.body()) + b"\n\n"
    await send({"type": "http.response.body", "body": end, "more_body": False})


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status, headers, media_type=_JSON)


def _refused(refusal: Refusal) -> Response:
    headers = {"retry-after": str(refusal.retry_after)} if refusal.retry_after else None
    return _json(refusal.body(), refusal.status, headers)


async def serve(config: dict[str, Any], connection: socket.socket) -> None:
    folder = Path(config["folder"])
    card = read_card(folder)
    prompter = Prompter(folder, card)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", config["port"]))
    link = await FrontLink.connect(connection)
    if not (await link.receive()).get("ready"):
        return
    limits = {"slots": config["slots"], "queue": config["queue"], "adapters": len(config["adapters"])}
    desk = Desk(link, Metrics(), **limits)
    app = Front(config, desk, prompter, card)
    settings = uvicorn.Config(
        app, lifespan="off", access_log=False, log_level="warning", ws="none", server_header=False, date_header=False
    )
    server = uvicorn.Server(settings)
    listening.listen(512)
    link.send({"listening": f"http://127.0.0.1:{config['port']}"})
    await asyncio.gather(server.serve(sockets=[listening]), desk.listen())


def _leave_with_worker() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    config = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_worker, daemon=True).start()
    import uvloop  # not on Windows, and neither is this engine

    uvloop.run(serve(config, socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
