"""What the model is shown: the thread cut to fit, then this question with what was found for it."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from trimtab.domain.model import TokenCounter

CHARS_A_TOKEN_AT_LEAST = 1.5
"""No ordinary text has fewer characters a token; so a text this short needs no exact counting."""
SHARED_CHARS = 4000
"""Longer messages are not kept between turns."""
MESSAGE_OVERHEAD = 8
"""Tokens a chat template puts around one message; 5-7 in the templates we looked at."""


class Past:
    """A thread up to a question. What is counted or made of it is done once a turn."""

    def __init__(self, history: Sequence[tuple[str, str]], owner: str, count: TokenCounter) -> None:
        self._history = history
        self._owner = owner
        self._count = count
        self._at_most = sum(len(text) / CHARS_A_TOKEN_AT_LEAST + MESSAGE_OVERHEAD for _, text in history)
        self._sizes: list[int] = []
        self._made: tuple[int, list[BaseMessage]] = (0, [])

    def within(self, budget: int) -> list[BaseMessage]:
        """The newest part that fits in `budget` tokens, in whole question-answer pairs, oldest first.

        When something must go, enough goes to free a quarter of the budget, so that the beginning of the prompt (and
        with it the engine's cache) stays the same for the next turns instead of shifting each time.
        """
        first = self._first(budget)
        if self._made[0] != len(self._history) - first:
            self._made = len(self._history) - first, as_messages(self._history[first:], self._owner)
        return self._made[1]

    def _first(self, budget: int) -> int:
        """The index of the first message that is shown."""
        if budget <= 0:
            return len(self._history)
        if self._at_most <= budget:
            return 0
        if not self._sizes:
            self._sizes = [n + MESSAGE_OVERHEAD for n in self._count([text for _, text in self._history])]
        total = sum(self._sizes)
        if total <= budget:
            return 0
        for pair in _pairs(self._history):
            total -= sum(self._sizes[i] for i in pair)
            if total <= budget * 3 // 4:
                return pair[-1] + 1
        return len(self._history)


def as_messages(history: Sequence[tuple[str, str]], owner: str = "") -> list[BaseMessage]:
    """Stored ``(role, text)`` as LangChain messages; answers that were cut off before their first word are left out
    together with their question."""
    out: list[BaseMessage] = []
    for role, text in history:
        if role == "user" or text:
            out.append(_message(owner, role, text) if len(text) <= SHARED_CHARS else _new(role, text))
        elif out and isinstance(out[-1], HumanMessage):
            out.pop()
    return out


def _new(role: str, text: str) -> BaseMessage:
    return HumanMessage(text) if role == "user" else AIMessage(text)


@functools.lru_cache(4096)
def _message(_owner: str, role: str, text: str) -> BaseMessage:
    """Making a hundred messages takes longer than all else in a turn, and they are the same ones each time. Shared
    within one owner only, lest a model adapter that writes on its input carries anything from person to person."""
    return _new(role, text)


def _pairs(history: Sequence[tuple[str, str]]) -> list[list[int]]:
    """Indexes grouped so that each group begins with a question."""
    groups: list[list[int]] = []
    for index, (role, _) in enumerate(history):
        if role == "user" or not groups:
            groups.append([index])
        else:
            groups[-1].append(index)
    return groups
