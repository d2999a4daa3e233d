"""The player: a small network that looks at the board and gives a probability to each position, and a value.

Two hidden layers of `hidden` tanh units over the canonical board (all eight turns and mirror images of a board are one
to it), then nine logits and one value (Huang et al. 2022: orthogonal weights, gain sqrt 2 inside, 0.01 for the policy, 1 for the value). It knows
which positions are free and nothing else: no search, no rows. Ties between equal positions go to the first.

A checkpoint is a safetensors file with what is needed to read it in its header: no pickle, nothing that runs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trimtab.domain.errors import ModelFileError

from .board import BOARDS, CANONICAL, CODES, FREE, OPEN, POSITIONS, TO_CANONICAL, Floats

FORMAT = "trimtab-player-1"
LARGEST = 8_000_000
"""Bytes of a checkpoint we are willing to open; ours have under 2 MB."""

_SHAPES = np.unique(CANONICAL[OPEN])
"""The 627 canonical states in which somebody moves."""


def _inputs() -> Tensor:
    boards = BOARDS[_SHAPES]
    return torch.tensor(np.concatenate([boards == 1, boards == 2], -1), dtype=torch.float32)


def _row_of() -> Tensor:
    rows = np.zeros(CODES, np.int64)  # states in which nobody moves read row 0; they are always masked
    rows[OPEN] = np.searchsorted(_SHAPES, CANONICAL[OPEN])
    return torch.tensor(rows)


_INPUTS, _ROW, _WHERE = _inputs(), _row_of(), torch.tensor(TO_CANONICAL)


def allowed(states: Tensor) -> Tensor:
    """Boolean ``[..., 9]``: the action space of each state."""
    return _FREE[states]


_FREE = torch.tensor(FREE)


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

    def __init__(self, hidden: int = 128) -> None:
        super().__init__()
        self.hidden = hidden
        self.body = nn.Sequential(
            _layer(2 * POSITIONS, hidden, math.sqrt(2)), nn.Tanh(), _layer(hidden, hidden, math.sqrt(2)), nn.Tanh()
        )
        self.policy = _layer(hidden, POSITIONS, 0.01)
        self.value = _layer(hidden, 1, 1.0)

    def forward(self, states: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        # A batch of thousands holds at most 627 different boards: each is computed once, then looked up.
        codes = states["states"]
        features = self.body(_INPUTS)
        rows = _ROW[codes]
        logits = self.policy(features)[rows].gather(-1, _WHERE[codes])
        return logits, self.value(features).squeeze(-1)[rows]


def _layer(inputs: int, outputs: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
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
