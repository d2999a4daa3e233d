"""Who writes revisions: the policy itself, where it cannot a stronger model, and where nobody can a template.

After Bai et al. 2022 (arXiv:2212.08073, section 3). Where it departs from the paper: a revision is used only when it
can be used (it is text, it differs, it neither echoes the request nor itself, and the principle's judge finds it better
than the answer and than the principle's template). A model of 135 million parameters rarely writes one that can: read
by hand, 1 of 12 of the default model's revisions of answers to harmful requests declined. When nothing is usable there
is no revision.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from trimtab.domain.judgement import Said

from .constitution import START
from .judge import Judge, Two
from .revision import Draft, Revision, usable, whole_sentences
from .writer import Writer


@dataclass(frozen=True)
class Verdict:
    """The judge and the form that agreed with people on a principle."""

    judge: Judge
    form: str


@dataclass(frozen=True)
class _Candidate:
    at: int
    """Which draft it is for."""
    text: str
    critique: str = ""
    rival: str = ""
    """What it has to beat beside the answer."""


class Reviser:
    """Revises answers, many at once.

    Args:
        verdicts: by principle, what checks a revision. Without one the policy's own revisions are not used, as nothing
            says that they are better; a stronger model and templates are trusted.
        chat: the policy; it criticises and revises its own answers. None leaves that out.
        stronger: asked where the policy's revision cannot be used.
        constitution, model: versions, for the lineage.
    """

    def __init__(
        self,
        verdicts: Mapping[str, Verdict],
        *,
        chat: Writer | None = None,
        stronger: Writer | None = None,
        constitution: str = "",
        model: str = "",
    ) -> None:
        self._verdicts = verdicts
        self._chat, self._stronger = chat, stronger
        self._constitution, self._model = constitution, model

    def __call__(self, drafts: Sequence[Draft]) -> list[Revision | None]:
        """Each answer written again under its principle, or None where nothing usable came of it.

        Raises:
            Unavailable: a model did not answer.
        """
        templates = [_templates(draft) for draft in drafts]
        found: dict[int, Revision] = {}
        for by, writer in (("model", self._chat), ("stronger", self._stronger)):
            waiting = [i for i in range(len(drafts)) if i not in found]
            if by == "model":
                waiting = [i for i in waiting if drafts[i].principle.id in self._verdicts]
            if writer is None or not waiting:
                continue
            written = _written(writer, [drafts[i] for i in waiting])
            # Of two bad answers one is always better: what the policy wrote must beat the template, too.
            rivals = [templates[i][0] if by == "model" and templates[i] else "" for i in waiting]
            candidates = [
                _Candidate(i, text, critique, rival)
                for i, (critique, text), rival in zip(waiting, written, rivals, strict=True)
                if usable(drafts[i].answer, text, drafts[i].principle)
            ]
            found |= self._better(by, drafts, candidates)
        for turn in range(max(map(len, templates), default=0)):
            few = [(i, texts) for i, texts in enumerate(templates) if i not in found and turn < len(texts)]
            found |= self._better("template", drafts, [_Candidate(i, texts[turn]) for i, texts in few])
        return [found.get(i) for i in range(len(drafts))]

    def _better(self, by: str, drafts: Sequence[Draft], candidates: Sequence[_Candidate]) -> dict[int, Revision]:
        """Those that their principle's judge prefers to the answer and to their rival, or that have no judge."""
        margins = self._margins([(drafts[one.at], one.text, drafts[one.at].answer) for one in candidates])
        winning = [(one, margin) for one, margin in zip(candidates, margins, strict=True) if _above(margin)]
        rivalled = [one for one, _ in winning if one.rival]
        against = self._margins([(drafts[one.at], one.text, one.rival) for one in rivalled])
        beaten = {one.at for one, margin in zip(rivalled, against, strict=True) if not _above(margin)}
        return {
            one.at: self._revision(by, drafts[one.at], one, margin) for one, margin in winning if one.at not in beaten
        }

    def _revision(self, by: str, draft: Draft, one: _Candidate, margin: float | None) -> Revision:
        told = self._constitution, self._model
        return Revision(draft.prompt, draft.answer, one.critique, one.text, draft.principle.id, by, margin, *told)

    def _margins(self, wanted: Sequence[tuple[Draft, str, str]]) -> list[float | None]:
        """How much better the first text is than the second; None where nobody says so. Asked once a principle."""
        found: list[float | None] = [None] * len(wanted)
        for name, verdict in self._verdicts.items():
            rows = [i for i, (draft, _, _) in enumerate(wanted) if draft.principle.id == name]
            if not rows:
                continue
            pairs = [Two(wanted[i][0].prompt, wanted[i][1], wanted[i][2]) for i in rows]
            margins = verdict.judge.margins(wanted[rows[0]][0].principle, verdict.form, pairs)
            found = [dict(zip(rows, margins, strict=True)).get(i, was) for i, was in enumerate(found)]
        return found


def _written(writer: Writer, drafts: Sequence[Draft]) -> list[tuple[str, str]]:
    """Critique and new answer of each."""
    said = [(*draft.prompt, Said("assistant", draft.answer)) for draft in drafts]
    told = [f"{draft.principle.text}\n\n{draft.principle.critique}" for draft in drafts]
    critiques = writer([(*one, Said("user", asked)) for one, asked in zip(said, told, strict=True)])
    again = [
        (
            *one,
            Said("user", draft.principle.critique),
            Said("assistant", critique),
            Said("user", f"{draft.principle.revise} Reply with the new answer only."),
        )
        for one, draft, critique in zip(said, drafts, critiques, strict=True)
    ]
    return [(critique, text.strip()) for critique, text in zip(critiques, writer(again), strict=True)]


def _above(margin: float | None) -> bool:
    """Better, or nobody to say so."""
    return margin is None or margin > 0


def _templates(draft: Draft) -> list[str]:
    """The principle's templates, filled in, those that can stand as a revision."""
    order = list(draft.principle.templates)
    random.Random(draft.seed).shuffle(order)  # noqa: S311 - a reproducible order, no secret
    return [text for text in _filled(order, draft.answer) if usable(draft.answer, text, draft.principle)]


def _filled(templates: Iterable[str], answer: str) -> Iterator[str]:
    for template in templates:
        if START not in template:
            yield template
        elif start := whole_sentences(answer, 2):
            yield template.replace(START, start)
