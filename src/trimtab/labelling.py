"""Asking people: what to show next, blind, and how far they agree.

Those answers come first of which most would be learned (`Labelling.uncertainty`; a server's is `doubts.Doubts`). Where
nothing knows that, those that the fewest people have judged.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection

from trimtab.align.queue import Candidate, Uncertainty, ordered
from trimtab.align.raters import Agreement, agreement
from trimtab.store import judgements, labelling
from trimtab.store.judgements import Answer
from trimtab.store.labelling import Open

from .gathering import Reading
from .given import Given, given

Mode = Literal["label", "compare"]
LOOKED_AT = 200
"""Candidates that are read for one question; the list is put in order before that by how often each was judged."""


@dataclass
class Labelling:
    """One for a server."""

    reading: Reading = field(default_factory=Reading)
    anybody: bool = False
    """Whether people see other people's conversations."""
    uncertainty: Uncertainty | None = None

    def next(
        self, connection: Connection, rater: str, mode: Mode, label: str = "helpful", skipped: Collection[str] = ()
    ) -> dict[str, Any]:
        """``{"item", "progress"}``. `item` is None when there is nothing left to ask, else it has

        - `id`, for skipping it;
        - `conversation`: ``{"role", "text"}`` of what led to the answer, the question last;
        - `answers`: one, or two on random sides, each ``{"id", "text"}``.
        """
        if mode == "label":
            todo = labelling.to_label(connection, rater, label, anybody=self.anybody)
        else:
            todo = labelling.to_compare(connection, rater, anybody=self.anybody)
        left = [one for one in todo if one.id not in set(skipped)]
        done = labelling.done_by(connection, rater)
        item = self._best(connection, left, rater, done, label)
        return {"item": item, "progress": {"done": done, "left": len(left) if item else 0}}

    def _best(
        self, connection: Connection, todo: Sequence[Open], rater: str, done: int, label: str
    ) -> dict[str, Any] | None:
        rough = {one.id: one for one in todo}
        order = ordered([Candidate(one.id, (), (), one.judged) for one in todo], rater, done)
        for start in range(0, len(order), LOOKED_AT):
            some = [rough[one.id] for one in order[start : start + LOOKED_AT]]
            found = judgements.answers(connection, {message for one in some for message in one.messages})
            known = [candidate for one in some if (candidate := self._candidate(one, found, label)) is not None]
            if known:
                first = ordered(known, rater, done, self.uncertainty)[0]
                return _shown(rough[first.id], found)
        return None

    def _candidate(self, one: Open, found: dict[str, Answer], label: str) -> Candidate | None:
        """None for what would never train: the words are not the model's own, or the prompts differ."""
        told = [self._given(found[message]) for message in one.messages if message in found]
        if len(told) != len(one.messages) or any(given.composed or given.prompt != told[0].prompt for given in told):
            return None
        texts = tuple(str(found[message].message["text"]) for message in one.messages)
        return Candidate(one.id, told[0].prompt, texts, one.judged, label, one.people)

    def _given(self, answer: Answer) -> Given:
        return given(answer, self.reading.profile, self.reading.count)

    def agreement(self, connection: Connection, rater: str) -> dict[str, Agreement]:
        """By label, and ``""`` for preferences, as far as the rater may see the answers."""
        by_label: dict[str, list[dict[str, int]]] = {}
        for label, said in labelling.votes(connection, rater, anybody=self.anybody):
            by_label.setdefault(label, []).append(said)
        return {label: agreement(said) for label, said in sorted(by_label.items())}


def _shown(one: Open, found: dict[str, Answer]) -> dict[str, Any]:
    sides = list(one.messages)
    if len(sides) == 2 and secrets.randbelow(2):  # where an answer stands must carry nothing
        sides.reverse()
    path = found[sides[0]].path
    return {
        "id": one.id,
        "conversation": [{"role": role, "text": text} for role, text in path],
        "answers": [{"id": side, "text": found[side].message["text"]} for side in sides],
    }
