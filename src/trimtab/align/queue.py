"""What to ask people about next: where their word teaches most.

A candidate's worth is given from outside (`Uncertainty`): high where the reward model is unsure, or where the judge and
people disagree; `unsure` and `at_odds` say how such a number is made. Where nobody gives one, answers with the fewest
labels come first.

Every fifth item is one that somebody else has judged already, while there are any: only so can agreement be measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from trimtab.domain.judgement import Said

EVERY = 5


@dataclass(frozen=True)
class Candidate:
    """Something that can be asked: is this answer good, or which of these two is better?"""

    id: str
    prompt: tuple[Said, ...]
    texts: tuple[str, ...]
    """One answer, or two."""
    judged: int = 0
    """By how many other people."""
    label: str = "helpful"
    """What one answer is judged for."""
    people: float | None = None
    """Their mean opinion, 0 to 1: that the answer is good, or the first of two better. None while nobody has one."""


class Uncertainty(Protocol):
    """How much would be learned from a person's word on each candidate: 0 (nothing) to 1."""

    def __call__(self, candidates: Sequence[Candidate]) -> Sequence[float]: ...


def unsure(probability: float) -> float:
    """From the reward model's probability that the answer is good, or that the first of two is better: 1 at one half,
    0 at certainty."""
    return 1 - abs(2 * probability - 1)


def at_odds(judge: float, people: float) -> float:
    """From the judge's and the people's mean opinion, each 0 to 1: 1 where they are opposite."""
    return abs(judge - people)


def ordered(
    candidates: Sequence[Candidate], rater: str, done: int, uncertainty: Uncertainty | None = None
) -> list[Candidate]:
    """The candidates in the order in which `rater`, who has judged `done` things, should be asked.

    Ties are broken by a hash of rater and candidate: two people do not go through the same list in step.
    """
    worth = list(uncertainty(candidates)) if uncertainty is not None else [0.0] * len(candidates)
    again = done % EVERY == EVERY - 1 and any(one.judged for one in candidates)

    def rank(place: int) -> tuple[bool, float, int, str]:
        one = candidates[place]
        return (again and not one.judged, -worth[place], one.judged, _tie(rater, one.id))

    return [candidates[place] for place in sorted(range(len(candidates)), key=rank)]


def without(candidates: Sequence[Candidate], skipped: Collection[str]) -> list[Candidate]:
    return [one for one in candidates if one.id not in skipped]


def _tie(rater: str, candidate: str) -> str:
    return hashlib.sha256(f"{rater}\0{candidate}".encode()).hexdigest()
