"""What a variant lost: how well it predicts a fixed text, and how far its predictions are from the reference's.

Teacher-forced: each token of the text is predicted from those before it. `Position` holds what a model expected there.
A token that is not among the likeliest ones that are
looked at counts as the least likely of them: perplexity comes out a little too small, of every variant alike.
The divergence is KL(reference || variant) over the reference's likeliest tokens, and one bin for all others; a token
that the variant does not list counts as its least likely listed one, which makes the divergence smaller than it is by
a little.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trimtab.domain.errors import EngineError

from .interval import Interval, bootstrap, mean

BLOCK = 16
"""Neighbouring tokens that are drawn together for an interval."""

TEXTS = (
    "The harbour of Vellmouth was built in 1842 to shelter herring boats from the northern gales. Its two stone arms "
    "reach out four hundred metres and almost touch, leaving a gap just wide enough for a single ship. Every evening a "
    "keeper rowed across with a lamp, because the owners would not pay for a second tower until a coal ship was lost.",
    "To change a bicycle tyre you need two levers and a pump. Let the air out, push one side of the tyre over the rim "
    "with the levers, and pull the tube out. Run your fingers along the inside of the tyre to find what made the hole; "
    "if you leave it there, the new tube will last only a few minutes. Put the tube back, then the tyre, and pump.",
    "Water boils at a lower temperature on a mountain because the air presses on it less. At three thousand metres it "
    "boils at about ninety degrees, so eggs and potatoes take longer to cook. A pressure cooker does the opposite: it "
    "keeps the steam in, the pressure rises, and the water gets hotter than one hundred degrees before it boils.",
    "Dear Ms Okafor, thank you for your order of 12 March. Two of the five chairs are on their way and should reach "
    "you on Thursday. The other three are delayed because the oak did not pass our inspection. We are sorry for the "
    "wait, and we will refund the delivery fee. If you would rather cancel the rest, please reply by the end of May.",
)
"""Written for this; no model has read them."""
GIVEN = 8
"""Tokens of each text that are given before the first prediction counts."""


@dataclass(frozen=True)
class Position:
    """What was expected at one place of a text."""

    token: int
    """That came."""
    expected: Mapping[int, float]
    """Token id to log probability, of the likeliest ones."""

    @property
    def nats(self) -> float:
        return -self.expected.get(self.token, min(self.expected.values()))


@dataclass(frozen=True)
class Quality:
    tokens: int
    """Predicted."""
    perplexity: Interval
    loss: Interval
    """By how much perplexity is above the reference's: 0.03 is 3 %. Paired, token by token."""
    divergence: Interval
    """Nats a token."""
    same_top: float
    """Share of places where the likeliest token is the reference's."""


def compare(mine: Sequence[Position], reference: Sequence[Position]) -> Quality:
    """Both of the same text.

    Raises:
        EngineError: they are not; the engines read the text as different tokens.
    """
    if not mine or [p.token for p in mine] != [p.token for p in reference]:
        raise EngineError("The two models read the text as different tokens and cannot be compared.")
    pairs = list(zip(mine, reference, strict=True))
    return Quality(
        tokens=len(mine),
        perplexity=bootstrap([p.nats for p in mine], _perplexity, block=BLOCK),
        loss=bootstrap([m.nats - r.nats for m, r in pairs], lambda values: math.expm1(mean(values)), block=BLOCK),
        divergence=bootstrap([_kl(r.expected, m.expected) for m, r in pairs], mean, block=BLOCK),
        same_top=mean([float(_top(m) == _top(r)) for m, r in pairs]),
    )


def _perplexity(nats: Sequence[float]) -> float:
    return math.exp(min(700.0, mean(nats)))


def _top(position: Position) -> int:
    return max(position.expected, key=position.expected.__getitem__)


def _kl(reference: Mapping[int, float], other: Mapping[int, float]) -> float:
    floor = min(other.values())
    total, rest_p, rest_q = 0.0, 1.0, 1.0
    for token, logp in reference.items():
        logq = other.get(token, floor)
        total += math.exp(logp) * (logp - logq)
        rest_p -= math.exp(logp)
        rest_q -= math.exp(logq)
    rest_p, rest_q = max(rest_p, 1e-9), max(rest_q, 1e-9)
    return total + rest_p * math.log(rest_p / rest_q)
