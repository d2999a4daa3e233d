"""One game, step by step, for somebody who watches: what the policy saw, what it thought, what it did, what it earned.

Everything here is plain: `dataclasses.asdict` gives JSON. Boards are nine characters, ``X``, ``O`` and ``.``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from trimtab.domain.errors import InvalidInput

from . import oracle
from .board import AFTER, EMPTY, FREE, LOST, OPEN, OVER, Floats, mover, read, show
from .opponents import draw
from .player import Policy

_OPEN = frozenset(OPEN.tolist())


@dataclass(frozen=True)
class Thought:
    """What a policy makes of one state."""

    board: str
    mover: str
    """``"X"`` or ``"O"``."""
    free: tuple[int, ...]
    """The action space."""
    probabilities: tuple[float, ...]
    """Nine, 0 where a position is not free."""
    value: float
    """The reward the mover expects, by the policy's estimate: -1 to 1."""
    truth: int
    """The same under perfect play, by the oracle: 1, 0 or -1."""
    best: tuple[int, ...]
    """The positions that keep it."""


@dataclass(frozen=True)
class Move:
    by: Literal["agent", "opponent"]
    position: int
    thought: Thought
    """In the state before: the agent's, or the opponent's chances with no estimate of the value (0)."""
    reward: float
    """What the agent earned by this step: 1, -1, or 0 until the end."""


@dataclass(frozen=True)
class Rollout:
    """States and actions of one game, and the reward at its end."""

    side: str
    """The agent's."""
    moves: tuple[Move, ...]
    board: str
    """At the end."""
    reward: float
    """1 won, 0 drawn, -1 lost."""


def think(policy: Policy, board: str) -> Thought:
    """What the policy makes of a board of nine characters.

    Raises:
        InvalidInput: it is not a board that occurs in a game, or the game on it is over.
    """
    text = "".join(board.split()).upper()
    if len(text) != 9 or set(text) - set("XO."):
        raise InvalidInput(f"A board is nine of X, O and '.', not {board[:40]!r}.")
    if not 0 <= text.count("X") - text.count("O") <= 1:
        raise InvalidInput(f"{text} does not occur: X begins and they take turns.")
    state = read(text)
    if state not in _OPEN:
        raise InvalidInput(f"Nobody moves on {text}: the game is over, or no game leads there.")
    return _thought(state, policy.probabilities, float(policy.values[state]))


def watch(policy: Policy, opponent: Floats, side: str, rng: np.random.Generator, *, greedy: bool = False) -> Rollout:
    """Play one game and keep every step.

    Args:
        opponent: probabilities ``[19683, 9]``, such as `opponents.PERFECT.policy` or another `Policy.greedy`.
        side: the agent's, ``"X"`` or ``"O"``.
        greedy: the agent takes its likeliest position instead of drawing one.

    Raises:
        InvalidInput: a side that is neither.
    """
    if side not in ("X", "O"):
        raise InvalidInput(f"side must be 'X' or 'O', not {side!r}.")
    state, moves, reward = EMPTY, [], 0.0
    while not OVER[state]:
        agent = mover(state) == side
        chances = (policy.greedy if greedy else policy.probabilities) if agent else opponent
        position = int(draw(chances[[state]], rng)[0])
        shown = _thought(
            state, policy.probabilities if agent else opponent, float(policy.values[state]) if agent else 0.0
        )
        state = int(AFTER[state, position])
        reward = float(LOST[state]) * (1.0 if agent else -1.0)
        moves.append(Move("agent" if agent else "opponent", position, shown, reward))
    return Rollout(side, tuple(moves), show(state), reward)


def _thought(state: int, chances: Floats, value: float) -> Thought:
    return Thought(
        board=show(state),
        mover=mover(state),
        free=tuple(np.flatnonzero(FREE[state]).tolist()),
        probabilities=tuple(round(float(chance), 6) for chance in chances[state]),
        value=value,
        truth=int(oracle.VALUES[state]),
        best=tuple(np.flatnonzero(oracle.BEST[state]).tolist()),
    )
