"""The OpenAI-compatible half: `/v1/models`, `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`.

Model ``trimtab`` is the assistant, with connectors that read and with documents. A model's own name is that model bare,
and such a request is handed to the engine as it is: its bytes come back unread, so that our part in it costs next to
nothing. Only a client's own tools, for a model that needs guidance to call them, take the way through LangChain.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import orjson
from fastapi import APIRouter, Request
from langchain_core.messages import AIMessageChunk, BaseMessage, convert_to_messages
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from trimtab.app import Trimtab
from trimtab.domain import events as ev
from trimtab.domain import ids
from trimtab.domain.errors import DeadlineExceeded, InvalidInput, NotFound, TooLarge, TrimtabError, Unavailable
from trimtab.orchestrator.turn import Turn

from . import sse
from .access import App, Known

router = APIRouter(prefix="/v1", tags=["openai"])
T = TypeVar("T")

ASSISTANT = "trimtab"
EMBEDDING = "all-minilm-l6-v2"
MAX_TOKENS = 8192
MOST_INPUTS = 2048


class Completion(BaseModel):
    """A request as clients send it. What we do not know is passed over, as OpenAI's own server does."""

    model_config = ConfigDict(extra="allow")
    model: str
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2)
    n: int | None = Field(None, ge=1)


class ChatRequest(Completion):
    messages: list[dict[str, Any]] = Field(min_length=1, max_length=2000)
    tools: list[dict[str, Any]] | None = Field(None, max_length=512)
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    top_p: float | None = Field(None, ge=0, le=1)


class TextRequest(Completion):
    prompt: str


class EmbeddingRequest(BaseModel):
    model_config = ConfigDict(extra="ignore")
    model: str = EMBEDDING
    input: str | list[str]
    encoding_format: str = "float"


@router.get("/models")
async def models(app: App, caller: Known) -> dict[str, Any]:
    names = [ASSISTANT, app.profile.name, *([EMBEDDING] if app.embedder is not None else [])]
    return {"object": "list", "data": [_model(name) for name in names]}


@router.get("/models/{name:path}")
async def model(app: App, caller: Known, name: str) -> dict[str, Any]:
    if name != EMBEDDING:
        _known_model(app, name)
    return _model(name)


@router.post("/chat/completions", response_model=None)
async def chat(request: Request, app: App, caller: Known, body: ChatRequest) -> Response:
    _known_model(app, body.model)
    _check(app, body)
    app.runner.ensure_room()
    if body.tools or (body.model != ASSISTANT and not _forwards(app)):
        return await _answer(request, app, body, _asked(app, body))
    if body.model == ASSISTANT:
        return await _answer(request, app, body, _assisted(app, caller.id, body))
    return await _forward(request, app, "/chat/completions", body)


@router.post("/completions", response_model=None)
async def complete(request: Request, app: App, caller: Known, body: TextRequest) -> Response:
    _known_model(app, body.model)
    _check(app, body)
    app.runner.ensure_room()
    if not _forwards(app):
        raise Unavailable(f"'{app.profile.name}' has no plain completions here. Use /v1/chat/completions.")
    return await _forward(request, app, "/completions", body)


@router.post("/embeddings")
async def embeddings(app: App, caller: Known, body: EmbeddingRequest) -> dict[str, Any]:
    if app.embedder is None:
        raise Unavailable("No embedding model is loaded. Start Trimtab with retrieval.")
    if body.model != EMBEDDING:
        raise NotFound(f"There is no embedding model '{body.model}'. There is: {EMBEDDING}.")
    if body.encoding_format not in ("float", "base64"):
        raise InvalidInput(f"'encoding_format' is 'float' or 'base64', not {body.encoding_format!r}.")
    texts = [body.input] if isinstance(body.input, str) else body.input
    if not texts or len(texts) > MOST_INPUTS or any(not t for t in texts):
        raise InvalidInput(f"'input' needs 1 to {MOST_INPUTS} texts that are not empty.")
    if not all(map(_is_whole, texts)):
        raise InvalidInput("A text of 'input' has half of a surrogate pair in it, which is no text.")
    _check_chars(app, sum(map(len, texts)))
    vectors = await asyncio.to_thread(app.embedder.embed_documents, texts)
    tokens = sum(app.orchestrator.count(texts))
    data = [
        {"object": "embedding", "index": i, "embedding": _encoded(v, body.encoding_format)}
        for i, v in enumerate(vectors)
    ]
    return {
        "object": "list",
        "model": EMBEDDING,
        "data": data,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


# ---------------------------------------------------------------------- where an answer comes from

Piece = AIMessageChunk
"""Answers from every source come as LangChain chunks; the last has the usage and the finish reason."""


async def _asked(app: Trimtab, body: ChatRequest) -> AsyncGenerator[Piece, None]:
    """The model itself, with the client's tools where it has some."""
    model: Any = app.model if body.tools else (app.served.bare if app.served else app.model)
    options: dict[str, Any] = {}
    if body.tools:
        choice = {"tool_choice": body.tool_choice} if body.tool_choice is not None else {}
        try:
            model = model.bind_tools(body.tools, **choice)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"'tools' or 'tool_choice' is not in OpenAI's format: {error}") from error
    elif body.response_format:
        options["response_format"] = body.response_format
    async with contextlib.aclosing(model.astream(_messages(body), **_sampling(body), **options)) as pieces:
        async for piece in pieces:
            yield piece


async def _assisted(app: Trimtab, owner: str, body: ChatRequest) -> AsyncGenerator[Piece, None]:
    """One turn of the assistant that is not kept: the client has the thread.

    What may still be taken back (a small model's wording of a source) is held until it is settled, because this
    protocol has no word for taking back.
    """
    turn = _turn(owner, body)
    small, hold, held = app.profile.grounding == "quote", False, ""
    async with contextlib.aclosing(app.orchestrator.run(turn)) as events:
        async for event in events:
            match event:
                case ev.PassagesFound(used=True) | ev.ToolFinished():
                    hold = small
                case ev.TextDelta() if hold:
                    held += event.text
                case ev.TextReplaced() if hold:
                    held = event.text
                case ev.TextDelta():
                    yield Piece(content=event.text)
                case ev.TurnFinished():
                    if held:
                        yield Piece(content=held)
                    yield _last(event)


def _turn(owner: str, body: ChatRequest) -> Turn:
    said = [(m.type, m.text) for m in _messages(body)]
    if said[-1][0] != "human":
        raise InvalidInput("The last message must be the user's.")
    roles = {"human": "user", "ai": "assistant"}
    return Turn(
        id=ids.new("trn"),
        owner=owner,
        question=said[-1][1],
        history=[(roles[kind], text) for kind, text in said[:-1] if kind in roles],
        instructions="\n".join(text for kind, text in said if kind == "system"),
        can_approve=False,
        sampling=_sampling(body),
    )


def _last(event: ev.TurnFinished) -> Piece:
    u = event.usage
    return Piece(
        content="",
        usage_metadata={
            "input_tokens": u.prompt_tokens,
            "output_tokens": u.completion_tokens,
            "total_tokens": u.prompt_tokens + u.completion_tokens,
            "input_token_details": {"cache_read": u.cached_tokens},
        },
        response_metadata={"finish_reason": event.finish_reason},
    )


# ---------------------------------------------------------------------- how it is sent


class _Feed:
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

    def __aiter__(self) -> _Feed:
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


async def _answer(request: Request, app: Trimtab, body: ChatRequest, pieces: AsyncGenerator[Piece, None]) -> Response:
    head = {"id": "chatcmpl-" + ids.new("cc")[3:], "created": int(time.time()), "model": body.model}
    feed = _Feed(pieces, app.settings.turn_seconds)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(feed.aclose)
        if body.stream:
            # The first piece is awaited here, so that an error before it still has its own status.
            first = await _while_connected(request, _first(feed))
            usage = bool((body.stream_options or {}).get("include_usage"))
            return sse.response(_chunks(head, first, feed, usage=usage), stack.pop_all().aclose)
        whole = await _while_connected(request, _joined(feed))
    calls = _tool_calls(whole, indexed=False)
    message: dict[str, Any] = {"role": "assistant", "content": whole.text or (None if calls else "")}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(whole)}
    return _json({**head, "object": "chat.completion", "choices": [choice], "usage": _usage(whole)})


async def _chunks(
    head: Mapping[str, Any], first: Piece | None, rest: AsyncIterator[Piece], *, usage: bool
) -> AsyncIterator[bytes]:
    def chunk(delta: Mapping[str, Any], reason: str | None = None) -> bytes:
        choices = [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]
        return sse.line({**head, "object": "chat.completion.chunk", "choices": choices})

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
    yield chunk({}, _reason(whole))
    if usage:
        yield sse.line({**head, "object": "chat.completion.chunk", "choices": [], "usage": _usage(whole)})
    yield sse.line(b"[DONE]")


async def _forward(request: Request, app: Trimtab, path: str, body: Completion) -> Response:
    """Hand the request to the engine; its answer comes back as it is."""
    assert app.served is not None
    async with contextlib.AsyncExitStack() as stack:
        asked = app.served.forward(path, body.model_dump(exclude_none=True))
        response = await _while_connected(request, stack.enter_async_context(asked))
        if body.stream:
            kept = stack.pop_all()
            return sse.response(_relayed(kept, response), kept.aclose)
        return Response(await _while_connected(request, response.aread()), media_type="application/json")


async def _relayed(stack: contextlib.AsyncExitStack, response: Any) -> AsyncIterator[bytes]:
    try:
        async with stack:
            async for data in response.aiter_raw():
                yield data
    except TrimtabError as error:
        yield sse.line({"error": {"message": error.message, "type": error.code, "code": error.code}})


async def _while_connected(request: Request, work: Awaitable[T]) -> T:
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


# ---------------------------------------------------------------------- small print


def _messages(body: ChatRequest) -> list[BaseMessage]:
    for message in body.messages:
        parts = message.get("content")
        if isinstance(parts, list) and any(p.get("type") != "text" for p in parts if isinstance(p, dict)):
            raise InvalidInput("Only text is understood here: a message has a part that is not of type 'text'.")
    try:
        return convert_to_messages(body.messages)
    except (KeyError, TypeError, ValueError, NotImplementedError) as error:
        raise InvalidInput(f"'messages' is not in OpenAI's format: {error}") from error


def _sampling(body: ChatRequest) -> dict[str, Any]:
    given: dict[str, Any] = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "max_tokens": min(body.max_completion_tokens or body.max_tokens or 0, MAX_TOKENS) or None,
        "stop": [body.stop] if isinstance(body.stop, str) else body.stop,
        "seed": body.seed,
    }
    return {name: value for name, value in given.items() if value is not None}


def _check(app: Trimtab, body: Completion) -> None:
    if body.n not in (None, 1):
        raise InvalidInput("Only one answer a request: 'n' must be 1.")
    try:
        orjson.dumps(body.model_dump())
        text = orjson.dumps(body.model_dump(include={"messages", "prompt", "tools"}, exclude_none=True))
    except TypeError as error:
        raise InvalidInput(f"The request has something in it that is not valid text or JSON: {error}.") from None
    _check_chars(app, len(text))


def _is_whole(text: str) -> bool:
    """Whether `text` can be written as UTF-8. JSON can bring half of a surrogate pair, which no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_chars(app: Trimtab, size: int) -> None:
    # Over the API a request carries the whole thread, so it may be longer than one question.
    limit = app.settings.max_prompt_chars * 4
    if size > limit:
        raise TooLarge(f"The request has {size} characters; the most is {limit}. Send fewer or shorter messages.")


def _known_model(app: Trimtab, name: str) -> None:
    if name not in (ASSISTANT, app.profile.name):
        raise NotFound(f"There is no model '{name}'. There are: {ASSISTANT}, {app.profile.name}. See /v1/models.")


def _forwards(app: Trimtab) -> bool:
    return app.served is not None and app.served.forwards


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "trimtab"}


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


def _encoded(vector: Sequence[float], how: str) -> Any:
    if how == "base64":
        return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
    return [float(x) for x in vector]


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
