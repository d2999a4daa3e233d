"""One turn: gather context, ask the model, run tools, answer, cite. A generator of plain events.

A turn can be left at an approval and taken up again, also after a restart: everything it needs to go on is in the
events it has yielded, and `Turn.so_far` folds them back. So there is one code path for both.

Two ways to answer, chosen by the model's profile:

* ``write`` (capable models): the model sees numbered passages and tool results, writes, cites; afterwards numbers and
  names that no source contains are reported with the answer.
* ``quote`` (small models): the best sentences are quoted first, word for word; the model phrases them below, and a
  phrasing that does not keep to them is taken back. A tool's own sentence is told as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool

from trimtab.domain import events as ev
from trimtab.domain import ids
from trimtab.domain.model import EVIDENCE_KEY, QUESTION_KEY, Profile, TokenCounter
from trimtab.domain.passage import Citation, Passage, Span
from trimtab.domain.tool import Effect

from . import answer, direct, grounding, prompts
from .best_of import Prefer, Samples, options_of
from .calls import Call, Toolset, execute, finished, info_of
from .context import Past
from .policy import AskEachTime, Policy, Wish
from .shortlist import Picked, Shortlist

ASKS = "trimtab_asks"
"""Set in a message's `response_metadata` by a guided model that asks for a missing value instead of answering."""

READERS = 6
"""Calls that only read and run at the same time."""

TOLD = 24
"""Tools that a turn says it has looked at, and as many again of those that came next."""

PHRASING: dict[str, Any] = {"temperature": 0.0, "max_tokens": 64, "stop": ["\n"]}
"""How a small model is asked to word something: greedily, and one paragraph. What it adds after that is made up."""

Documents = Literal["auto", "only", "off"]


class Search(Protocol):
    """What a turn needs of retrieval. Both may block: they are called in a thread."""

    def search(self, question: str, owner: str, k: int = ...) -> Sequence[Passage]: ...

    def best_sentences(
        self, question: str, passages: Sequence[Passage], n: int = ...
    ) -> Sequence[tuple[Passage, Span, str, float]]: ...


@dataclass(frozen=True)
class Limits:
    """How far one turn may go. Defaults are taste, except the floors, which were measured (docs/retrieval.md)."""

    steps: int = 8
    """Times the model may ask for tools."""
    calls: int = 16
    passages: int = 4
    passage_floor: float = 0.30
    """Cosine under which a passage is not shown to the model at all."""
    sentence_floor: float = 0.50
    """Cosine of the best sentence under which the documents are said not to answer."""
    approval_seconds: float = 24 * 3600.0
    deadline: float = 300.0
    """Seconds for one run of the turn, waiting for approval not counted."""


@dataclass(frozen=True)
class Turn:
    """What a turn is about. `so_far` are the events it has yielded before, when it goes on."""

    id: str
    owner: str
    question: str
    history: Sequence[tuple[str, str]] = ()
    instructions: str = ""
    """A client's own system text."""
    documents: Documents = "auto"
    tools: bool = True
    best_of: int = 1
    """Answers in the model's own words that are written, of which the best is given."""
    can_approve: bool = True
    """Whether a person is there to approve; where not, actions with effects are refused."""
    so_far: Sequence[ev.Event] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _State:
    """The turn as its events tell it."""

    started: float
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    """Delimits outside text for the whole turn: the same in each request, so that the engine's cache serves it."""
    passages: tuple[Passage, ...] = ()
    searched: bool = False
    calls: list[Call] = field(default_factory=list)
    text: str = ""
    usage: ev.Usage = ev.Usage()
    first_token: float | None = None
    spent: dict[str, float] = field(default_factory=lambda: {"retrieval": 0.0, "model": 0.0, "tools": 0.0})
    finish_reason: str = "stop"
    past: Past | None = None
    toolset: Toolset = field(default_factory=lambda: Toolset(()))
    picked: Picked | None = None
    """Which of the tools the model is shown, where there are too many to show them all."""
    listened: bool = field(default_factory=direct.listened)

    def note(self, event: ev.Event) -> None:
        match event:
            case ev.PassagesFound():
                self.searched, self.passages = True, event.passages if event.used else ()
                self.spent["retrieval"] += event.seconds
            case ev.ToolRequested():
                self.calls.append(Call(event, arguments=event.arguments))
            case ev.ApprovalNeeded():
                self._call(event.call_id).approval_id = event.approval_id
            case ev.ApprovalDecided():
                call = self._call(event.call_id)
                call.decision = event.decision
                call.remembered = event.approval_id if event.remembered else ""
                if event.decision == "approve":
                    call.arguments = event.arguments  # what the person saw or wrote, even if that is nothing
            case ev.ToolFinished():
                self._call(event.call_id).result = event
                self.spent["tools"] += event.seconds
            case ev.TextDelta():
                self.text += event.text
                if self.first_token is None:
                    self.first_token = time.monotonic() - self.started
            case ev.TextReplaced():
                self.text = event.text

    def _call(self, call_id: str) -> Call:
        return next(c for c in self.calls if c.request.call_id == call_id)

    @property
    def open_calls(self) -> list[Call]:
        return [c for c in self.calls if c.result is None]

    @property
    def results(self) -> list[ev.ToolFinished]:
        return [c.result for c in self.calls if c.result is not None]

    @property
    def tainted(self) -> bool:
        """Whether anything from outside has been read in this turn: from now on no remembered approval counts, unless
        it was given for that."""
        return bool(self.passages) or any(r.untrusted for r in self.results)

    @property
    def invalid(self) -> int:
        return sum(r.status is ev.CallStatus.INVALID for r in self.results)


class Orchestrator:
    """Runs turns. Holds no state of any of them."""

    def __init__(
        self,
        model: BaseChatModel,
        profile: Profile,
        *,
        tools: Callable[[], Sequence[BaseTool]] = lambda: (),
        search: Search | None = None,
        count_tokens: TokenCounter | None = None,
        limits: Limits = Limits(),
        prefer: Prefer | None = None,
        policy: Policy = AskEachTime(),
        shortlist: Shortlist | None = None,
    ) -> None:
        self.model = model
        self.profile = profile
        self.tools = tools
        self.search = search
        self.count = count_tokens or (lambda texts: [len(t) // 3 + 1 for t in texts])
        self.limits = limits
        self.prefer = prefer
        self.policy = policy
        self.shortlist = shortlist
        self._last_toolset = Toolset(())

    def speaking(self, model: BaseChatModel, profile: Profile) -> Orchestrator:
        """The same with another model: one version of it answers beside another."""
        other = copy.copy(self)
        other.model, other.profile = model, profile
        return other

    async def run(self, turn: Turn) -> AsyncGenerator[ev.Event, None]:
        """Yield what happens until the turn is finished or waits for an approval.

        It waits when the last event is not a `TurnFinished`. Errors of the model or the engine are raised as they
        are; the caller writes `TurnFailed`.
        """
        state = _State(started=time.monotonic())
        for event in turn.so_far:
            state.note(event)
        async for event in self._steps(turn, state):
            state.note(event)
            yield event

    async def _steps(self, turn: Turn, state: _State) -> AsyncIterator[ev.Event]:
        if not turn.so_far:
            yield ev.TurnStarted(model=self.profile.name, question=turn.question)
        if not state.searched and self.search is not None and turn.documents != "off":
            yield await self._look_up(turn)
        toolset = state.toolset = self._toolset(turn)
        best = await self._best(turn, state)
        if turn.documents == "only" and not best.supported:
            yield ev.TextDelta(answer.not_found(best.nearest))
            yield self._finished(turn, state, ())
            return
        for step in range(self.limits.steps + 1):
            if state.open_calls:
                async for event in self._run_calls(turn, state, toolset):
                    yield event
                if state.open_calls:
                    return  # waiting for a person
            if state.calls and self.profile.grounding == "quote":
                break
            before = len(state.calls)
            shown = await self._shown(turn, state, toolset)
            offered = shown if step < self.limits.steps else Toolset(())  # the last word is an answer
            async for event in self._ask(turn, state, offered, best):
                yield event
            if len(state.calls) == before:
                yield self._finished(turn, state, best.citations if self.profile.grounding == "quote" else None)
                return
        for call in state.open_calls:
            yield finished(call.request, ev.CallStatus.CANCELLED, f"Not run: {self.limits.steps} rounds were used up.")
        async for event in self._close_from_results(turn, state):
            yield event

    def _toolset(self, turn: Turn) -> Toolset:
        """The tools of this turn. While they stay the same, so do their schemas and what the model is shown of them."""
        if not turn.tools or self.profile.tools == "none":
            return Toolset(())
        tools = self.tools()
        if not self._last_toolset.same(tools):
            self._last_toolset = Toolset(tools)
        return self._last_toolset

    async def _shown(self, turn: Turn, state: _State, toolset: Toolset) -> Toolset:
        """The tools that the model is shown: all of them, or those nearest to the question, chosen once a turn so that
        the prompt stays the same from request to request. What was called stays."""
        if self.shortlist is None or self.profile.tools != "native" or len(toolset.tools) <= self.shortlist.enough:
            return toolset
        if state.picked is None:
            query = answer.standalone(turn.question, turn.history)
            state.picked = await asyncio.to_thread(self.shortlist.pick, list(toolset.tools.values()), query)
        return toolset.only([*state.picked.names, *(c.request.tool for c in state.calls)])

    # ------------------------------------------------------------------ looking things up

    async def _look_up(self, turn: Turn) -> ev.PassagesFound:
        assert self.search is not None
        began = time.monotonic()
        query = answer.standalone(turn.question, turn.history)
        found = await asyncio.to_thread(self.search.search, query, turn.owner, self.limits.passages)
        kept = tuple(p for p in found if p.score >= self.limits.passage_floor)
        return ev.PassagesFound(
            passages=kept or tuple(found),
            floor=self.limits.passage_floor,
            used=bool(kept),
            seconds=round(time.monotonic() - began, 4),
        )

    async def _best(self, turn: Turn, state: _State) -> answer.Best:
        if self.search is None or not state.passages:
            return answer.Best((), 0.0)
        query = answer.standalone(turn.question, turn.history)
        sentences = await asyncio.to_thread(self.search.best_sentences, query, state.passages, 3)
        return answer.Best.of(sentences, self.limits.sentence_floor)

    # ------------------------------------------------------------------ asking the model

    async def _ask(self, turn: Turn, state: _State, toolset: Toolset, best: answer.Best) -> AsyncIterator[ev.Event]:
        """One call of the model: its words as deltas, its tool calls as requests."""
        began = time.monotonic()
        small = self.profile.grounding == "quote"
        quoting = small and best.supported
        # The question is about the documents and they do not answer it: asked now, a small model makes something up.
        unanswered = small and bool(state.passages) and not best.supported
        model, kwargs = self._model_for(turn, state, toolset, quoting)
        chunks: list[AIMessageChunk] = []
        draft, asks = "", False
        messages = self._messages(turn, state, best)
        samples = self._samples(turn, messages, kwargs) if not (quoting or unanswered) else None
        stream = direct.stream(model, messages, kwargs, listened=state.listened)
        async with contextlib.AsyncExitStack() as leaving:  # leaving early stops the engine
            leaving.push_async_callback(stream.aclose)
            if samples is not None:
                leaving.push_async_callback(samples.aclose)
            async for chunk in stream:
                piece = direct.message_of(chunk)
                chunks.append(piece)
                asks = asks or bool(piece.response_metadata.get(ASKS))
                if not piece.text:
                    continue
                if unanswered and not asks:
                    yield ev.TextDelta(answer.not_found(best.nearest))
                    break
                if quoting and not asks:
                    # The quote stands at once; the wording below it is shown when it has been checked.
                    if not draft:
                        yield ev.TextDelta(best.quoted())
                    draft += piece.text
                elif samples is None or asks:
                    yield ev.TextDelta(piece.text)
                elif not samples.begun:
                    yield samples.begin()
            message = _joined(chunks)
            state.finish_reason = _reason(message)
            if samples is not None and samples.begun:
                async for event in self._chosen(message, samples, messages, state):
                    yield event
        state.spent["model"] += time.monotonic() - began
        state.usage += _usage(message)
        considered = _considered(message, toolset, self.profile.tools, state.picked)
        if considered and (considered.chosen or not state.calls):  # after results, only what is new
            yield considered
        for event in self._requests(message, state.toolset, step=len({c.request.step for c in state.calls})):
            yield event
        called = message.tool_calls or message.invalid_tool_calls
        if quoting and not called and not asks:
            yield self._phrased(best, draft, turn.question)

    def _samples(self, turn: Turn, messages: Sequence[BaseMessage], kwargs: Mapping[str, Any]) -> Samples | None:
        """The other answers, when several are wanted; drawn without tools, as the first turned out to need none."""
        if turn.best_of < 2 or self.prefer is None:
            return None

        async def draw(number: int) -> AIMessage:
            options = options_of(dict(kwargs), number, self.profile.sampling.temperature)
            return await self.model.ainvoke(list(messages), **options)

        return Samples(turn.best_of, self.prefer, draw)

    @staticmethod
    async def _chosen(
        first: AIMessageChunk, samples: Samples, messages: Sequence[BaseMessage], state: _State
    ) -> AsyncIterator[ev.Event]:
        """The best of several answers; what was said before a call of a tool as it is."""
        if first.tool_calls or first.invalid_tool_calls:
            yield ev.TextDelta(first.text)
            return
        found, compared = await samples.best(first, messages)
        for other in samples.others():
            state.usage += _usage(other)
        state.finish_reason = _reason(found)
        yield compared
        yield ev.TextDelta(found.text)

    @staticmethod
    def _phrased(best: answer.Best, draft: str, question: str) -> ev.Event:
        """The wording below the quote if it keeps to the quoted sentences, else a word about why there is none."""
        if not draft:
            return ev.TextDelta(best.quoted())
        if reason := grounding.keeps_to(draft, best.texts(), question):
            return ev.TextReplaced(best.quoted(), f"The model's own wording was left out: {reason}.")
        mark = "" if grounding.cited_numbers(draft) else f" [{best.citations[0].number}]"
        return ev.TextDelta(f"\n\n{draft.strip()}{mark}")

    def _model_for(
        self, turn: Turn, state: _State, toolset: Toolset, quoting: bool
    ) -> tuple[Runnable[Any, Any], dict[str, Any]]:
        kwargs: dict[str, Any] = dict(turn.sampling)
        if quoting:
            kwargs |= PHRASING
        # A model that called wrongly twice gets no third try: it must answer with what there is.
        usable = toolset.tools and state.invalid < 2 and len(state.calls) < self.limits.calls
        return toolset.bound(self.model) if usable else self.model, kwargs

    def _messages(self, turn: Turn, state: _State, best: answer.Best) -> list[BaseMessage]:
        writing = self.profile.grounding == "write"
        head = self._head(turn, plain=not best.supported)
        content, evidence = turn.question, 0.0
        if state.passages and writing:
            content = prompts.WRITE.format(
                question=turn.question, passages=prompts.numbered(state.passages, state.mark)
            )
        elif best.supported:
            content, evidence = prompts.QUOTE.format(text=best.surroundings(), question=turn.question), best.score
        last = HumanMessage(content, additional_kwargs={QUESTION_KEY: turn.question, EVIDENCE_KEY: evidence})
        steps = self._tool_messages(state)
        used = sum(self.count([content, *(m.text for m in steps)])) + self.profile.sampling.max_tokens + 256
        # A small model answers a document's question best from the text alone.
        if state.past is None:
            history = () if best.supported and not writing else turn.history
            state.past = Past(history, turn.owner, self.count)
        return [*head, *state.past.within(self.profile.context_tokens - used), last, *steps]

    def _head(self, turn: Turn, *, plain: bool) -> list[BaseMessage]:
        """The system message. A small model gets one only for plain talk, and only what the client says: with a
        passage it answers worse under any system text."""
        if not self.profile.system_role:
            return []
        if self.profile.grounding == "write":
            return [SystemMessage("\n\n".join(filter(None, (prompts.SYSTEM, turn.instructions))))]
        return [SystemMessage(turn.instructions)] if turn.instructions and plain else []

    def _tool_messages(self, state: _State) -> list[BaseMessage]:
        messages: list[BaseMessage] = []
        for step in sorted({c.request.step for c in state.calls}):
            calls = [c for c in state.calls if c.request.step == step and c.result is not None]
            messages.append(
                AIMessage(
                    "",
                    tool_calls=[
                        {"name": c.request.tool, "args": dict(c.request.arguments), "id": c.request.call_id}
                        for c in calls
                    ],
                )
            )
            for call in calls:
                message = call.message()
                if call.result is not None and call.result.untrusted and self.profile.grounding == "write":
                    message.content = prompts.as_data(message.text, state.mark)
                messages.append(message)
        return messages

    @staticmethod
    def _requests(message: AIMessageChunk, toolset: Toolset, step: int) -> Iterator[ev.Event]:
        for call in message.tool_calls:
            tool = toolset.tools.get(call["name"])
            info = info_of(tool) if tool else None
            yield ev.ToolRequested(
                call_id=ids.new("call"),
                tool=call["name"],
                connector=info.connector if info else "",
                arguments=call["args"],
                effect=str(info.effect if info else Effect.READ),
                step=step,
            )
        for broken in message.invalid_tool_calls:
            request = ev.ToolRequested(ids.new("call"), str(broken.get("name") or "?"), "", {}, Effect.READ, step)
            yield request
            # LangChain drops a broken call's own `error` when it joins chunks; the metadata survives.
            reasons = message.response_metadata.get("trimtab_invalid") or {}
            reason = reasons.get(broken.get("id")) or broken.get("error") or "its arguments are not a JSON object"
            yield finished(request, ev.CallStatus.INVALID, f"The call could not be used: {reason}")

    # ------------------------------------------------------------------ running tools

    async def _run_calls(self, turn: Turn, state: _State, toolset: Toolset) -> AsyncIterator[ev.Event]:
        """Bring every open call as far as it can get: run, refuse, or ask a person."""
        ready: list[Call] = []
        for call in state.calls[self.limits.calls :]:
            if call.result is None:
                text = f"One turn makes at most {self.limits.calls} calls; this one was not made."
                yield finished(call.request, ev.CallStatus.CANCELLED, text)
        for call in state.open_calls:
            fault = toolset.fault(call.request.tool, call.arguments)
            if fault:
                yield finished(call.request, ev.CallStatus.INVALID, fault)
            elif toolset.effect(call.request.tool) is Effect.READ or call.decision == "approve":
                ready.append(call)
            elif call.decision:
                text = (
                    "The person did not allow this." if call.decision == "reject" else "Nobody approved this in time."
                )
                yield finished(call.request, ev.CallStatus.REJECTED, text)
            elif refusal := await self.policy.refusal(info_of(toolset.tools[call.request.tool])):
                yield finished(call.request, ev.CallStatus.ERROR, refusal)
            elif not turn.can_approve:
                text = "This changes something outside and needs a person's approval, which cannot be given here."
                yield finished(call.request, ev.CallStatus.REJECTED, text)
            elif not call.approval_id:
                if known := await self.policy.remembered(self._wish(turn, state, toolset, call)):
                    asked = call.request.call_id
                    yield ev.ApprovalDecided(known, asked, "approve", call.arguments, remembered=True)
                    ready.append(call)
                else:
                    yield self._approval(call, state)
        readers = [c for c in ready if toolset.effect(c.request.tool) is Effect.READ]
        if len(readers) > 1:
            room = asyncio.Semaphore(READERS)
            tasks = [asyncio.create_task(_within(room, toolset, c, state.listened)) for c in readers]
            try:
                for done in asyncio.as_completed(tasks):
                    yield await done
            finally:
                for task in tasks:
                    task.cancel()
        for call in ready:  # what has effects runs alone and in order
            if len(readers) == 1 or call not in readers:
                yield await execute(toolset, call, listened=state.listened)

    @staticmethod
    def _wish(turn: Turn, state: _State, toolset: Toolset, call: Call) -> Wish:
        return Wish(
            owner=turn.owner,
            turn=turn.id,
            connector=call.request.connector,
            tool=call.request.tool,
            definition=toolset.definition(call.request.tool),
            effect=toolset.effect(call.request.tool),
            arguments=call.arguments,
            tainted=state.tainted,
            used=frozenset(c.remembered for c in state.calls if c.remembered),
        )

    def _approval(self, call: Call, state: _State) -> ev.ApprovalNeeded:
        effect = call.request.effect
        reason = "This cannot be undone." if effect == Effect.IRREVERSIBLE else "This changes something outside."
        if state.tainted:
            reason += " The assistant has read outside content in this turn: check that this is what you want."
        return ev.ApprovalNeeded(
            approval_id=ids.new("apr"),
            call_id=call.request.call_id,
            tool=call.request.tool,
            connector=call.request.connector,
            arguments=call.arguments,
            effect=effect,
            reason=reason,
            expires_at=time.time() + self.limits.approval_seconds,
        )

    # ------------------------------------------------------------------ finishing

    async def _close_from_results(self, turn: Turn, state: _State) -> AsyncIterator[ev.Event]:
        """Answer from what the tools said: in their own sentences, or phrased by the model and checked."""
        results = state.results
        citations = answer.cite_results(results)
        if told := answer.tell(results, citations):
            yield ev.TextDelta(told)
            yield self._finished(turn, state, citations)
            return
        source = "\n".join(r.text for r in results if r.status is ev.CallStatus.OK)[:1500]
        prompt = HumanMessage(prompts.QUOTE.format(text=source, question=turn.question))
        began = time.monotonic()
        draft = (await self.model.ainvoke([prompt], **PHRASING)).text
        state.spent["model"] += time.monotonic() - began
        if reason := grounding.keeps_to(draft, [source], turn.question):
            quoted = answer.quote_result(results, citations)
            yield ev.TextReplaced(quoted, f"The model's own wording was left out: {reason}.")
        else:
            yield ev.TextDelta(draft.strip() + (f" [{citations[0].number}]" if citations else ""))
        yield self._finished(turn, state, citations)

    def _finished(self, turn: Turn, state: _State, citations: Sequence[Citation] | None) -> ev.TurnFinished:
        """`citations=None`: read them from the answer's own [n] marks (models that write)."""
        doubtful: tuple[str, ...] = ()
        if citations is None:
            citations = answer.cited(state.text, state.passages)
            if sources := [p.text for p in state.passages] + [r.text for r in state.results]:
                doubtful = grounding.unsupported(state.text, sources, turn.question)
        used = list(dict.fromkeys(c.request.connector for c in state.calls if c.result and c.request.connector))
        return ev.TurnFinished(
            status=ev.TurnStatus.DONE,
            text=state.text,
            citations=tuple(citations),
            usage=state.usage,
            timing=self._timing(state),
            lineage=ev.Lineage(
                model=self.profile.name,
                version=self.profile.version,
                prompt_version=prompts.VERSION,
                connectors={name: state.toolset.version(name) for name in used},
                passages=tuple(p.id for p in state.passages),
            ),
            # The calls the last message asked for have been made: the turn itself came to its end.
            finish_reason="stop" if state.finish_reason == "tool_calls" else state.finish_reason,
            unsupported=doubtful,
        )

    @staticmethod
    def _timing(state: _State) -> ev.Timing:
        rounded = {name: round(seconds, 4) for name, seconds in state.spent.items()}
        first = None if state.first_token is None else round(state.first_token, 4)
        return ev.Timing(total=round(time.monotonic() - state.started, 4), first_token=first, **rounded)


def cancelled(text: str, profile: Profile) -> ev.TurnFinished:
    """The last event of a turn that was stopped: what there was, marked as such."""
    return ev.TurnFinished(
        status=ev.TurnStatus.CANCELLED,
        text=text,
        lineage=ev.Lineage(model=profile.name, version=profile.version, prompt_version=prompts.VERSION),
        finish_reason="cancelled",
    )


async def _within(room: asyncio.Semaphore, toolset: Toolset, call: Call, listened: bool) -> ev.ToolFinished:
    async with room:
        return await execute(toolset, call, listened=listened)


def _joined(chunks: Sequence[AIMessageChunk]) -> AIMessageChunk:
    if not chunks:
        return AIMessageChunk(content="")
    return chunks[0] + list(chunks[1:])


def _reason(message: AIMessage) -> str:
    return str(message.response_metadata.get("finish_reason") or "stop")


def _usage(message: AIMessage) -> ev.Usage:
    usage = message.usage_metadata
    if not usage:
        return ev.Usage()
    cached = (usage.get("input_token_details") or {}).get("cache_read", 0)
    return ev.Usage(usage["input_tokens"], usage["output_tokens"], cached or 0)


def _considered(
    message: AIMessage, toolset: Toolset, strategy: str, picked: Picked | None
) -> ev.ToolsConsidered | None:
    routing = message.response_metadata.get("trimtab_routing")
    chosen = tuple(c["name"] for c in message.tool_calls)
    if routing:
        offered = tuple(ev.Considered(o["name"], float(o["score"]), str(o["reason"])) for o in routing["offered"])
        called = tuple(routing["chosen"])
        shown = tuple(one for rank, one in enumerate(offered) if rank < TOLD or one.name in called)  # best first
        left = tuple(one for one in offered[TOLD : 2 * TOLD] if one.name not in called)
        return ev.ToolsConsidered("guided", shown, called, routing.get("threshold"), left, len(offered))
    if not toolset.tools:
        return None
    scores = picked.scores if picked else {}
    told = tuple(
        ev.Considered(
            name, scores.get(name, 1.0), "called by the model" if name in chosen else "not called by the model"
        )
        for name in toolset.tools
    )
    left = tuple(one for one in picked.left_out if one.name not in toolset.tools) if picked else ()
    installed = picked.installed if picked else len(told)
    return ev.ToolsConsidered(strategy, told, chosen, None, left, installed)
