"""The exact truth about Tic-Tac-Toe: the value of every state under perfect play, and the moves that keep it.

Minimax over all 5,478 states, from full boards back to the empty one: ``value(s) = max over free a of -value(after(s,
a))``. No player learns from it, except by losing to the opponent that plays it; exams are judged by it.
"""

from __future__ import annotations

import numpy as np

from .board import AFTER, FREE, LOST, OPEN, OVER, POSITIONS, STONES, Bools, Ints


def _solve() -> Ints:
    values = np.where(LOST, -1, 0)
    for stones in reversed(range(POSITIONS)):
        states = OPEN[STONES[OPEN] == stones]
        results = np.where(FREE[states], -values[AFTER[states]], -2)
        values[states] = results.max(-1)
    return values


VALUES: Ints = _solve()
"""``[19683]``: 1 if whoever moves wins, 0 for a draw, -1 for a loss. Defined where states are reachable."""
RESULTS: Ints = np.where(FREE, -VALUES[AFTER], -2)
"""``[19683, 9]``: what each move leads to, for whoever makes it; -2 where the position is not free."""
BEST: Bools = FREE & (VALUES[:, None] == RESULTS) & ~OVER[:, None]
"""``[19683, 9]``: the moves that keep the value. None when the game is over."""
