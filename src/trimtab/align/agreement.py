"""How far a judge agrees with people, principle by principle, and which form of judging to use for each.

A judge that is a coin is worse than none: it teaches noise with confidence. So each form is measured on pairs that
people judged, the best one is chosen on one half of the prompts, and it is used only if on the other half the 95 %
interval of its agreement lies above chance. Choosing and confirming on the same pairs would let the luckiest of five
coins through, and measuring every form on both halves would cost nearly twice as much.

What to expect of the default model with the bundled pairs: likelihood agrees on sense, truth and helpfulness, contrast
on harm, pointwise on needless refusals. On keeping to a topic, brevity and repetition no form could be told from a
coin, and "A or B?" could not on any principle, though asked in both orders.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from trimtab.domain.judgement import Judgement, Kind, Said, Source

from .constitution import AUTO, Principle
from .judge import Judge, Two
from .statistics import Interval, bootstrap

ANY = "any"
"""In a principle's `evidence`: preferences that name no fault, as people give them in a chat."""
CHANCE = 0.5


@dataclass(frozen=True)
class Agreement:
    """What was found for one principle."""

    principle: str
    form: str
    """The form to judge by; ``""`` when none is usable."""
    usable: bool
    confirmed: Interval
    """Of the chosen form, on the half of the prompts that did not choose it; a tie counts as half."""
    by_form: Mapping[str, Interval]
    """Every form, on the half of the prompts that chooses."""
    pairs: int
    why: str
    """For a person: why it is used, or why not."""

    def to_json(self) -> dict[str, Any]:
        """For progress and evidence; `confirmed` is None where nothing was confirmed."""
        return {
            "principle": self.principle,
            "form": self.form,
            "usable": self.usable,
            "why": self.why,
            "pairs": self.pairs,
            "confirmed": _interval(self.confirmed),
            "by_form": {form: _interval(found) for form, found in self.by_form.items()},
        }


def _interval(found: Interval) -> dict[str, float] | None:
    """None for too few values: such an interval has no bounds, and JSON no word for that."""
    return asdict(found) if found.n > 1 else None


def choose_forms(
    principles: Iterable[Principle],
    people: Sequence[Judgement],
    judge: Judge,
    *,
    most: int = 48,
    least: int = 10,
) -> list[Agreement]:
    """Measure the judge against people and choose a form for each principle.

    Args:
        people: judgements by people; those of a constitution are left out, a judge may not confirm itself.
        most: pairs measured for each principle, spread over prompts; more is slower and surer.
        least: prompts needed in each half. Below that a principle is not used.
    """
    human = [row for row in people if row.source is not Source.CONSTITUTION]
    return [_agreement(principle, pairs_for(principle, human, most), judge, least) for principle in principles]


def pairs_for(principle: Principle, people: Iterable[Judgement], most: int) -> list[Two]:
    """Pairs that people judged on this principle, the better answer first.

    A preference counts if the fault it names, or its principle, is in the principle's `evidence`; a 1 and a 0 of one
    label on one prompt make a pair as well. At most `most`, taken round by round so that no prompt fills the list.
    """
    found: dict[Two, None] = {}
    labels: dict[tuple[tuple[Said, ...], str], tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for row in people:
        if row.kind is Kind.PREFERENCE and _on(principle, row):
            found[Two(row.prompt, row.completion, row.rejected)] = None
        elif row.kind is Kind.LABEL and row.value is not None and row.label in principle.evidence:
            labels[row.prompt, row.label][row.value].append(row.completion)
    for (prompt, _), (bad, good) in labels.items():
        found.update({Two(prompt, better, worse): None for better, worse in zip(good, bad, strict=False)})
    by_prompt: dict[tuple[Said, ...], list[Two]] = defaultdict(list)
    for two in found:
        by_prompt[two.prompt].append(two)
    ordered = sorted(by_prompt.values(), key=lambda twos: _place(twos[0].prompt))
    rounds = [twos[i] for i in range(max(map(len, ordered), default=0)) for twos in ordered if i < len(twos)]
    return rounds[:most]


def report(found: Sequence[Agreement]) -> str:
    """The findings as a Markdown table."""
    forms = list(dict.fromkeys(form for one in found for form in one.by_form))
    lines = [
        f"| principle | pairs | {' | '.join(forms)} | used | confirmed |",
        "|" + "---|" * (len(forms) + 4),
    ]
    for one in found:
        cells = " | ".join(f"{one.by_form[form].mean:.2f}" if form in one.by_form else "-" for form in forms)
        sure = f"{one.confirmed.mean:.2f} [{one.confirmed.low:.2f}, {one.confirmed.high:.2f}]"
        lines.append(
            f"| {one.principle} | {one.pairs} | {cells} | {one.form or 'not used'} | "
            f"{sure if one.confirmed.n > 1 else '-'} |"
        )
    return "\n".join(lines)


def _on(principle: Principle, row: Judgement) -> bool:
    fault = row.about.get("contrast", "")
    if row.about.get("principle") == principle.id:
        return True
    return fault in principle.evidence if fault else ANY in principle.evidence


def _agreement(principle: Principle, pairs: Sequence[Two], judge: Judge, least: int) -> Agreement:
    forms = judge.forms if principle.judge == AUTO else tuple(f for f in judge.forms if f == principle.judge)
    if not forms:
        why = (
            f"It asks for the form {principle.judge!r}, for which there is no model. Give one, or write `judge: auto`."
        )
        return _unused(principle, pairs, {}, why)
    odd = set(list(dict.fromkeys(two.prompt for two in pairs))[1::2])
    choosing = [two for two in pairs if two.prompt in odd]
    confirming = [two for two in pairs if two.prompt not in odd]
    prompts = [len({two.prompt for two in half}) for half in (choosing, confirming)]
    if min(prompts) < least:
        why = (
            f"People judged {sum(prompts)} prompts on it; {2 * least} or more are needed ({least} to choose a form and "
            f"{least} to confirm it). Label more, or name more in its `evidence`."
        )
        return _unused(principle, pairs, {}, why)
    by_form = {form: _measured(principle, form, choosing, judge) for form in forms}
    best = max(forms, key=lambda form: by_form[form].mean)
    confirmed = _measured(principle, best, confirming, judge)
    if confirmed.low <= CHANCE:
        flaw = "worse than chance" if confirmed.high < CHANCE else "no better than chance"
        why = (
            f"The best form, {best}, agrees with people in {confirmed.mean:.0%} of pairs: {flaw} as far as can be told."
        )
        return _unused(principle, pairs, by_form, why, confirmed)
    why = f"{best} agrees with people in {confirmed.mean:.0%} of pairs it was not chosen on."
    return Agreement(principle.id, best, True, confirmed, by_form, len(pairs), why)


def _unused(
    principle: Principle,
    pairs: Sequence[Two],
    by_form: Mapping[str, Interval],
    why: str,
    confirmed: Interval | None = None,
) -> Agreement:
    return Agreement(principle.id, "", False, confirmed or bootstrap([]), by_form, len(pairs), why)


def _measured(principle: Principle, form: str, pairs: Sequence[Two], judge: Judge) -> Interval:
    """The better answer comes first: a positive margin is agreement. A prompt counts once, with its mean."""
    by_prompt: dict[tuple[Said, ...], list[float]] = defaultdict(list)
    for two, margin in zip(pairs, judge.margins(principle, form, pairs), strict=True):
        by_prompt[two.prompt].append(1.0 if margin > 0 else CHANCE if margin == 0 else 0.0)
    return bootstrap([fmean(hits) for hits in by_prompt.values()])


def _place(prompt: Sequence[Said]) -> bytes:
    """Where a prompt stands in an order that depends on nothing but its text."""
    text = "\0".join(f"{said.role}\0{said.content}" for said in prompt)
    return hashlib.sha256(text.encode()).digest()
