"""Which measured candidate to serve: the cheapest that meets every target, and why not each of the others.

Cheapest is the least memory, since that is what a machine must have all the time; the disk decides between equals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.domain.errors import UnreachableTarget

from .estimate import MB, fit
from .machine import Machine
from .plan import Deployment
from .results import Measured


@dataclass(frozen=True)
class Miss:
    """A target that a candidate does not meet."""

    target: str
    """As it is called in the plan."""
    wanted: float
    got: float
    unit: str
    words: str

    @property
    def share(self) -> float:
        """How far it is off: 0.5 is half as much again as wanted, or a third too little."""
        low, high = sorted((self.wanted, self.got))
        return high / low - 1 if low > 0 else float("inf")


@dataclass(frozen=True)
class Judged:
    row: Measured
    misses: tuple[Miss, ...]
    on_front: bool
    """No other is at least as fast, small and good, and better in one of them."""
    why_not: str = ""
    """In words; empty for the chosen one."""


@dataclass(frozen=True)
class Choice:
    chosen: Measured | None
    nearest: Judged | None
    """Where none meets every target: the one that is least far off."""
    judged: tuple[Judged, ...]
    """All, the cheapest first."""

    def demanded(self) -> Measured:
        """The chosen one.

        Raises:
            UnreachableTarget: none meets every target; says which is in the way, by how much, and what comes nearest.
        """
        if self.chosen is not None:
            return self.chosen
        assert self.nearest is not None
        worst = max(self.nearest.misses, key=lambda miss: miss.share)
        raise UnreachableTarget(
            f"No measured variant meets every target. In the way: {worst.target}. The nearest offer is "
            f"{self.nearest.row.candidate.name}: {'; '.join(miss.words for miss in self.nearest.misses)}. "
            "Change that target, allow more, or choose a smaller model.",
            target=worst.target,
            wanted=worst.wanted,
            got=worst.got,
            nearest=self.nearest.row.candidate.name,
        )


def choose(plan: Deployment, machine: Machine, rows: Sequence[Measured]) -> Choice:
    """Judge all rows by the plan.

    Raises:
        UnreachableTarget: nothing was measured for so many users and so much context.
    """
    rows = _fewest_users([row for row in rows if _comparable(plan, row)])
    if not rows:
        raise UnreachableTarget(
            f"Nothing was measured for {plan.targets.users} users with {plan.targets.context} tokens each. "
            "Run: trimtab measure"
        )
    best = front(rows)
    cheap = sorted(rows, key=_cost)
    missed = {row.key: misses(plan, machine, row) for row in rows}
    chosen = next((row for row in cheap if not missed[row.key]), None)
    judged = tuple(Judged(row, missed[row.key], row in best, _why_not(row, missed[row.key], chosen)) for row in cheap)
    nearest = None if chosen else min(judged, key=lambda one: max(miss.share for miss in one.misses))
    return Choice(chosen, nearest, judged)


def _comparable(plan: Deployment, row: Measured) -> bool:
    """It was asked by as many users at least, with room for as long a question."""
    return row.together.users >= plan.targets.users and row.candidate.knobs.context >= plan.targets.context


def _fewest_users(rows: Sequence[Measured]) -> list[Measured]:
    """Of each variant those rows that were asked by the fewest: speeds with one user and with eight do not compare."""
    fewest: dict[str, int] = {}
    for row in rows:
        name = row.candidate.variant.name
        fewest[name] = min(row.together.users, fewest.get(name, row.together.users))
    return [row for row in rows if row.together.users == fewest[row.candidate.variant.name]]


def _cost(row: Measured) -> tuple[int, int, float]:
    return row.memory or row.estimated_memory, row.disk, -row.together.total


def misses(plan: Deployment, machine: Machine, row: Measured) -> tuple[Miss, ...]:
    """The targets and limits of the plan that this row does not keep."""
    targets, budget, found = plan.targets, plan.budget, []
    many = f" with {row.together.users} users" if row.together.users > 1 else ""
    if row.together.first_p95 > targets.first_token_p95:
        found.append(
            _miss("targets.first_token_p95", targets.first_token_p95, row.together.first_p95, "s",
                  f"the first word takes {row.together.first_p95:.2f} s (p95{many}), "
                  f"{row.together.first_p95 - targets.first_token_p95:.2f} s too long")
        )  # fmt: skip
    if row.together.rate.value < targets.tokens_per_second:
        found.append(
            _miss("targets.tokens_per_second", targets.tokens_per_second, row.together.rate.value, "tokens/s",
                  f"an answer gets {row.together.rate.value:.1f} tokens a second{many}, "
                  f"{targets.tokens_per_second - row.together.rate.value:.1f} too few")
        )  # fmt: skip
    if row.quality is not None and row.quality.loss.value > plan.quality.largest_loss:
        found.append(
            _miss("quality.largest_loss", plan.quality.largest_loss, row.quality.loss.value, "",
                  f"perplexity is {row.quality.loss.value:.1%} above the reference, and "
                  f"{plan.quality.largest_loss:.1%} is allowed")
        )  # fmt: skip
    found += _answers(plan, row)
    cores = budget.cores or machine.cores
    if row.candidate.knobs.threads > cores:
        found.append(
            _miss("budget.cores", cores, row.candidate.knobs.threads, "cores",
                  f"it was measured with {row.candidate.knobs.threads} threads, and {cores} cores are allowed")
        )  # fmt: skip
    memory = row.memory or row.estimated_memory
    fits = fit(plan, machine, row.candidate, memory, row.disk, "measured")
    if any("memory" in words for words in fits.obstacles):
        limit = plan.budget.memory_mb or machine.memory / MB
        found.append(_miss("budget.memory_mb", limit, memory / MB, "MB", fits.obstacles[0]))
    if plan.budget.disk_mb and row.disk > plan.budget.disk_mb * MB:
        found.append(_miss("budget.disk_mb", plan.budget.disk_mb, row.disk / MB, "MB", fits.obstacles[-1]))
    return tuple(found)


_FLOORS = (
    ("least_tool_calls", "tools", 0.0, "questions for tools come out right"),
    ("least_cited", "cited", 0.0, "questions about passages are answered rightly"),
    ("least_preferences", "preferences", 0.0, "pairs of answers are seen as people see them"),
    ("least_reward", "reward", -100.0, "is what the reward model gives its answers"),
)
"""Of the plan's quality: key, set, the value that asks for nothing, and what is told."""


def _answers(plan: Deployment, row: Measured) -> list[Miss]:
    """The floors under its answers that it does not keep, or was not measured for."""
    found = []
    for key, name, free, words in _FLOORS:
        floor = getattr(plan.quality, key)
        got = getattr(row.answers, name) if row.answers else None
        if floor <= free or (got is not None and got.value >= floor):
            continue
        share = name != "reward"
        told = f"{floor:.0%} is asked for" if share else f"{floor:.2f} is asked for"
        if got is None:
            found.append(_miss(f"quality.{key}", floor, 0.0, "", f"its {name} were not measured, and {told}"))
        else:
            value = f"{got.value:.0%} of" if share else f"{got.value:+.2f}"
            found.append(_miss(f"quality.{key}", floor, got.value, "", f"{value} {words}, and {told}"))
    return found


def _miss(target: str, wanted: float, got: float, unit: str, words: str) -> Miss:
    return Miss(target, float(wanted), float(got), unit, words)


def _why_not(row: Measured, missed: Sequence[Miss], chosen: Measured | None) -> str:
    if missed:
        return "; ".join(miss.words for miss in missed)
    if chosen is None or row.key == chosen.key:
        return ""
    more = (row.memory or row.estimated_memory) - (chosen.memory or chosen.estimated_memory)
    if more > 0:
        return f"meets every target, and takes {more / MB:.0f} MB more memory than {chosen.candidate.variant.name}"
    return f"meets every target, and takes {(row.disk - chosen.disk) / MB:.0f} MB more disk, or is slower"


def front(rows: Sequence[Measured]) -> list[Measured]:
    """Those that no other row beats (Pareto): in speed of all users together, memory, and quality."""
    return [row for row in rows if not any(_beats(other, row) for other in rows)]


def _beats(one: Measured, other: Measured) -> bool:
    a, b = _marks(one), _marks(other)
    return all(x >= y for x, y in zip(a, b, strict=True)) and a != b


def _marks(row: Measured) -> tuple[float, float, float]:
    """More is better."""
    lost = row.quality.loss.value if row.quality else 0.0
    return row.together.total, -float(row.memory or row.estimated_memory), -lost
