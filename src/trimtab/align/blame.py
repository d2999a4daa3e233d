"""Whose fault a bad answer was: the model's, retrieval's, or a tool's. Only the model's trains the model.

Three kinds of evidence, strongest first:

1. what the person said: the reasons the faces offer each name a culprit (`REASONS`), and plain words that mean one of
   them are understood;
2. replay: given the right context, the model answers well (`replay`). Then it was the context;
3. what happened in the turn: a tool failed; the documents were searched and said not to answer.

Passages alone are no evidence: a model can spoil a right passage. Such a row stays the model's until somebody says or
replay shows otherwise (and, having read outside content, waits for a review anyway).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from trimtab.domain.judgement import Blame, Judgement, Kind, Said


@dataclass(frozen=True)
class Reason:
    """One that a face offers for a thumb down. `words` are shown and stored."""

    words: str
    blame: Blame
    also: str = ""
    """A pattern for the same said freely."""


REASONS: tuple[Reason, ...] = (
    Reason(
        "Wrong source",
        Blame.RETRIEVAL,
        r"wrong (?:source|passage|document|page|quote)|(?:source|passage|document|quote)s? (?:is|are|was|were) "
        r"(?:wrong|irrelevant|outdated|unrelated)",
    ),
    Reason(
        "Did not find it in my documents",
        Blame.RETRIEVAL,
        r"(?:it|this|that|the answer) (?:is|stands|was) in (?:my|the|our) (?:documents?|files?|handbook|manual)"
        r"|(?:did(?: not|n't)|could(?: not|n't)) find (?:it|this|that) in (?:my|the|our) (?:documents?|files?)",
    ),
    Reason(
        "Tool failed",
        Blame.TOOL,
        r"(?:tool|connector|api|lookup) (?:failed|broke|is broken|did(?: not|n't) work|returned an error|timed out)",
    ),
    Reason(
        "Wrong tool result",
        Blame.TOOL,
        r"(?:tool|connector|api)(?:'s)? (?:result|data|answer)s? (?:is|are|was|were) (?:wrong|outdated|old)",
    ),
    Reason("Not true", Blame.MODEL),
    Reason("Did not do what I asked", Blame.MODEL),
    Reason("Harmful", Blame.MODEL),
    Reason("Too long", Blame.MODEL),
    Reason("Unfriendly", Blame.MODEL),
)


@dataclass(frozen=True)
class Happened:
    """What a turn's events say, as far as blame needs it."""

    passages: bool = False
    """Passages reached the model."""
    not_found: bool = False
    """The answer said that the documents do not answer."""
    failed: tuple[str, ...] = ()
    """Tools that gave an error."""


@dataclass(frozen=True)
class Verdict:
    blame: Blame
    why: str = ""
    """For people; empty when it is the model's."""


def blame(happened: Happened, reason: str = "") -> Verdict:
    """Of a bad answer, from what the person said and what happened."""
    said = of_reason(reason)
    if said is not None:
        return Verdict(said, "" if said is Blame.MODEL else f"the person said so: {reason.strip()[:200]}")
    if happened.failed:
        return Verdict(Blame.TOOL, f"{', '.join(happened.failed)} failed in this turn")
    if happened.not_found:
        return Verdict(Blame.RETRIEVAL, "the documents were said not to answer")
    return Verdict(Blame.MODEL)


def of_reason(reason: str) -> Blame | None:
    """What a reason blames; None when it does not say."""
    text = " ".join(reason.split()).casefold()
    for known in REASONS:
        if text.startswith(known.words.casefold()) or (known.also and re.search(rf"\b(?:{known.also})", text)):
            return known.blame
    return None


def is_bad(row: Judgement) -> bool:
    """Whether a row says that an answer was bad."""
    return row.kind is Kind.LABEL and row.value == 0


# ---------------------------------------------------------------------- replay

Answer = Callable[[Sequence[Said]], str]
Score = Callable[[Sequence[Said], str], float]
"""How good a completion of a prompt is, 0 to 1."""


@dataclass(frozen=True)
class Replay:
    """What came of asking again with the right context."""

    answers: tuple[str, ...]
    scores: tuple[float, ...]
    well: bool
    """On average at least the floor: the model can, given the right context."""

    @property
    def mean(self) -> float:
        return sum(self.scores) / len(self.scores)


def replay(right: Sequence[Said], answer: Answer, score: Score, *, tries: int = 3, floor: float = 0.5) -> Replay:
    """Ask the model with the right context, a few times because it samples, and score what it says."""
    answers = tuple(answer(right) for _ in range(tries))
    scores = tuple(float(score(right, text)) for text in answers)
    return Replay(answers, scores, sum(scores) / tries >= floor)


def after_replay(row: Judgement, found: Replay, culprit: Blame) -> Judgement:
    """The row with the blame that replay shows: `culprit` (retrieval or a tool) when the model answered well with the
    right context, else the model."""
    if found.well:
        why = f"with the right context the model answered well ({found.mean:.2f} of 1)"
        return replace(row, blame=culprit, about={**row.about, "blame": why})
    about = {name: value for name, value in row.about.items() if name != "blame"}
    return replace(row, blame=Blame.MODEL, about=about)


def replay_all(
    rows: Iterable[Judgement], right: Mapping[str, tuple[Sequence[Said], Blame]], answer: Answer, score: Score
) -> list[Judgement]:
    """Every bad row for which a right context is known, by the row's id, replayed; the others as they were."""
    return [
        after_replay(row, replay(right[row.id][0], answer, score), right[row.id][1])
        if is_bad(row) and row.id in right
        else row
        for row in rows
    ]
