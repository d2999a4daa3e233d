"""What the model is shown: the thread cut to fit, then this question with what was found for it."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from trimtab.domain.model import TokenCounter

CHARS_A_TOKEN_AT_LEAST = 1.5
"""No ordinary text has fewer characters a token; so a text this short needs no exact counting."""
MESSAGE_OVERHEAD = 8
"""Tokens a chat template puts around one message; 5-7 in the templates we looked at."""


def trim(history: Sequence[tuple[str, str]], budget: int, count: TokenCounter) -> Sequence[tuple[str, str]]:
    """The newest part of a thread that fits in `budget` tokens, in whole question-answer pairs, oldest first.

    When something must go, enough goes to free a quarter of the budget, so that the beginning of the prompt (and with
    it the engine's cache) stays the same for the next turns instead of shifting each time.
    """
    if not history or budget <= 0:
        return ()
    texts = [text for _, text in history]
    if sum(len(t) / CHARS_A_TOKEN_AT_LEAST + MESSAGE_OVERHEAD for t in texts) <= budget:
        return history
    sizes = [n + MESSAGE_OVERHEAD for n in count(texts)]
    pairs = _pairs(history)
    total = sum(sizes)
    if total <= budget:
        return history
    first = 0
    while first < len(pairs) and total > budget * 3 // 4:
        total -= sum(sizes[i] for i in pairs[first])
        first += 1
    return [history[i] for pair in pairs[first:] for i in pair]


def as_messages(history: Sequence[tuple[str, str]]) -> list[BaseMessage]:
    """Stored ``(role, text)`` as LangChain messages; answers that were cut off before their first word are left out
    together with their question."""
    out: list[BaseMessage] = []
    for role, text in history:
        if role == "user":
            out.append(HumanMessage(text))
        elif text:
            out.append(AIMessage(text))
        elif out and isinstance(out[-1], HumanMessage):
            out.pop()
    return out


def _pairs(history: Sequence[tuple[str, str]]) -> list[list[int]]:
    """Indexes grouped so that each group begins with a question."""
    groups: list[list[int]] = []
    for index, (role, _) in enumerate(history):
        if role == "user" or not groups:
            groups.append([index])
        else:
            groups[-1].append(index)
    return groups
