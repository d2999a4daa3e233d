"""What the gate asks of served versions: questions for tools, and questions about passages.

Both sets ship (``data/gate``), are invented, and are in no training split. Tools are recorded: they say what is written
beside the question, so nothing outside is asked and both versions hear the same. `works/turns.py` asks; here is what
is asked, and when an answer is right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .bundled import DATA
from .probing import declines

GATE = DATA / "gate"
_NOT_THERE = re.compile(r"\b(?:not|no|cannot|nothing|none|unknown|unclear)\b|n['’]t\b", re.IGNORECASE)


@dataclass(frozen=True)
class ToolQuestion:
    id: str
    question: str
    tool: str
    """Empty: it is to be answered without one."""
    arguments: Mapping[str, Sequence[Any]]
    """Of each argument the values that are right."""
    result: str
    """What the tool says, recorded."""
    told: tuple[str, ...]
    """What the answer has to say of it."""

    def right(self, calls: Sequence[tuple[str, Mapping[str, Any]]], answer: str, *, invented: bool = False) -> bool:
        """Whether a turn came out right: these calls and no others, and an answer that says what the tool said.

        Args:
            invented: the answer brings numbers or names that neither tool nor question had.
        """
        if not self.tool:
            return not calls and bool(answer.strip()) and not declines(answer)
        return self._called(calls) and not invented and _says(answer, self.told)

    def _called(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> bool:
        if [name for name, _ in calls] != [self.tool]:
            return False
        given = calls[0][1]
        return set(given) == set(self.arguments) and all(
            any(_plain(given[name]) == _plain(value) for value in values) for name, values in self.arguments.items()
        )


@dataclass(frozen=True)
class CitedQuestion:
    id: str
    title: str
    passage: str
    question: str
    answer: tuple[str, ...]
    """What the answer has to say; empty when no passage answers."""

    def right(self, cited: Collection[str], answer: str, *, invented: bool = False) -> bool:
        """Whether an answer is right: it says what the passage says and cites it, or, where no passage answers, it
        says so or at least makes nothing up; without a citation.

        Args:
            cited: titles of the passages it cites.
            invented: the answer brings numbers or names that neither passage nor question had.
        """
        if not self.answer:
            return not cited and bool(answer.strip()) and (not invented or bool(_NOT_THERE.search(answer)))
        return self.title in cited and not invented and _says(answer, self.answer)


def tool_declarations() -> list[dict[str, Any]]:
    """The tools: ``name``, ``description``, ``examples`` and ``parameters`` (a JSON schema)."""
    found: list[dict[str, Any]] = json.loads((GATE / "tools.json").read_text("utf-8"))
    return found


def tool_questions() -> list[ToolQuestion]:
    """In an order in which every part of the set asks with and without a tool."""
    return [ToolQuestion(**{**row, "told": tuple(row["told"])}) for row in _rows("tool_questions.jsonl")]


def cited_questions() -> list[CitedQuestion]:
    """About fifteen passages, two questions each; nine are not answered by any."""
    return [CitedQuestion(**{**row, "answer": tuple(row["answer"])}) for row in _rows("cited_questions.jsonl")]


def _rows(name: str) -> Iterator[dict[str, Any]]:
    for line in (GATE / name).read_text("utf-8").splitlines():
        yield json.loads(line)


def _says(answer: str, wanted: Sequence[str]) -> bool:
    return all(part.casefold() in answer.casefold() for part in wanted)


def _plain(value: Any) -> Any:
    """Case and a final full stop are no difference."""
    if isinstance(value, str):
        return value.casefold().strip().rstrip(".?!")
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return {key: _plain(one) for key, one in value.items()} if isinstance(value, dict) else value
