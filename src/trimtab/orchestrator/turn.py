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
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool

from trimtab.domain import events as ev
from trimtab.domain import ids
from trimtab.domain.model import Profile, TokenCounter
from trimtab.domain.passage import Citation, Passage, Span
from trimtab.domain.tool import Effect

from . import answer, direct, grounding, prompts, reply, request
from .best_of import Prefer, Samples, options_of
from .calls import NO_TOOLS, Call, Toolset, execute, finished, info_of
from .policy import AskEachTime, Policy, Wish
from .shortlist import Shortlist
from .state import State, Turn

READERS = 6
"""Calls that only read and run at the same time."""

PHRASING: dict[str, Any] = {"temperature": 0.0, "max_tokens": 64, "stop": ["\n"]}
"""How a small model is asked to word something: greedily, and one paragraph. What it adds after that is made up."""


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
        self._last_toolset = NO_TOOLS

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
        state = State(started=time.monotonic())
        for event in turn.so_far:
            state.note(event)
        async for event in self._steps(turn, state):
            state.note(event)
            yield event

    async def _steps(self, turn: Turn, state: State) -> AsyncIterator[ev.Event]:
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
            offered = shown if step < self.limits.steps else NO_TOOLS  # the last word is an answer
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
            return NO_TOOLS
        tools = self.tools()
        if not self._last_toolset.same(tools):
            self._last_toolset = Toolset(tools)
        return self._last_toolset

    async def _shown(self, turn: Turn, state: State, toolset: Toolset) -> Toolset:
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

    async def _best(self, turn: Turn, state: State) -> answer.Best:
        if self.search is None or not state.passages:
            return answer.Best((), 0.0)
        query = answer.standalone(turn.question, turn.history)
        sentences = await asyncio.to_thread(self.search.best_sentences, query, state.passages, 3)
        return answer.Best.of(sentences, self.limits.sentence_floor)

    # ------------------------------------------------------------------ asking the model

    async def _ask(self, turn: Turn, state: State, toolset: Toolset, best: answer.Best) -> AsyncIterator[ev.Event]:
        """One call of the model: its words as deltas, its tool calls as requests."""
        began = time.monotonic()
        small = self.profile.grounding == "quote"
        quoting = small and best.supported
        # The question is about the documents and they do not answer it: asked now, a small model makes something up.
        unanswered = small and bool(state.passages) and not best.supported
        model, kwargs = self._model_for(turn, state, toolset, quoting)
        said, draft = reply.Reply(), ""
        messages = request.messages(turn, state, best, self.profile, self.count)
        samples = self._samples(turn, messages, kwargs) if not (quoting or unanswered) else None
        stream = direct.stream(model, messages, kwargs, listened=state.listened)
        drawing = contextlib.aclosing(samples) if samples is not None else contextlib.nullcontext()
        async with contextlib.aclosing(stream), drawing:  # leaving early stops the engine
            async for chunk in stream:
                words = said.take(direct.message_of(chunk))
                if not words:
                    continue
                if unanswered and not said.asks:
                    yield ev.TextDelta(answer.not_found(best.nearest))
                    break
                if quoting and not said.asks:
                    # The quote stands at once; the wording below it is shown when it has been checked.
                    if not draft:
                        yield ev.TextDelta(best.quoted())
                    draft += words
                elif samples is None or said.asks:
                    yield ev.TextDelta(words)
                elif not samples.begun:
                    yield samples.begin()
            calls, invalid = said.calls()
            state.finish_reason = said.reason
            if samples is not None and samples.begun:
                if calls or invalid:
                    yield ev.TextDelta(said.message().text)  # what was said before a call stays as it is
                else:
                    async for event in self._chosen(said, samples, messages, state):
                        yield event
        state.spent["model"] += time.monotonic() - began
        state.usage += said.usage
        called, routing = [call["name"] for call in calls], said.metadata.get("trimtab_routing")
        strategy, again = self.profile.tools, bool(state.calls)
        if looked := reply.considered(called, routing, toolset, strategy, state.picked, again=again):
            yield looked
        step, reasons = len({c.request.step for c in state.calls}), said.metadata.get("trimtab_invalid") or {}
        for event in reply.requests(calls, invalid, reasons, state.toolset, step):
            yield event
        if quoting and not (calls or invalid or said.asks):
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
        first: reply.Reply, samples: Samples, messages: Sequence[BaseMessage], state: State
    ) -> AsyncIterator[ev.Event]:
        """The best of several answers."""
        found, compared = await samples.best(first.message(), messages)
        for other in samples.others():
            state.usage += reply.usage(other)
        state.finish_reason = reply.reason(found.response_metadata)
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
        self, turn: Turn, state: State, toolset: Toolset, quoting: bool
    ) -> tuple[Runnable[Any, Any], dict[str, Any]]:
        kwargs: dict[str, Any] = dict(turn.sampling)
        if quoting:
            kwargs |= PHRASING
        # A model that called wrongly twice gets no third try: it must answer with what there is.
        usable = toolset.tools and state.invalid < 2 and len(state.calls) < self.limits.calls
        return toolset.bound(self.model) if usable else self.model, kwargs

    # ------------------------------------------------------------------ running tools

    async def _run_calls(self, turn: Turn, state: State, toolset: Toolset) -> AsyncIterator[ev.Event]:
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
    def _wish(turn: Turn, state: State, toolset: Toolset, call: Call) -> Wish:
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

    def _approval(self, call: Call, state: State) -> ev.ApprovalNeeded:
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

    async def _close_from_results(self, turn: Turn, state: State) -> AsyncIterator[ev.Event]:
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

    def _finished(self, turn: Turn, state: State, citations: Sequence[Citation] | None) -> ev.TurnFinished:
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
    def _timing(state: State) -> ev.Timing:
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
