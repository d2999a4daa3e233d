"""How sure a measurement is: bootstrap intervals, win rates, and win rates that length cannot buy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959964
"""Half-width of a 95 % interval in standard errors."""


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


def bootstrap(values: Sequence[float], *, seed: int = 0, draws: int = 4000) -> Interval:
    """The mean of `values` and its percentile-bootstrap interval (Efron 1979). Each value is one prompt's: values of
    one prompt are averaged before, so that many samples of few prompts do not pretend to be many prompts.

    No value at all gives a mean of 0 and an interval that excludes nothing.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        return Interval(0.0, -math.inf, math.inf, 0)
    if data.size == 1:
        return Interval(float(data[0]), -math.inf, math.inf, 1)
    random = np.random.default_rng(seed)
    means = data[random.integers(0, data.size, (draws, data.size))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(data.mean()), float(low), float(high), int(data.size))


def wilson(successes: float, n: int) -> Interval:
    """A share and its interval (Wilson 1927), right also near 0 and 1 and for few cases."""
    if n == 0:
        return Interval(0.0, 0.0, 1.0, 0)
    p, z2 = successes / n, Z95**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return Interval(p, max(0.0, middle - half), min(1.0, middle + half), n)


def correlated(found: float, n: int) -> Interval:
    """A correlation and its interval (Fisher 1921: its inverse hyperbolic tangent is about normal, with variance
    1 / (n - 3)). Of three cases or fewer nothing is known."""
    if n <= 3:
        return Interval(found, -1.0, 1.0, n)
    middle, half = math.atanh(max(-0.999999, min(0.999999, found))), Z95 / math.sqrt(n - 3)
    return Interval(found, math.tanh(middle - half), math.tanh(middle + half), n)


def length_controlled(
    wins: Sequence[float], longer_by: Sequence[float], *, seed: int = 0, draws: int = 400
) -> Interval:
    """The win rate there would be if the answers were equally long.

    A logistic regression of the outcome on how much longer the new answer is, read at "no longer" (Dubois et al. 2024,
    arXiv:2404.04475, without the per-prompt terms that few prompts cannot carry). A ridge keeps it finite when length
    decides everything. The interval is bootstrapped over prompts.

    Args:
        wins: 1 the new answer won, 0 it lost, 0.5 a tie.
        longer_by: tokens of the new answer less those of the old, in the same order.
    """
    won = np.asarray(wins, dtype=np.float64)
    if won.size < 3:
        return Interval(float(won.mean()) if won.size else 0.5, 0.0, 1.0, int(won.size))
    longer = np.asarray(longer_by, dtype=np.float64)
    spread = float(longer.std()) or 1.0
    longer = np.tanh(longer / spread)  # as in the paper: beyond a point, longer is just longer
    random = np.random.default_rng(seed)
    picks = random.integers(0, won.size, (draws, won.size))
    rates = np.array([_at_equal_length(won[pick], longer[pick]) for pick in picks])
    low, high = np.quantile(rates, [0.025, 0.975])
    return Interval(_at_equal_length(won, longer), float(low), float(high), int(won.size))


def _at_equal_length(won: np.ndarray, longer: np.ndarray, ridge: float = 1.0) -> float:
    """Newton's method for two weights; the intercept is hardly held back, the slope by `ridge`."""
    x = np.stack([np.ones_like(longer), longer], axis=1)
    penalty = np.diag([1e-2, ridge])
    weights = np.zeros(2)
    for _ in range(25):
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ weights, -30, 30)))
        gradient = x.T @ (won - p) - penalty @ weights
        hessian = (x * (p * (1 - p))[:, None]).T @ x + penalty
        step = np.linalg.solve(hessian, gradient)
        weights = weights + step
        if float(np.abs(step).max()) < 1e-8:
            break
    return float(1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, float(weights[0]))))))


def more_needed(values: Sequence[float]) -> int:
    """How many more values it takes until the interval of a positive mean leaves zero, if they go on as they were.
    0 when it has left it; -1 when the mean is not positive: more of the same would not help."""
    data = np.asarray(values, dtype=np.float64)
    if data.size < 2 or data.mean() <= 0:
        return -1
    needed = math.ceil((Z95 * float(data.std(ddof=1)) / float(data.mean())) ** 2)
    return max(0, needed - int(data.size))
