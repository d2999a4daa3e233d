"""Tool calling for a model too small to do it: a LangChain chat model that decides by rule and lets it speak.

    model = GuidedChatModel(inner=small, embedder=embeddings)
    message = await model.bind_tools(tools).ainvoke("What's the weather in Oslo?")
    message.tool_calls  # [{"name": "weather", "args": {"place": "Oslo"}, ...}]

The router picks a tool or none, the arguments are taken from what was said, what is missing is asked for, and all
else is an ordinary answer of the inner model. How it was decided is in `response_metadata["trimtab_routing"]`:
`strategy`, `offered` (name, score, reason of every tool), `chosen`, `threshold`. A question for a missing value has
`response_metadata["trimtab_asks"]`.

After tool results for the current message the inner model answers from them; the same tool is not called again.
The inner model is asked to decode arguments only where no rule fits the schema (alternatives, lists of objects), and
what it writes counts only as far as the conversation supports it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import ConfigDict, PrivateAttr

from ..domain import ids
from ..domain.errors import InvalidInput
from ..domain.model import AskedDirectly, Embedder
from .conversation import Conversation
from .decoding import Asking, decode_open
from .kept_vectors import KeptVectors
from .plan import Plan, Planner
from .router import Router, VectorCache
from .toolspec import ToolSpec, specs_of

ROUTING = "trimtab_routing"
ASKS = "trimtab_asks"
_ROUTERS_KEPT = 32


class GuidedChatModel(AskedDirectly, BaseChatModel):
    """Accepts `bind_tools` like any other model; see the module's note.

    Args of the constructor:
        inner: speaks, and decodes under a JSON schema (`response_format`).
        embedder: for the router; sentence embeddings of the MiniLM kind, which the fitted weights are for.
        kept: a file for the embeddings of what tools say of themselves, so that a start need not make them again.
        clock: tells the time, for "tomorrow".

    Raises (when asked):
        InvalidInput: a tool cannot be read, or `tool_choice` names one that was not offered.
        EngineError and its kinds: from the inner model.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    inner: BaseChatModel
    embedder: Any
    kept: Path | None = None
    clock: Callable[[], dt.datetime] = dt.datetime.now
    _vectors: VectorCache = PrivateAttr()
    _routers: OrderedDict[tuple[ToolSpec, ...], Router] = PrivateAttr(default_factory=OrderedDict)

    def __init__(self, *, inner: BaseChatModel, embedder: Embedder, **fields: Any) -> None:
        super().__init__(inner=inner, embedder=embedder, **fields)
        self._vectors = VectorCache(embedder)

    @property
    def _llm_type(self) -> str:
        return "trimtab-guided"

    def bind_tools(self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any) -> Runnable[Any, AIMessage]:
        """The model with these tools: LangChain tools, functions, pydantic classes or OpenAI-format dicts."""
        shown = [spec.as_openai() for spec in specs_of(tools)]
        return self.bind(tools=shown, tool_choice=tool_choice, **kwargs)

    # ------------------------------------------------------------------ the four ways LangChain asks

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        decided, kwargs = await self._adecide(messages, kwargs)
        if decided.tool_calls or decided.content:
            yield _chunk(decided)
            return
        yield ChatGenerationChunk(message=AIMessageChunk(content="", response_metadata=decided.response_metadata))
        async for piece in self.inner.astream(_plain(messages, kwargs), stop=stop, **kwargs):
            yield ChatGenerationChunk(message=_as_chunk(piece))

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        decided, kwargs = await self._adecide(messages, kwargs)
        if not decided.tool_calls and not decided.content:
            answer = await self.inner.ainvoke(_plain(messages, kwargs), stop=stop, **kwargs)
            decided = _with_metadata(answer, decided.response_metadata)
        return ChatResult(generations=[ChatGeneration(message=decided)])

    def _stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        decided, kwargs = self._decide(messages, kwargs)
        if decided.tool_calls or decided.content:
            yield _chunk(decided)
            return
        yield ChatGenerationChunk(message=AIMessageChunk(content="", response_metadata=decided.response_metadata))
        for piece in self.inner.stream(_plain(messages, kwargs), stop=stop, **kwargs):
            yield ChatGenerationChunk(message=_as_chunk(piece))

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        decided, kwargs = self._decide(messages, kwargs)
        if not decided.tool_calls and not decided.content:
            answer = self.inner.invoke(_plain(messages, kwargs), stop=stop, **kwargs)
            decided = _with_metadata(answer, decided.response_metadata)
        return ChatResult(generations=[ChatGeneration(message=decided)])

    # ------------------------------------------------------------------ deciding

    async def _adecide(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> tuple[AIMessage, dict[str, Any]]:
        talk = Conversation.of(messages)
        tools, choice, single, rest = _tools_of(kwargs)
        if not tools or not talk.turns:
            return AIMessage(""), rest
        steps = self._deciding(talk, tools, choice, single)
        asking = await asyncio.to_thread(next, steps)
        replies = []
        while isinstance(asking, Asking):
            replies.append(await self.inner.ainvoke(asking.messages, **asking.options))
            asking = await asyncio.to_thread(steps.send, replies[-1].text)
        return _with_usage(asking, replies), rest

    def _decide(self, messages: list[BaseMessage], kwargs: dict[str, Any]) -> tuple[AIMessage, dict[str, Any]]:
        talk = Conversation.of(messages)
        tools, choice, single, rest = _tools_of(kwargs)
        if not tools or not talk.turns:
            return AIMessage(""), rest
        steps = self._deciding(talk, tools, choice, single)
        asking = next(steps)
        replies = []
        while isinstance(asking, Asking):
            replies.append(self.inner.invoke(asking.messages, **asking.options))
            asking = steps.send(replies[-1].text)
        return _with_usage(asking, replies), rest

    def _deciding(self, talk: Conversation, tools: Sequence[Any], choice: str, single: bool) -> Any:
        """A generator, so that the synchronous and the asynchronous way are one: it yields what the inner model is
        to be asked, is sent the reply, and yields the decision last: a call, a question, or an empty message."""
        specs = specs_of(tools)
        names = {s.name for s in specs}
        named = "" if choice in ("auto", "required", "none") else choice
        if named and named not in names:
            raise InvalidInput(f"tool_choice names '{named}', which is not among the tools offered.")
        router = self._router(specs)
        today = self.clock().date()
        planner = Planner(router, self._likeness, today)
        plan = planner.conversation(talk.turns, named=named, must=choice == "required")
        reason = ""
        if choice == "none":
            plan, reason = Plan(plan.routing), "tool_choice is none"
        elif not named and choice != "required" and _documents_know(plan, talk.evidence):
            plan, reason = Plan(plan.routing), "the documents answer this better"
        called = talk.called
        if called:
            left = tuple(s for s in plan.steps if s.spec.name not in called and len(plan.steps) > 1)
            plan, reason = Plan(plan.routing, left), "its result is already here"
        plan = yield from decode_open(plan, today)
        yield _decision(plan, choice, reason, single)

    def warm(self, tools: Sequence[Any]) -> None:
        """Calibrate for these tools now (a second or two), so that the first question does not wait for it."""
        specs = specs_of(tools)
        if not specs or specs in self._routers:
            return
        if self.kept is None:
            self._router(specs)
        else:
            kept = KeptVectors(self.embedder, self.kept)
            router = Router(specs, VectorCache(kept))
            kept.save()
            router.vectors = self._vectors
            self._add(router)

    def _router(self, specs: tuple[ToolSpec, ...]) -> Router:
        return self._routers.get(specs) or self._add(Router(specs, self._vectors))

    def _add(self, router: Router) -> Router:
        self._routers[router.specs] = router
        while len(self._routers) > _ROUTERS_KEPT:
            self._routers.popitem(last=False)
        return router

    def _likeness(self, text: str, others: Sequence[str]) -> list[float]:
        vectors = self._vectors.of([text, *others])
        return [float(x) for x in vectors[1:] @ vectors[0]]


def _documents_know(plan: Plan, evidence: float) -> bool:
    """Whether a sentence of the documents is nearer to the question than anything the best tool says of itself."""
    best = plan.routing.best
    return best is not None and evidence > best.likeness and best.score < 0.95


def _with_usage(decision: AIMessage, replies: Sequence[AIMessage]) -> AIMessage:
    """A decision, with the tokens that deciding took."""
    for reply in replies:
        decision.usage_metadata = add_usage(decision.usage_metadata, reply.usage_metadata)
    return decision


def _decision(plan: Plan, choice: str, reason: str, single: bool) -> AIMessage:
    question = plan.question
    steps = () if question else plan.steps[:1] if single else plan.steps
    metadata: dict[str, Any] = {ROUTING: _routing(plan, [s.spec.name for s in plan.steps], choice, reason)}
    usage = UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=0)
    if question:
        metadata |= {ASKS: True, "finish_reason": "stop"}
        return AIMessage(question, response_metadata=metadata, usage_metadata=usage)
    if not steps:
        return AIMessage("", response_metadata=metadata)
    metadata["finish_reason"] = "tool_calls"
    calls = [{"name": s.spec.name, "args": s.arguments, "id": ids.new("call"), "type": "tool_call"} for s in steps]
    return AIMessage("", tool_calls=calls, response_metadata=metadata, usage_metadata=usage)


def _routing(plan: Plan, chosen: Sequence[str], choice: str, reason: str) -> dict[str, Any]:
    routing = plan.routing
    offered = []
    for route in routing.routes:
        if route.name in chosen:
            lacking = any(s.missing for s in plan.steps if s.spec.name == route.name)
            why = (
                "asked for by tool_choice"
                if choice == route.name
                else f"the message is like its own questions ({route.likeness:.2f})"
            )
            why += "; a value is missing" if lacking else ""
        elif reason:
            why = reason
        elif route.score < routing.threshold:
            why = f"below the threshold of {routing.threshold:.2f}"
        else:
            why = "another tool fits better"
        offered.append({"name": route.name, "score": round(route.score, 4), "reason": why})
    return {"strategy": "guided", "offered": offered, "chosen": list(chosen), "threshold": round(routing.threshold, 4)}


def _tools_of(kwargs: dict[str, Any]) -> tuple[Sequence[Any], str, bool, dict[str, Any]]:
    """The tools, the choice (``auto``, ``none``, ``required`` or a name), one call only?, and the other options."""
    rest = dict(kwargs)
    tools = rest.pop("tools", None) or ()
    choice = rest.pop("tool_choice", None)
    single = rest.pop("parallel_tool_calls", None) is False
    if isinstance(choice, dict):
        function = choice.get("function")
        choice = function.get("name") if isinstance(function, dict) else choice.get("name")
    if choice is True or choice == "any":
        choice = "required"
    if choice is False:
        choice = "none"
    if choice is not None and not isinstance(choice, str):
        raise InvalidInput("tool_choice must be none, auto, required, or name a function.")
    return tools, choice or "auto", single, rest


def _plain(messages: Sequence[BaseMessage], _: dict[str, Any]) -> list[BaseMessage]:
    return Conversation.of(messages).without_calls()


def _with_metadata(answer: AIMessage, metadata: dict[str, Any]) -> AIMessage:
    return answer.model_copy(update={"response_metadata": {**answer.response_metadata, **metadata}})


def _as_chunk(piece: Any) -> AIMessageChunk:
    if isinstance(piece, AIMessageChunk):
        return piece
    return AIMessageChunk(content=piece.content, response_metadata=piece.response_metadata)


def _chunk(message: AIMessage) -> ChatGenerationChunk:
    calls = [
        tool_call_chunk(name=c["name"], args=json.dumps(c["args"], ensure_ascii=False), id=c["id"], index=i)
        for i, c in enumerate(message.tool_calls)
    ]
    chunk = AIMessageChunk(
        content=message.content,
        tool_call_chunks=calls,
        response_metadata=message.response_metadata,
        usage_metadata=message.usage_metadata,
        chunk_position="last",
    )
    return ChatGenerationChunk(message=chunk)
