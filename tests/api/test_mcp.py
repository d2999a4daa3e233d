"""Trimtab as an MCP server, asked by the official client; and MCP servers added through the API, used in a turn."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import mcp_types as types
import pytest
import uvicorn
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from running import Running, free_port
from scripted_app import Desk, app_with, asked, follow, only, post
from trimtab.api.server import create_app
from trimtab.app import Trimtab
from trimtab.llm.scripted import ScriptedModel, call
from trimtab.store import people

A_SERVER = Path(__file__).parents[1] / "connect" / "mcp" / "a_server.py"


@asynccontextmanager
async def served(app: Trimtab) -> AsyncIterator[str]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(app), host="127.0.0.1", port=port, log_level="warning"))
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await running


async def key_of(app: Trimtab, name: str) -> str:
    return await app.database.write(people.create_key, name, "test")


@asynccontextmanager
async def client(url: str, key: str, mode: str, answer: Any = None) -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, trust_env=False) as http:
        transport = streamable_http_client(f"{url}/mcp", http_client=http)
        async with Client(transport, mode=mode, elicitation_callback=answer) as connected:
            yield connected


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_reads_at_once_and_writes_only_when_its_person_allows_it(tmp_path: Path, mode: str) -> None:
    desk = Desk()
    questions: list[str] = []
    said: list[types.ElicitResult] = []

    async def answer(_: Any, params: Any) -> types.ElicitResult:
        questions.append(params.message)
        return said.pop(0)

    async with app_with([], tmp_path, desk=desk) as app, served(app) as url:
        key = await key_of(app, "local")
        async with client(url, key, mode) as silent:
            assert silent.protocol_version == {"auto": "2026-07-28", "legacy": "2025-11-25"}[mode]
            tools = {tool.name: tool for tool in (await silent.list_tools()).tools}
            assert set(tools) == {"desk_look", "desk_drop", "desk_stamp"}  # no documents: the library is closed here
            assert tools["desk_look"].annotations == types.ToolAnnotations(read_only_hint=True, open_world_hint=True)
            assert tools["desk_stamp"].annotations.read_only_hint is False
            looked = await silent.call_tool("desk_look", {"drawer": 3})
            assert "30 pencils" in looked.content[0].text
            assert (await silent.call_tool("desk_look", {"drawer": 99})).is_error
            assert (await silent.call_tool("desk_drop", {"what": "cup"})).content[0].text == "The cup broke."
            refused = await silent.call_tool("desk_stamp", {"text": "PAID"})
            assert refused.is_error
            assert "trimtab connectors call desk.stamp --arg text=" in refused.content[0].text
            with pytest.raises(MCPError, match="no tool"):
                await silent.call_tool("desk_burn", {})
        async with client(url, key, mode, answer) as asking:
            said[:] = [
                types.ElicitResult(action="decline"),
                types.ElicitResult(action="accept", content={"approve": False}),
                types.ElicitResult(action="accept", content={"approve": True}),
            ]
            outcomes = [await asking.call_tool("desk_stamp", {"text": "PAID"}) for _ in range(3)]
    assert [outcome.is_error for outcome in outcomes] == [True, True, False]
    assert questions[0].endswith('Arguments: {"text": "PAID"}')
    assert desk.ran == ["look 3", "drop cup", "stamp PAID"]


async def test_an_approval_is_for_one_call_with_exactly_these_arguments_once(tmp_path: Path) -> None:
    desk = Desk()

    async def never(_: Any, params: Any) -> types.ElicitResult:
        raise AssertionError("answered by hand here")

    async with (
        app_with([], tmp_path, desk=desk) as app,
        served(app) as url,
        client(url, await key_of(app, "local"), "auto", never) as asking,
    ):

        async def stamp(text: str, state: str | None) -> Any:
            yes = types.ElicitResult(action="accept", content={"approve": True})
            return await asking.session.call_tool(
                "desk_stamp",
                {"text": text},
                input_responses={"approve": yes} if state else None,
                request_state=state,
                allow_input_required=True,
            )

        for text, state in (("OTHER", (await stamp("PAID", None)).request_state), ("PAID", "made-up")):
            assert (await stamp(text, state)).is_error
        state = (await stamp("PAID", None)).request_state
        assert not (await stamp("PAID", state)).is_error
        assert (await stamp("PAID", state)).is_error
    assert desk.ran == ["stamp PAID"]


async def test_the_door_has_the_same_keys_and_checks_as_the_api(tmp_path: Path) -> None:
    first = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }
    accept = {"Accept": "application/json, text/event-stream"}
    async with app_with([], tmp_path) as app, served(app) as url, httpx.AsyncClient(trust_env=False) as http:
        mine = {**accept, "Authorization": f"Bearer {await key_of(app, 'local')}"}
        theirs = {**accept, "Authorization": f"Bearer {await key_of(app, 'other')}"}

        async def status(headers: dict[str, str], body: Any = first) -> int:
            return (await http.post(f"{url}/mcp", json=body, headers=headers)).status_code

        assert await status(accept) == 401
        assert await status({**accept, "Authorization": "Bearer wrong"}) == 401
        assert await status({**mine, "Host": "evil.example.org"}) == 421
        assert await status({**mine, "Origin": "https://evil.example.org"}) == 403
        assert await status({**mine, "Origin": url}) == 200
        begun = await http.post(f"{url}/mcp", json=first, headers=mine)
        session = {"Mcp-Session-Id": begun.headers["mcp-session-id"], "MCP-Protocol-Version": "2025-11-25"}
        ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        assert await status({**mine, **session}, ping) == 200
        assert await status({**theirs, **session}, ping) == 404  # a session is its own person's only
        assert await status({**accept, **session}, ping) == 401


async def test_a_server_that_was_added_over_the_api_is_used_in_a_turn_with_approval(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    reached = {"name": "notes", "argv": [sys.executable, str(A_SERVER), "--notes", str(notes)], "timeout": 60}
    steps = [call("notes_weather", place="Oslo"), "It is 7.5 degrees.", call("notes_write_note", text="milk"), "Noted."]
    async with app_with(steps, tmp_path / "home") as app, served(app) as url:
        mine = {"Authorization": f"Bearer {await key_of(app, 'local')}"}
        theirs = {"Authorization": f"Bearer {await key_of(app, 'other')}"}
        async with httpx.AsyncClient(base_url=url, headers=mine, trust_env=False, timeout=120) as http:
            stranger = await http.post("/v1/mcp-servers/look", json=reached, headers=theirs)
            assert stranger.status_code == 403  # adding one means running a program here
            looked = await http.post("/v1/mcp-servers/look", json=reached)
            assert looked.status_code == 200, looked.text
            look = looked.json()
            assert "weather" in look["hinted"]
            hasty = await http.post("/v1/mcp-servers", json={**reached, "seen": "0" * 64, "reads": []})
            assert hasty.status_code == 409
            await http.post("/v1/mcp-servers", json={**reached, "seen": look["sha256"], "reads": ["weather"]})

            events = await asked(app, "How warm is it in Oslo?")
            finished = only(events, "tool.finished")
            assert (finished["connector"], finished["status"], finished["untrusted"]) == ("notes", "ok", True)
            model = app.model
            assert isinstance(model, ScriptedModel)
            told = str(model.asked[-1].messages[-1].content)
            assert "7.5" in told
            assert told != finished["text"]  # wrapped as data

            turn = await post(app, "Note that we need milk.")
            await follow(app, turn, until=("approval.needed",))
            assert not notes.exists()
            (waiting,) = await app.approvals()
            await app.decide(app.owner, waiting["id"], "approve", digest=waiting["digest"])
            assert only(await follow(app, turn), "turn.finished")["text"] == "Noted."
            assert notes.read_text() == "milk\n"

            await http.patch("/v1/connectors/notes", json={"enabled": False})
            assert not [tool for tool in app.tools() if tool.name.startswith("notes_")]
            assert (await http.delete("/v1/mcp-servers/notes")).status_code == 204
            assert (await http.get("/v1/mcp-servers")).json() == {"servers": []}


@pytest.mark.model
async def test_an_assistant_that_starts_trimtab_searches_the_documents_of_the_running_server(server: Running) -> None:
    poem = b"# Tides\n\nHigh water at Bergen is at nine in the evening.\n"
    with server.client as http:
        http.post("/v1/documents", files={"file": ("tides.md", poem)}).raise_for_status()
    where = {"TRIMTAB_HOME": str(server.home), "TRIMTAB_PORT": str(server.port)}
    command = StdioServerParameters(command=sys.executable, args=["-m", "trimtab.cli.main", "mcp"], env=where)
    async with Client(command) as assistant:
        found = await assistant.call_tool("search_documents", {"question": "When is high water at Bergen?", "k": 3})
        assert "nine in the evening" in found.content[0].text
        assert found.structured_content["passages"][0]["place"].startswith("tides.md")
        assert "tides.md" in (await assistant.call_tool("list_documents", {})).content[0].text
        computed = await assistant.call_tool("calculator_calculate", {"expression": "6*7"})
        assert "42" in computed.content[0].text
