"""How far each person's judgements can be relied on, from how often they agree with the others.

Two people who judged the same thing (the same answer under one label, or the same pair of answers) agree or do not.
Whoever disagrees with the rest far more than chance allows is quarantined; the others get a weight between 0.5 and 1.
Whoever was never compared with anybody keeps 1 while nobody was, and 0.5 once others have been: agreement is earned.

The majority a person is compared with leaves the person out, and counts each other one by their own weight, over a few
rounds (the idea of Dawid and Skene 1979, without its confusion matrix). Trusted people always count fully.

A handful of accounts that agree among themselves earns nothing by it: agreement counts where it is anchored, that is
among people who are connected, by things that two of them judged, with somebody trusted or with more than half of all
people. Where there is no anchor everybody weighs the same, and caps and near-duplicates have to hold such a group.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from trimtab.domain.judgement import Judgement, Kind, Source

from .similarity import Groups, key_of
from .splits import text_of

ROUNDS = 5
UNKNOWN = 0.5
HONEST_DISAGREEMENT = 0.3
"""People who rate answers agree with each other in 73-77 % of cases (Stiennon et al. 2020; Ouyang et al. 2022)."""
DOUBT = 0.02
"""If so many disagreements were less likely than this with an honest person, the person is quarantined. Taste: it
takes four of four."""


@dataclass(frozen=True)
class Standing:
    compared: int = 0
    """Judgements of this person that others gave a verdict on."""
    agreed: int = 0
    weight: float = 1.0
    """0 for quarantine."""


Item = tuple[str, ...]
Ballot = dict[Item, dict[str, int]]
"""Of each thing judged: who said what, 1 or 0."""


def item_of(row: Judgement) -> tuple[Item, int] | None:
    """What a row votes on, and how; None for a demonstration."""
    prompt = key_of(text_of(row.prompt))
    if row.kind is Kind.LABEL:
        return (row.label, prompt, key_of(row.completion)), int(row.value or 0)
    if row.kind is Kind.PREFERENCE:
        one, other = key_of(row.completion), key_of(row.rejected)
        return ("", prompt, min(one, other), max(one, other)), int(one <= other)
    return None


def ballots(rows: Sequence[Judgement]) -> Ballot:
    """People's votes. Of one who voted on a thing twice the later vote counts."""
    found: Ballot = {}
    for row in sorted(rows, key=lambda r: (r.at, r.id)):
        if row.source is Source.PERSON and (voted := item_of(row)) is not None:
            found.setdefault(voted[0], {})[row.person] = voted[1]
    return found


def standings(votes: Ballot, everybody: Collection[str] = (), trusted: Collection[str] = ()) -> dict[str, Standing]:
    """Of everybody, those included who voted on nothing."""
    people = sorted({person for said in votes.values() for person in said} | set(everybody))
    shared = [said for said in votes.values() if len(said) > 1]
    anchored = _anchored(shared, people, trusted)
    found = {person: Standing() for person in people}
    for _ in range(ROUNDS):
        compared, agreed = _compare(shared, found)
        new = {
            p: _standing(compared[p], agreed[p], p in trusted, None if anchored is None else p in anchored)
            for p in people
        }
        if new == found:
            break
        found = new
    return found


def _anchored(shared: Sequence[Mapping[str, int]], people: Sequence[str], trusted: Collection[str]) -> set[str] | None:
    """Who is connected with somebody trusted or with more than half of all; None where nobody is."""
    number = {person: at for at, person in enumerate(people)}
    groups = Groups(len(people))
    met = {person for said in shared for person in said}
    for said in shared:
        first, *others = said
        for other in others:
            groups.join(number[first], number[other])
    parts: dict[int, set[str]] = {}
    for person in met:
        parts.setdefault(groups.find(number[person]), set()).add(person)
    strong = [part for part in parts.values() if len(part) > len(people) / 2 or part & set(trusted)]
    return set().union(*strong) if strong else None


def _compare(
    shared: Sequence[Mapping[str, int]], before: Mapping[str, Standing]
) -> tuple[dict[str, int], dict[str, int]]:
    """How often each person was compared with the others, and agreed."""
    compared = dict.fromkeys(before, 0)
    agreed = dict.fromkeys(before, 0)
    for said in shared:
        total = sum(before[person].weight * (1 if vote else -1) for person, vote in said.items())
        for person, vote in said.items():
            verdict = total - before[person].weight * (1 if vote else -1)
            if abs(verdict) > 1e-9:
                compared[person] += 1
                agreed[person] += (verdict > 0) == bool(vote)
    return compared, agreed


def _standing(compared: int, agreed: int, trusted: bool, anchored: bool | None) -> Standing:
    """`anchored` is None where nobody is."""
    if trusted:
        return Standing(compared, agreed)
    if _at_least(compared - agreed, compared, HONEST_DISAGREEMENT) < DOUBT:
        return Standing(compared, agreed, 0.0)
    if anchored is None:
        return Standing(compared, agreed)
    if not (anchored and compared):
        return Standing(compared, agreed, UNKNOWN)
    rate = (agreed + 1) / (compared + 2)  # Laplace
    return Standing(compared, agreed, round(min(1.0, max(UNKNOWN + 0.1, rate + 0.1)), 4))


def _at_least(hits: int, tries: int, chance: float) -> float:
    """Probability of `hits` or more of `tries` (binomial)."""
    return math.fsum(math.comb(tries, k) * chance**k * (1 - chance) ** (tries - k) for k in range(hits, tries + 1))
