"""Who the player plays against: chance, the oracle, former selves, or each of them some of the time.

An opponent is a table of probabilities over the nine positions for every state, so a thousand replies are one look-up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .board import FREE, POSITIONS, Floats, Ints
from .oracle import BEST


class Opponent(Protocol):
    def seat(self, games: int, rng: np.random.Generator) -> Ints:
        """Who sits at each of these new games: an integer a game, handed back to `probabilities`."""

    def probabilities(self, states: Ints, seats: Ints) -> Floats:
        """``[N, 9]``: how likely each position is, in states where the opponent moves."""


@dataclass(frozen=True)
class Table:
    """One fixed policy, ``[19683, 9]``. Rows of states where a game is over are never read."""

    policy: Floats

    def seat(self, games: int, rng: np.random.Generator) -> Ints:
        return np.zeros(games, np.int64)

    def probabilities(self, states: Ints, seats: Ints) -> Floats:
        return self.policy[states]


def _even(moves: np.ndarray) -> Floats:
    return np.asarray(moves / np.maximum(moves.sum(-1, keepdims=True), 1), np.float64)


RANDOM = Table(_even(FREE))
"""Any free position, all alike."""
PERFECT = Table(_even(BEST))
"""Any position that keeps the state's true value, all alike. Cannot be beaten."""


class Selves:
    """The player's present and past policies. A new game sits down with the present one `fresh` of the time."""

    def __init__(self, size: int = 10, fresh: float = 0.5) -> None:
        self._past: deque[Floats] = deque([RANDOM.policy], maxlen=size)
        self._present = RANDOM.policy
        self._fresh = fresh

    def now(self, policy: Floats) -> None:
        """This is how the player plays at present."""
        self._present = policy

    def keep(self) -> None:
        """Let the present policy join the past ones; the oldest leaves when there are `size`."""
        self._past.append(self._present)

    def seat(self, games: int, rng: np.random.Generator) -> Ints:
        past = rng.integers(1, len(self._past) + 1, games)
        return np.where(rng.random(games) < self._fresh, 0, past)

    def probabilities(self, states: Ints, seats: Ints) -> Floats:
        out = np.empty((len(states), POSITIONS))
        for seat in np.unique(seats):
            here = seats == seat
            policy = self._present if seat == 0 else self._past[int(seat) - 1]
            out[here] = policy[states[here]]
        return out


class Mixture:
    """Several opponents, each at a share of the games."""

    def __init__(self, opponents: Sequence[Opponent], shares: Sequence[float]) -> None:
        self._opponents = tuple(opponents)
        self._shares = np.asarray(shares, np.float64) / sum(shares)

    def seat(self, games: int, rng: np.random.Generator) -> Ints:
        which = rng.choice(len(self._opponents), games, p=self._shares)
        seats = np.empty(games, np.int64)
        for i, opponent in enumerate(self._opponents):
            here = which == i
            seats[here] = opponent.seat(int(here.sum()), rng) * len(self._opponents) + i
        return seats

    def probabilities(self, states: Ints, seats: Ints) -> Floats:
        out = np.empty((len(states), POSITIONS))
        for i, opponent in enumerate(self._opponents):
            here = seats % len(self._opponents) == i
            out[here] = opponent.probabilities(states[here], seats[here] // len(self._opponents))
        return out


def draw(probabilities: Floats, rng: np.random.Generator) -> Ints:
    """One position a row, as likely as its column says. A position of probability 0 is never drawn."""
    sums = np.cumsum(probabilities, -1)
    return np.asarray((sums <= rng.random((len(sums), 1)) * sums[:, -1:]).sum(-1), np.int64)
