"""A served version on the gate's questions: what it makes of tools and of passages, with nothing outside asked.

The orchestrator that answers people runs the turns, with the engine, the adapter and the way of calling tools that
serve. A capable model calls tools and writes cited answers itself: its whole turns are looked at. A small one is guided
(the router picks the tool, rules read the arguments) and its sources are quoted, whichever version answers, so that a
whole turn would say next to nothing about the version. What it has its say in is looked at instead: what it says when
no tool is needed, and its own words for a tool's result or a passage, asked as the orchestrator asks for them, before
the check that leaves them out when they do not keep to it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

import numpy as np
from langchain_core.messages import HumanMessage
from langchain_core.tools import BaseTool, StructuredTool

from trimtab.align.gate_questions import CitedQuestion, ToolQuestion, tool_declarations
from trimtab.domain import events as ev
from trimtab.domain.passage import Citation, Passage, Span
from trimtab.domain.tool import METADATA_KEY, Effect, ToolInfo, ToolOutcome
from trimtab.llm.served import Served, Spoken
from trimtab.orchestrator import grounding, prompts
from trimtab.orchestrator.state import Turn
from trimtab.orchestrator.turn import PHRASING, Orchestrator
from trimtab.retrieval.contracts import Encoder
from trimtab.retrieval.search import Quote, best_sentences

AT_ONCE = 4
SAMPLING = {"temperature": 0.0, "max_tokens": 32}
"""The same words each time; enough of an answer to see whether it is one."""
WORDING = {**PHRASING, "max_tokens": 40}


class FixedPassages:
    """A search over passages that are given, ranked as the library ranks: by cosine."""

    def __init__(self, encoder: Encoder, texts: Mapping[str, str]) -> None:
        self._encoder = encoder
        self._passages = [
            Passage(id=title, document_id=title, name=title, text=text, span=Span(0, len(text)))
            for title, text in texts.items()
        ]
        self._vectors = encoder.encode(list(texts.values())) if texts else np.zeros((0, 1))

    def search(self, question: str, owner: str, k: int = 4) -> list[Passage]:
        scores = self._vectors @ self._encoder.encode([question])[0]
        best = sorted(zip(scores.tolist(), self._passages, strict=True), key=lambda pair: -pair[0])[:k]
        return [Passage(**{**vars(passage), "score": score}) for score, passage in best]

    def best_sentences(self, question: str, passages: Sequence[Passage], n: int = 3) -> list[Quote]:
        return best_sentences(self._encoder, question, passages, n)


async def tool_turns(served: Served, spoken: Spoken, questions: Sequence[ToolQuestion]) -> list[bool]:
    """Which questions came out right."""

    async def asked(question: ToolQuestion) -> bool:
        tools = recorded_tools(question)
        orchestrator = Orchestrator(spoken.model, spoken.profile, tools=lambda: tools, count_tokens=served.count)
        turn = Turn(question.id, "gate", question.question, documents="off", sampling=SAMPLING)
        found = await _events(orchestrator, turn, until=() if _writes(spoken) else (ev.ToolFinished,))
        calls = [(one.tool, one.arguments) for one in found if isinstance(one, ev.ToolRequested)]
        if _writes(spoken) or not calls:
            answer = _text(found)
        else:
            answer = await _own_words(spoken, question.result, question.question)
        invented = bool(calls and grounding.unsupported(answer, [question.result], question.question))
        return question.right(calls, answer, invented=invented)

    return await _several([asked(question) for question in questions])


async def cited_turns(
    served: Served, spoken: Spoken, questions: Sequence[CitedQuestion], search: FixedPassages
) -> list[bool]:
    """Which questions about passages were answered rightly."""
    orchestrator = Orchestrator(spoken.model, spoken.profile, search=search, count_tokens=served.count)

    async def asked(question: CitedQuestion) -> bool:
        if _writes(spoken):
            turn = Turn(question.id, "gate", question.question, tools=False, sampling=SAMPLING)
            found = await _events(orchestrator, turn)
            answer, cited = _text(found), {one.title for one in _citations(found)}
        else:
            # The quote carries the citation, or there is none.
            answer = await _own_words(spoken, question.passage, question.question)
            cited = {question.title} if question.answer else set()
        invented = bool(grounding.unsupported(answer, [question.passage, question.title], question.question))
        return question.right(cited, answer, invented=invented)

    return await _several([asked(question) for question in questions])


def _writes(spoken: Spoken) -> bool:
    return spoken.profile.grounding == "write"


async def _own_words(spoken: Spoken, source: str, question: str) -> str:
    message = HumanMessage(prompts.QUOTE.format(text=source, question=question))
    return str((await spoken.bare.ainvoke([message], **WORDING)).text).strip()


def recorded_tools(question: ToolQuestion) -> list[BaseTool]:
    """All the gate's tools: the one that the question is for says what was recorded, the others know nothing."""
    return [
        _recorded(one, question.result if one["name"] == question.tool else "There is nothing to say about that.")
        for one in tool_declarations()
    ]


def _recorded(declared: Mapping[str, Any], result: str) -> BaseTool:
    async def run(**arguments: Any) -> tuple[str, ToolOutcome]:
        return result, ToolOutcome(result)

    name, description = str(declared["name"]), str(declared["description"])
    info = ToolInfo(name, description, "gate", effect=Effect.READ, examples=tuple(declared["examples"]))
    return StructuredTool(
        name=name,
        description=description,
        args_schema=dict(declared["parameters"]),
        coroutine=run,
        response_format="content_and_artifact",
        metadata={METADATA_KEY: info},
    )


async def _events(orchestrator: Orchestrator, turn: Turn, until: tuple[type[ev.Event], ...] = ()) -> list[ev.Event]:
    """A turn's events, to its end or to the first of the kinds in `until`."""
    found: list[ev.Event] = []
    async with contextlib.aclosing(orchestrator.run(turn)) as events:
        async for event in events:
            found.append(event)
            if isinstance(event, until):
                break
    return found


def _text(found: Sequence[ev.Event]) -> str:
    end = found[-1]
    return end.text if isinstance(end, ev.TurnFinished) else ""


def _citations(found: Sequence[ev.Event]) -> Sequence[Citation]:
    end = found[-1]
    return end.citations if isinstance(end, ev.TurnFinished) else ()


async def _several(turns: Sequence[Awaitable[bool]]) -> list[bool]:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(turn: Awaitable[bool]) -> bool:
        async with room:
            return await turn

    return list(await asyncio.gather(*map(one, turns)))
