"""What is required of a connector: one line each, with how it was tested and what was found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .bench import Bench

Status = Literal["pass", "fail", "n/a"]


@dataclass(frozen=True)
class Finding:
    """`reason` says what was found: in a failure what to change, in a pass what was looked at."""

    status: Status
    reason: str


@dataclass(frozen=True)
class Requirement:
    """`id` is stable: badges and continuous integration name it. `check` raises nothing for a bad connector."""

    id: str
    must: str
    how: str
    check: Callable[[Bench], Finding]


@dataclass(frozen=True)
class Line:
    """One requirement of one connector, checked."""

    id: str
    must: str
    how: str
    status: Status
    reason: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """Everything that was found about one connector."""

    connector: str
    version: str
    source: str
    """SHA-256 of what was checked, as `source.fingerprint` counts it."""
    lines: tuple[Line, ...]
    at: str
    """ISO 8601, UTC."""
    seconds: float
    figures: dict[str, Any] = field(default_factory=dict)
    """How much was tried: faults injected, argument sets, requests."""

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def failures(self) -> list[Line]:
        return [line for line in self.lines if line.status == "fail"]

    def line(self, id: str) -> Line:
        return next(line for line in self.lines if line.id == id)


def passed(reason: str) -> Finding:
    return Finding("pass", reason)


def failed(problems: list[str]) -> Finding:
    """All of them in one reason, a line each; the first few when they are many."""
    distinct = list(dict.fromkeys(problems))
    more = [f"(and {len(distinct) - 4} more)"] if len(distinct) > 4 else []
    return Finding("fail", "\n".join(distinct[:4] + more))


def several(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'s' * (count != 1)}"


def does_not_apply(reason: str) -> Finding:
    return Finding("n/a", reason)


def verdict(problems: list[str], looked_at: str) -> Finding:
    return failed(problems) if problems else passed(looked_at)
