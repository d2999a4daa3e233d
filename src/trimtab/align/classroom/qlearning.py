"""Tabular Q-learning in self-play: the line that anything cleverer has to reach.

One number for each of the 627 canonical states and 9 positions: the result to expect, for whoever moves. Both sides
learn it: ``Q(s, a) <- Q(s, a) + alpha (y - Q(s, a))`` with y = 1 for a win, 0 for a full board, and otherwise
``-max over a' of Q(s', a')``, since what is good for the other is bad for the mover (Watkins 1989, with Littman's 1994
minimax for two players taking turns). A game's players both move at random a share of the time that is drawn anew, 0
to 1, for each game.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from . import exam
from .board import AFTER, EMPTY, FREE, LOST, OVER, POSITIONS, TO_CANONICAL, Floats, Ints
from .checkpoint import Checkpoint
from .opponents import RANDOM, draw
from .player import ROW, SHAPES, About
from .training import Clock, Point, Step


@dataclass(frozen=True)
class QConfig:
    seed: int = 0
    games: int = 45_000
    """At most. Training ends before, when the exam is passed."""
    batch: int = 50
    """Games side by side."""
    examine_every: int = 100
    """Batches between two points of the learning curve."""
    alpha: float = 0.5
    """The world has no chance in it, so large is fine (taste)."""
    stop_when_proved: bool = True


def train(config: QConfig = QConfig()) -> Iterator[Step]:
    """Learn the table; yields the learning curve like `training.train`. `entropy` and the value's figures are 0."""
    rng = np.random.default_rng(config.seed)
    q = np.zeros((len(SHAPES), POSITIONS))
    clock, moves, rounds = Clock(), 0, max(config.games // config.batch, 1)
    for update in range(1, rounds + 1):
        reward, made = _play(q, config, rng)
        moves += made
        if update % config.examine_every and update < rounds:
            continue
        checkpoint = Checkpoint(
            About("q", 1, config.seed, update, update * config.batch, "self"), {"q": torch.tensor(q)}
        )
        report = exam.examine(checkpoint.policy)
        done = update == rounds or (config.stop_when_proved and report.passed)
        point = Point(update, update * config.batch, moves, *clock.read(), reward, 0.0, 0.0, 0.0, report, done)
        about = About("q", 1, config.seed, update, update * config.batch, "self", report.passed)
        yield Step(point, Checkpoint(about, checkpoint.tensors))
        if done:
            return


def _play(q: Floats, config: QConfig, rng: np.random.Generator) -> tuple[float, int]:
    """Play one batch and learn from every move. Returns X's mean reward and how many moves were made."""
    states = np.full(config.batch, EMPTY)
    wild = rng.random(config.batch)
    won, moves = 0, 0
    for stones in range(POSITIONS):
        best = _worth(q, states).argmax(-1)
        actions = np.where(rng.random(len(states)) < wild, draw(RANDOM.policy[states], rng), best)
        after = AFTER[states, actions]
        target = np.where(LOST[after], 1.0, np.where(OVER[after], 0.0, -_worth(q, after).max(-1)))
        rows, columns = ROW[states], TO_CANONICAL[states, actions]
        q[rows, columns] += config.alpha * (target - q[rows, columns])  # of equal moves in a batch the last one counts
        won += int(LOST[after].sum()) * (1 if stones % 2 == 0 else -1)
        moves += len(states)
        states, wild = after[~OVER[after]], wild[~OVER[after]]
    return won / config.batch, moves


def _worth(q: Floats, states: Ints) -> Floats:
    """``[N, 9]``: Q of every position, -inf where it is not free."""
    return np.where(FREE[states], np.take_along_axis(q[ROW[states]], TO_CANONICAL[states], -1), -np.inf)
