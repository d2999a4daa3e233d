"""The player: a small network that looks at the board and gives a probability to each position, and a value.

Two hidden layers of `hidden` tanh units over the canonical board (all eight turns and mirror images of a board are one
to it), then nine logits and one value (weights as in "The 37 implementation details": orthogonal, gain sqrt 2 inside,
0.01 for the policy, 1 for the value). It is told which positions are free and nothing else: no search, no rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from .board import BOARDS, CANONICAL, CODES, FREE, OPEN, POSITIONS, TO_CANONICAL, Floats, Ints

SHAPES: Ints = np.unique(CANONICAL[OPEN])
"""The 627 canonical states in which somebody moves, ascending."""


def _row_of() -> Ints:
    rows = np.zeros(CODES, np.int64)  # states in which nobody moves read row 0; they are always masked
    rows[OPEN] = np.searchsorted(SHAPES, CANONICAL[OPEN])
    return rows


ROW: Ints = _row_of()
"""``[19683]``: each state's index in `SHAPES`."""

_BOARDS = BOARDS[SHAPES]
_INPUTS = torch.tensor(np.concatenate([_BOARDS == 1, _BOARDS == 2], -1), dtype=torch.float32)
_ROW, _WHERE, _FREE = torch.tensor(ROW), torch.tensor(TO_CANONICAL), torch.tensor(FREE)


def allowed(states: Tensor) -> Tensor:
    """Boolean ``[..., 9]``: the action space of each state."""
    return _FREE[states]


@dataclass(frozen=True)
class About:
    """What a checkpoint says of itself."""

    algorithm: str = "ppo"
    """``"ppo"`` or ``"q"``."""
    hidden: int = 128
    seed: int = 0
    update: int = 0
    games: int = 0
    opponent: str = ""
    proved: bool = False
    """It passed the exam: lost no line of play as either side, and gave away nothing in any state."""


class Player(nn.Module):
    """An actor for `ppo`: ``{"states": [B, T]}`` to logits ``[B, T, 9]`` and values ``[B, T]``."""

    def __init__(self, hidden: int = 128, generator: torch.Generator | None = None) -> None:
        super().__init__()
        gain = math.sqrt(2)
        self.body = nn.Sequential(
            _layer(2 * POSITIONS, hidden, gain, generator),
            nn.Tanh(),
            _layer(hidden, hidden, gain, generator),
            nn.Tanh(),
        )
        self.policy = _layer(hidden, POSITIONS, 0.01, generator)
        self.value = _layer(hidden, 1, 1.0, generator)

    def forward(self, states: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        # A batch of thousands holds at most 627 different boards: each is computed once, then looked up.
        codes = states["states"]
        features = self.body(_INPUTS)
        table = torch.cat([self.policy(features), self.value(features)], -1)
        # An embedding, because indexing adds its gradients up in whatever order the threads come.
        looked = nn.functional.embedding(_ROW[codes], table)
        return looked[..., :POSITIONS].gather(-1, _WHERE[codes]), looked[..., POSITIONS]


def _layer(inputs: int, outputs: int, gain: float, generator: torch.Generator | None) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain, generator)
    nn.init.zeros_(layer.bias)
    return layer


@dataclass(frozen=True)
class Policy:
    """How somebody plays, frozen: tables for every state. What exams read, and what an opponent plays from."""

    probabilities: Floats
    """``[19683, 9]``, 0 where a position is not free."""
    values: Floats
    """``[19683]``: the expected reward of whoever moves, as the player estimates it."""
    about: About = About()

    @property
    def greedy(self) -> Floats:
        """The same with all weight on the likeliest position, the first among equals."""
        return np.asarray((np.arange(POSITIONS) == self.probabilities.argmax(-1)[:, None]) & FREE, np.float64)


@torch.no_grad()
def freeze(player: Player, about: About = About()) -> Policy:
    """The player as tables."""
    codes = torch.tensor(OPEN)
    logits, values = player({"states": codes})
    chances = np.zeros((CODES, POSITIONS))
    chances[OPEN] = torch.softmax(logits.double().masked_fill(~allowed(codes), -math.inf), -1).numpy()
    estimates = np.zeros(CODES)
    estimates[OPEN] = values.numpy()
    return Policy(chances, estimates, about)
