"""All installed connectors, and the door through which their tools are called.

    toolbox = Toolbox.discover()
    outcome = await toolbox.call("calculator.calculate", {"expression": "15% of 80"})
    outcome.answer

What can be turned is arguments (`ConnectOptions`); secrets are looked up at the moment of a call.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from langchain_core.tools import BaseTool

from trimtab.domain.errors import InvalidInput, NotFound, TrimtabError, Unavailable
from trimtab.domain.tool import Effect, ToolInfo, ToolOutcome

from .authorize import Desk
from .binding import checked, langchain_tool, tool_info
from .declare import Connector, Declaration
from .discovery import connector_in, installed
from .health import Health
from .line import Line
from .options import ConnectOptions, Override, from_environment
from .sign_in import SignIn
from .standing import CALLER, Standing, read_only

__all__ = ["CallError", "ConnectOptions", "ConnectorStatus", "Override", "ToolStatus", "Toolbox", "from_environment"]

KEPT_ERRORS = 20


@dataclass(frozen=True)
class CallError:
    at: float
    """Unix seconds."""
    tool: str
    message: str


@dataclass(frozen=True)
class ToolStatus:
    """A tool as people see it."""

    name: str
    """``weather.forecast``; `info.name` is what the model sees."""
    info: ToolInfo
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class ConnectorStatus:
    """A connector as people see it. `error` is why it could not be loaded; then it has no tools."""

    name: str
    version: str = ""
    description: str = ""
    hosts: tuple[str, ...] = ()
    auth: str = "none"
    """``"none"`` needed, ``"ready"``, ``"missing NAME"`` with the secret to set, ``"optional"`` and not set,
    ``"not connected"``, ``"reconnect"`` (sign in again), or ``"unreadable: ..."`` with the reason."""
    tools: tuple[ToolStatus, ...] = ()
    enabled: bool = False
    error: str = ""
    origin: str = ""
    standing: Standing = CALLER
    """Whether its tools may do more than read, and why not."""
    calls: int = 0
    failures: int = 0
    seconds: float = 0.0
    last_errors: tuple[CallError, ...] = ()
    """Newest last, at most 20."""
    health: Health = Health()
    options: tuple[OptionStatus, ...] = ()
    """What a person sets up for it. While a required one is missing, no model is offered its tools."""
    speaks: tuple[str, ...] = ()
    """Protocols besides HTTP, with servers that its options name."""


@dataclass(frozen=True)
class OptionStatus:
    """`set` is whether a person gave it a value; one that is not required may have a `default`."""

    name: str
    about: str
    required: bool
    set: bool
    default: str = ""


@dataclass
class _Entry:
    connector: Connector
    origin: str
    enabled: bool
    line: Line
    tools: dict[str, BaseTool] = field(default_factory=dict)
    calls: int = 0
    failures: int = 0
    seconds: float = 0.0
    errors: deque[CallError] = field(default_factory=lambda: deque(maxlen=KEPT_ERRORS))


class Toolbox:
    """Connectors by name. Use one from one event loop; close it with `aclose`."""

    def __init__(self, options: ConnectOptions = ConnectOptions()) -> None:
        self._options = options
        self._entries: dict[str, _Entry] = {}
        self._broken: list[ConnectorStatus] = []
        self._tools: dict[str, tuple[_Entry, Declaration]] = {}
        self._offered: list[BaseTool] | None = None
        """What `tools` gives, until a connector comes, goes or is turned on or off."""
        self._running: dict[asyncio.Timeout, asyncio.Task[Any] | None] = {}
        """The calls that run now, each in a scope without a deadline, and its task. Closing sets the deadline."""
        self._ended = asyncio.Event()
        """Set whenever a call has ended."""
        self._closed = False
        self._at_close: list[Callable[[], Awaitable[None]]] = []

    @classmethod
    def discover(cls, options: ConnectOptions = ConnectOptions()) -> Toolbox:
        """Everything installed. What cannot be loaded is in `connectors` with its `error`."""
        toolbox = cls(options)
        for found in installed(options.group):
            try:
                if found.connector is None:
                    raise InvalidInput(found.error)
                toolbox.add(found.connector, origin=found.origin)
            except InvalidInput as error:
                toolbox._broken.append(ConnectorStatus(found.name, error=error.message, origin=found.origin))
        return toolbox

    def add(self, thing: Connector | ModuleType, *, origin: str = "added") -> Connector:
        """Add a connector, or the one that a module holds.

        Raises:
            InvalidInput: its name, or the name of one of its tools, is taken; or it has no tools.
        """
        connector = connector_in(thing)
        if connector.name in self._entries:
            other = self._entries[connector.name].origin
            raise InvalidInput(f"A connector named {connector.name!r} is already there ({other}). Rename one of them.")
        if not connector.tools:
            raise InvalidInput(f"Connector {connector.name!r} has no tools. Decorate a function with @connector.tool.")
        for declared in connector.tools.values():
            if declared.model_name in self._tools:
                raise InvalidInput(f"Connector {connector.name!r}: a tool {declared.model_name!r} is already there.")
        entry = _Entry(connector, origin, self._enabled_at_start(connector.name), Line(connector, self._options))
        for declared in connector.tools.values():
            entry.tools[declared.name] = langchain_tool(connector, declared, self._caller(entry, declared))
            self._tools[declared.model_name] = self._tools[declared.dotted] = (entry, declared)
        self._entries[connector.name] = entry
        self._offered = None
        return connector

    def remove(self, name: str) -> None:
        """Forget a connector that was added; calls to its tools are unknown from now on. Raises `NotFound`."""
        if name not in self._entries and any(status.name == name for status in self._broken):
            self._broken = [status for status in self._broken if status.name != name]
            return
        entry = self._entry(name)
        del self._entries[name]
        self._offered = None
        self._tools = {known: found for known, found in self._tools.items() if found[0] is not entry}

    def broken(self, status: ConnectorStatus) -> None:
        """List a connector that could not be loaded, with its `error`."""
        self._broken.append(status)

    def at_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have something that connectors need (a process, a connection) closed after them."""
        self._at_close.append(close)

    @property
    def connectors(self) -> list[ConnectorStatus]:
        """All of them by name, those that are off or broken included."""
        known = [self._status(entry) for entry in self._entries.values()]
        return sorted([*known, *self._broken], key=lambda status: status.name)

    @property
    def loaded(self) -> int:
        """How many connectors there are, those that are off included."""
        return len(self._entries)

    @property
    def faults(self) -> dict[str, str]:
        """Why each connector that is broken could not be loaded."""
        return {status.name: status.error for status in self._broken}

    def connector(self, name: str) -> ConnectorStatus:
        """One of them.

        Raises:
            NotFound: there is none of that name.
        """
        for status in self.connectors:
            if status.name == name:
                return status
        raise NotFound(f"There is no connector {name!r}. Installed: {', '.join(sorted(self._entries)) or 'none'}.")

    def tools(self) -> list[BaseTool]:
        """The tools of connectors that are enabled and set up, in a stable order, for a model to be shown."""
        if self._offered is None:
            self._offered = [
                entry.tools[name]
                for _, entry in sorted(self._entries.items())
                if entry.enabled and not entry.line.lacking
                for name in sorted(entry.tools)
            ]
        return list(self._offered)

    def tool(self, name: str) -> BaseTool:
        """One enabled tool, by either name (``weather.forecast`` or ``weather_forecast``).

        Raises:
            NotFound: no connector has it, or its connector is off.
        """
        entry, declared = self._find(name)
        return entry.tools[declared.name]

    def sign_in(self, name: str) -> SignIn:
        """How a connector is signed in. Raises `NotFound`, or `InvalidInput` for one that could not be loaded."""
        return self._entry(name).line.sign_in

    def desk(self, name: str) -> Desk:
        """Where a sign-in of a connector is begun by a face that does not wait for it. Raises like `sign_in`."""
        return self._entry(name).line.desk

    def enable(self, name: str) -> None:
        """Turn a connector on. Raises `NotFound`."""
        self._entry(name).enabled = True
        self._offered = None

    def disable(self, name: str) -> None:
        """Turn a connector off: its tools are no longer offered, and calls to them fail. Raises `NotFound`."""
        self._entry(name).enabled = False
        self._offered = None

    async def call(self, name: str, arguments: Mapping[str, Any]) -> ToolOutcome:
        """Check the arguments and run a tool. Approval of side effects is the caller's business.

        Raises:
            NotFound: no such tool, or its connector is off.
            InvalidInput: the arguments do not fit; the message names them.
            ToolError: it ran and failed.
        """
        entry, declared = self._find(name)
        return await self._run(entry, declared, checked(declared, arguments, declared.dotted))

    async def aclose(self) -> None:
        """Stop what is running and refuse what comes after."""
        self._closed = True
        mine = asyncio.current_task()
        for scope, task in self._running.items():
            if task is not mine and not scope.expired():
                scope.reschedule(asyncio.get_running_loop().time())
        while any(task is not mine for task in self._running.values()):
            self._ended.clear()
            await self._ended.wait()
        await asyncio.gather(*(entry.line.aclose() for entry in self._entries.values()), return_exceptions=True)
        await asyncio.gather(*(close() for close in self._at_close), return_exceptions=True)

    def _caller(self, entry: _Entry, declared: Declaration) -> Callable[[Mapping[str, Any]], Any]:
        async def call(arguments: Mapping[str, Any]) -> ToolOutcome:
            if not entry.enabled:
                raise off(entry, declared.dotted)
            return await self._run(entry, declared, arguments)

        return call

    async def _run(self, entry: _Entry, declared: Declaration, arguments: Mapping[str, Any]) -> ToolOutcome:
        if self._closed:
            raise Unavailable("The toolbox is closed: Trimtab is shutting down.")
        started = time.monotonic()
        entry.calls += 1
        try:
            self._permitted(entry.connector, declared)
            return await self._tracked(entry.line.call(declared, arguments))
        except TrimtabError as error:
            entry.failures += 1
            entry.errors.append(CallError(time.time(), declared.dotted, error.message[:500]))
            raise
        finally:
            entry.seconds += time.monotonic() - started

    async def _tracked(self, work: Awaitable[ToolOutcome]) -> ToolOutcome:
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._running[scope] = asyncio.current_task()
                return await work
        except TimeoutError:
            if scope.expired():
                raise Unavailable("The call was stopped: Trimtab is shutting down.") from None
            raise
        finally:
            self._running.pop(scope, None)
            self._ended.set()

    def _standing(self, connector: Connector) -> Standing:
        own: Standing | None = getattr(connector, "standing", None)
        return own or (self._options.standing(connector) if self._options.standing else CALLER)

    def _permitted(self, connector: Connector, declared: Declaration) -> None:
        if declared.effect is not Effect.READ and not (standing := self._standing(connector)).vouched:
            raise read_only(connector.name, declared.dotted, declared.effect, standing)

    def _enabled_at_start(self, name: str) -> bool:
        options = self._options
        return name not in options.disabled and (options.enabled is None or name in options.enabled)

    def _entry(self, name: str) -> _Entry:
        status = self.connector(name)
        if name not in self._entries:
            raise InvalidInput(f"Connector {name!r} could not be loaded: {status.error}")
        return self._entries[name]

    def _find(self, name: str) -> tuple[_Entry, Declaration]:
        found = self._tools.get(name)
        if found is None:
            raise NotFound(f"There is no tool {name!r}. `trimtab connectors list` shows what there is.")
        if not found[0].enabled:
            raise off(found[0], name)
        return found

    def _status(self, entry: _Entry) -> ConnectorStatus:
        connector = entry.connector
        tools = tuple(
            ToolStatus(declared.dotted, tool_info(connector, declared), declared.json_schema())
            for _, declared in sorted(connector.tools.items())
        )
        return ConnectorStatus(
            name=connector.name,
            version=connector.version,
            description=connector.description,
            hosts=connector.hosts,
            auth=entry.line.sign_in.state(),
            tools=tools,
            enabled=entry.enabled,
            origin=entry.origin,
            standing=self._standing(connector),
            calls=entry.calls,
            failures=entry.failures,
            seconds=entry.seconds,
            last_errors=tuple(entry.errors),
            health=entry.line.health,
            options=tuple(
                OptionStatus(
                    name, option.about, option.needed, bool(entry.line.given.get(name, "").strip()), option.default
                )
                for name, option in connector.options.items()
            ),
            speaks=connector.speaks,
        )


def off(entry: _Entry, tool: str) -> NotFound:
    return NotFound(f"Connector {entry.connector.name!r} is turned off. Turn it on to use {tool}.")
