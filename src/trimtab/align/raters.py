"""How far people agree beyond chance: Cohen's kappa for two, Krippendorff's alpha for any number and with gaps.

Both are 1 for perfect agreement, 0 for what chance gives, below 0 for less. Values are names; all differences between
them weigh the same (nominal data).

- kappa = (p_o - p_e) / (1 - p_e): Cohen 1960, "A coefficient of agreement for nominal scales".
- alpha = 1 - D_o / D_e over the coincidence matrix: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Agreement:
    raters: int
    items: int
    """Judged by two or more."""
    percent: float | None
    """Of all pairs of judgements of one thing, how many are the same: 0 to 1."""
    coefficient: float | None
    """None when nothing was judged twice, or everybody always said the same one thing."""
    name: str
    """``kappa`` or ``alpha``."""


def agreement(items: Iterable[Mapping[str, Hashable]]) -> Agreement:
    """Of things judged: each is what each rater said of it."""
    shared = [dict(said) for said in items if len(said) > 1]
    raters = sorted({rater for said in shared for rater in said})
    same, pairs = 0, 0
    for said in shared:
        counts = Counter(said.values())
        same += sum(n * (n - 1) for n in counts.values())
        pairs += len(said) * (len(said) - 1)
    percent = same / pairs if pairs else None
    if len(raters) == 2:
        one, other = ([said[rater] for said in shared] for rater in raters)
        return Agreement(2, len(shared), percent, cohen_kappa(one, other), "kappa")
    return Agreement(len(raters), len(shared), percent, krippendorff_alpha(s.values() for s in shared), "alpha")


def cohen_kappa(one: Sequence[Hashable], other: Sequence[Hashable]) -> float | None:
    """Of two raters who judged the same things in the same order; None when chance explains everything."""
    if len(one) != len(other):
        raise ValueError("both raters have to judge the same things")
    total = len(one)
    if not total:
        return None
    observed = sum(a == b for a, b in zip(one, other, strict=True)) / total
    first, second = Counter(one), Counter(other)
    chance = sum(first[value] * second[value] for value in first) / total**2
    return None if chance == 1 else (observed - chance) / (1 - chance)


def krippendorff_alpha(units: Iterable[Iterable[Hashable]]) -> float | None:
    """Of things, each with the values it was given by whichever raters judged it; None when there is no variation."""
    pairable = [Counter(values) for values in map(list, units) if len(values) > 1]
    totals: Counter[Hashable] = Counter()
    differing = 0.0
    for counts in pairable:
        said = sum(counts.values())
        totals.update(counts)
        differing += sum(n * (said - n) for n in counts.values()) / (said - 1)
    everything = sum(totals.values())
    expected = sum(n * (everything - n) for n in totals.values())
    return None if not expected else 1 - (everything - 1) * differing / expected
