"""A game against a person: the board comes in, the player's answer goes out. Nothing is kept between two moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimtab.domain.errors import InvalidInput

from .board import AFTER, LOST, OVER, REACHABLE, ROWS, mover, read, show
from .opponents import draw
from .player import Policy
from .rollout import Thought, think

_KNOWN = frozenset(REACHABLE.tolist())


@dataclass(frozen=True)
class Answer:
    """The board after the player's move, or as it was when the game had ended."""

    board: str
    position: int | None
    thought: Thought | None
    """What the player made of the board before it moved."""
    over: bool
    winner: str
    """``"X"``, ``"O"``, or empty: a draw, or not over."""
    row: tuple[int, ...]
    """The three positions that won."""


def state_of(board: str) -> int:
    """A board of nine characters as a state, ended or not.

    Raises:
        InvalidInput: no game leads to it.
    """
    text = "".join(board.split()).upper()
    if len(text) != 9 or set(text) - set("XO."):
        raise InvalidInput(f"A board is nine of X, O and '.', not {board[:40]!r}.")
    state = read(text)
    if state not in _KNOWN or show(state) != text:
        raise InvalidInput(f"{text} does not occur: X begins, they take turns, and the first row of three ends it.")
    return state


def answer(policy: Policy, board: str, *, seed: int | None = None) -> Answer:
    """Let the player move on `board`: its likeliest position or, with a `seed`, one drawn from its probabilities.

    Raises:
        InvalidInput: not a board of any game.
    """
    state, position, thought = state_of(board), None, None
    if not OVER[state]:
        thought = think(policy, show(state))
        chances = policy.greedy if seed is None else policy.probabilities
        position = int(draw(chances[[state]], np.random.default_rng(seed))[0])
        state = int(AFTER[state, position])
    text, winner = show(state), ("O" if mover(state) == "X" else "X") if LOST[state] else ""
    row = next((line for line in ROWS if winner and all(text[i] == winner for i in line)), ())
    return Answer(text, position, thought, bool(OVER[state]), winner, row)
