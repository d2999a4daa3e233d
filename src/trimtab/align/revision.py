"""A revision: an answer as it should have been under a principle, and when a text can stand as one.

Revisions are what stage one of RLAIF learns (Bai et al. 2022, arXiv:2212.08073, section 3); `reviser.py` makes them.
"""

from __future__ import annotations

import hashlib
import random
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.domain.judgement import Judgement, Kind, Said, Source

from . import bundled
from .constitution import Constitution, Principle

LONGEST = 4
"""A revision may have this many times the answer's characters, and at least 600: beyond, a model just went on."""
LEAST_NEW = 0.7
"""Of every three words in a row, this share must be new; a loop has less, ordinary prose nearly 1."""
_ENDS = re.compile(r"[.!?][\"')\]]*(?=\s|$)")


@dataclass(frozen=True)
class Draft:
    """An answer, and the principle it is criticised under."""

    prompt: tuple[Said, ...]
    answer: str
    principle: Principle
    seed: int = 0
    """Decides which of the principle's templates comes first."""


@dataclass(frozen=True)
class Revision:
    """What came of a draft."""

    prompt: tuple[Said, ...]
    answer: str
    """What the policy said."""
    critique: str
    """Empty for a template."""
    text: str
    """The answer as it should have been."""
    principle: str
    by: str
    """``model``, ``stronger`` or ``template``."""
    margin: float | None
    """How much better the principle's judge finds it; None when the principle has no usable judge."""
    constitution: str = ""
    """The version of the constitution."""
    model: str = ""
    """The version of the model whose answer it was."""

    def demonstration(self) -> Judgement:
        """The revision to learn from."""
        return self._judgement(Kind.DEMONSTRATION, "")

    def preference(self) -> Judgement:
        """The revision over the answer."""
        return self._judgement(Kind.PREFERENCE, self.answer)

    def _judgement(self, kind: Kind, rejected: str) -> Judgement:
        about = {"principle": self.principle, "constitution": self.constitution, "by": self.by}
        return Judgement(
            id=row_id(kind.value, self.principle, self.prompt, self.text, rejected),
            kind=kind,
            prompt=self.prompt,
            completion=self.text,
            rejected=rejected,
            source=Source.CONSTITUTION,
            person=self.principle,
            version=self.model,
            ours=self.by == "model",
            about=about,
        )


def kept_answer(prompt: tuple[Said, ...], answer: str, constitution: str = "", model: str = "") -> Judgement | None:
    """An answer that needs no revision, to learn from up to its last whole sentence; None if it has none, or loops."""
    whole = whole_sentences(answer)
    if not whole or _loops(_plain(whole).split()):
        return None
    about = {"constitution": constitution, "by": "kept"}
    return Judgement(
        id=row_id("kept", prompt, whole),
        kind=Kind.DEMONSTRATION,
        prompt=prompt,
        completion=whole,
        source=Source.CONSTITUTION,
        version=model,
        ours=True,
        about=about,
    )


def whole_sentences(answer: str, most: int = 0) -> str:
    """The answer up to the end of its last whole sentence, or of its first `most`; ``""`` where there is none."""
    text = answer.strip()
    ends = [match.end() for match in _ENDS.finditer(text)]
    ends = ends[:most] if most else ends
    return text[: ends[-1]] if ends else ""


def usable(answer: str, text: str, principle: Principle) -> bool:
    """Whether a text can stand as a revision of the answer: not empty, not the same, no echo, no loop, not endless."""
    words = _plain(text).split()
    if not words or words == _plain(answer).split():
        return False
    if any(_plain(asked) in _plain(text) for asked in (principle.revise, principle.critique)):
        return False
    return not _loops(words) and len(text) <= max(600, LONGEST * len(answer))


def _loops(words: Sequence[str]) -> bool:
    threes = list(zip(words, words[1:], words[2:], strict=False))
    return len(threes) > 12 and len(set(threes)) < LEAST_NEW * len(threes)


def sampled(constitution: Constitution, expected: str, *, seed: int) -> Principle | None:
    """One of the principles for such a prompt (``answer``, ``decline``, ``redirect``), or None when there is none."""
    choices = constitution.for_prompt(expected)
    return random.Random(seed).choice(choices) if choices else None  # noqa: S311 - a reproducible draw, no secret


def red_team_prompts() -> list[tuple[Said, ...]]:
    """Harmful requests to criticise answers to: the bundled ones, from the part that may train only."""
    return [prompt.prompt for prompt in bundled.prompts("train", "harmless") if prompt.expected == "decline"]


def row_id(*parts: str | Sequence[Said]) -> str:
    """The same row gets the same id, so that a stage run twice does not count twice."""
    digest = hashlib.sha256()
    for part in parts:
        text = part if isinstance(part, str) else "\0".join(f"{said.role}\0{said.content}" for said in part)
        digest.update(hashlib.sha256(text.encode()).digest())
    return f"ai-{digest.hexdigest()[:20]}"


def _plain(text: str) -> str:
    """Words only, for telling whether two texts say the same."""
    return " ".join(text.lower().translate(str.maketrans("", "", string.punctuation)).split())
