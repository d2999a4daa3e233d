"""An answer while it is being written: the turn's events folded into what a page draws.

The server runs the turn and keeps every event; a tab only reads what is new since its cursor. A tab opened in
mid-answer starts at zero and has the same picture a moment later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

ENDS = ("turn.finished", "turn.failed")


@dataclass
class Live:
    """What is known of a turn so far."""

    turn_id: str
    cursor: int = 0
    text: str = ""
    steps: list[dict[str, Any]] = field(default_factory=list)
    """Events without the text deltas, in order."""
    ended: bool = False

    def take(self, page: Mapping[str, Any]) -> None:
        """Fold in what `GET /v1/events` returned. Seeing an event twice changes nothing."""
        for item in page["events"]:
            if item["seq"] > self.cursor:
                self.cursor = item["seq"]
                self._take(item["event"])

    def _take(self, event: dict[str, Any]) -> None:
        kind = event.get("type")
        if kind == "text.delta":
            self.text += event.get("text", "")
            return
        self.steps.append(event)
        if kind == "text.replaced":
            self.text = event.get("text", "")
        elif kind in ENDS:
            self.text = event.get("text", "") or self.text
            self.ended = True

    @property
    def undecided(self) -> list[dict[str, Any]]:
        return undecided(self.steps)

    def doing(self) -> str:
        """What is going on, in words."""
        if self.undecided:
            return "Waiting for your decision."
        open_calls = [c for c in calls(self.steps) if c.finished is None]
        if open_calls:
            return "Asking " + ", ".join(c.tool for c in open_calls) + " …"
        if self.text:
            return ""
        if sampled := last(self.steps, "answers.sampled"):
            return f"Writing {sampled.get('n')} answers; the best is shown when all are there …"
        if any(s.get("type") == "passages.found" for s in self.steps):
            return "Reading what was found …"
        return "Thinking …"


@dataclass(frozen=True)
class Call:
    """One tool call of a turn: asked for, perhaps decided on, perhaps finished."""

    requested: Mapping[str, Any]
    approval: Mapping[str, Any] | None = None
    decided: Mapping[str, Any] | None = None
    finished: Mapping[str, Any] | None = None

    @property
    def tool(self) -> str:
        return str(self.requested.get("tool", ""))

    @property
    def call_id(self) -> str:
        return str(self.requested.get("call_id", ""))

    @property
    def arguments(self) -> Any:
        """What it ran with: what a person edited, where they did."""
        edited = (self.decided or {}).get("arguments")
        return edited or self.requested.get("arguments", {})

    @property
    def state(self) -> str:
        if self.finished is not None:
            return str(self.finished.get("status", ""))
        if self.approval is not None and self.decided is None:
            return "waiting"
        return "running"


def calls(steps: Sequence[Mapping[str, Any]]) -> list[Call]:
    """The tool calls of a turn, in the order they were asked for."""
    found: dict[str, dict[str, Any]] = {}
    slots = {
        "tool.requested": "requested",
        "approval.needed": "approval",
        "approval.decided": "decided",
        "tool.finished": "finished",
    }
    for step in steps:
        slot = slots.get(str(step.get("type")))
        if slot:
            call = found.setdefault(str(step.get("call_id", "")), {})
            call[slot] = step
    return [
        Call(**{"requested": call.get("approval") or call.get("finished") or {}, **call}) for call in found.values()
    ]


def undecided(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Approvals of a turn that nobody has decided yet."""
    decided = {s.get("approval_id") for s in steps if s.get("type") == "approval.decided"}
    return [dict(s) for s in steps if s.get("type") == "approval.needed" and s.get("approval_id") not in decided]


def last(steps: Sequence[Mapping[str, Any]], kind: str) -> Mapping[str, Any] | None:
    return next((s for s in reversed(steps) if s.get("type") == kind), None)
