"""PPO in the classroom: play thousands of games at once, learn from them, look at the exam, until it is passed.

Nothing is searched while playing and nothing is learnt from the oracle: the reward is the result of a game. What makes
it robust: random openings, so that states are met which good players avoid; present and former selves as opponents, so
that there is always somebody to find the hole; a large batch; and above all an entropy bonus that starts high and goes
down slowly: a policy that is certain of a wrong move before it has tried the others never finds out.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from trimtab.align import ppo
from trimtab.align.ppo import PPOConfig

from . import exam
from .board import EMPTY
from .checkpoint import Checkpoint
from .environment import MOVES, Games
from .opponents import PERFECT, RANDOM, Mixture, Opponent, Selves, draw
from .player import About, Player, Policy, allowed, freeze

OpponentName = Literal["mixture", "self", "random", "perfect"]


PLAYER_PPO = PPOConfig(
    gamma=1.0, lam=0.9, epochs=4, minibatches=4, clip=0.2, value_clip=None, value_coefficient=0.5,
    entropy_coefficient=0.4, max_gradient_norm=0.5, learning_rate=6e-3,
)  # fmt: skip
"""Measured, see docs/learn.md. The gradient norm is that of "The 37 implementation details"."""


@dataclass(frozen=True)
class TrainingConfig:
    """What a person may turn. Defaults: found on seeds 0 to 2, confirmed on others; see docs/learn.md."""

    seed: int = 0
    games: int = 600_000
    """At most. Training ends before, when the exam is passed."""
    opponent: OpponentName = "self"
    """``"self"`` is its present and past selves, the first of which moves at random; ``"mixture"`` adds the others."""
    batch: int = 4096
    """Games an update."""
    openings: int = 7
    """Random plies before a game, 0 to this many."""
    hidden: int = 128
    past_selves: int = 10
    keep_every: int = 5
    """Updates between two past selves."""
    examine_every: int = 5
    """Updates between two points of the learning curve; checkpoints are taken there."""
    stop_when_proved: bool = True
    ppo: PPOConfig = PLAYER_PPO
    final_learning_rate: float = 3e-4
    final_entropy: float = 0.0

    @property
    def updates(self) -> int:
        return max(self.games // self.batch, 1)


@dataclass(frozen=True)
class Point:
    """A point of the learning curve. Plain numbers: `dataclasses.asdict` makes JSON of it."""

    update: int
    games: int
    """Played so far."""
    moves: int
    """Made by the player so far."""
    seconds: float
    """Since training began, on the clock, the exams included."""
    cpu_seconds: float
    reward: float
    """Mean of the last batch, of the policy as sampled."""
    entropy: float
    value_loss: float
    explained_variance: float
    report: exam.Report
    done: bool
    """The last point of this training."""


@dataclass(frozen=True)
class Step:
    """What `train` yields: how it goes, and the player as it is now."""

    point: Point
    checkpoint: Checkpoint


def train(config: TrainingConfig = TrainingConfig()) -> Iterator[Step]:
    """Train a player; yields the learning curve, the last step with `done`. The same config gives the same
    player on the same machine with as many threads: sums of floats depend on their order.
    """
    rng, shuffles = np.random.default_rng(config.seed), torch.Generator().manual_seed(config.seed)
    player = Player(config.hidden, torch.Generator().manual_seed(config.seed))
    optimizer = torch.optim.Adam(player.parameters(), eps=1e-5)
    schedule = ppo.linear(learning_rate=config.final_learning_rate, entropy_coefficient=config.final_entropy)
    selves = Selves(config.past_selves)
    opponent = _opponent(config.opponent, selves)
    clock, moves = Clock(), 0
    for update in range(1, config.updates + 1):
        policy = freeze(player)
        selves.now(policy.probabilities)
        if update % config.keep_every == 0:
            selves.keep()
        rollouts = play(policy, opponent, config.batch, config.openings, rng)
        now = schedule(config.ppo, update / config.updates)
        stats = ppo.update(player, optimizer, rollouts, now, generator=shuffles)
        moves += stats.tokens
        if update % config.examine_every and update < config.updates:
            continue
        report = exam.examine(freeze(player))
        done = update == config.updates or (config.stop_when_proved and report.passed)
        games = update * config.batch
        about = About("ppo", config.hidden, config.seed, update, games, config.opponent, report.passed)
        point = Point(
            update, games, moves, *clock.read(), stats.reward, stats.entropy, stats.value_loss,
            stats.explained_variance, report, done,
        )  # fmt: skip
        yield Step(point, Checkpoint(about, {name: tensor.clone() for name, tensor in player.state_dict().items()}))
        if done:
            return


class Clock:
    """Seconds since it was made: on the wall, and of the processor."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.monotonic() - self._wall, time.process_time() - self._cpu


def play(policy: Policy, opponent: Opponent, games: int, openings: int, rng: np.random.Generator) -> ppo.Rollouts:
    """Play a batch of games with the policy as sampled: trajectories ``[games, 5]`` of what the player saw and did."""
    board = Games(games, opponent, rng, openings=openings)
    shape = (games, MOVES)
    states, actions = np.full(shape, EMPTY), np.zeros(shape, np.int64)
    mask, rewards = np.zeros(shape, np.bool_), np.zeros(shape)
    for t in range(MOVES):
        states[:, t] = np.where(board.alive, board.states, EMPTY)
        mask[:, t] = board.alive
        actions[:, t] = draw(policy.probabilities[states[:, t]], rng)
        rewards[:, t] = board.step(actions[:, t])
    codes = torch.tensor(states)
    chances = policy.probabilities[states, actions]
    return ppo.Rollouts(
        states={"states": codes},
        actions=torch.tensor(actions),
        mask=torch.tensor(mask),
        logprobs=torch.tensor(np.log(chances), dtype=torch.float32),
        values=torch.tensor(policy.values[states], dtype=torch.float32),
        rewards=torch.tensor(rewards, dtype=torch.float32),
        allowed=allowed(codes),
    )


def _opponent(name: OpponentName, selves: Selves) -> Opponent:
    match name:
        case "random":
            return RANDOM
        case "perfect":
            return PERFECT
        case "self":
            return selves
        case "mixture":
            return Mixture((selves, PERFECT, RANDOM), (0.7, 0.2, 0.1))
