"""What the model is shown: the thread cut to fit, then this question with what was found for it."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from trimtab.domain.model import TokenCounter

CHARS_A_TOKEN_AT_LEAST = 1.5
"""No ordinary text has fewer characters a token; so a text this short needs no exact counting."""
SHARED_CHARS = 4000
"""Longer messages are not kept between turns."""
COUNTED_AT_ONCE = 32
MESSAGE_OVERHEAD = 8
"""Tokens a chat template puts around one message; 5-7 in the templates we looked at."""


class Past:
    """A thread up to a question. What is counted or made of it is done once a turn, and from its end: a long thread
    costs no more than what of it fits."""

    def __init__(self, history: Sequence[tuple[str, str]], owner: str, count: TokenCounter) -> None:
        self._history = history
        self._owner = owner
        self._count = count
        self._sizes: list[int] = []
        """Tokens of the newest messages, newest first, as far as they were asked for."""
        self._made: tuple[int, list[BaseMessage]] = (len(history), [])

    def within(self, budget: int) -> list[BaseMessage]:
        """The newest part that fits in `budget` tokens, from a question on, oldest first.

        What does not fit goes in steps of up to a quarter of what fits, counted from the thread's beginning: so the
        prompt keeps its beginning (and the engine's cache its use) for some turns instead of shifting with each.
        """
        first = self._first(budget)
        if self._made[0] != first:
            self._made = first, as_messages(self._history[first:], self._owner)
        return self._made[1]

    def _first(self, budget: int) -> int:
        """The index of the first message that is shown."""
        if self._fits_surely(budget):
            return 0
        fitting = self._fitting(budget)
        dropped = len(self._history) - fitting
        if not dropped:
            return 0
        step = 1 << max(0, (fitting // 4).bit_length() - 1)
        first = -(-dropped // step) * step
        while first < len(self._history) and self._history[first][0] != "user":
            first += 1
        return first

    def _fits_surely(self, budget: int) -> bool:
        """Whether the whole thread fits however its text is counted."""
        left: float = budget
        for _, text in reversed(self._history):
            left -= len(text) / CHARS_A_TOKEN_AT_LEAST + MESSAGE_OVERHEAD
            if left < 0:
                return False
        return True

    def _fitting(self, budget: int) -> int:
        """How many of the newest messages fit."""
        for number in range(len(self._history)):
            if number == len(self._sizes):
                self._count_more()
            budget -= self._sizes[number]
            if budget < 0:
                return number
        return len(self._history)

    def _count_more(self) -> None:
        end = len(self._history) - len(self._sizes)
        texts = [text for _, text in self._history[max(0, end - COUNTED_AT_ONCE) : end]]
        self._sizes += [n + MESSAGE_OVERHEAD for n in reversed(self._count(texts))]


def as_messages(history: Sequence[tuple[str, str]], owner: str = "") -> list[BaseMessage]:
    """Stored ``(role, text)`` as LangChain messages; answers that were cut off before their first word are left out
    together with their question."""
    out: list[BaseMessage] = []
    for role, text in history:
        if role == "user" or text:
            out.append(message(owner, role, text))
        elif out and isinstance(out[-1], HumanMessage):
            out.pop()
    return out


def message(owner: str, role: str, text: str) -> BaseMessage:
    """What somebody said (``user``, ``assistant``) or what stands above it (``system``).

    Making a hundred messages takes longer than all else in a turn, and they are the same ones each time. So they are
    shared, within one owner only, lest a model adapter that writes on its input carries anything from person to person.
    """
    return _shared(owner, role, text) if len(text) <= SHARED_CHARS else _new(role, text)


def _new(role: str, text: str) -> BaseMessage:
    match role:
        case "user":
            return HumanMessage(text)
        case "system":
            return SystemMessage(text)
        case _:
            return AIMessage(text)


@functools.lru_cache(4096)
def _shared(_owner: str, role: str, text: str) -> BaseMessage:
    return _new(role, text)
