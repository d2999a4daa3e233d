"""What happens during a turn, as plain frozen values.

The orchestrator yields them, the store appends them, every face reads them. `type` is the wire name; `to_wire` and
`from_wire` are inverse. An event is never changed after it was appended.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import Any, ClassVar

from .passage import Citation, Passage


class TurnStatus(StrEnum):
    RUNNING = "running"
    WAITING = "waiting"
    """Stopped at an approval; continues when a person decides."""
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """The server died under it. What it had is kept."""

    @property
    def final(self) -> bool:
        return self not in (TurnStatus.RUNNING, TurnStatus.WAITING)


class CallStatus(StrEnum):
    OK = "ok"
    ERROR = "error"
    """The tool ran and failed, or could not run."""
    INVALID = "invalid"
    """The arguments did not fit the schema; it was never run."""
    REJECTED = "rejected"
    """A person said no."""
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
        )


@dataclass(frozen=True)
class Timing:
    """Seconds. `first_token` counts from the moment the turn started."""

    total: float = 0.0
    first_token: float | None = None
    retrieval: float = 0.0
    model: float = 0.0
    tools: float = 0.0


@dataclass(frozen=True)
class Lineage:
    """What produced an answer, enough to ask later which version said this."""

    model: str = ""
    version: str = ""
    adapter: str = ""
    prompt_version: str = ""
    connectors: Mapping[str, str] = field(default_factory=dict)
    """Connector name to its version, for those that were called."""
    passages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Considered:
    """One tool the router looked at."""

    name: str
    score: float
    reason: str


@dataclass(frozen=True)
class Event:
    type: ClassVar[str]


@dataclass(frozen=True)
class TurnStarted(Event):
    type: ClassVar[str] = "turn.started"
    model: str
    question: str


@dataclass(frozen=True)
class PassagesFound(Event):
    """Search ran. `used` says whether any was above the floor, and so reached the model."""

    type: ClassVar[str] = "passages.found"
    passages: tuple[Passage, ...]
    floor: float
    used: bool
    seconds: float = 0.0


@dataclass(frozen=True)
class ToolsConsidered(Event):
    """Which tools were offered, which was chosen, and why the others were not."""

    type: ClassVar[str] = "tools.considered"
    strategy: str
    """``"native"`` (the model was shown those offered) or ``"guided"`` (the router decided)."""
    offered: tuple[Considered, ...]
    chosen: tuple[str, ...] = ()
    threshold: float | None = None
    left_out: tuple[Considered, ...] = ()
    """Of the tools that were not offered, those that came nearest."""
    installed: int = 0
    """How many there were to choose from."""


@dataclass(frozen=True)
class ToolRequested(Event):
    type: ClassVar[str] = "tool.requested"
    call_id: str
    tool: str
    connector: str
    arguments: Mapping[str, Any]
    effect: str
    step: int = 0
    """Calls the model made together share a step."""


@dataclass(frozen=True)
class ApprovalNeeded(Event):
    type: ClassVar[str] = "approval.needed"
    approval_id: str
    call_id: str
    tool: str
    connector: str
    arguments: Mapping[str, Any]
    effect: str
    reason: str
    expires_at: float
    """Unix seconds."""


@dataclass(frozen=True)
class ApprovalDecided(Event):
    type: ClassVar[str] = "approval.decided"
    approval_id: str
    call_id: str
    decision: str
    """``"approve"``, ``"reject"`` or ``"expired"``."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    remembered: bool = False
    """Nobody was asked: `approval_id` is that of an approval the person had remembered."""


@dataclass(frozen=True)
class ToolFinished(Event):
    type: ClassVar[str] = "tool.finished"
    call_id: str
    tool: str
    connector: str
    status: CallStatus
    text: str
    data: Any = None
    sources: tuple[Mapping[str, str], ...] = ()
    answer: str = ""
    """The result as one plain sentence, where the tool could say it itself."""
    untrusted: bool = True
    seconds: float = 0.0


@dataclass(frozen=True)
class AnswersSampled(Event):
    """`n` answers are being written; the best is given when all of them are there."""

    type: ClassVar[str] = "answers.sampled"
    n: int


@dataclass(frozen=True)
class AnswersCompared(Event):
    """What the reward model says of them. The text that follows is the one of place `chosen` (from 0)."""

    type: ClassVar[str] = "answers.compared"
    scores: tuple[float, ...]
    """One for each answer: 0 is the base model's average answer, 1 a deviation better. Empty when they could not be
    compared."""
    chosen: int = 0
    by: str = ""
    """Whose reward model it is."""
    trouble: str = ""
    """Why they could not be compared; the first answer is given then."""


@dataclass(frozen=True)
class TextDelta(Event):
    """More of the answer. The whole answer is the deltas in order, unless a later `TextReplaced` says otherwise."""

    type: ClassVar[str] = "text.delta"
    text: str


@dataclass(frozen=True)
class TextReplaced(Event):
    """A wording was checked against its sources and did not hold; this is the whole answer instead."""

    type: ClassVar[str] = "text.replaced"
    text: str
    reason: str


@dataclass(frozen=True)
class TurnFinished(Event):
    type: ClassVar[str] = "turn.finished"
    status: TurnStatus
    """`DONE` or `CANCELLED`."""
    text: str
    citations: tuple[Citation, ...] = ()
    usage: Usage = Usage()
    timing: Timing = Timing()
    lineage: Lineage = Lineage()
    finish_reason: str = "stop"
    unsupported: tuple[str, ...] = ()
    """Numbers and names in the answer that no source of it contains."""


@dataclass(frozen=True)
class TurnFailed(Event):
    """`FAILED` or `INTERRUPTED`. `text` is what there was of the answer."""

    type: ClassVar[str] = "turn.failed"
    status: TurnStatus
    code: str
    message: str
    text: str = ""


CHECK_FIRST = "Something you approved had been started: see whether it took effect before you ask again."


def left_open(so_far: Iterable[Event]) -> list[ToolFinished]:
    """Results for the approved calls that were started and have none: a turn that ends now must not hide them."""
    requests: dict[str, ToolRequested] = {}
    started: dict[str, ToolRequested] = {}
    for event in so_far:
        match event:
            case ToolRequested():
                requests[event.call_id] = event
            case ApprovalDecided(decision="approve") if event.call_id in requests:
                started[event.call_id] = requests[event.call_id]
            case ApprovalDecided():
                started.pop(event.call_id, None)
            case ToolFinished():
                started.pop(event.call_id, None)
    text = "It was started and then cut off. Whether it took effect is not known."
    return [ToolFinished(r.call_id, r.tool, r.connector, CallStatus.CANCELLED, text) for r in started.values()]


TYPES: dict[str, type[Event]] = {cls.type: cls for cls in Event.__subclasses__()}


def to_wire(event: Event) -> dict[str, Any]:
    """JSON-safe mapping with the event's `type`; what the log stores and SSE sends."""
    return {"type": event.type, **_plain(event)}


def from_wire(data: Mapping[str, Any]) -> Event:
    """Inverse of `to_wire`. Unknown fields (from a newer writer) are ignored.

    Raises:
        KeyError: the type is not one of `TYPES`.
    """
    event: Event = _build(TYPES[data["type"]], data)
    return event


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {name: _plain(getattr(value, name)) for name in _hints(type(value))}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, StrEnum):
        return value.value
    return value


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(cls: type) -> dict[str, Any]:
    if cls not in _HINTS:
        hints = typing.get_type_hints(cls)
        _HINTS[cls] = {f.name: hints[f.name] for f in fields(cls)}
    return _HINTS[cls]


def _build(hint: Any, value: Any) -> Any:
    builder = _builder(hint)
    return value if builder is None else builder(value)


@functools.cache
def _builder(hint: Any) -> Callable[[Any], Any] | None:
    """What turns a field's wire form into its value; None where they are the same."""
    origin = typing.get_origin(hint)
    if origin is tuple:
        inner = _builder(typing.get_args(hint)[0])
        return tuple if inner is None else lambda value: tuple(map(inner, value))
    if origin in (types.UnionType, typing.Union):
        some = _builder(next(a for a in typing.get_args(hint) if a is not type(None)))
        return None if some is None else lambda value: None if value is None else some(value)
    if isinstance(hint, type) and is_dataclass(hint):
        return _dataclass_builder(hint)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return hint
    return None


def _dataclass_builder(cls: type) -> Callable[[Any], Any]:
    names = frozenset(_hints(cls))
    built = [(name, builder) for name, hint in _hints(cls).items() if (builder := _builder(hint)) is not None]

    def build(value: Mapping[str, Any]) -> Any:
        given = value if value.keys() == names else {name: value[name] for name in names if name in value}
        if built:
            given = {**given, **{name: builder(given[name]) for name, builder in built if name in given}}
        if len(given) < len(names):  # from an older writer
            return cls(**given)
        made: Any = object.__new__(cls)  # as `copy` makes them: three times as fast where there are many
        made.__dict__.update(given)
        return made

    return build
