"""The exam finds what is there: a perfect policy passes, one planted mistake does not."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from trimtab.align.classroom import board, exam, oracle
from trimtab.align.classroom.opponents import PERFECT, RANDOM, draw
from trimtab.align.classroom.player import Policy

TRUTH = Policy(PERFECT.policy, oracle.VALUES.astype(np.float64))


def with_move(text: str, position: int) -> Policy:
    chances = PERFECT.policy.copy()
    chances[board.read(text)] = np.eye(9)[position]
    return Policy(chances, TRUTH.values)


def test_perfect_play_passes_and_its_values_are_the_true_ones() -> None:
    report = exam.examine(TRUTH)
    assert report.passed
    assert report.never_loses
    assert (report.kept, report.optimal) == (report.not_lost, 4520)
    assert report.not_lost == sum(int(oracle.VALUES[s]) >= 0 for s in board.OPEN.tolist()) == 3888
    assert report.value_correlation == pytest.approx(1)
    assert report.perfect == exam.Odds(0.0, 1.0, 0.0)
    assert report.random.loss == 0


def test_a_mistake_on_the_way_is_found_with_the_lines_that_punish_it() -> None:
    planted = with_move("X........", 1)  # O answers a corner at its side, which loses; perfect play takes the centre
    report = exam.examine(planted)
    assert not report.never_loses
    assert report.o.losses > 0 == report.x.losses
    assert report.o.losses >= len(report.o.lost_lines) > 0
    for line in report.o.lost_lines:
        state = board.EMPTY
        for ply, position in enumerate(line):
            if ply % 2:
                assert planted.greedy[state].argmax() == position
            state = int(board.AFTER[state, position])
        assert board.LOST[state]
        assert board.mover(state) == "O"
    assert report.blunders == (exam.Blunder(board.read("X........"), 1),)
    assert report.perfect.loss > 0


def test_a_mistake_that_its_own_play_never_meets_is_found_too() -> None:
    state = board.read("XX..O....")  # O must take position 2
    assert oracle.VALUES[state] == 0
    report = exam.examine(with_move("XX..O....", 8))
    assert report.blunders == (exam.Blunder(state, 8),)
    assert report.kept == report.not_lost - 1
    assert not report.passed


def test_every_line_is_followed() -> None:
    """Counted again by a recursion that merges nothing."""
    moves = TRUTH.greedy.argmax(-1)

    def lines(state: int, players: bool) -> int:
        if board.OVER[state]:
            return 1
        options = [moves[state]] if players else np.flatnonzero(board.FREE[state])
        return sum(lines(int(board.AFTER[state, p]), not players) for p in options)

    report = exam.examine(TRUTH)
    assert report.x.lines == lines(board.EMPTY, True) == report.x.wins + report.x.draws + report.x.losses
    assert report.o.lines == lines(board.EMPTY, False)


def test_all_lost_lines_are_counted_for_a_policy_that_knows_nothing() -> None:
    policy = Policy(RANDOM.policy, np.zeros(board.CODES))  # the first free position, always
    report = exam.examine(policy)
    moves = policy.greedy.argmax(-1)
    assert report.x.losses == len(list(exam.lost_lines(moves, True))) > 0
    assert report.o.losses == len(list(exam.lost_lines(moves, False))) > len(report.o.lost_lines) == exam.SHOWN
    assert report.value_correlation == 0
    assert report.entropy > 1


def test_the_exact_odds_are_what_many_games_come_to() -> None:
    rng, count = np.random.default_rng(0), 20_000
    wins = losses = 0
    for x in (True, False):
        states = np.zeros(count // 2, np.int64)
        for stones in range(9):
            live = ~board.OVER[states]
            table = TRUTH.greedy if (stones % 2 == 0) == x else RANDOM.policy
            states[live] = board.AFTER[states[live], draw(table[states[live]], rng)]
        x_lost = board.LOST[states] & (board.STONES[states] % 2 == 0)
        o_lost = board.LOST[states] & (board.STONES[states] % 2 == 1)
        wins += int((o_lost if x else x_lost).sum())
        losses += int((x_lost if x else o_lost).sum())
    odds = exam.odds(TRUTH.greedy, RANDOM.policy)
    assert odds.win + odds.draw + odds.loss == pytest.approx(1)
    assert wins / count == pytest.approx(odds.win, abs=0.01)
    assert losses == 0 == odds.loss


def test_the_report_encodes_as_json() -> None:
    assert json.loads(json.dumps(asdict(exam.examine(TRUTH))))["x"]["side"] == "X"
