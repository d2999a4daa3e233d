"""What a variant's answers are worth, beside how well it predicts text: four fixed sets, asked while there is time.

- ``preferences``: of pairs of answers that people judged, the share in which the variant finds the better one likelier
  (log-probability a token, after the prompt). Likelihood and not the reward model's score, so that it can be had before
  any reward model was trained, and tells about the variant alone.
- ``tools``, ``cited``: the share of the gate's questions that come out right (`works/turns.py` asks them).
- ``reward``: the mean score of its answers by the reward model that was trained here; 0 is the model's average answer.

All variants are asked the same questions in the same order, so that a variant for which there was less time was asked
the first ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from .interval import Interval, bootstrap, mean, wilson

SETS = ("preferences", "tools", "cited", "reward")
PORTION = 6
"""Questions of a set that are asked before the next set's turn."""


@dataclass(frozen=True)
class Sizes:
    """Most questions of each set; 0 leaves it out."""

    preferences: int = 0
    tools: int = 0
    cited: int = 0
    reward: int = 0

    @property
    def any(self) -> bool:
        return any(getattr(self, name) for name in SETS)


USUAL = Sizes(preferences=24, tools=24, cited=30, reward=18)


@dataclass(frozen=True)
class Answers:
    """Each with its 95 % interval; None where it was not or cannot be measured."""

    preferences: Interval | None = None
    tools: Interval | None = None
    cited: Interval | None = None
    reward: Interval | None = None
    asked: Mapping[str, int] | None = None
    """How many questions of each."""


class Asker(Protocol):
    """Whoever can ask a variant that serves."""

    async def ask(self, name: str, first: int, count: int) -> list[float]:
        """What came of `count` questions of the set `name` from number `first` on: 1 or 0, of ``reward`` a score. Fewer
        when the set ends, none when it cannot be asked here.

        Raises:
            EngineError: the variant does not answer.
        """
        ...


async def collect(
    asker: Asker, sizes: Sizes, seconds: float, clock: Callable[[], float] = time.monotonic
) -> Answers | None:
    """Ask in portions, each set in its turn, until the sizes are reached or the time is over; None when nothing was
    asked."""
    found: dict[str, list[float]] = {name: [] for name in SETS}
    open_sets = [name for name in SETS if getattr(sizes, name)]
    ends = clock() + seconds
    while open_sets and clock() < ends:
        name = open_sets.pop(0)
        count = min(PORTION, getattr(sizes, name) - len(found[name]))
        more = await asker.ask(name, len(found[name]), count)
        found[name] += more
        if len(more) == PORTION and len(found[name]) < getattr(sizes, name):
            open_sets.append(name)
    if not any(found.values()):
        return None
    shares = {name: wilson(sum(found[name]), len(found[name])) if found[name] else None for name in SETS[:3]}
    reward = bootstrap(found["reward"], mean) if found["reward"] else None
    return Answers(**shares, reward=reward, asked={name: len(values) for name, values in found.items() if values})
