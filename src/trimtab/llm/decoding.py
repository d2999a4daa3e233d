"""Values that no rule can take from a message: the inner model decodes them under the schema, with the message's own
words and numbers to choose from, then they are checked.

The prompt begins with what is the same for every message to a tool, so that an engine's prefix cache helps.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage, SystemMessage

from .arguments import put
from .narrowing import narrowed
from .plan import Plan, Step, settled
from .slots import Slot
from .support import UNSUPPORTED, supported
from .wording import spaced

_SYSTEM = (
    "Read the message and fill in the JSON object for the tool. Use only words and numbers of the message.\n"
    "Tool: {tool}"
)
_MAX_TOKENS = 256


@dataclass(frozen=True)
class Asking:
    """A request to the inner model: its messages and options (a JSON schema to decode under)."""

    messages: list[BaseMessage]
    options: dict[str, Any]


def decode_open(plan: Plan, today: dt.date) -> Generator[Asking, str, Plan]:
    """Yield what to ask the model and be sent its replies; return the plan with nothing left open."""
    steps: list[Step] = []
    for step in plan.steps:
        if not step.open or step.missing:
            steps.append(step)
            continue
        reply = yield _asking(step, today)
        steps.append(_closed(step, reply, today))
    return replace(plan, steps=tuple(steps))


def _asking(step: Step, today: dt.date) -> Asking:
    schema = _nested(step.open)
    tool = f"{step.spec.name}: {step.spec.description}"
    shown = f"{tool}\nSchema: {json.dumps(schema, ensure_ascii=False)}"
    choices = narrowed(schema, step.text, today, spaced(tool))
    wanted = {"type": "json_schema", "json_schema": {"name": "arguments", "schema": choices}}
    messages: list[BaseMessage] = [SystemMessage(_SYSTEM.format(tool=shown)), HumanMessage(step.text)]
    return Asking(messages, {"response_format": wanted, "temperature": 0.0, "max_tokens": _MAX_TOKENS})


def _nested(slots: Sequence[Slot]) -> dict[str, Any]:
    """A schema for just these values, in their places."""
    root: dict[str, Any] = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    for slot in slots:
        node = root
        for name in slot.path[:-1]:
            _require(node, name)
            node = node["properties"].setdefault(
                name, {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
            )
        _require(node, slot.name)
        node["properties"][slot.name] = dict(slot.schema)
    return root


def _require(node: dict[str, Any], name: str) -> None:
    if name not in node["required"]:
        node["required"].append(name)


def _closed(step: Step, reply: str, today: dt.date) -> Step:
    """`step` with what the reply says and the conversation supports; what is required and not there is missing."""
    try:
        decoded = json.loads(reply)
    except (ValueError, RecursionError):
        decoded = None
    arguments = dict(step.arguments)
    missing: list[Slot] = []
    for slot in step.open:
        value = decoded
        for name in slot.path:
            value = value.get(name) if isinstance(value, dict) else None
        kept = supported(value, slot.schema, step.text, today)
        if kept is not UNSUPPORTED:
            put(arguments, slot.path, kept)
        elif slot.required:
            missing.append(slot)
    closed = replace(step, arguments=arguments, missing=(*step.missing, *missing), open=())
    return settled(closed)
