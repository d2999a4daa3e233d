"""How an answer is sent in OpenAI's protocol: whole or streamed, within its time, and only while somebody reads it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from fastapi import Request
from langchain_core.messages import AIMessageChunk
from starlette.responses import Response

from trimtab.domain import ids
from trimtab.domain.errors import DeadlineExceeded, TrimtabError, Unavailable

from . import sse

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from trimtab.llm.served import Served

T = TypeVar("T")

Piece = AIMessageChunk
"""Answers from every source come as LangChain chunks; the last has the usage and the finish reason."""


@dataclass(frozen=True)
class Sending:
    """How a client wants its answer. `seconds` is the most it may take."""

    seconds: float
    stream: bool = False
    usage: bool = False
    """Whether a stream ends with the token counts."""


class Feed:
    """The pieces of an answer, drawn by a task of its own until `aclose`.

    So the deadline holds while a client reads slowly, and a client that left stops the engine at any moment. Iterated
    once; an error of the source, or `DeadlineExceeded`, comes after the pieces before it.
    """

    def __init__(self, pieces: AsyncGenerator[Piece, None], seconds: float) -> None:
        self._queue: asyncio.Queue[Piece | None] = asyncio.Queue()
        self._task = asyncio.create_task(self._draw(pieces, seconds), name="an answer for a client")

    async def _draw(self, pieces: AsyncGenerator[Piece, None], seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds) as limit, contextlib.aclosing(pieces):
                async for piece in pieces:
                    self._queue.put_nowait(piece)
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineExceeded(f"No whole answer within {seconds:g} seconds. Ask again, or ask for less.") from None
        finally:
            self._queue.put_nowait(None)

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> Piece:
        piece = await self._queue.get()
        if piece is None:
            await self._task
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Stop what is still being drawn; returns when it has stopped."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def answer(request: Request, model: str, pieces: AsyncGenerator[Piece, None], how: Sending) -> Response:
    """The pieces as a chat completion of `model`, whole or streamed."""
    head = {"id": "chatcmpl-" + ids.new("cc")[3:], "created": int(time.time()), "model": model}
    feed = Feed(pieces, how.seconds)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(feed.aclose)
        if how.stream:
            # The first piece is awaited here, so that an error before it still has its own status.
            first = await while_connected(request, _first(feed))
            return sse.response(_chunks(head, first, feed, usage=how.usage), stack.pop_all().aclose)
        whole = await while_connected(request, _joined(feed))
    calls = _tool_calls(whole, indexed=False)
    message: dict[str, Any] = {"role": "assistant", "content": whole.text or (None if calls else "")}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(whole)}
    return _json({**head, "object": "chat.completion", "choices": [choice], "usage": _usage(whole), **_ours(whole)})


async def _chunks(
    head: Mapping[str, Any], first: Piece | None, rest: AsyncIterator[Piece], *, usage: bool
) -> AsyncIterator[bytes]:
    def chunk(delta: Mapping[str, Any], reason: str | None = None, **ours: Any) -> bytes:
        choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]
        return sse.line({**head, "object": "chat.completion.chunk", "choices": choices, **ours})

    whole = Piece(content="")
    yield chunk({"role": "assistant", "content": ""})
    try:
        async for piece in _chained(first, rest):
            joined: Any = whole + piece
            whole = joined
            if piece.text:
                yield chunk({"content": piece.text})
    except TrimtabError as error:
        yield sse.line({"error": {"message": error.message, "type": error.code, "code": error.code}})
        return
    if calls := _tool_calls(whole, indexed=True):
        yield chunk({"tool_calls": calls})
    yield chunk({}, _reason(whole), **_ours(whole))
    if usage:
        yield sse.line({**head, "object": "chat.completion.chunk", "choices": [], "usage": _usage(whole)})
    yield sse.line(b"[DONE]")


async def forward(
    request: Request,
    served: Served,
    path: str,
    body: Mapping[str, Any],
    version: BaseChatModel,
    asking: contextlib.AbstractContextManager[None],
) -> Response:
    """Hand the request to the engine, for one version of its model; its answer comes back as it is. `asking` is open
    to the end of it."""
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(asking)
        asked = served.forward(path, body, version)
        response = await while_connected(request, stack.enter_async_context(asked))
        if body.get("stream"):
            kept = stack.pop_all()
            return sse.response(_relayed(kept, response), kept.aclose)
        return Response(await while_connected(request, response.aread()), media_type="application/json")


async def _relayed(stack: contextlib.AsyncExitStack, response: Any) -> AsyncIterator[bytes]:
    try:
        async with stack:
            async for data in response.aiter_raw():
                yield data
    except TrimtabError as error:
        yield sse.line({"error": {"message": error.message, "type": error.code, "code": error.code}})


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """`work`, given up when the client goes away: nobody would read the answer."""
    task = asyncio.ensure_future(work)
    try:
        while True:
            done, _ = await asyncio.wait({task}, timeout=0.5)
            if done:
                return task.result()
            if await request.is_disconnected():
                raise Unavailable("The client went away.")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _first(pieces: AsyncIterator[Piece]) -> Piece | None:
    return await anext(pieces, None)


async def _joined(pieces: AsyncIterator[Piece]) -> Piece:
    whole = Piece(content="")
    async for piece in pieces:
        joined: Any = whole + piece
        whole = joined
    return whole


async def _chained(first: Piece | None, rest: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    if first is not None:
        yield first
    async for piece in rest:
        yield piece


def _tool_calls(message: Piece, *, indexed: bool) -> list[dict[str, Any]]:
    return [
        {
            **({"index": i} if indexed else {}),
            "id": call["id"] or ids.new("call"),
            "type": "function",
            "function": {"name": call["name"], "arguments": orjson.dumps(call["args"]).decode()},
        }
        for i, call in enumerate(message.tool_calls)
    ]


def _ours(message: Piece) -> dict[str, Any]:
    """What we say beyond OpenAI's protocol, under a name that no client knows."""
    told = message.response_metadata.get("trimtab")
    return {"trimtab": told} if told else {}


def _reason(message: Piece) -> str:
    if message.tool_calls:
        return "tool_calls"
    return str(message.response_metadata.get("finish_reason") or "stop")


def _usage(message: Piece) -> dict[str, Any]:
    usage = message.usage_metadata
    prompt, completion = (usage["input_tokens"], usage["output_tokens"]) if usage else (0, 0)
    cached = ((usage.get("input_token_details") or {}).get("cache_read") or 0) if usage else 0
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
