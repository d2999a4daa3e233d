"""The OpenAI-compatible half: `/v1/models`, `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`.

Model ``trimtab`` is the assistant, with connectors that read and with documents. A model's own name is that model bare,
and such a request is handed to the engine as it is: its bytes come back unread, so that our part in it costs next to
nothing. Only a client's own tools, for a model that needs guidance to call them, take the way through LangChain.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request
from langchain_core.messages import BaseMessage, convert_to_messages
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from trimtab.app import Ask, Trimtab
from trimtab.domain import events as ev
from trimtab.domain import ids
from trimtab.domain.errors import InvalidInput, NotFound, TooLarge, Unavailable
from trimtab.orchestrator.best_of import MOST
from trimtab.orchestrator.state import Turn

from .access import App, Known
from .sending import Piece, Sending, answer, forward

router = APIRouter(prefix="/v1", tags=["openai"])

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
    best_of: int | None = Field(None, ge=1, le=MOST)
    """Ours: of so many answers of ``trimtab`` the best by the reward model. The answer says so in ``trimtab``."""
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
    if (body.best_of or 1) > 1 and (body.tools or body.model != ASSISTANT):
        raise InvalidInput(
            f"'best_of' is for the model '{ASSISTANT}' without tools of your own. Leave one of them out."
        )
    if body.tools or (body.model != ASSISTANT and not _forwards(app)):
        return await answer(request, body.model, _asked(app, body), _sending(app, body))
    if body.model == ASSISTANT:
        return await answer(request, body.model, _assisted(app, caller.id, body), _sending(app, body))
    return await _forwarded(request, app, "/chat/completions", body)


@router.post("/completions", response_model=None)
async def complete(request: Request, app: App, caller: Known, body: TextRequest) -> Response:
    _known_model(app, body.model)
    _check(app, body)
    app.runner.ensure_room()
    if not _forwards(app):
        raise Unavailable(f"'{app.profile.name}' has no plain completions here. Use /v1/chat/completions.")
    return await _forwarded(request, app, "/completions", body)


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


async def _asked(app: Trimtab, body: ChatRequest) -> AsyncGenerator[Piece, None]:
    """The model itself, with the client's tools where it has some."""
    voice = app.versions.voice()
    model: Any = voice.model if body.tools else voice.bare
    options: dict[str, Any] = {}
    if body.tools:
        choice = {"tool_choice": body.tool_choice} if body.tool_choice is not None else {}
        try:
            model = model.bind_tools(body.tools, **choice)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(f"'tools' or 'tool_choice' is not in OpenAI's format: {error}") from error
    elif body.response_format:
        options["response_format"] = body.response_format
    asked = model.astream(_messages(body), **_sampling(body), **options)
    with app.versions.asking():
        async with contextlib.aclosing(asked) as pieces:
            async for piece in pieces:
                yield piece


async def _assisted(app: Trimtab, owner: str, body: ChatRequest) -> AsyncGenerator[Piece, None]:
    """One turn of the assistant that is not kept: the client has the thread.

    What may still be taken back (a small model's wording of a source) is held until it is settled, because this
    protocol has no word for taking back.
    """
    turn = _turn(owner, body, (await app.several(Ask(best_of=body.best_of))).best_of or 1)
    small, hold, held = app.profile.grounding == "quote", False, ""
    compared: ev.AnswersCompared | None = None
    requests: dict[str, ev.ToolRequested] = {}
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(app.versions.asking())
        events = await stack.enter_async_context(contextlib.aclosing(app.speaking().run(turn)))
        async for event in events:
            if isinstance(event, ev.ToolRequested):
                requests[event.call_id] = event
            elif isinstance(event, ev.ToolFinished):
                await app.audit.of_event(owner, "openai", turn.id, requests[event.call_id], event)
            match event:
                case ev.PassagesFound(used=True) | ev.ToolFinished():
                    hold = small
                case ev.AnswersCompared():
                    compared = event
                case ev.TextDelta() if hold:
                    held += event.text
                case ev.TextReplaced() if hold:
                    held = event.text
                case ev.TextDelta():
                    yield Piece(content=event.text)
                case ev.TurnFinished():
                    if held:
                        yield Piece(content=held)
                    yield _last(event, compared)


def _turn(owner: str, body: ChatRequest, best_of: int) -> Turn:
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
        best_of=best_of,
        sampling=_sampling(body),
    )


def _last(event: ev.TurnFinished, compared: ev.AnswersCompared | None) -> Piece:
    u = event.usage
    several = {"trimtab": ev.to_wire(compared)} if compared else {}
    return Piece(
        content="",
        usage_metadata={
            "input_tokens": u.prompt_tokens,
            "output_tokens": u.completion_tokens,
            "total_tokens": u.prompt_tokens + u.completion_tokens,
            "input_token_details": {"cache_read": u.cached_tokens},
        },
        response_metadata={"finish_reason": event.finish_reason, **several},
    )


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


def _sending(app: Trimtab, body: Completion) -> Sending:
    usage = bool((body.stream_options or {}).get("include_usage"))
    return Sending(app.settings.turn_seconds, body.stream, usage)


async def _forwarded(request: Request, app: Trimtab, path: str, body: Completion) -> Response:
    assert app.served is not None
    said, versions = body.model_dump(exclude_none=True), app.versions
    return await forward(request, app.served, path, said, versions.voice().bare, versions.asking())


def _forwards(app: Trimtab) -> bool:
    return app.served is not None and app.served.forwards


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "trimtab"}


def _encoded(vector: Sequence[float], how: str) -> Any:
    if how == "base64":
        return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
    return [float(x) for x in vector]
