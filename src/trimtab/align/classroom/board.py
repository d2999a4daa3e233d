"""The rules of Tic-Tac-Toe as tables, so that thousands of boards are played by looking things up.

A **state** is one integer, the board in base 3 seen by whoever moves next: position i counts 3^i times 0 (free), 1
(mine) or 2 (the other's). Who is X follows from the number of stones. Of the 19,683 codes 5,478 occur in games.
A **position** is 0 to 8, row by row from the top left. Positions and states mean the same wherever they appear here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

POSITIONS = 9
CODES = 3**POSITIONS
EMPTY = 0
"""The state every game starts from; X moves."""
ROWS = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))
_POWERS = 3 ** np.arange(POSITIONS, dtype=np.int64)


def encode(boards: npt.ArrayLike) -> Ints:
    """States of boards ``[..., 9]`` with 0, 1, 2 as above."""
    return np.asarray(np.asarray(boards, np.int64) @ _POWERS)


def decode(states: npt.ArrayLike) -> Ints:
    """Inverse of `encode`."""
    return np.asarray(states, np.int64)[..., None] // _POWERS % 3


BOARDS: Ints = decode(np.arange(CODES))
"""``[19683, 9]``."""
STONES: Ints = (BOARDS > 0).sum(-1)
_LINES = BOARDS[:, np.array(ROWS)]
LOST: Bools = (_LINES == 2).all(-1).any(-1)
"""The other has three in a row: the game is over and whoever should move has lost."""
OVER: Bools = LOST | (STONES == POSITIONS)
FREE: Bools = (BOARDS == 0) & ~OVER[:, None]
"""``[19683, 9]``: the action space of each state; nothing is free when the game is over."""
SWAPPED: Ints = encode(np.array([0, 2, 1])[BOARDS])
"""The same board seen by the other."""
AFTER: Ints = np.where(FREE, SWAPPED[:, None] + 2 * _POWERS, -1)
"""``[19683, 9]``: the state, seen by the other, after a stone on a free position; -1 where it is not free."""


def _reachable() -> Ints:
    found = [np.array([EMPTY])]
    while len(found[-1]):
        following = AFTER[found[-1]]
        found.append(np.unique(following[following >= 0]))
    return np.unique(np.concatenate(found))


REACHABLE: Ints = _reachable()
"""The 5,478 states that occur in games, ended ones included, ascending."""
OPEN: Ints = REACHABLE[~OVER[REACHABLE]]
"""The 4,520 of them in which somebody moves."""


def _symmetries() -> Ints:
    grid = np.arange(POSITIONS).reshape(3, 3)
    turned = [np.rot90(face, k) for face in (grid, grid.T) for k in range(4)]
    return np.array([t.reshape(-1) for t in turned])


SYMMETRIES: Ints = _symmetries()
"""``[8, 9]``: turns and mirror images. Symmetry k shows at position i what stood at ``SYMMETRIES[k, i]``."""
_IMAGES = np.stack([encode(BOARDS[:, symmetry]) for symmetry in SYMMETRIES], -1)
CANONICAL: Ints = _IMAGES.min(-1)
"""``[19683]``: the smallest code among a state's eight images: one for all boards that look alike."""
_INVERSE = np.argsort(SYMMETRIES, -1)
TO_CANONICAL: Ints = _INVERSE[_IMAGES.argmin(-1)]
"""``[19683, 9]``: where each position of a state lies on its canonical board."""


def show(state: int) -> str:
    """Nine characters, ``X``, ``O`` and ``.``, row by row."""
    mine, other = ("X", "O") if mover(state) == "X" else ("O", "X")
    return "".join({0: ".", 1: mine, 2: other}[int(stone)] for stone in BOARDS[state])


def read(text: str) -> int:
    """Inverse of `show`; blanks and line ends are skipped."""
    stones = [c for c in text.upper() if not c.isspace()]
    mine = "X" if (len(stones) - stones.count(".")) % 2 == 0 else "O"
    return int(encode([0 if c == "." else 1 if c == mine else 2 for c in stones]))


def mover(state: int) -> str:
    """``"X"`` or ``"O"``: whose turn it is."""
    return "X" if STONES[state] % 2 == 0 else "O"
