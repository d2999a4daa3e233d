"""A mean and how sure it is, for numbers that follow each other in a text or in time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

DRAWS = 1000


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def bootstrap(
    values: Sequence[float], of: Callable[[Sequence[float]], float], *, block: int = 1, seed: int = 0
) -> Interval:
    """`of(values)` and its percentile-bootstrap interval. Neighbours in a text are alike, so they are drawn together
    in blocks (Kuensch 1989). Without values, or with one block, nothing is known about the spread."""
    if not values:
        return Interval(math.nan, -math.inf, math.inf)
    blocks = [values[i : i + block] for i in range(0, len(values), block)]
    if len(blocks) == 1:
        return Interval(of(values), -math.inf, math.inf)
    dice = random.Random(seed)  # noqa: S311  (statistics, not secrets)
    found = sorted(of([v for b in dice.choices(blocks, k=len(blocks)) for v in b]) for _ in range(DRAWS))
    return Interval(of(values), found[int(0.025 * DRAWS)], found[int(0.975 * DRAWS) - 1])


def wilson(right: float, count: int) -> Interval:
    """The share of `count` that came out right, and its 95 % interval (Wilson 1927), which holds for few, too."""
    if not count:
        return Interval(math.nan, 0.0, 1.0)
    z, share = 1.96, right / count
    middle, wide = share + z * z / (2 * count), z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return Interval(share, max(0.0, (middle - wide) / scale), min(1.0, (middle + wide) / scale))


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all do not exceed; of few values, the next larger one."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan
