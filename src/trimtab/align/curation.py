"""What of the feedback may train: rules that can be read, and for every row that is left out the rule and the reason.

Nothing is deleted here. The same rows and rules always give the same result, and a decision by hand can be taken back.
In this order:

1. personal data is replaced (`pii.py`);
2. consent, and whose words they are: no decision by hand overrules these;
3. evaluation prompts, and what a person left out by hand;
4. blame: a bad answer that retrieval or a tool caused; turns that read outside content and were not reviewed;
5. caps per person and day, and per person;
6. contradictions: a person who says both, people who cannot agree, people who disagree with everybody (`people.py`);
7. near-duplicates: one row of each group stays, whoever gave it;
8. the share of one person in the whole, and of people nothing is known of.

A row let in by hand passes 4 to 8.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from trimtab.domain.judgement import Blame, Judgement, Kind, Source

from .people import UNKNOWN, Standing, ballots, item_of, standings
from .pii import scrub_row
from .similarity import alike, likeness, shingles
from .splits import ALIKE, text_of

DAY = 24 * 3600
FROM_FILES = (Source.IMPORT, Source.BUNDLED)


@dataclass(frozen=True)
class Rules:
    """What curation goes by. Trusted people (ids) are not capped, and anchor agreement."""

    trusted: frozenset[str] = frozenset()
    per_day: int = 50
    """Judgements of one person that count in 24 hours."""
    per_person: int = 2000
    share: float = 0.02
    """Most of the whole that one person may have. With fewer people than 1/share and nobody trusted it is twice a
    fair share instead: of ten people nobody can have less than a tenth."""
    duplicate: float = 0.85
    """Likeness from which two judgements say the same."""
    majority: float = 2 / 3
    """Of the weighted votes on one thing; with less, all of them are left out."""
    longest: int = 16_000
    """Characters of one text."""
    scrub: bool = True
    tainted: bool = False
    """Let in what was written after reading outside content, unreviewed."""
    evaluation: tuple[str, ...] = ()
    """Prompts that are kept for measuring: nothing like them trains."""

    def shown(self) -> dict[str, Any]:
        """For a card: without anybody's id."""
        return {**asdict(self), "trusted": len(self.trusted), "evaluation": len(self.evaluation)}


@dataclass(frozen=True)
class Decision:
    """A person's, about one row: ``include`` or ``exclude``."""

    decision: str
    reason: str = ""


@dataclass(frozen=True)
class Dropped:
    row: Judgement
    rule: str
    reason: str


@dataclass(frozen=True)
class Curated:
    rows: tuple[Judgement, ...]
    dropped: tuple[Dropped, ...]
    rules: Rules
    scrubbed: Mapping[str, int] = field(default_factory=dict)
    """Pieces of personal data replaced, by what they were."""
    people: Mapping[str, Standing] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Rows left out, by rule."""
        return dict(Counter(one.rule for one in self.dropped).most_common())

    def shares(self) -> dict[str, float]:
        """Of each person in what is left."""
        found = Counter(row.person for row in self.rows if row.source is Source.PERSON)
        return {person: count / len(self.rows) for person, count in found.most_common()}

    def card(self) -> dict[str, Any]:
        """What a dataset's card says about it."""
        return {"dropped": self.counts, "scrubbed": dict(self.scrubbed), "rules": self.rules.shown()}


def curate(
    rows: Iterable[Judgement], rules: Rules = Rules(), decisions: Mapping[str, Decision] | None = None
) -> Curated:
    """Sort out `rows`.

    Args:
        decisions: by the id of the feedback (`about["feedback"]`) or of the row.
    """
    work = _Work(rules, decisions or {})
    work.take(rows)
    for step in (_own_rules, _caps_of_time, _contradictions, _duplicates, _shares):
        step(work)
    kept = [_weighted(row, work) for row in sorted(work.rows, key=lambda row: (row.at, row.id))]
    return Curated(tuple(kept), tuple(work.dropped), rules, dict(work.scrubbed), work.people)


def _weighted(row: Judgement, work: _Work) -> Judgement:
    """By how far the person agrees with others; what is unknown has been made less already."""
    weight = work.standing(row.person) if row.source is Source.PERSON else 1.0
    return replace(row, weight=round(row.weight * weight, 4)) if weight > UNKNOWN else row


class _Work:
    """The rows that are still in, and why the others are not."""

    def __init__(self, rules: Rules, decisions: Mapping[str, Decision]) -> None:
        self.rules = rules
        self.rows: list[Judgement] = []
        self.dropped: list[Dropped] = []
        self.scrubbed: Counter[str] = Counter()
        self.people: dict[str, Standing] = {}
        self._decisions = decisions

    def take(self, rows: Iterable[Judgement]) -> None:
        for row in rows:
            if self.rules.scrub:
                row, counts = scrub_row(row)
                self.scrubbed.update(counts)
            self.rows.append(row)

    def decision(self, row: Judgement) -> Decision | None:
        return self._decisions.get(row.id) or self._decisions.get(row.about.get("feedback", row.id))

    def standing(self, person: str) -> float:
        return self.people.get(person, Standing()).weight

    def included(self, row: Judgement) -> bool:
        decided = self.decision(row)
        return decided is not None and decided.decision == "include"

    def drop(self, fault: Callable[[Judgement], tuple[str, str] | None]) -> None:
        """Leave out the rows for which `fault` gives a rule and a reason."""
        kept = []
        for row in self.rows:
            found = fault(row)
            if found is None:
                kept.append(row)
            else:
                self.dropped.append(Dropped(row, *found))
        self.rows = kept

    def drop_these(self, unwanted: Mapping[str, tuple[str, str]]) -> None:
        """By the row's id; rows let in by hand stay."""
        self.drop(lambda row: None if self.included(row) else unwanted.get(row.id))


# ---------------------------------------------------------------------- one row at a time


def _own_rules(work: _Work) -> None:
    near = [shingles(text) for text in work.rules.evaluation]

    def fault(row: Judgement) -> tuple[str, str] | None:
        return _never(row, work.rules) or _held_out(row, near) or _by_hand(row, work) or _soft(row, work)

    work.drop(fault)


def _never(row: Judgement, rules: Rules) -> tuple[str, str] | None:
    """What nobody can overrule."""
    if not row.consent:
        return "consent", "the person did not agree to training, or whose conversation it is did not"
    from_file = row.source in FROM_FILES or row.about.get("origin") in FROM_FILES
    if not row.ours and not from_file and row.source is not Source.CONSTITUTION:
        return "not ours", row.about.get("composed", "the text is not what our model generated")
    texts = [row.completion, *([row.rejected] if row.kind is Kind.PREFERENCE else [])]
    if not row.prompt or not all(text.strip() for text in texts):
        return "empty", "the prompt or an answer is empty"
    if max(map(len, texts)) > rules.longest:
        return "too long", f"an answer has more than {rules.longest} characters"
    if row.kind is Kind.PREFERENCE and row.completion == row.rejected:
        return "no difference", "both answers are the same"
    return None


def _held_out(row: Judgement, near: Sequence[frozenset[int]]) -> tuple[str, str] | None:
    if near:
        mine = [shingles(text_of(row.prompt)), shingles(row.prompt[-1].content)]
        if any(likeness(one, other) >= ALIKE for one in mine for other in near):
            return "evaluation", "a prompt like this is kept for measuring"
    return None


def _by_hand(row: Judgement, work: _Work) -> tuple[str, str] | None:
    decided = work.decision(row)
    if decided is not None and decided.decision == "exclude":
        return "by hand", decided.reason or "left out by hand"
    return None


def _soft(row: Judgement, work: _Work) -> tuple[str, str] | None:
    if work.included(row):
        return None
    if row.blame is not Blame.MODEL:
        return f"blame: {row.blame}", row.about.get("blame", "the answer was bad because of what the model was given")
    if row.tainted and not row.reviewed and not work.rules.tainted:
        return "tainted", "written after reading outside content, and nobody has reviewed it"
    return None


# ---------------------------------------------------------------------- one person at a time


def _capped(row: Judgement, work: _Work) -> bool:
    return row.source is Source.PERSON and row.person not in work.rules.trusted and not work.included(row)


def _order(row: Judgement) -> str:
    """Which of a person's rows stay under a cap: not the first or last, lest anybody choose them."""
    return hashlib.sha256(f"{row.id}\0{row.completion}".encode("utf-8", "surrogatepass")).hexdigest()


def _caps_of_time(work: _Work) -> None:
    unwanted: dict[str, tuple[str, str]] = {}
    for rows in _by(work, lambda row: (row.person, row.at // DAY)):
        for row in rows[work.rules.per_day :]:
            unwanted[row.id] = ("cap a day", f"more than {work.rules.per_day} judgements of one person in a day")
    work.drop_these(unwanted)
    unwanted = {}
    for rows in _by(work, lambda row: row.person):
        for row in rows[work.rules.per_person :]:
            unwanted[row.id] = ("cap a person", f"more than {work.rules.per_person} judgements of one person")
    work.drop_these(unwanted)


def _by(work: _Work, key: Callable[[Judgement], Hashable]) -> list[list[Judgement]]:
    """The rows that caps are about, grouped, in the order in which they stay."""
    groups: dict[Hashable, list[Judgement]] = defaultdict(list)
    for row in work.rows:
        if _capped(row, work):
            groups[key(row)].append(row)
    return [sorted(rows, key=_order) for rows in groups.values()]


def _shares(work: _Work) -> None:
    """Each person keeps at most the allowed share of all that is left then. Those of whom nothing is known keep, all
    together, at most half of what as many others keep."""
    by_person = {rows[0].person: rows for rows in _by(work, lambda row: row.person)}
    if not by_person:
        return
    fixed = len(work.rows) - sum(map(len, by_person.values()))
    share = _share(work, len(by_person))
    cap = _cap(list(map(len, by_person.values())), fixed, share)
    why = ("share", f"one person may have at most {share:.1%} of the whole")
    work.drop_these({row.id: why for rows in by_person.values() for row in rows[cap:]})
    new = {person for person in by_person if work.standing(person) == UNKNOWN}
    known = [row for row in work.rows if row.source is Source.PERSON and row.person not in new]
    if new and known:
        kept = {person: rows[:cap] for person, rows in by_person.items() if person in new}
        room = int(UNKNOWN * len(new) * len(known) / len({row.person for row in known}))
        why = ("unknown", "of people who were never compared with others, half as much counts")
        work.drop_these({row.id: why for row in _in_turn(list(kept.values()))[room:]})


def _in_turn(some: Sequence[Sequence[Judgement]]) -> list[Judgement]:
    """The first of each, then the second of each, …"""
    by_turn = [(turn, _order(row), row) for rows in some for turn, row in enumerate(rows)]
    return [row for _, _, row in sorted(by_turn, key=lambda one: one[:2])]


def _share(work: _Work, people: int) -> float:
    anchored = any(row.person in work.rules.trusted for row in work.rows if row.source is Source.PERSON)
    if people * work.rules.share >= 1 or (anchored and len(work.rows) * work.rules.share >= 1):
        return work.rules.share
    return max(work.rules.share, 2 / people)


def _cap(counts: Sequence[int], fixed: int, share: float) -> int:
    """The largest cap c with c <= share * (fixed + what is left of everybody under c); at least 1."""
    low, high = 1, max(counts)
    while low < high:
        middle = (low + high + 1) // 2
        if middle <= share * (fixed + sum(min(count, middle) for count in counts)):
            low = middle
        else:
            high = middle - 1
    return low


# ---------------------------------------------------------------------- people against each other


def _contradictions(work: _Work) -> None:
    work.drop_these(_said_both(work.rows))
    votes = ballots(work.rows)
    everybody = {row.person for row in work.rows if row.source is Source.PERSON}
    work.people = standings(votes, everybody, work.rules.trusted)
    apart = {person for person, standing in work.people.items() if standing.weight == 0}
    work.drop_these(
        {
            row.id: ("quarantine", _against(work.people[row.person]))
            for row in work.rows
            if row.source is Source.PERSON and row.person in apart
        }
    )
    work.drop_these(_outvoted(work))


def _against(standing: Standing) -> str:
    return (
        f"this person disagreed with the others in {standing.compared - standing.agreed} of {standing.compared} cases"
    )


def _said_both(rows: Sequence[Judgement]) -> dict[str, tuple[str, str]]:
    """Rows of one person (or one file) that say the opposite of each other about the same thing."""
    said: dict[Hashable, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        voted = item_of(row)
        if voted is not None:
            said[row.source, row.person, row.about.get("file", ""), voted[0]][voted[1]].append(row.id)
    why = ("contradiction", "the same person said the opposite about the same answers")
    return {one: why for both in said.values() if len(both) > 1 for found in both.values() for one in found}


def _outvoted(work: _Work) -> dict[str, tuple[str, str]]:
    votes = ballots(work.rows)
    unwanted: dict[str, tuple[str, str]] = {}
    for row in work.rows:
        voted = item_of(row)
        if voted is None or row.source is not Source.PERSON:
            continue
        said = votes[voted[0]]
        weight = {person: work.people[person].weight for person in said}
        mine = sum(weight[person] for person, vote in said.items() if vote == voted[1]) / sum(weight.values())
        if mine <= 1 - work.rules.majority + 1e-9:
            unwanted[row.id] = ("outvoted", "most people who judged the same thing said the opposite")
        elif mine < work.rules.majority - 1e-9:
            unwanted[row.id] = ("contested", "people do not agree about this one")
    return unwanted


# ---------------------------------------------------------------------- the same again


def _duplicates(work: _Work) -> None:
    """Of judgements that say the same of the same, one stays: the one of the person who is relied on most, then the
    oldest."""

    def rank(row: Judgement) -> tuple[bool, float, float, str]:
        return (not work.included(row), -work.standing(row.person), row.at, row.id)

    rows = sorted(work.rows, key=rank)
    unwanted: dict[str, tuple[str, str]] = {}
    kinds: dict[Hashable, list[Judgement]] = defaultdict(list)
    for row in rows:
        kinds[row.kind, row.label if row.kind is Kind.LABEL else "", row.value].append(row)
    for some in kinds.values():
        for row, first in zip(some, alike([_whole(row) for row in some], work.rules.duplicate), strict=True):
            if some[first].id != row.id:
                unwanted[row.id] = ("duplicate", f"says the same as {some[first].id}")
    work.drop_these(unwanted)


def _whole(row: Judgement) -> str:
    return "\n".join((text_of(row.prompt), row.completion, row.rejected))
