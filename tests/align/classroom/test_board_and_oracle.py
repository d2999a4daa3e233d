"""The rules and the truth, against a minimax that is written out and knows nothing of tables."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.align.classroom import board, oracle
from trimtab.align.classroom.opponents import PERFECT, RANDOM, Mixture, Selves, draw

ROWS = ("012", "345", "678", "036", "147", "258", "048", "246")


def winner(text: str) -> str:
    rows = ("".join(text[int(i)] for i in row) for row in ROWS)
    return next((row[0] for row in rows if row in ("XXX", "OOO")), "")


@cache
def minimax(text: str, turn: str) -> int:
    """The plain recursion: the result for whoever has `turn`."""
    if winner(text):
        return -1
    if "." not in text:
        return 0
    other = "O" if turn == "X" else "X"
    return max(-minimax(text[:i] + turn + text[i + 1 :], other) for i in range(9) if text[i] == ".")


def test_the_oracle_agrees_with_a_plain_minimax_on_every_state_there_is() -> None:
    assert minimax("." * 9, "X") == 0
    assert minimax.cache_info().currsize == len(board.REACHABLE) == 5478
    assert len(board.OPEN) == 4520
    for state in board.REACHABLE.tolist():
        text, turn = board.show(state), board.mover(state)
        assert oracle.VALUES[state] == minimax(text, turn)
        assert bool(board.OVER[state]) == (winner(text) != "" or "." not in text)
        best = [i for i in range(9) if oracle.BEST[state, i]]
        if board.OVER[state]:
            assert best == []
            continue
        other = "O" if turn == "X" else "X"
        results = {i: -minimax(text[:i] + turn + text[i + 1 :], other) for i in range(9) if text[i] == "."}
        assert best == [i for i, result in results.items() if result == max(results.values())]


@given(st.sampled_from(board.REACHABLE.tolist()), st.integers(0, 7))
def test_turning_or_mirroring_a_board_changes_neither_its_shape_nor_its_value(state: int, symmetry: int) -> None:
    text = board.show(state)
    turned = board.read("".join(text[i] for i in board.SYMMETRIES[symmetry]))
    assert board.CANONICAL[turned] == board.CANONICAL[state]
    assert oracle.VALUES[turned] == oracle.VALUES[state]
    canonical = np.zeros(9, np.int64)
    canonical[board.TO_CANONICAL[state]] = board.BOARDS[state]
    assert board.encode(canonical) == board.CANONICAL[state]


@given(st.sampled_from(board.REACHABLE.tolist()))
def test_a_board_that_is_shown_can_be_read_back(state: int) -> None:
    assert board.read(board.show(state)) == state
    assert board.encode(board.decode(state)) == state


def test_there_are_627_boards_to_move_on_that_do_not_look_alike() -> None:
    assert len(set(board.CANONICAL[board.OPEN].tolist())) == 627
    assert len({tuple(s) for s in board.SYMMETRIES.tolist()}) == 8


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_opponents_take_free_positions_only_and_the_perfect_one_keeps_the_value(seed: int) -> None:
    rng = np.random.default_rng(seed)
    states = rng.choice(board.OPEN, 200)
    selves = Selves(size=3)
    selves.keep()
    selves.now(PERFECT.policy)
    for opponent in (RANDOM, PERFECT, selves, Mixture((selves, PERFECT, RANDOM), (0.5, 0.3, 0.2))):
        chances = opponent.probabilities(states, opponent.seat(200, rng))
        np.testing.assert_allclose(chances.sum(-1), 1.0)
        taken = draw(chances, rng)
        assert board.FREE[states, taken].all()
    taken = draw(PERFECT.policy[states], rng)
    assert (oracle.RESULTS[states, taken] == oracle.VALUES[states]).all()


def test_a_mixture_seats_its_opponents_as_often_as_it_says_and_they_stay_seated() -> None:
    rng = np.random.default_rng(0)
    mixture = Mixture((RANDOM, PERFECT), (0.8, 0.2))
    seats = mixture.seat(20_000, rng)
    winning = board.read("XX.OO....")  # X to move: only position 2 wins
    chances = mixture.probabilities(np.full(20_000, winning), seats)
    assert float((chances[:, 2] == 1.0).mean()) == pytest.approx(0.2, abs=0.02)
    assert (mixture.probabilities(np.full(20_000, winning), seats) == chances).all()


def test_past_selves_are_met_again_until_newer_ones_push_them_out() -> None:
    rng, selves = np.random.default_rng(0), Selves(size=2, fresh=0.5)
    for favourite in range(4):
        policy = np.zeros_like(RANDOM.policy)
        policy[:, favourite] = 1.0
        selves.now(policy)
        selves.keep()
    taken = selves.probabilities(np.zeros(4000, np.int64), selves.seat(4000, rng)).argmax(-1)
    assert sorted(set(taken.tolist())) == [2, 3], "two past ones; the present one is the latest of them"
