"""Tool calls: read from the model, validated, allowed or not, run, and told about.

Nothing runs before its arguments fit the tool's closed schema. Only `Effect.READ` runs without a person's approval
(given now, or remembered: `policy.py`); a tool without a declaration counts as writing. Results are text for the model
and a card for the person.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import operator
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft202012Validator
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import ToolMessage
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from trimtab.domain.errors import InvalidInput, TrimtabError
from trimtab.domain.events import CallStatus, ToolFinished, ToolRequested
from trimtab.domain.tool import METADATA_KEY, Effect, ToolInfo, ToolOutcome

from . import direct

RESULT_LIMIT = 8_000
"""Characters of a result that are kept and shown to the model."""
SUBSETS_KEPT = 32
NAMED = 40
"""Tools that an error names at most."""


def info_of(tool: BaseTool) -> ToolInfo:
    """The tool's declaration; for a stranger's tool the worst case."""
    info = (tool.metadata or {}).get(METADATA_KEY)
    if isinstance(info, ToolInfo):
        return info
    return ToolInfo(tool.name, tool.description, connector="unknown", effect=Effect.WRITE, untrusted=True)


class Toolset:
    """Tools by name, with what is derived from them once: validators, and the model that was shown them."""

    def __init__(self, tools: Sequence[BaseTool]) -> None:
        self.tools = {tool.name: tool for tool in tools}
        self._given = tuple(tools)
        self._validators: dict[str, Draft202012Validator] = {}
        self._bound: tuple[BaseChatModel, Runnable[Any, Any]] | None = None
        self._some: OrderedDict[tuple[str, ...], Toolset] = OrderedDict()

    def same(self, tools: Sequence[BaseTool]) -> bool:
        """Whether these are the very tools this was made of."""
        return len(tools) == len(self._given) and all(map(operator.is_, tools, self._given))

    def bound(self, model: BaseChatModel) -> Runnable[Any, Any]:
        """`model` with these tools."""
        if self._bound is None or self._bound[0] is not model:
            self._bound = model, model.bind_tools(self._given)
        return self._bound[1]

    def only(self, names: Sequence[str]) -> Toolset:
        """The tools of these names, in this set's order; the same object for the same names, while it is kept."""
        wanted = frozenset(names)
        key = tuple(name for name in self.tools if name in wanted)
        if len(key) == len(self.tools):
            return self
        some = self._some.pop(key, None) or Toolset([self.tools[name] for name in key])
        self._some[key] = some
        while len(self._some) > SUBSETS_KEPT:
            self._some.popitem(last=False)
        return some

    def schema(self, name: str) -> Mapping[str, Any]:
        """The arguments' JSON schema, closed: what it does not name is refused, whether or not the tool says so."""
        parameters = convert_to_openai_tool(self.tools[name])["function"].get("parameters", {})
        return {"type": "object", **parameters, "additionalProperties": False}

    def fault(self, name: str, arguments: Mapping[str, Any]) -> str:
        """What is wrong with a call, for the model and the person to read; empty when nothing is."""
        if name not in self.tools:
            known = sorted(self.tools)
            more = f" and {len(known) - NAMED} more" if len(known) > NAMED else ""
            return f"There is no tool named '{name}'. The tools are: {', '.join(known[:NAMED]) or 'none'}{more}."
        if name not in self._validators:
            self._validators[name] = Draft202012Validator(self.schema(name))
        problems = sorted(self._validators[name].iter_errors(arguments), key=lambda e: list(e.path))
        if not problems:
            return ""
        first = problems[0]
        where = ".".join(str(p) for p in first.path)
        return f"The arguments of '{name}' are wrong{f' at {where}' if where else ''}: {first.message[:300]}"

    def version(self, connector: str) -> str:
        """The version of a connector that some of these tools are from; empty when none is."""
        infos = (info_of(tool) for tool in self._given)
        return next((info.connector_version for info in infos if info.connector == connector), "")

    def effect(self, name: str) -> Effect:
        tool = self.tools.get(name)
        return info_of(tool).effect if tool else Effect.READ

    def definition(self, name: str) -> str:
        """A digest of what a tool says of itself: what it is called, does and takes. Empty for an unknown one."""
        tool = self.tools.get(name)
        if tool is None:
            return ""
        info = info_of(tool)
        said = [name, info.connector, info.effect, tool.description, self.schema(name)]
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


NO_TOOLS = Toolset(())


@dataclass
class Call:
    """One call as far as it has got; rebuilt from the log when a turn goes on after a wait."""

    request: ToolRequested
    approval_id: str = ""
    decision: str = ""
    remembered: str = ""
    """The remembered approval that decided it, where nobody was asked."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What will be run: as requested, or as the person edited it."""
    result: ToolFinished | None = None

    def message(self) -> ToolMessage:
        assert self.result is not None
        return ToolMessage(
            self.result.text,
            tool_call_id=self.request.call_id,
            name=self.request.tool,
            status="success" if self.result.status is CallStatus.OK else "error",
        )


async def execute(toolset: Toolset, call: Call, *, listened: bool) -> ToolFinished:
    """Run one allowed call, which has no fault, within its time. Every failure becomes a result; only cancellation
    passes through. `listened`: see `direct`."""
    began = time.monotonic()
    name = call.request.tool
    tool = toolset.tools[name]
    info = info_of(tool)
    try:
        async with asyncio.timeout(info.timeout + 0.5):
            returned = await direct.run(tool, call.request.call_id, call.arguments, listened=listened)
    except TimeoutError:
        text = f"'{name}' did not answer within {info.timeout:g} seconds."
        return finished(call.request, CallStatus.ERROR, text, info=info, seconds=time.monotonic() - began)
    except InvalidInput as error:  # the tool's own check found what its schema cannot say
        return finished(call.request, CallStatus.INVALID, error.message, info=info, seconds=time.monotonic() - began)
    except TrimtabError as error:
        return finished(call.request, CallStatus.ERROR, error.message, info=info, seconds=time.monotonic() - began)
    except Exception as error:  # a connector is a stranger's code: whatever it does, the turn goes on
        text = f"'{name}' failed: {type(error).__name__}: {str(error)[:300]}"
        return finished(call.request, CallStatus.ERROR, text, info=info, seconds=time.monotonic() - began)
    return _finished_from(call.request, info, returned, time.monotonic() - began)


def finished(
    request: ToolRequested, status: CallStatus, text: str, *, info: ToolInfo | None = None, seconds: float = 0.0
) -> ToolFinished:
    """A result without an outcome: refused, failed, rejected."""
    return ToolFinished(
        call_id=request.call_id,
        tool=request.tool,
        connector=request.connector,
        status=status,
        text=text[:RESULT_LIMIT],
        # An error's text may quote what the other side sent.
        untrusted=info.untrusted if info else False,
        seconds=round(seconds, 4),
    )


def _finished_from(request: ToolRequested, info: ToolInfo, returned: Any, seconds: float) -> ToolFinished:
    failed = isinstance(returned, ToolMessage) and returned.status == "error"
    outcome = returned.artifact if isinstance(returned, ToolMessage) else returned
    if not isinstance(outcome, ToolOutcome):
        outcome = ToolOutcome(text=returned.text if isinstance(returned, ToolMessage) else str(returned))
    return ToolFinished(
        call_id=request.call_id,
        tool=request.tool,
        connector=request.connector,
        status=CallStatus.ERROR if failed else CallStatus.OK,
        text=outcome.text[:RESULT_LIMIT],
        data=outcome.data,
        sources=tuple({"title": s.title, "url": s.url, "retrieved_at": s.retrieved_at} for s in outcome.sources),
        answer=outcome.answer,
        untrusted=info.untrusted,
        seconds=round(seconds, 4),
    )
