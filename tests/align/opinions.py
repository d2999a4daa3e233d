"""Scorers whose opinion is known, so that a test can say what a judge must find."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from trimtab.align.scorer import Continuation, LogProbability


class Believer:
    """Finds polite answers likely when it is told to be kind, and unlikely when it is told to be rude. Asked about
    politeness it says yes to "please". Between A and B it always leans to A, and a little to the polite one."""

    def __init__(self, love_of_a: float = 5.0) -> None:
        self.read = 0
        self._love_of_a = love_of_a

    def __call__(self, wanted: Sequence[Continuation]) -> list[LogProbability]:
        self.read += len(wanted)
        return [LogProbability(self._total(one), 1) for one in wanted]

    def _total(self, one: Continuation) -> float:
        told = one.messages[0].content if one.messages[0].role == "system" else ""
        asked = one.messages[-1].content
        polite = "please" in one.text
        if one.text in ("A", "B"):
            first = asked.split("Answer A:")[1].split("Answer B:")[0]
            better = "A" if "please" in first else "B"
            return (self._love_of_a if one.text == "A" else 0.0) + (1.0 if one.text == better else 0.0)
        if one.text in ("Yes", "No"):
            return 1.0 if ("please" in asked.split("Answer:")[1]) == (one.text == "Yes") else -1.0
        if "rude" in told:
            return -1.0 if polite else 1.0
        return 1.0 if polite else -1.0


class Coin:
    """An opinion on everything, about nothing: it depends on the bytes of the question."""

    def __call__(self, wanted: Sequence[Continuation]) -> list[LogProbability]:
        return [LogProbability(self._total(one), 1) for one in wanted]

    @staticmethod
    def _total(one: Continuation) -> float:
        digest = hashlib.sha256(repr(one).encode()).digest()
        return int.from_bytes(digest[:4], "big") / 2**32


class Contrary(Believer):
    """Likes what people dislike."""

    def _total(self, one: Continuation) -> float:
        return -super()._total(one)
