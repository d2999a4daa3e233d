"""Drawing a board of Tic-Tac-Toe: stones, and on the free squares how likely the player is to go there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .markup import Safe, tag

SQUARES = range(9)


def board_of(moves: Sequence[int]) -> str:
    """Nine characters after these positions, X's first."""
    stones = ["."] * 9
    for number, position in enumerate(moves):
        stones[position] = "XO"[number % 2]
    return "".join(stones)


def heat(chance: float) -> int:
    """How strongly a square is coloured: 0 to 9."""
    return min(9, max(0, int(chance * 10)))


def percent(chance: float) -> str:
    return "<1%" if 0 < chance < 0.005 else f"{chance:.0%}"


def draw_board(board: str, chances: Sequence[float] = (), chosen: int | None = None, row: Sequence[int] = ()) -> Safe:
    """The board as a table. `chances` are nine probabilities; `chosen` is the position that is taken next."""
    return tag("table", tag("tbody", *(_line(board, chances, chosen, row, at) for at in (0, 3, 6))), cls="tt-board")


def _line(board: str, chances: Sequence[float], chosen: int | None, row: Sequence[int], at: int) -> Safe:
    return tag("tr", *(_square(board, chances, chosen, row, i) for i in range(at, at + 3)))


def _square(board: str, chances: Sequence[float], chosen: int | None, row: Sequence[int], i: int) -> Safe:
    stone = board[i]
    marks = ["tt-chosen"] if i == chosen else []
    marks += ["tt-won"] if i in row else []
    if stone != ".":
        return tag("td", stone, cls=" ".join([f"tt-{stone.lower()}", *marks]))
    if not chances:
        return tag("td", tag("small", i + 1), cls=" ".join(marks))
    return tag("td", percent(chances[i]), tag("small", i + 1), cls=" ".join([f"tt-h{heat(chances[i])}", *marks]))


def expects(thought: Mapping[str, Any]) -> str:
    """A value in words."""
    truth = {1: "a win", 0: "a draw", -1: "a loss"}[int(thought["truth"])]
    return f"{float(thought['value']):+.2f} (with perfect play: {truth})"


def position(number: int) -> str:
    """As people count: 1 to 9."""
    return str(number + 1)
