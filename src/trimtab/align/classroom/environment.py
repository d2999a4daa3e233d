"""The environment: a board with an opponent inside it.

The words of reinforcement learning, here: the **agent** is the player, the **environment** the board (and whoever sits
on its other side), the **state** the configuration of the board when the agent is to move, an **action** a position,
the **action space** the free positions, the **reward** 1 for a win, -1 for a loss, 0 otherwise, at the end.

`Games` plays many boards at once and is what training uses. `TicTacToe` is one of them behind gymnasium's API, for any
other library's agent; both follow the same rules because one is made of the other.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from trimtab.domain.errors import InvalidInput

from .board import AFTER, BOARDS, EMPTY, FREE, LOST, OVER, POSITIONS, STONES, Bools, Floats, Ints, mover, show
from .opponents import RANDOM, Opponent, draw

MOVES = 5
"""The agent moves at most five times a game."""


class Games:
    """N games side by side. `states` are the agent's to move in, where `alive`.

    Args:
        openings: before the players sit down, 0 to this many random plies are played (never ending the game), so that
            states are met which good players would avoid.
        first: the agent is X in every game (True), O in every game (False), or by chance (None).
    """

    def __init__(
        self, count: int, opponent: Opponent, rng: np.random.Generator, *, openings: int = 0, first: bool | None = None
    ) -> None:
        self._opponent, self._rng = opponent, rng
        self._seats = opponent.seat(count, rng)
        self.states: Ints = self._open(count, openings)
        self.alive: Bools = np.ones(count, np.bool_)
        self.rewards: Floats = np.zeros(count)
        chance = rng.random(count) < 0.5
        self.plays_x: Bools = chance if first is None else np.full(count, first)
        x_to_move = STONES[self.states] % 2 == 0
        self._reply(np.flatnonzero(x_to_move != self.plays_x))

    def step(self, actions: Ints) -> Floats:
        """Play `actions` ``[N]`` where `alive`, and the opponent's replies. Returns the rewards ``[N]`` just earned.

        Raises:
            InvalidInput: an action is not a free position.
        """
        before = self.rewards.copy()
        live = np.flatnonzero(self.alive)
        after = AFTER[self.states[live], actions[live]]
        if (after < 0).any():
            worst = int(live[after < 0][0])
            raise InvalidInput(f"Position {actions[worst]} is not free on {show(int(self.states[worst]))}.")
        self.states[live] = after
        self.rewards[live] = LOST[after]
        self.alive[live] = ~OVER[after]
        self._reply(live[~OVER[after]])
        return self.rewards - before

    def _reply(self, games: Ints) -> None:
        if not len(games):
            return
        states = self.states[games]
        replies = draw(self._opponent.probabilities(states, self._seats[games]), self._rng)
        after = AFTER[states, replies]
        self.states[games] = after
        self.rewards[games] = -1.0 * LOST[after]
        self.alive[games] = ~OVER[after]

    def _open(self, count: int, plies: int) -> Ints:
        states = np.full(count, EMPTY, np.int64)
        left = self._rng.integers(0, plies + 1, count)
        for ply in range(plies):
            after = AFTER[states, draw(RANDOM.policy[states], self._rng)]
            states = np.where((left > ply) & ~OVER[after], after, states)
        return states


class TicTacToe(gymnasium.Env[npt.NDArray[np.int8], np.int64]):
    """One game as a `gymnasium.Env`. The observation is the board ``[9]``: 1 mine, -1 the other's, 0 free.

    `info["action_mask"]` and `action_masks()` tell the free positions. ``reset(options={"side": "X"})`` chooses a side;
    without it chance does.
    """

    metadata = {"render_modes": ["ansi"]}

    def __init__(self, opponent: Opponent = RANDOM, render_mode: str | None = None) -> None:
        self.observation_space = gymnasium.spaces.Box(-1, 1, (POSITIONS,), np.int8)
        self.action_space = gymnasium.spaces.Discrete(POSITIONS)
        self.render_mode = render_mode
        self._opponent = opponent
        self._games: Games | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.int8], dict[str, Any]]:
        """A new game, the opponent's first move made if it has it.

        Raises:
            InvalidInput: a side that is neither X nor O.
        """
        super().reset(seed=seed)
        side = (options or {}).get("side")
        if side not in (None, "X", "O"):
            raise InvalidInput(f"side must be 'X' or 'O', not {side!r}.")
        self._games = Games(1, self._opponent, self.np_random, first=None if side is None else side == "X")
        return self._observation(), self._info()

    def step(self, action: np.int64 | int) -> tuple[npt.NDArray[np.int8], float, bool, bool, dict[str, Any]]:
        """Take a free position; the opponent answers.

        Raises:
            InvalidInput: the position is not free, or the game is over or was never begun.
        """
        if not 0 <= int(action) < POSITIONS:
            raise InvalidInput(f"A position is 0 to 8, not {action}.")
        games = self._playing()
        if not games.alive[0]:
            raise InvalidInput("This game is over. Call reset() for a new one.")
        reward = float(games.step(np.array([action], np.int64))[0])
        return self._observation(), reward, not bool(games.alive[0]), False, self._info()

    def action_masks(self) -> Bools:
        """``[9]``: the free positions, in the form that sb3-contrib asks for."""
        return np.array(FREE[self.state])

    @property
    def state(self) -> int:
        """The board as one integer; see `board`."""
        return int(self._playing().states[0])

    def render(self) -> str:
        """Three lines of X, O and dots."""
        text = show(self.state)
        return "\n".join(text[i : i + 3] for i in (0, 3, 6))

    def _playing(self) -> Games:
        if self._games is None:
            raise InvalidInput("No game has begun. Call reset() first.")
        return self._games

    def _observation(self) -> npt.NDArray[np.int8]:
        board = np.array(np.array([0, 1, -1])[BOARDS[self.state]], np.int8)
        mine = (mover(self.state) == "X") == bool(self._playing().plays_x[0])
        return board if mine else np.negative(board)  # after the agent's own last move the state is the other's

    def _info(self) -> dict[str, Any]:
        return {"action_mask": self.action_masks().astype(np.int8), "state": self.state}
