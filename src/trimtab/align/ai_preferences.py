"""Stage two of RLAIF: several answers, judged under a principle, become preferences; and people's stay beside them.

The rows are ordinary judgements with the source `constitution` and the principle's id where a person's would be, so
curation, caps, cards and deletion treat them as they treat anybody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Judgement, Kind, Said, Source

from .constitution import Principle
from .judge import ONE_BY_ONE, Judge, Two
from .revision import row_id


@dataclass(frozen=True)
class Responses:
    """What one model said to one prompt, several times."""

    prompt: tuple[Said, ...]
    texts: tuple[str, ...]
    model: str = ""
    """The version of the model."""
    about: Mapping[str, str] | None = None
    """Goes into the rows, such as the prompt's split."""


def preferences_from(
    responses: Sequence[Responses],
    principle: Principle,
    judge: Judge,
    form: str,
    *,
    least: float = 0.0,
    constitution: str = "",
) -> list[Judgement]:
    """For each prompt the answer that keeps the principle best, over the one that keeps it worst.

    Forms that score one answer look at all of them. Forms that compare two go through the answers once and keep the
    better: the winner is preferred to the first it beat, which asks n - 1 times and not n squared.

    Args:
        form: as chosen for this principle by `choose_forms`.
        least: a margin that is not above this is a tie and gives no row.
        constitution: the version, for the lineage.

    Raises:
        InvalidInput: the judge has no means for the form.
        Unavailable: the external model did not answer.
    """
    distinct = [replace(one, texts=tuple(dict.fromkeys(filter(None, map(str.strip, one.texts))))) for one in responses]
    several = [one for one in distinct if len(one.texts) > 1]
    pick = _by_score if form in ONE_BY_ONE else _by_duel
    rows = []
    for one, (better, worse, margin) in zip(several, pick(several, principle, judge, form), strict=True):
        if margin > least:
            rows.append(_row(one, better, worse, margin, principle, form, constitution))
    return rows


def mix(
    human: Iterable[Judgement], ai: Iterable[Judgement], *, human_weight: float = 1.0, ai_weight: float = 1.0
) -> list[Judgement]:
    """People's judgements and the constitution's in one list, with stated weights.

    The weights are for the two sources as wholes: with 3 and 1, people have three quarters of the say however many
    rows either has. The mean weight is 1, so a trainer's step size means what it did. Where a person and the judge say
    the opposite about the same two answers, the judge's row is dropped.

    Raises:
        InvalidInput: a weight is negative, or both are zero.
    """
    if min(human_weight, ai_weight) < 0 or human_weight + ai_weight == 0:
        raise InvalidInput(
            f"The weights of people ({human_weight}) and of the constitution ({ai_weight}) must be zero or more, and "
            "one of them above zero."
        )
    people = list(human)
    said = {(row.prompt, row.rejected, row.completion) for row in people if row.kind is Kind.PREFERENCE}
    judged = [row for row in ai if (row.prompt, row.completion, row.rejected) not in said]
    parts = [(rows, weight) for rows, weight in ((people, human_weight), (judged, ai_weight)) if rows and weight > 0]
    total = sum(weight for _, weight in parts)
    count = sum(len(rows) for rows, _ in parts)
    mixed: list[Judgement] = []
    for rows, weight in parts:
        own = sum(row.weight for row in rows)
        if own <= 0:
            raise InvalidInput("All rows of one source have the weight 0. Leave the source out, or give them weight.")
        scale = weight / total * count / own
        mixed += [replace(row, weight=row.weight * scale) for row in rows]
    return mixed


def _by_score(
    several: Sequence[Responses], principle: Principle, judge: Judge, form: str
) -> list[tuple[str, str, float]]:
    scores = iter(judge.scores(principle, form, [(one.prompt, text) for one in several for text in one.texts]))
    found = []
    for one in several:
        ranked = sorted(((next(scores), text) for text in one.texts), key=lambda pair: pair[0])
        (low, worst), (high, best) = ranked[0], ranked[-1]
        found.append((best, worst, high - low))
    return found


def _by_duel(
    several: Sequence[Responses], principle: Principle, judge: Judge, form: str
) -> list[tuple[str, str, float]]:
    """Round by round over all prompts, as a judge that is asked much at once answers faster."""
    found = [(one.texts[0], "", 0.0) for one in several]
    for turn in range(1, max((len(one.texts) for one in several), default=0)):
        fighting = [i for i, one in enumerate(several) if turn < len(one.texts)]
        duels = [Two(several[i].prompt, several[i].texts[turn], found[i][0]) for i in fighting]
        for i, duel, margin in zip(fighting, duels, judge.margins(principle, form, duels), strict=True):
            best, beaten, _ = found[i]
            if margin > 0:
                found[i] = duel.first, best, margin
            elif margin < 0 and not beaten:
                found[i] = best, duel.first, -margin
    return found


def _row(
    one: Responses, better: str, worse: str, margin: float, principle: Principle, form: str, constitution: str
) -> Judgement:
    about = {"principle": principle.id, "form": form, "margin": f"{margin:.4f}", "constitution": constitution}
    return Judgement(
        id=row_id("preference", principle.id, one.prompt, better, worse),
        kind=Kind.PREFERENCE,
        prompt=one.prompt,
        completion=better,
        rejected=worse,
        source=Source.CONSTITUTION,
        person=principle.id,
        version=one.model,
        about={**(one.about or {}), **about},
    )
