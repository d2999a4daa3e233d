"""What a turn is about, and how far it has got: as its own events tell it, so that it can be taken up again."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from langchain_core.messages import HumanMessage

from trimtab.domain import events as ev
from trimtab.domain.passage import Passage

from . import direct
from .calls import NO_TOOLS, Call, Toolset
from .context import Past
from .shortlist import Picked

Documents = Literal["auto", "only", "off"]


@dataclass(frozen=True)
class Turn:
    """What a turn is about. `so_far` are the events it has yielded before, when it goes on."""

    id: str
    owner: str
    question: str
    history: Sequence[tuple[str, str]] = ()
    instructions: str = ""
    """A client's own system text."""
    documents: Documents = "auto"
    tools: bool = True
    best_of: int = 1
    """Answers in the model's own words that are written, of which the best is given."""
    can_approve: bool = True
    """Whether a person is there to approve; where not, actions with effects are refused."""
    so_far: Sequence[ev.Event] = ()
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class State:
    """The turn as its events tell it."""

    started: float
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    """Delimits outside text for the whole turn: the same in each request, so that the engine's cache serves it."""
    passages: tuple[Passage, ...] = ()
    searched: bool = False
    calls: list[Call] = field(default_factory=list)
    text: str = ""
    usage: ev.Usage = ev.Usage()
    first_token: float | None = None
    spent: dict[str, float] = field(default_factory=lambda: {"retrieval": 0.0, "model": 0.0, "tools": 0.0})
    finish_reason: str = "stop"
    past: Past | None = None
    asked: HumanMessage | None = None
    """The question with what was found for it, as the model is shown it in every request of this turn."""
    toolset: Toolset = NO_TOOLS
    picked: Picked | None = None
    """Which of the tools the model is shown, where there are too many to show them all."""
    listened: bool = field(default_factory=direct.listened)

    def note(self, event: ev.Event) -> None:
        match event:
            case ev.PassagesFound():
                self.searched, self.passages = True, event.passages if event.used else ()
                self.spent["retrieval"] += event.seconds
            case ev.ToolRequested():
                self.calls.append(Call(event, arguments=event.arguments))
            case ev.ApprovalNeeded():
                self._call(event.call_id).approval_id = event.approval_id
            case ev.ApprovalDecided():
                call = self._call(event.call_id)
                call.decision = event.decision
                call.remembered = event.approval_id if event.remembered else ""
                if event.decision == "approve":
                    call.arguments = event.arguments  # what the person saw or wrote, even if that is nothing
            case ev.ToolFinished():
                self._call(event.call_id).result = event
                self.spent["tools"] += event.seconds
            case ev.TextDelta():
                self.text += event.text
                if self.first_token is None:
                    self.first_token = time.monotonic() - self.started
            case ev.TextReplaced():
                self.text = event.text

    def _call(self, call_id: str) -> Call:
        return next(c for c in self.calls if c.request.call_id == call_id)

    @property
    def open_calls(self) -> list[Call]:
        return [c for c in self.calls if c.result is None]

    @property
    def results(self) -> list[ev.ToolFinished]:
        return [c.result for c in self.calls if c.result is not None]

    @property
    def tainted(self) -> bool:
        """Whether anything from outside has been read in this turn: from now on no remembered approval counts, unless
        it was given for that."""
        return bool(self.passages) or any(r.untrusted for r in self.results)

    @property
    def invalid(self) -> int:
        return sum(r.status is ev.CallStatus.INVALID for r in self.results)
