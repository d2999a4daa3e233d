"""What a training of a player may be told: checked where it is ordered, long before it runs. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from trimtab.domain.errors import InvalidInput

MOST_GAMES = 2_000_000
"""About a hundred checkpoints, and minutes of two cores."""
SEEDS = 2**31
CHOICES = {"opponent": ("self", "mixture", "random", "perfect"), "algorithm": ("ppo", "q")}


@dataclass(frozen=True)
class Recipe:
    seed: int = 0
    games: int = 600_000
    """At most; training ends when the exam is passed."""
    opponent: str = "self"
    """Whom it learns against; Q-learning knows only itself."""
    algorithm: str = "ppo"

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Recipe:
        """Raises:
        InvalidInput: a field that is unknown, of another type, or out of its range; says which.
        """
        known = {field.name: field for field in fields(cls)}
        if unknown := sorted(set(given) - set(known)):
            raise InvalidInput(f"A recipe for Tic-Tac-Toe has no {unknown[0]!r}. It has: {', '.join(known)}.")
        for name, most, least in (("seed", SEEDS - 1, 0), ("games", MOST_GAMES, 1)):
            value = given.get(name, known[name].default)
            if type(value) is not int or not least <= value <= most:
                raise InvalidInput(f"`{name}` is a whole number from {least} to {most:,}, not {str(value)[:40]!r}.")
        for name, choices in CHOICES.items():
            if given.get(name, known[name].default) not in choices:
                raise InvalidInput(f"`{name}` is one of {', '.join(choices)}, not {str(given[name])[:40]!r}.")
        made = cls(**given)
        if made.algorithm == "q" and made.opponent != "self":
            raise InvalidInput("Q-learning plays both sides itself. Leave `opponent` at 'self', or choose 'ppo'.")
        return made

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
