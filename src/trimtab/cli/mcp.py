"""`trimtab mcp`: Trimtab as an MCP server over standard input and output, for assistants that start their servers.

While `trimtab serve` or `up` runs, this asks it, since the library has one owner; else it opens the library and the
connectors itself. No model is started. Standard output carries the protocol and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

if TYPE_CHECKING:
    import httpx

    from trimtab.api.mcp_server import Desk, Offer
    from trimtab.settings import Settings


def register(app: typer.Typer) -> None:
    app.command("mcp")(mcp)


def mcp(
    documents: Annotated[bool, typer.Option(help="Offer the search in your documents.")] = True,
) -> None:
    """Offer your documents and connectors to an MCP client, over standard input and output.

    Clients that reach servers over HTTP find the same at /mcp of the running server.
    """
    from trimtab.settings import Settings

    asyncio.run(_serve(Settings.load(), documents=documents))


async def _serve(settings: Settings, *, documents: bool) -> None:
    from mcp.server.stdio import stdio_server

    from trimtab.api.mcp_server import make_server
    from trimtab.domain.errors import TrimtabError

    try:
        # First the streams: whatever is printed while things are opened must not get into the protocol.
        async with stdio_server() as (read, write), _desk(settings, documents=documents) as desk:
            server = make_server(lambda _: desk)
            await server.run(read, write, server.create_initialization_options())
    except BaseExceptionGroup as group:
        first: BaseException = group.subgroup(TrimtabError) or group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


@asynccontextmanager
async def _desk(settings: Settings, *, documents: bool) -> AsyncIterator[Desk]:
    from trimtab.cli.ingest import server_client

    running = await asyncio.to_thread(server_client, settings)
    if running is not None:
        with running:
            yield _Remote(running, documents)
        return
    async with AsyncExitStack() as stack:
        yield await _local(settings, stack, documents=documents)


async def _local(settings: Settings, stack: AsyncExitStack, *, documents: bool) -> Desk:
    from trimtab.api.mcp import Own
    from trimtab.auditing import Audit
    from trimtab.cli.ingest import local_library
    from trimtab.own_connectors import open_connectors
    from trimtab.own_database import LOCAL_USER, open_database
    from trimtab.store import people

    library = None
    if documents:
        library, _ = await asyncio.to_thread(stack.enter_context, local_library(settings))
    database = await asyncio.to_thread(open_database, settings)
    stack.callback(database.close)
    owner = await database.write(people.ensure_user, LOCAL_USER)
    toolbox, _, _ = open_connectors(settings)
    stack.push_async_callback(toolbox.aclose)
    return Own(toolbox, library, owner, Audit(database))


class _Remote:
    """The running server, asked over its API."""

    def __init__(self, client: httpx.Client, has_documents: bool) -> None:
        self._client = client
        self.has_documents = has_documents

    async def tools(self) -> list[Offer]:
        from trimtab.api.mcp_server import Offer

        return [
            Offer(tool["model_name"], tool["name"], tool["description"], tool["schema"], tool["effect"])
            for connector in (await self._do("GET", "/v1/connectors"))["connectors"]
            if connector["enabled"]
            for tool in connector["tools"]
        ]

    async def search(self, question: str, k: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._do("POST", "/v1/search", {"question": question, "k": k}))["passages"]
        return found

    async def documents(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self._do("GET", "/v1/documents"))["documents"]
        return found

    async def call(self, offer: Offer, arguments: Mapping[str, Any]) -> dict[str, Any]:
        # Only what may run gets here, so the API need not ask for a confirmation once more.
        body = {"tool": offer.dotted, "arguments": dict(arguments), "confirm": True}
        path = f"/v1/connectors/{quote(offer.dotted.partition('.')[0], safe='')}/call"
        outcome: dict[str, Any] = await self._do("POST", path, body)
        return outcome

    async def _do(self, method: str, path: str, body: Any = None) -> Any:
        from trimtab.cli.talk import checked

        return checked(await asyncio.to_thread(self._client.request, method, path, json=body))
