"""How good a reward model is, by judgements that it was not trained on.

Accuracy alone lies in two ways: a model may be right and sure of nothing (or wrong and sure), and it may have learned
that longer is better. So the report also says how confidence and accuracy go together, how score and length do, and
shows what the model got most wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Judgement

from .reward_model import RewardModel, Row


@dataclass(frozen=True)
class Bin:
    """Rows of similar confidence: how sure the model was on average, and how often it was right."""

    confidence: float
    accuracy: float
    rows: int


@dataclass(frozen=True)
class Mistake:
    judgement: Judgement
    margin: float
    """Nats; the more negative, the surer it was of the wrong one."""


@dataclass(frozen=True)
class RewardReport:
    """What held-out judgements say about the model."""

    rows: int
    accuracy: float
    preference_accuracy: float | None
    label_accuracy: float | None
    calibration_error: float
    """Expected calibration error: mean distance of confidence and accuracy over the bins, weighted by rows."""
    bins: tuple[Bin, ...]
    length_correlation: float
    """Of score and words, Pearson, over all texts. Near 1: it pays for length."""
    accuracy_shorter_better: float | None
    """On pairs whose better answer is the shorter."""
    accuracy_longer_better: float | None
    mistakes: tuple[Mistake, ...]


@torch.no_grad()
def report(model: RewardModel, rows: Sequence[Row], *, bins: int = 10, mistakes: int = 10) -> RewardReport:
    """Judge the model by rows it was not trained on.

    Raises:
        InvalidInput: there are none.
    """
    if not rows:
        raise InvalidInput("There are no held-out judgements to judge the reward model by. Keep some back.")
    texts = [text for row in rows for text in row.texts]
    features = model.features(texts)
    scores, margins = model.raw(features), model.margins(rows, features).tolist()
    pairs = [(row, m) for row, m in zip(rows, margins, strict=True) if row.worse is not None]
    curve = _calibration(margins, bins)
    worst = sorted(zip(margins, rows, strict=True), key=lambda pair: pair[0])
    return RewardReport(
        rows=len(rows),
        accuracy=_share(margins) or 0.0,
        preference_accuracy=_share([m for _, m in pairs]),
        label_accuracy=_share([m for row, m in zip(rows, margins, strict=True) if row.worse is None]),
        calibration_error=sum(b.rows * abs(b.confidence - b.accuracy) for b in curve) / len(rows),
        bins=tuple(curve),
        length_correlation=_correlation(scores, torch.tensor([float(text.words) for text in texts])),
        accuracy_shorter_better=_share([m for row, m in pairs if row.worse and row.text.words < row.worse.words]),
        accuracy_longer_better=_share([m for row, m in pairs if row.worse and row.text.words > row.worse.words]),
        mistakes=tuple(Mistake(row.judgement, margin) for margin, row in worst[:mistakes] if margin < 0),
    )


def _share(margins: Sequence[float]) -> float | None:
    return sum(margin > 0 for margin in margins) / len(margins) if margins else None


def _calibration(margins: Sequence[float], bins: int) -> list[Bin]:
    """Confidence is the probability of the side the model is on: 0.5 to 1."""
    groups: dict[int, list[tuple[float, bool]]] = {}
    for margin in margins:
        confidence = 1 / (1 + math.exp(-min(abs(margin), 30.0)))
        groups.setdefault(min(int((confidence - 0.5) * 2 * bins), bins - 1), []).append((confidence, margin > 0))
    return [
        Bin(sum(c for c, _ in group) / len(group), sum(r for _, r in group) / len(group), len(group))
        for _, group in sorted(groups.items())
    ]


def _correlation(x: Tensor, y: Tensor) -> float:
    x, y = x - x.mean(), y - y.mean()
    spread = float(x.norm() * y.norm())
    return float((x * y).sum()) / spread if spread > 1e-9 else 0.0
