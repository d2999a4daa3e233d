"""Stage one of RLAIF: an answer is criticised under a principle and written again, and revisions are learned.

After Bai et al. 2022 (arXiv:2212.08073, section 3). Where it departs from the paper: a revision is used only when it
can be used (it is text, it differs, it neither echoes the request nor itself, and the principle's judge finds it better
than the answer and than the principle's template). A model of 135 million parameters rarely writes one that can: read
by hand, 1 of 12 of the default model's revisions of answers to harmful requests declined. When it cannot, a stronger
model is asked, and then a template is taken; when nothing is usable there is no revision, and the prompt is left out.
"""

from __future__ import annotations

import hashlib
import random
import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trimtab.domain.judgement import Judgement, Kind, Said, Source

from . import bundled
from .constitution import START, Constitution, Principle
from .judge import Judge, Two
from .writer import Writer

LONGEST = 4
"""A revision may have this many times the answer's characters, and at least 600: beyond, a model just went on."""
LEAST_NEW = 0.7
"""Of every three words in a row, this share must be new; a loop has less, ordinary prose nearly 1."""
_ENDS = re.compile(r"[.!?][\"')\]]*(?=\s|$)")


@dataclass(frozen=True)
class Verdict:
    """The judge and the form that agreed with people on a principle."""

    judge: Judge
    form: str


@dataclass(frozen=True)
class Revision:
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


def critique_and_revise(
    prompt: tuple[Said, ...],
    answer: str,
    principle: Principle,
    chat: Writer,
    *,
    verdict: Verdict | None = None,
    stronger: Writer | None = None,
    seed: int = 0,
    constitution: str = "",
    model: str = "",
) -> Revision | None:
    """An answer written again under a principle, or None when nothing usable came of it.

    Args:
        chat: the policy; it criticises and revises its own answer.
        verdict: what checks a revision. Without it the policy's own revisions are not used, as nothing says that they
            are better; a stronger model and templates are trusted.
        stronger: asked where the policy's revision cannot be used.
        seed: which of the principle's templates comes first.

    Raises:
        Unavailable: a model did not answer.
    """
    templates = [text for text in _filled(answer, principle, seed) if usable(answer, text, principle)]

    def made(by: str, critique: str, text: str, margin: float | None) -> Revision:
        return Revision(prompt, answer, critique, text, principle.id, by, margin, constitution, model)

    for by, writer in (("model", chat if verdict else None), ("stronger", stronger)):
        if writer is None:
            continue
        critique, text = _written(prompt, answer, principle, writer)
        if not usable(answer, text, principle):
            continue
        margin = _better(prompt, text, answer, principle, verdict)
        rivals = templates[:1] if by == "model" else []
        if _above(margin) and all(_above(_better(prompt, text, rival, principle, verdict)) for rival in rivals):
            return made(by, critique, text, margin)
    for text in templates:
        margin = _better(prompt, text, answer, principle, verdict)
        if _above(margin):
            return made("template", "", text, margin)
    return None


def usable(answer: str, text: str, principle: Principle) -> bool:
    """Whether a text can stand as a revision of the answer: not empty, not the same, no echo, no loop, not endless."""
    words = _plain(text).split()
    if not words or words == _plain(answer).split():
        return False
    if any(_plain(asked) in _plain(text) for asked in (principle.revise, principle.critique)):
        return False
    threes = list(zip(words, words[1:], words[2:], strict=False))
    if len(threes) > 12 and len(set(threes)) < LEAST_NEW * len(threes):
        return False
    return len(text) <= max(600, LONGEST * len(answer))


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


def _written(prompt: tuple[Said, ...], answer: str, principle: Principle, writer: Writer) -> tuple[str, str]:
    said = (*prompt, Said("assistant", answer))
    critique = writer((*said, Said("user", f"{principle.text}\n\n{principle.critique}")))
    request = f"{principle.revise} Reply with the new answer only."
    text = writer((*said, Said("user", principle.critique), Said("assistant", critique), Said("user", request)))
    return critique, text.strip()


def _better(
    prompt: tuple[Said, ...], text: str, other: str, principle: Principle, verdict: Verdict | None
) -> float | None:
    return verdict.judge.margins(principle, verdict.form, [Two(prompt, text, other)])[0] if verdict else None


def _above(margin: float | None) -> bool:
    """Better, or nobody to say so."""
    return margin is None or margin > 0


def _filled(answer: str, principle: Principle, seed: int) -> Iterable[str]:
    templates = list(principle.templates)
    random.Random(seed).shuffle(templates)  # noqa: S311 - a reproducible order, no secret
    for template in templates:
        if START not in template:
            yield template
        elif start := _start(answer):
            yield template.replace(START, start)


def _start(answer: str) -> str:
    """The first two whole sentences; ``""`` when there is no whole one."""
    text = answer.strip()
    ends = [match.end() for match in _ENDS.finditer(text)][:2]
    return text[: ends[-1]] if ends else ""


def _plain(text: str) -> str:
    """Words only, for telling whether two texts say the same."""
    return " ".join(text.lower().translate(str.maketrans("", "", string.punctuation)).split())
