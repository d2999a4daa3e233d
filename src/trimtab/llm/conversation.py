"""Messages as guided tool calling sees them: what the person said, and what tools answered to the last of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from ..domain.model import EVIDENCE_KEY, QUESTION_KEY
from .plan import Turn

FROM_RESULTS = "{results}\n\nUsing the text above, answer: {question}"
"""For small models: the text first, then the question (measured 9-13 of 15; other layouts less)."""
_MAX_RESULT = 4000
"""Characters of one result that a small model is shown."""


@dataclass(frozen=True)
class Conversation:
    """`turns` end with the person's last message; `after` is what came since: calls and their results."""

    messages: tuple[BaseMessage, ...]
    turns: tuple[Turn, ...]
    last: int
    evidence: float = 0.0
    """How well the person's documents answer the last message, as far as whoever asks has said so."""

    @classmethod
    def of(cls, messages: Sequence[BaseMessage]) -> Conversation:
        turns: list[Turn] = []
        before, last, evidence = "", -1, 0.0
        for index, message in enumerate(messages):
            if isinstance(message, HumanMessage):
                typed = message.additional_kwargs.get(QUESTION_KEY)
                turns.append(Turn(typed if isinstance(typed, str) else message.text, before))
                score = message.additional_kwargs.get(EVIDENCE_KEY)
                before, last, evidence = "", index, float(score) if isinstance(score, int | float) else 0.0
            elif isinstance(message, AIMessage) and message.text:
                before = message.text
        return cls(tuple(messages), tuple(turns), last, evidence)

    @property
    def after(self) -> tuple[BaseMessage, ...]:
        return self.messages[self.last + 1 :]

    @property
    def results(self) -> list[ToolMessage]:
        """Tool results for the person's last message."""
        return [m for m in self.after if isinstance(m, ToolMessage)]

    @property
    def called(self) -> set[str]:
        """Names of the tools that have been called for the person's last message."""
        return {c["name"] for m in self.after if isinstance(m, AIMessage) for c in m.tool_calls} | {
            m.name for m in self.results if m.name
        }

    def without_calls(self) -> list[BaseMessage]:
        """The messages for a model whose template knows no tools: results become text of the person's message."""
        kept: list[BaseMessage] = []
        for index, message in enumerate(self.messages):
            if isinstance(message, ToolMessage) or (isinstance(message, AIMessage) and not message.text):
                continue
            if isinstance(message, AIMessage) and message.tool_calls:
                message = AIMessage(message.text)
            if index == self.last and self.results:
                texts = "\n\n".join(m.text[:_MAX_RESULT] for m in self.results)
                message = HumanMessage(FROM_RESULTS.format(results=texts, question=message.text))
            kept.append(message)
        return kept
