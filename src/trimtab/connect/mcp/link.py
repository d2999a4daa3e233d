"""One live connection to a server, held by a task of its own so that any task may use it and any may give up on it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import mcp_types as types
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from pydantic import TypeAdapter, ValidationError

from trimtab.domain.errors import ToolError, TrimtabError, Unavailable

from ..result import clean
from . import network
from .book import Server
from .definition import Definition
from .process import Process, streams
from .reach import Command
from .ways import Ways

MOST_PAGES = 20
MOST_LISTED = 1000
_RETURNED: TypeAdapter[Any] = TypeAdapter(types.CallToolResult | types.InputRequiredResult)


class SessionLost(ConnectionResetError):
    """The server does not know our session any more, so it has not done what was asked."""


class Link:
    """Open one with `Link.open`. Every method may raise `ToolError` for what the server did wrong."""

    def __init__(self, server: Server, ways: Ways) -> None:
        self.server = server
        self._ways = ways
        self._client: Client | None = None
        self._ready = asyncio.Event()
        self._stop = asyncio.Event()
        self._process: Process | None = None
        self._failure = ""
        self._task = asyncio.create_task(self._hold(), name=f"mcp server {server.name}")

    @classmethod
    async def open(cls, server: Server, ways: Ways) -> Link:
        """Start or reach a server and agree on a version of the protocol.

        Raises:
            Unavailable: it does not start, or does not answer in time.
        """
        link = cls(server, ways)
        try:
            async with asyncio.timeout(ways.start_seconds):
                await link._ready.wait()
        except BaseException as error:
            await link.close()
            if not isinstance(error, TimeoutError):
                raise
            late = f"did not introduce itself within {ways.start_seconds:g} seconds"
            raise Unavailable(f"MCP server {server.name!r} {late}.{link._words()}") from None
        if link._client is None:
            await link.close()
            raise Unavailable(f"MCP server {server.name!r} cannot be used: {link._failure}{link._words()}")
        return link

    @property
    def alive(self) -> bool:
        ended = self._process is not None and self._process.ended.is_set()
        return self._client is not None and not self._task.done() and not ended

    @property
    def says(self) -> str:
        """Name and version that the server gives itself."""
        info = self._connected.server_info
        return clean(f"{info.name} {info.version}".strip())[0][:200] if info else ""

    @property
    def protocol(self) -> str:
        return self._connected.protocol_version

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def offers(self, what: str) -> bool:
        """Whether the server says it has ``tools``, ``resources`` or ``prompts``."""
        return getattr(self._connected.server_capabilities, what) is not None

    async def close(self) -> None:
        """End the connection, and the process where there is one. Takes a few seconds at most."""
        self._stop.set()
        if not self._ready.is_set():
            self._task.cancel()
        await asyncio.wait({self._task}, timeout=15)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    # ------------------------------------------------------------------ asking

    async def definitions(self) -> list[Definition]:
        """Its tools as it describes them now."""
        if not self.offers("tools"):
            return []
        listed = await self._pages(self._connected.list_tools, "tools")
        return [_definition(tool) for tool in listed]

    async def call(self, tool: str, arguments: Mapping[str, Any]) -> types.CallToolResult:
        params = types.CallToolRequestParams(name=tool, arguments=dict(arguments))
        # Not `Client.call_tool`: it would check the result with the server's own schema, regular expressions and all.
        asked = self._connected.session.send_request(types.CallToolRequest(params=params), _RETURNED)
        returned = await self._answered(asked)
        if not isinstance(returned, types.CallToolResult):
            raise ToolError(f"MCP server {self.server.name!r} asked for further input, which it is not given here.")
        return returned

    async def resources(self) -> list[types.Resource]:
        return await self._pages(self._connected.list_resources, "resources")

    async def templates(self) -> list[types.ResourceTemplate]:
        return await self._pages(self._connected.list_resource_templates, "resource_templates")

    async def read_resource(self, uri: str) -> types.ReadResourceResult:
        return await self._answered(self._connected.read_resource(uri, cache_mode="bypass"))  # type: ignore[no-any-return]

    async def prompts(self) -> list[types.Prompt]:
        return await self._pages(self._connected.list_prompts, "prompts") if self.offers("prompts") else []

    async def prompt(self, name: str, arguments: Mapping[str, str]) -> types.GetPromptResult:
        return await self._answered(self._connected.get_prompt(name, dict(arguments)))  # type: ignore[no-any-return]

    # ------------------------------------------------------------------ inside

    @property
    def _connected(self) -> Client:
        if self._client is None or not self.alive:
            raise ToolError(f"MCP server {self.server.name!r} has ended.{self._words()}")
        return self._client

    async def _pages(self, ask: Any, field: str) -> list[Any]:
        found: list[Any] = []
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            page = await self._answered(ask(cursor=cursor, cache_mode="bypass"))
            found += getattr(page, field)
            cursor = page.next_cursor
            if cursor is None or len(found) > MOST_LISTED:
                break
        return found[:MOST_LISTED]

    async def _answered(self, asked: Any) -> Any:
        name = self.server.name
        try:
            return await asked
        except MCPError as error:
            said = clean(error.message)[0][:500]
            if error.code == network.SESSION_LOST:
                raise SessionLost from None
            if error.code == types.CONNECTION_CLOSED:
                what = f"MCP server {name!r} ended while it worked on this, so whether it took effect is not known"
                raise ToolError(f"{what}.{self._words()} The next call starts it again.") from None
            if error.code == network.UNREACHABLE:
                raise ToolError(said) from None
            raise ToolError(f"MCP server {name!r} answered with an error: {said}") from None
        except (ValidationError, ValueError, RuntimeError) as error:
            first = clean(str(error))[0].splitlines()[0][:200] if str(error) else type(error).__name__
            raise ToolError(f"MCP server {name!r} sent what is not MCP: {first}") from None

    def _words(self) -> str:
        fault = f" It was stopped: {self._process.fault}." if self._process and self._process.fault else ""
        last = self._process.last_words() if self._process else ""
        return fault + (f" It last said: {last}" if last else "")

    async def _hold(self) -> None:
        try:
            async with contextlib.AsyncExitStack() as stack:
                transport = await self._transport(stack)
                info = types.Implementation(name="trimtab", version=version("trimtab"))
                client = Client(transport, mode="auto", client_info=info, cache=None)
                self._client = await stack.enter_async_context(client)
                self._ready.set()
                await self._until_ended()
        except TrimtabError as error:
            self._failure = error.message
        except BaseException as error:
            self._failure = _reason(error)
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._ready.set()

    async def _until_ended(self) -> None:
        ends = [asyncio.create_task(self._stop.wait())]
        if self._process is not None:
            ends.append(asyncio.create_task(self._process.ended.wait()))
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in ends:
                task.cancel()

    async def _transport(self, stack: contextlib.AsyncExitStack) -> Any:
        reached = self.server.reached
        if isinstance(reached, Command):
            env = reached.environment(os.environ, self._ways.secret)
            self._process = await Process.start(reached.argv, env, reached.cwd)
            return streams(self._process)
        http = network.client(
            reached.sent_headers(self._ways.secret),
            local=reached.local,
            resolver=self._ways.resolver,
            ca_file=self._ways.ca_file,
        )
        await stack.enter_async_context(http)
        return streamable_http_client(reached.url, http_client=http, max_sse_event_size=network.MAX_EVENT)


def _definition(tool: types.Tool) -> Definition:
    hints = tool.annotations or types.ToolAnnotations()
    return Definition(
        name=tool.name,
        title=tool.title or hints.title or "",
        description=tool.description or "",
        schema=tool.input_schema,
        result=tool.output_schema,
        only_reads=hints.read_only_hint is True,
        # The protocol's default for a tool that writes is "may destroy"; only what is said outright counts here.
        destroys=hints.destructive_hint is True and hints.read_only_hint is not True,
    )


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, MCPError) and error.code == types.CONNECTION_CLOSED:
        return "it ended before it had introduced itself."
    return (clean(str(error))[0].splitlines() or [""])[0][:300] or type(error).__name__
