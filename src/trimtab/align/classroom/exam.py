"""The exam: a proof by exhaustion, not an estimate.

As X and as O the player plays its likeliest position, and the opponent tries **every** position, always: each line of
play that can happen against this player is followed to its end. Then every one of the 4,520 states that games can
reach at all, whoever made the moves so far, is put before it: where the oracle says the state is not lost, its move
must not lose it. The opponent's moves cannot lower what the oracle promises the player, so who passes the second part
does not lose from any state that is not lost yet, to anybody, perfect play included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from . import oracle
from .board import AFTER, CODES, EMPTY, FREE, LOST, OPEN, OVER, STONES, Floats, Ints
from .opponents import PERFECT, RANDOM
from .player import Policy

SHOWN = 20
"""Lost lines and blunders that a report spells out."""


@dataclass(frozen=True)
class Side:
    """One side of the proof: counts of lines of play, each a different sequence of positions."""

    side: str
    states: int
    """Different states in which the player moves."""
    lines: int
    wins: int
    draws: int
    losses: int
    lost_lines: tuple[tuple[int, ...], ...]
    """Up to 20 of the lost ones: all positions in order, X's first."""


@dataclass(frozen=True)
class Blunder:
    """A state that was not lost, and a move that lost it."""

    state: int
    position: int


@dataclass(frozen=True)
class Odds:
    """Exact chances of the player's likeliest moves against an opponent that rolls dice; half the games as X."""

    win: float
    draw: float
    loss: float


@dataclass(frozen=True)
class Report:
    x: Side
    o: Side
    not_lost: int
    """Reachable states whose mover is not lost: 3,888 of the 4,520."""
    kept: int
    """Those in which the player's move does not lose."""
    optimal: int
    """States, of all 4,520, in which its move keeps the true value: wins stay wins."""
    blunders: tuple[Blunder, ...]
    """Up to 20 of those that were given away."""
    value_correlation: float
    """Pearson's, of the value estimates with the true values over all 4,520 states; 0 if the estimates do not vary."""
    met_correlation: float
    """The same over the states that its own play leads to, as either side."""
    random: Odds
    perfect: Odds
    entropy: float
    """Nats a decision of the policy as sampled, over the states its own play leads to."""

    @property
    def never_loses(self) -> bool:
        """No line of play of anybody beats it, from the empty board, as either side."""
        return self.x.losses + self.o.losses == 0

    @property
    def passed(self) -> bool:
        """It never loses, and gives nothing away in any state."""
        return self.never_loses and self.kept == self.not_lost


def examine(policy: Policy) -> Report:
    """Examine a policy; some ten milliseconds."""
    moves = policy.greedy.argmax(-1)
    sides = [_side(moves, first) for first in (True, False)]
    results = oracle.RESULTS[OPEN, moves[OPEN]]
    safe = oracle.VALUES[OPEN] >= 0
    lost = OPEN[safe & (results < 0)]
    met = np.unique(np.concatenate([states for _, states in sides]))
    return Report(
        x=sides[0][0],
        o=sides[1][0],
        not_lost=int(safe.sum()),
        kept=int(safe.sum()) - len(lost),
        optimal=int((results == oracle.VALUES[OPEN]).sum()),
        blunders=tuple(Blunder(int(state), int(moves[state])) for state in lost[:SHOWN]),
        value_correlation=_correlation(policy.values[OPEN], oracle.VALUES[OPEN]),
        met_correlation=_correlation(policy.values[met], oracle.VALUES[met]),
        random=odds(policy.greedy, RANDOM.policy),
        perfect=odds(policy.greedy, PERFECT.policy),
        entropy=_entropy(policy.probabilities[met]),
    )


def odds(player: Floats, opponent: Floats) -> Odds:
    """Exact chances of one table of probabilities ``[19683, 9]`` against another, by following all of them at once."""
    totals = np.zeros(3)
    for first in (True, False):
        chance = np.zeros(CODES)
        chance[EMPTY] = 0.5
        for stones in range(10):
            here = np.flatnonzero((stones == STONES) & (chance > 0))
            players = (stones % 2 == 0) == first
            ended = here[OVER[here]]
            beaten = chance[ended[LOST[ended]]].sum()  # whoever should move now has lost
            totals += (0 if players else beaten, chance[ended].sum() - beaten, beaten if players else 0)
            live = here[~OVER[here]]
            flow = chance[live, None] * (player if players else opponent)[live]
            np.add.at(chance, AFTER[live][FREE[live]], flow[FREE[live]])
    return Odds(*totals.tolist())


def _side(moves: Ints, first: bool) -> tuple[Side, Ints]:
    """Follow every line; states met by several lines are followed once, with their number."""
    lines: dict[int, int] = {EMPTY: 1}
    met: list[Ints] = []
    wins = draws = losses = 0
    for stones in range(10):
        players = (stones % 2 == 0) == first
        following: dict[int, int] = {}
        for state, count in lines.items():
            if LOST[state]:
                wins, losses = (wins, losses + count) if players else (wins + count, losses)
            elif OVER[state]:
                draws += count
            else:
                for position in [int(moves[state])] if players else np.flatnonzero(FREE[state]).tolist():
                    after = int(AFTER[state, position])
                    following[after] = following.get(after, 0) + count
        if players:
            met.append(np.array([state for state in lines if not OVER[state]], np.int64))
        lines = following
    states = np.unique(np.concatenate(met))
    lost = tuple(line for line, _ in zip(lost_lines(moves, first), range(SHOWN), strict=False)) if losses else ()
    return Side("X" if first else "O", len(states), wins + draws + losses, wins, draws, losses, lost), states


def lost_lines(moves: Ints, first: bool) -> Iterator[tuple[int, ...]]:
    """Every sequence of positions that beats a player who plays ``moves[state]``, as X (`first`) or as O."""

    def follow(state: int, line: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        players = (len(line) % 2 == 0) == first
        if OVER[state]:
            if LOST[state] and players:
                yield line
            return
        for position in [int(moves[state])] if players else np.flatnonzero(FREE[state]).tolist():
            yield from follow(int(AFTER[state, position]), (*line, position))

    return follow(EMPTY, ())


def _correlation(estimates: Floats, truth: Ints) -> float:
    if estimates.std() < 1e-9 or truth.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(estimates, truth)[0, 1])


def _entropy(probabilities: Floats) -> float:
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    return float((probabilities * -logs).sum(-1).mean()) + 0.0
