"""Which judgements train, which choose the stopping point, and which are kept for the test.

A prompt is in one split only, and so is all that is like it: prompts that are near-duplicates of each other, prompts
of one thread, and a conversation together with its continuations. The share of each split is therefore met roughly,
the separation exactly.

The split of a group is decided by a hash of its oldest prompt, not by chance: when more feedback comes in, prompts
stay where they are, and a later version is never tested on what an earlier one has learned (except where a new prompt
joins two groups that were apart).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.domain.judgement import Judgement, Said

from .similarity import Groups, join_alike, key_of

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
ALIKE = 0.7
"""Likeness from which two prompts count as one. Taste: of 50 characters, one word of five letters may differ."""


@dataclass(frozen=True)
class Shares:
    """How much of the prompts is held out."""

    validation: float = 0.1
    test: float = 0.1
    salt: str = ""
    """Another salt gives another split."""

    def of(self, key: str) -> str:
        """The split of a group with this key."""
        digest = hashlib.sha256(f"{self.salt}\0{key}".encode()).digest()
        place = int.from_bytes(digest[:8], "big") / 2**64
        if place < self.test:
            return TEST
        return VALIDATION if place < self.test + self.validation else TRAIN


def text_of(prompt: Sequence[Said]) -> str:
    """A prompt as one text, for comparing."""
    return "\n".join(said.content for said in prompt)


def split(rows: Sequence[Judgement], shares: Shares = Shares(), alike: float = ALIKE) -> list[str]:
    """The split of each row: ``train``, ``validation`` or ``test``."""
    names = grouped(rows, alike)
    oldest: dict[int, tuple[float, str]] = {}
    for name, row in zip(names, rows, strict=True):
        mark = (row.at, key_of(text_of(row.prompt)))
        oldest[name] = min(oldest.get(name, mark), mark)
    return [shares.of(oldest[name][1]) for name in names]


def grouped(rows: Sequence[Judgement], alike: float = ALIKE) -> list[int]:
    """Of each row, the number of the first row of its group: what may not be torn apart."""
    groups = Groups(len(rows))
    groups.join_equal(row.about.get("thread") or None for row in rows)
    join_alike(groups, [text_of(row.prompt) for row in rows], alike)
    _join_continuations(groups, rows)
    return groups.names()


def _join_continuations(groups: Groups, rows: Sequence[Judgement]) -> None:
    """A prompt that begins with another row's whole prompt belongs to it."""
    whole: dict[str, int] = {}
    for number, row in enumerate(rows):
        whole.setdefault(key_of(text_of(row.prompt)), number)
    for number, row in enumerate(rows):
        for length in range(1, len(row.prompt)):
            begun = whole.get(key_of(text_of(row.prompt[:length])))
            if begun is not None and row.prompt[length - 1].role != "system":
                groups.join(begun, number)
