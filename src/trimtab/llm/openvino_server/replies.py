"""The protocol's shapes of an answer, whole and in pieces, for chat and for plain completion."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .text import Vocabulary

_LEAST = -1e4


def _log(value: float) -> float:
    return value if math.isfinite(value) else _LEAST


@dataclass
class Usage:
    prompt: int
    cached: int = 0
    answer: int = 0

    def wire(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.answer,
            "total_tokens": self.prompt + self.answer,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


@dataclass
class Shape:
    """How one request's answers are written down."""

    model: str
    chat: bool
    vocabulary: Vocabulary
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def first(self, index: int) -> dict[str, Any] | None:
        """The piece that opens a chat answer's stream."""
        if not self.chat:
            return None
        return self._piece({"index": index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None})

    def piece(self, index: int, text: str, logprobs: Any, end: str | None) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "finish_reason": end}
        choice |= {"delta": {"content": text} if text else {}} if self.chat else {"text": text}
        if logprobs is not None:
            choice["logprobs"] = logprobs
        return self._piece(choice)

    def closing(self, usage: Usage) -> dict[str, Any]:
        return {**self._head(piece=True), "choices": [], "usage": usage.wire()}

    def whole(self, choices: list[dict[str, Any]], usage: Usage) -> dict[str, Any]:
        return {**self._head(piece=False), "choices": choices, "usage": usage.wire()}

    def choice(self, index: int, text: str, logprobs: Any, end: str) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "finish_reason": end}
        choice |= {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        if logprobs is not None:
            choice["logprobs"] = logprobs
        return choice

    def logprobs(self, tokens: Sequence[int], values: Sequence[float]) -> dict[str, Any]:
        texts = [self.vocabulary.of(t) for t in tokens]
        names = [t.decode("utf-8", "replace") for t in texts]
        numbers = [_log(v) for v in values]
        if not self.chat:
            return {"tokens": names, "token_logprobs": numbers, "top_logprobs": None}
        return {
            "content": [
                {"token": name, "logprob": number, "bytes": list(raw), "top_logprobs": []}
                for name, number, raw in zip(names, numbers, texts, strict=True)
            ]
        }

    def _piece(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {**self._head(piece=True), "choices": [choice]}

    def _head(self, *, piece: bool) -> dict[str, Any]:
        kind = ("chat.completion.chunk" if piece else "chat.completion") if self.chat else "text_completion"
        prefix = "chatcmpl-" if self.chat else "cmpl-"
        return {"id": prefix + self.id, "object": kind, "created": self.created, "model": self.model}
