"""`/mcp`: Trimtab as an MCP server over streamable HTTP, behind the same keys, limits and Host check as the API.

The SDK is imported, and its sessions begin, with the first request that has a key.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from trimtab.app import Trimtab
from trimtab.domain.errors import Forbidden, TrimtabError, Unavailable
from trimtab.orchestrator.calls import info_of

from . import guard
from .access import Caller, Gate

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    from trimtab.auditing import Audit
    from trimtab.connect.toolbox import Toolbox
    from trimtab.retrieval import Library

    from .mcp_server import Offer

MOST_SESSIONS = 200
IDLE_SECONDS = 1800.0


class Own:
    """Documents and connectors of this process, for one person. `library` None: documents are switched off."""

    def __init__(self, toolbox: Toolbox, library: Library | None, owner: str, audit: Audit) -> None:
        self._toolbox = toolbox
        self._library = library
        self._owner = owner
        self._audit = audit

    @property
    def has_documents(self) -> bool:
        return self._library is not None

    async def tools(self) -> list[Offer]:
        return offers(self._toolbox)

    async def search(self, question: str, k: int) -> list[dict[str, Any]]:
        from trimtab.retrieval import Filters

        found = await asyncio.to_thread(self._opened.search, question, self._owner, k, Filters(), -1.0)
        return [asdict(passage) for passage in found]

    async def documents(self) -> list[dict[str, Any]]:
        return [asdict(d) for d in await asyncio.to_thread(self._opened.documents, self._owner)]

    async def call(self, offer: Offer, arguments: Mapping[str, Any]) -> dict[str, Any]:
        info = info_of(self._toolbox.tool(offer.dotted))
        call = functools.partial(self._toolbox.call, offer.dotted, arguments)
        return asdict(await self._audit.run(self._owner, "mcp", info, arguments, call))

    @property
    def _opened(self) -> Library:
        if self._library is None:
            raise Unavailable("Documents are switched off in this installation.")
        return self._library


def offers(toolbox: Toolbox) -> list[Offer]:
    """The tools of enabled connectors, in a stable order."""
    from .mcp_server import Offer

    return [
        Offer(tool.info.name, tool.name, tool.info.description, tool.schema, tool.info.effect.value)
        for status in toolbox.connectors
        if status.enabled
        for tool in status.tools
    ]


class Face:
    """The route, and what lives as long as the server does."""

    def __init__(self, app: Trimtab, gate: Gate) -> None:
        self._app = app
        self._gate = gate
        self._sessions: StreamableHTTPSessionManager | None = None
        self._first = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()

    def route(self) -> Route:
        return Route("/mcp", endpoint=self)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the block runs, sessions may begin; they are ended with it."""
        try:
            yield
        finally:
            self._stopped.set()
            if self._keeper is not None:
                await asyncio.gather(self._keeper, return_exceptions=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        try:
            _own_origin(request, self._app.settings.allowed_origins)
            caller = await self._gate.caller(request.headers.get("authorization"))
            sessions = await self._ready()
        except TrimtabError as error:
            await guard.of_error(error)(scope, receive, send)
            return
        await self._serve(sessions, caller, scope, receive, send)

    async def _serve(
        self, sessions: StreamableHTTPSessionManager, caller: Caller, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            leave = self._enter(scope["method"], caller)
        except TrimtabError as error:
            await guard.of_error(error)(scope, receive, send)
            return
        try:
            await sessions.handle_request(_known(scope, caller), receive, send)
        finally:
            await leave()

    def _enter(self, method: str, caller: Caller) -> Any:
        if method == "GET":
            return self._gate.watch(caller)
        use = self._gate.enter(caller)

        async def left() -> None:
            use.running -= 1

        return left

    def _desk(self, ctx: Any) -> Own:
        return Own(self._app.toolbox, self._app.library, ctx.request.state.caller.id, self._app.audit)

    async def _ready(self) -> StreamableHTTPSessionManager:
        async with self._first:
            if self._stopped.is_set():
                raise Unavailable("Trimtab is shutting down.")
            if self._sessions is None:
                await self._begin()
            assert self._sessions is not None
            return self._sessions

    async def _begin(self) -> None:
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        from .mcp_server import make_server

        server = make_server(self._desk)
        manager = StreamableHTTPSessionManager(server, session_idle_timeout=IDLE_SECONDS, max_sessions=MOST_SESSIONS)
        up = asyncio.Event()

        async def keep() -> None:
            async with manager.run():
                up.set()
                await self._stopped.wait()

        self._keeper = asyncio.create_task(keep(), name="mcp sessions")
        await up.wait()
        self._sessions = manager


def _own_origin(request: Request, allowed: list[str]) -> None:
    """A page elsewhere must not speak for the person, even from their own browser.

    Raises:
        Forbidden: the request comes from a page of another origin, which the settings do not allow.
    """
    origin = request.headers.get("origin")
    if origin is None or origin in allowed:
        return
    if urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower():
        raise Forbidden("Pages of other origins may not use /mcp, unless `allowed_origins` in the settings names them.")


def _known(scope: Scope, caller: Caller) -> Scope:
    """With who asks: for our tools, and for the SDK, which lets only a session's own user into it."""
    from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
    from mcp.server.auth.provider import AccessToken

    token = AccessToken(token="", client_id=caller.key_id, scopes=[], subject=caller.id)
    state = {**scope.get("state", {}), "caller": caller}
    return {**scope, "user": AuthenticatedUser(token), "state": state}
