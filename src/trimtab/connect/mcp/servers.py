"""All added servers: looked at, approved, turned into connectors, removed.

What a model is shown comes from the approved definitions alone, so that no server needs to run for that, and none can
change it. A server is started when a tool of it is first called.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from trimtab.domain.errors import Conflict, DeadlineExceeded, InvalidInput, NotFound, ToolError, Unavailable
from trimtab.domain.tool import Effect

from ..declare import HOST, Connector
from ..result import Result
from ..standing import Standing
from ..toolbox import Toolbox
from . import naming, offered
from .book import Approved, Book, Server
from .definition import Definition
from .reach import Endpoint
from .supervisor import Supervised
from .ways import Ways

if TYPE_CHECKING:
    from .link import Link

Answer = TypeVar("Answer")

RESOURCES = "resources"
"""Stands for reading resources, among the names of tools that only read."""
MAX_CHARS = 8000
MOST_SHOWN = 32


@dataclass(frozen=True)
class Found:
    """What a server offers when it is looked at, beside what was approved of it before."""

    server: Server
    tools: tuple[Definition, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    """Tools that cannot be used, with the reason."""
    resources: bool = False
    prompts: tuple[str, ...] = ()
    says: str = ""
    protocol: str = ""

    @property
    def sha256(self) -> str:
        """Of all that is approved when this is approved."""
        seen = [self.server.name, self.server.reached.wire(), self.resources, [t.sha256 for t in self.tools]]
        return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()

    @property
    def hinted(self) -> frozenset[str]:
        """What the server itself says only reads. Its word, not a fact."""
        return frozenset(
            {tool.name for tool in self.tools if tool.only_reads} | ({RESOURCES} if self.resources else set())
        )

    def change(self, tool: Definition) -> str:
        """``"new"``, ``"changed"`` or ``""`` against what was approved."""
        pinned = self.server.pin(tool.name)
        if pinned is None:
            return "new"
        return "" if pinned.definition.sha256 == tool.sha256 else "changed"

    @property
    def gone(self) -> tuple[str, ...]:
        now = {tool.name for tool in self.tools}
        return tuple(t.definition.name for t in self.server.tools if t.definition.name not in now)

    @property
    def unchanged(self) -> bool:
        return not self.gone and not any(self.change(tool) for tool in self.tools)

    def wire(self) -> dict[str, Any]:
        """For a face: what is offered, what the server hints, what was approved and what is different now."""
        called = self.called()
        return {
            **described(self.server),
            "says": self.says,
            "protocol": self.protocol,
            "sha256": self.sha256,
            "hinted": sorted(self.hinted),
            "refused": dict(self.refused),
            "gone": list(self.gone),
            "unchanged": self.unchanged,
            "has_resources": self.resources,
            "prompts": list(self.prompts),
            "tools": [self._tool(tool, called[tool.name]) for tool in self.tools],
        }

    def called(self) -> dict[str, str]:
        """What each tool is called here; those that were approved before keep their names."""
        known = {pinned.definition.name: pinned.called for pinned in self.server.tools}
        return naming.names([tool.name for tool in self.tools], known)

    def _tool(self, tool: Definition, called: str) -> dict[str, Any]:
        pinned = self.server.pin(tool.name)
        change = self.change(tool)
        return {
            "name": tool.name,
            "called": called,
            "description": tool.told,
            "schema": tool.usable(),
            "hints": {"only_reads": tool.only_reads, "destroys": tool.destroys},
            "effect": pinned.effect if pinned and not change else "",
            "change": change,
            "was": pinned.definition.told if pinned and change else "",
        }


class Servers:
    """The servers of one book, as connectors of one toolbox. They end when the toolbox is closed."""

    def __init__(self, book: Book, toolbox: Toolbox, ways: Ways) -> None:
        self.book = book
        self._toolbox = toolbox
        self._ways = ways
        self._running: dict[str, Supervised] = {}
        self._shown: dict[str, Found] = {}
        """The last looks by their `sha256`: what a person decides on is what they saw, not what is there by then."""
        for server in book.servers.values():
            self._install(server)
        toolbox.at_close(self.aclose)

    def running(self, name: str) -> Supervised:
        """One server, running or not. Raises `NotFound`."""
        if name not in self._running:
            self.book.get(name)
            raise NotFound(f"MCP server {name!r} has no approved tools. Run: trimtab connectors mcp approve {name}")
        return self._running[name]

    async def look(self, server: Server) -> Found:
        """Start or reach a server for a moment and see what it offers. Nothing is stored.

        Raises:
            Unavailable: it does not start, or does not answer.
            ToolError: what it says is not MCP.
        """
        from .link import Link

        link = await Link.open(server, self._ways)
        try:
            async with asyncio.timeout(self._ways.start_seconds):
                definitions = await link.definitions()
                prompts = tuple(prompt.name for prompt in await link.prompts())
            usable, refused = _sorted(definitions)
            found = Found(server, usable, refused, link.offers("resources"), prompts, link.says, link.protocol)
            self._remember(found)
            return found
        except TimeoutError:
            raise InvalidInput(f"MCP server {server.name!r} does not say what it offers.") from None
        finally:
            await link.close()

    async def add(self, server: Server, reads: Collection[str] | None, seen: str) -> Found:
        """Add a server with the tools that a person was shown. `reads` are those which only read; see `approve`.

        Raises:
            Conflict: there is one of that name, or it offers something else than what was seen.
        """
        if server.name in self.book.servers:
            raise Conflict(f"There is an MCP server {server.name!r} already. Remove it first, or choose another name.")
        if any(known.name == server.name for known in self._toolbox.connectors):
            raise Conflict(f"There is a connector {server.name!r} already. Choose another name.")
        return await self._keep(await self._seen(replace(server, tools=(), resources=None), seen), reads, seen)

    async def approve(self, name: str, reads: Collection[str] | None, seen: str) -> Found:
        """Take over what a server offers now, as a person was shown it.

        `seen` is the `sha256` of the `Found` that the person saw. `reads` names the tools that only read; all others
        wait for a person's approval at each call. None keeps what was said of each tool that has not changed.

        Raises:
            NotFound: there is no such server.
            Conflict: it offers something else by now.
        """
        return await self._keep(await self._seen(self.book.get(name), seen), reads, seen)

    async def remove(self, name: str) -> None:
        """End a server and forget it. Raises `NotFound`."""
        self.book.get(name)
        await self._uninstall(name)
        self.book.drop(name)

    def listed(self) -> list[dict[str, Any]]:
        """All of them, with whether they run just now."""
        return [
            {**described(server), "running": (known := self._running.get(name)) is not None and known.running}
            for name, server in sorted(self.book.servers.items())
        ]

    async def prompts(self, name: str) -> list[dict[str, Any]]:
        """The prompts of a server, for a person. Raises `NotFound`, `Unavailable`, `ToolError`."""
        return await self._asked(name, offered.prompts)

    async def prompt(self, name: str, prompt: str, arguments: Mapping[str, str]) -> list[dict[str, str]]:
        """One of them filled in, as messages with a role and a text."""
        return await self._asked(name, lambda link: offered.fill(link, prompt, arguments))

    async def _asked(self, name: str, ask: Callable[[Link], Awaitable[Answer]]) -> Answer:
        try:
            async with asyncio.timeout(self.book.get(name).timeout):
                return await self.running(name).use(ask)
        except TimeoutError:
            raise DeadlineExceeded(f"MCP server {name!r} did not answer in time.") from None

    async def aclose(self) -> None:
        """End every server that runs."""
        running, self._running = self._running, {}
        await asyncio.gather(*(supervised.close() for supervised in running.values()), return_exceptions=True)

    # ------------------------------------------------------------------ inside

    def _remember(self, found: Found) -> None:
        while len(self._shown) >= MOST_SHOWN:
            del self._shown[next(iter(self._shown))]
        self._shown[found.sha256] = found

    async def _seen(self, server: Server, seen: str) -> Found:
        found = self._shown.get(seen)
        return found if found is not None and found.server == server else await self.look(server)

    async def _keep(self, found: Found, reads: Collection[str] | None, seen: str) -> Found:
        if seen != found.sha256:
            raise Conflict(
                f"MCP server {found.server.name!r} offers something else than what was shown. Look at it again.",
                now=found.sha256,
            )
        server = _approved(found, reads)
        if not server.tools and server.resources is None:
            raise InvalidInput(f"MCP server {server.name!r} offers no tool and no resource that can be used.")
        connector, supervised = self._made(server)  # fails here, before anything was changed
        await self._uninstall(server.name)
        self.book.put(server)
        self._place(connector, supervised)
        return replace(found, server=server)

    def _install(self, server: Server) -> None:
        self._place(*self._made(server))

    def _place(self, connector: Connector, supervised: Supervised) -> None:
        self._toolbox.add(connector, origin="mcp")
        self._running[connector.name] = supervised

    def _made(self, server: Server) -> tuple[Connector, Supervised]:
        supervised = Supervised(server, self._ways)
        return connector_of(server, supervised), supervised

    async def _uninstall(self, name: str) -> None:
        supervised = self._running.pop(name, None)
        if supervised is not None:
            self._toolbox.remove(name)
            await supervised.close()


def described(server: Server) -> dict[str, Any]:
    """A server as people see it: no value of its environment, no secret."""
    reached = server.reached
    how: dict[str, Any] = (
        {"url": reached.url, "headers": dict(reached.headers), "local": reached.local}
        if isinstance(reached, Endpoint)
        else {
            "argv": list(reached.argv),
            "env": sorted(reached.env),
            "secrets": list(reached.secrets),
            "cwd": reached.cwd,
        }
    )
    return {
        "name": server.name,
        **how,
        "timeout": server.timeout,
        "says": server.says,
        "approved_at": server.approved_at,
        "resources": server.resources,
        "approved": [{"name": t.definition.name, "called": t.called, "effect": t.effect} for t in server.tools],
    }


class McpConnector(Connector):
    """A connector without a badge: nobody can run a stranger's server through a check. A person vouches for it."""

    standing = Standing("approved", "A person approved each of its tools as the MCP server describes it.")


def connector_of(server: Server, supervised: Supervised) -> Connector:
    """The approved tools of a server as a connector."""
    pins = hashlib.sha256("".join(t.definition.sha256 for t in server.tools).encode()).hexdigest()[:8]
    connector = McpConnector(
        name=server.name, version=f"mcp-{pins}", description=_description(server), hosts=_hosts(server)
    )
    facts = {"timeout": server.timeout, "max_chars": MAX_CHARS}
    for approved in server.tools:
        definition = approved.definition
        call = _caller(supervised, approved, f"{server.name}.{approved.called}")
        told = {"description": definition.told, "effect": approved.effect}
        connector.declare(approved.called, call, definition.usable(), **told, **facts)
    if server.resources is not None:
        offered.declare_resources(connector, supervised, server.resources, facts)
    return connector


def _caller(supervised: Supervised, approved: Approved, dotted: str) -> Any:
    async def call(arguments: Mapping[str, Any]) -> Result:
        try:
            return await supervised.call(approved, dotted, arguments)
        except Unavailable as error:
            raise ToolError(error.message) from None

    return call


def _description(server: Server) -> str:
    return f"MCP server {server.says or server.name}, reached by: {server.reached.shown}"[:500]


def _hosts(server: Server) -> tuple[str, ...]:
    if not isinstance(server.reached, Endpoint):
        return ()
    host = urlsplit(server.reached.url).netloc.lower()
    return (host,) if HOST.match(host) else ()


def _sorted(definitions: Collection[Definition]) -> tuple[tuple[Definition, ...], dict[str, str]]:
    usable: dict[str, Definition] = {}
    refused: dict[str, str] = {}
    for definition in definitions:
        try:
            definition.usable()
        except InvalidInput as error:
            refused[definition.name[:128]] = error.message
            continue
        if definition.name in usable:
            refused[definition.name] = "The server lists two tools of this name."
        usable.setdefault(definition.name, definition)
    return tuple(usable.values()), refused


def _approved(found: Found, reads: Collection[str] | None) -> Server:
    old = found.server
    if reads is not None:
        known = {tool.name for tool in found.tools} | {RESOURCES}
        if unknown := sorted(set(reads) - known):
            raise InvalidInput(
                f"MCP server {old.name!r} has no tool {unknown[0]!r}. It has: {', '.join(sorted(known))}."
            )
    called = found.called()
    tools = tuple(Approved(t, called[t.name], _effect(found, t, reads)) for t in found.tools)
    resources = None
    if found.resources:
        kept = old.resources or Effect.WRITE
        resources = kept if reads is None else Effect.READ if RESOURCES in reads else Effect.WRITE
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return replace(old, tools=tools, resources=resources, says=found.says, approved_at=now)


def _effect(found: Found, tool: Definition, reads: Collection[str] | None) -> Effect:
    """A person says what only reads. The server's own hints can make a tool count as worse, never as better."""
    pinned = found.server.pin(tool.name)
    if reads is None and pinned is not None and not found.change(tool):
        return pinned.effect
    if reads is not None and tool.name in reads:
        return Effect.READ
    return Effect.IRREVERSIBLE if tool.destroys else Effect.WRITE
