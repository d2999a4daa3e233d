"""Several answers to one question, and the one that people would like best.

Nobody sees the answers grow: which one is given is known when all are written. The first is the one the model would
have given; the others are drawn beside it as soon as it is plain that the model answers in its own words (no tool, no
quoting). What reads the same beginning is read once by the engine, so the others cost little more than their own words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from langchain_core.messages import AIMessage, BaseMessage

from trimtab.domain import events as ev
from trimtab.domain.errors import TrimtabError
from trimtab.domain.judgement import Said

MOST = 8
DRAWN = 0.8
"""Temperature of the others where nobody names one: at a small model's own (0.3) they would hardly differ."""


@dataclass(frozen=True)
class Scores:
    """One for each text, higher is better. `by` names the reward model."""

    scores: tuple[float, ...]
    by: str


class Prefer(Protocol):
    """Knows how much people would like an answer."""

    async def __call__(self, prompt: Sequence[Said], texts: Sequence[str]) -> Scores: ...

    async def warm(self) -> None:
        """Load while something else goes on."""
        ...


class Samples:
    """The other answers, drawn while the first is written."""

    def __init__(self, n: int, prefer: Prefer, draw: Callable[[int], Coroutine[Any, Any, AIMessage]]) -> None:
        self.n = n
        self._prefer = prefer
        self._draw = draw
        self._tasks: list[asyncio.Task[AIMessage]] = []
        self._warming: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        return bool(self._tasks)

    def begin(self) -> ev.AnswersSampled:
        self._warming = asyncio.create_task(self._prefer.warm(), name="load the reward model")
        self._tasks = [asyncio.create_task(self._draw(i), name=f"answer {i + 1}") for i in range(1, self.n)]
        return ev.AnswersSampled(self.n)

    async def best(self, first: AIMessage, prompt: Sequence[BaseMessage]) -> tuple[AIMessage, ev.AnswersCompared]:
        """The best; the first when they cannot be compared, and the event says why."""
        drawn = await asyncio.gather(*self._tasks, return_exceptions=True)
        found = [first, *(one for one in drawn if isinstance(one, AIMessage) and one.text.strip())]
        try:
            told = await self._prefer([_said(message) for message in prompt], [one.text for one in found])
        except TrimtabError as error:
            return first, ev.AnswersCompared((), trouble=error.message)
        at = max(range(len(found)), key=told.scores.__getitem__)
        return found[at], ev.AnswersCompared(tuple(round(s, 3) for s in told.scores), at, told.by)

    def others(self) -> list[AIMessage]:
        """The others, as far as they came."""
        done = (task for task in self._tasks if task.done() and not task.cancelled() and task.exception() is None)
        return [task.result() for task in done]

    async def aclose(self) -> None:
        """Stop what is still being written."""
        tasks = [*self._tasks, *([self._warming] if self._warming else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def options_of(options: dict[str, Any], number: int, own: float) -> dict[str, Any]:
    """How the other answer of this number is drawn. `own` is the model's own temperature."""
    changed = {"temperature": max(own, DRAWN), **options}
    if options.get("seed") is not None:
        changed["seed"] = int(options["seed"]) + number
    return changed


def _said(message: BaseMessage) -> Said:
    roles = {"human": "user", "ai": "assistant"}
    return Said(roles.get(message.type, message.type), message.text)
