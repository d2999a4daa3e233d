"""The environment is what gymnasium says an environment is, and plays by the rules."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.align.classroom import board
from trimtab.align.classroom.environment import Games, TicTacToe
from trimtab.align.classroom.opponents import PERFECT, RANDOM, Table, draw
from trimtab.align.classroom.player import Policy
from trimtab.align.classroom.rollout import think, watch
from trimtab.domain.errors import InvalidInput


def always(position: int) -> Table:
    """An opponent that takes the first free position from this one on."""
    order = np.array([(i - position) % 9 for i in range(9)])
    first = np.where(board.FREE, order, 99).argmin(-1)
    return Table(np.eye(9)[first] * board.FREE)


def test_gymnasium_accepts_the_environment() -> None:
    env = TicTacToe(always(8), render_mode="ansi")  # leaves the positions that the checker draws free
    check_env(env, skip_render_check=True)


def test_a_game_is_won_and_the_reward_comes_at_the_end() -> None:
    env = TicTacToe(always(3))
    seen, info = env.reset(seed=1, options={"side": "X"})
    assert seen.tolist() == [0] * 9
    rewards = []
    for position in (0, 1, 2):
        assert info["action_mask"][position] == 1
        seen, reward, ended, cut, info = env.step(position)
        rewards.append((reward, ended, cut))
    assert rewards == [(0.0, False, False), (0.0, False, False), (1.0, True, False)]
    assert seen.tolist() == [1, 1, 1, -1, -1, 0, 0, 0, 0]
    assert env.render() == "XXX\nOO.\n..."
    assert not env.action_masks().any()


def test_a_game_is_lost_by_the_opponents_reply_and_seen_from_the_agents_side() -> None:
    env = TicTacToe(always(0))
    seen, _ = env.reset(options={"side": "O"})
    assert seen.tolist() == [-1] + [0] * 8
    env.step(8)
    seen, reward, ended, _, _ = env.step(7)
    assert (reward, ended) == (-1.0, True)
    assert seen.tolist() == [-1, -1, -1, 0, 0, 0, 0, 1, 1]


def test_what_is_not_in_the_action_space_is_refused() -> None:
    env = TicTacToe(always(1))
    with pytest.raises(InvalidInput, match="Call reset"):
        env.step(0)
    env.reset(options={"side": "X"})
    env.step(0)
    for taken in (0, 1):
        with pytest.raises(InvalidInput, match=f"Position {taken} is not free"):
            env.step(taken)
    for nowhere in (9, -1):
        with pytest.raises(InvalidInput, match="0 to 8"):
            env.step(nowhere)
    env.step(3)
    env.step(6)
    with pytest.raises(InvalidInput, match="over"):
        env.step(8)
    with pytest.raises(InvalidInput, match="side"):
        env.reset(options={"side": "Z"})


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 8))
def test_no_legal_game_ends_twice_and_every_reward_is_the_boards(seed: int, openings: int) -> None:
    rng = np.random.default_rng(seed)
    games = Games(64, RANDOM, rng, openings=openings)
    earned, ends = games.rewards.copy(), np.zeros(64, np.int64)
    for _ in range(5):
        alive = games.alive.copy()
        agents_x = np.array([board.mover(int(s)) == "X" for s in games.states])
        assert (agents_x == games.plays_x)[alive].all()
        reward = games.step(draw(RANDOM.policy[games.states], rng))
        assert (reward[~alive] == 0).all()
        earned += reward
        ends += alive & ~games.alive
    assert not games.alive.any()
    assert (ends <= 1).all()
    for state, x, reward in zip(games.states, games.plays_x, earned, strict=True):
        assert board.OVER[state]
        loser = board.mover(int(state)) if board.LOST[state] else ""
        assert reward == {"": 0.0, "X": -1.0 if x else 1.0, "O": 1.0 if x else -1.0}[loser]


def test_a_rollout_shows_each_state_the_chances_and_the_reward_at_the_end() -> None:
    policy = Policy(RANDOM.policy, np.full(board.CODES, 0.25))
    rollout = watch(policy, PERFECT.policy, "O", np.random.default_rng(0))
    assert [move.by for move in rollout.moves][:2] == ["opponent", "agent"]
    text = "." * 9
    for move in rollout.moves:
        thought = move.thought
        assert thought.board == text
        assert thought.free == tuple(i for i in range(9) if text[i] == ".")
        assert sum(thought.probabilities) == pytest.approx(1, abs=1e-4)
        assert all(thought.probabilities[i] == 0 for i in range(9) if i not in thought.free)
        assert set(thought.best) <= set(thought.free)
        text = text[: move.position] + thought.mover + text[move.position + 1 :]
    assert rollout.board == text
    assert [move.reward for move in rollout.moves[:-1]] == [0.0] * (len(rollout.moves) - 1)
    assert rollout.moves[-1].reward == rollout.reward <= 0, "nobody beats the perfect opponent"
    assert rollout.moves[1].thought.value == 0.25


@pytest.mark.parametrize(
    "text", ["", "XXXXXXXXX", "XX.......", "O........", "XXXOO....", "XXXOOO...", "X?.......", "X" * 5000]
)
def test_a_board_on_which_nobody_moves_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        think(Policy(RANDOM.policy, np.zeros(board.CODES)), text)
