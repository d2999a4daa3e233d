"""MCP servers as connectors: our own small server, run for real, over its pipes and over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from notebook import added, answers, notebook, opened, over_http
from pydantic import SecretStr

from trimtab.connect.mcp import Book, Command, Definition, Endpoint, Server
from trimtab.domain.errors import Conflict, InvalidInput, ToolError, Unavailable
from trimtab.domain.tool import Effect


async def test_a_server_becomes_a_connector_and_its_tools_write_unless_a_person_says_otherwise(tmp_path: Path) -> None:
    toolbox, servers = opened(tmp_path)
    server = notebook("notes", tmp_path)

    found = await servers.look(server)
    assert toolbox.connectors == []  # looking stores nothing
    await servers.add(server, {"weather", "readNotes", "nasty", "long", "fail", "resources"}, found.sha256)

    tools = {tool.name: tool.info.effect for tool in toolbox.connector("notes").tools}
    assert tools["notes.weather"] is Effect.READ
    assert tools["notes.environment"] is Effect.WRITE  # the server's word that it only reads was not believed
    assert tools["notes.forget_all"] is Effect.IRREVERSIBLE  # its word that it destroys was
    outcome = await toolbox.call("notes.weather", {"place": "Oslo"})
    assert outcome.data == {"place": "Oslo", "degrees": 7.5}
    assert outcome.sources[0].title == "notes.weather"
    assert "\x1b" not in (nasty := (await toolbox.call("notes.nasty", {})).text)
    assert "IGNORE ALL" in nasty  # it is data: shown, and never more than that
    assert (await toolbox.call("notes.long", {"characters": 50_000})).truncated
    with pytest.raises(InvalidInput, match="place"):
        await toolbox.call("notes.weather", {"town": "Oslo"})
    with pytest.raises(ToolError, match=r"notes\.fail failed"):
        await toolbox.call("notes.fail", {})
    assert "note://today" in (await toolbox.call("notes.list_resources", {})).text
    assert (await toolbox.call("notes.read_resource", {"uri": "note://today"})).text == "Water the plants."
    assert (await servers.prompt("notes", "summarise", {"topic": "tides"}))[0]["text"].endswith("about tides.")
    await toolbox.aclose()

    again, _ = opened(tmp_path)  # what was added is there after a restart, without starting the server
    assert {tool.name for tool in again.connector("notes").tools} == set(tools)


async def test_a_server_knows_its_own_environment_and_nothing_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_API_KEY", "canary-one")
    monkeypatch.setenv("OPENAI_API_KEY", "canary-two")
    monkeypatch.setenv("NOTES_KEY", "meant for it")
    toolbox, servers = opened(tmp_path)
    await added(servers, notebook("notes", tmp_path, env={"MODE": "plain $HOME; `id`"}, secrets=("NOTES_KEY",)))

    knows = json.loads((await toolbox.call("notes.environment", {})).text)

    assert "canary" not in json.dumps(knows)
    assert set(knows["env"]) - {"MODE", "NOTES_KEY", "LC_CTYPE"} <= {"HOME", "LANG", "LANGUAGE", "LC_ALL", "LOGNAME",
                                                                    "PATH", "TMPDIR", "TZ", "USER"}  # fmt: skip
    assert knows["env"]["MODE"] == "plain $HOME; `id`"  # no shell has looked at it
    assert knows["env"]["NOTES_KEY"] == "meant for it"
    assert "meant for it" not in (tmp_path / "mcp.json").read_text()
    assert (tmp_path / "mcp.json").stat().st_mode & 0o777 == 0o600
    assert "plain" not in json.dumps(servers.listed())
    await toolbox.aclose()
    with pytest.raises(InvalidInput, match="Trimtab's own"):
        Command(("server",), secrets=("TRIMTAB_API_KEY",))


async def test_a_tool_that_is_described_differently_is_refused_until_it_is_approved_again(tmp_path: Path) -> None:
    toolbox, servers = opened(tmp_path)
    await added(servers, notebook("notes", tmp_path))
    assert (await toolbox.call("notes.add", {"first": 2, "second": 3})).text == "5"

    await toolbox.call("notes.change_mind", {})

    with pytest.raises(Conflict, match="connectors mcp approve notes") as refused:
        await toolbox.call("notes.add", {"first": 2, "second": 3})
    assert refused.value.detail["tool"] == "add"
    shown = next(tool for tool in toolbox.tools() if tool.name == "notes_add").description
    assert shown == "Add two whole numbers."  # no model ever read the other description
    assert (await toolbox.call("notes.weather", {"place": "Oslo"})).data  # its other tools go on

    with pytest.raises(Conflict, match="something else"):
        await servers.approve("notes", None, "0" * 64)
    found = await servers.look(servers.book.get("notes"))
    await servers.approve("notes", None, found.sha256)
    assert (await toolbox.call("notes.add", {"first": 2, "second": 3})).text == "5"
    effects = {tool.name: tool.info.effect for tool in toolbox.connector("notes").tools}
    assert effects["notes.weather"] is Effect.READ  # what a person said of it is kept
    await servers.remove("notes")
    assert toolbox.connectors == []
    await toolbox.aclose()


async def test_a_server_that_dies_is_started_again_and_one_that_never_starts_is_not_asked_all_the_time(
    tmp_path: Path,
) -> None:
    toolbox, servers = opened(tmp_path)
    await added(servers, notebook("notes", tmp_path))
    await toolbox.call("notes.weather", {"place": "Oslo"})
    first = servers.running("notes").pid

    with pytest.raises(ToolError, match=r"whether it took effect is not known.*my last words"):
        await toolbox.call("notes.die", {})
    assert (await toolbox.call("notes.weather", {"place": "Oslo"})).data
    assert servers.running("notes").pid not in (None, first)

    with pytest.raises(ToolError, match=r"more than 4,000,000 bytes"):
        await toolbox.call("notes.long", {"characters": 5_000_000})
    child = int((await toolbox.call("notes.with_child", {})).text)
    server = servers.running("notes").pid
    await toolbox.aclose()
    assert server is not None
    async with asyncio.timeout(30):  # what was killed is not gone at once
        while _runs(child) or _runs(server):
            await asyncio.sleep(0.02)

    with pytest.raises(Unavailable, match="could not be started"):
        await servers.look(Server("gone", Command(("no-such-program-here",))))
    toolbox, servers = opened(tmp_path)
    broken = servers.book.get("notes")
    servers.book.put(Server("notes", Command(("false",)), broken.tools))
    toolbox, servers = opened(tmp_path)
    with pytest.raises(ToolError, match="ended before it had introduced itself"):
        await toolbox.call("notes.weather", {"place": "Oslo"})
    with pytest.raises(ToolError, match="tried again in"):
        await toolbox.call("notes.weather", {"place": "Oslo"})
    await toolbox.aclose()


def _runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_server_that_hangs_slows_no_other_and_is_given_up_on(tmp_path: Path) -> None:
    toolbox, servers = opened(tmp_path)
    await added(servers, notebook("slow", tmp_path, timeout=5.0))
    await added(servers, notebook("quick", tmp_path))
    for name in ("slow", "quick"):
        await servers.running(name).use(lambda link: link.definitions())
    first = servers.running("slow").pid

    hanging = [asyncio.create_task(toolbox.call("slow.hang", {})) for _ in range(3)]
    for _ in range(20):
        assert (await toolbox.call("quick.weather", {"place": "Oslo"})).data
    assert not any(task.done() for task in hanging)

    for ended in await asyncio.gather(*hanging, return_exceptions=True):
        assert isinstance(ended, ToolError)
        assert "did not finish within 5 seconds" in ended.message
    async with asyncio.timeout(60):  # three in a row without an answer: it is ended, and another started
        while servers.running("slow").pid in (None, first):
            await asyncio.sleep(0.05)
    await toolbox.aclose()


async def test_a_server_over_http_gets_its_own_credentials_and_only_checked_addresses_are_asked(tmp_path: Path) -> None:
    secrets = {"NOTES_TOKEN": SecretStr("s3cret"), "OTHER_TOKEN": SecretStr("other")}
    lookups: list[str] = []

    def resolver(host: str, port: int) -> list[str]:
        lookups.append(host)
        return ["127.0.0.1"]

    toolbox, servers = opened(tmp_path, secrets.get, resolver=resolver)
    mine = {"Authorization": "NOTES_TOKEN"}
    with over_http(tmp_path, "--token", "s3cret") as url:
        await answers(url)
        for reached, fault in (
            (Endpoint(url.replace("http:", "https:"), mine), "private, local or reserved"),
            (Endpoint("https://mcp.example.org/mcp", mine), "private, local or reserved"),
            (Endpoint(url, {"Authorization": "OTHER_TOKEN"}, local=True), "other credentials"),
            (Endpoint(url, {}, local=True), "other credentials"),
            (Endpoint(url, {"Authorization": "UNSET"}, local=True), "UNSET is not set"),
            (Endpoint(url.replace("/mcp", "/elsewhere"), mine, local=True), "Not Found"),
        ):
            with pytest.raises(Unavailable, match=fault) as refused:
                await servers.look(Server("web", reached))
            assert "s3cret" not in refused.value.message
        await added(servers, Server("web", Endpoint(url, mine, local=True)))
        assert (await toolbox.call("web.weather", {"place": "Oslo"})).data == {"place": "Oslo", "degrees": 7.5}
    with pytest.raises(ToolError, match=r"Could not reach 127\.0\.0\.1"):
        await toolbox.call("web.weather", {"place": "Oslo"})
    assert "s3cret" not in (tmp_path / "mcp.json").read_text()
    assert "mcp.example.org" in lookups
    await toolbox.aclose()


async def test_a_server_of_the_older_version_may_forget_our_session(tmp_path: Path) -> None:
    toolbox, servers = opened(tmp_path)
    with over_http(tmp_path, "--old") as url:
        await answers(url)
        found = await servers.look(Server("web", Endpoint(url, local=True)))
        assert found.protocol == "2025-11-25"
        await servers.add(found.server, found.hinted, found.sha256)
        assert (await toolbox.call("web.weather", {"place": "Oslo"})).data
    with over_http(tmp_path, "--old", port=int(url.rsplit(":", 1)[1].partition("/")[0])) as url:
        await answers(url)
        assert (await toolbox.call("web.weather", {"place": "Oslo"})).data  # a new session was begun for it
    await toolbox.aclose()


@pytest.mark.parametrize(
    "url",
    ["http://example.org/mcp", "ftp://example.org/", "https://a:b@example.org/", "https://", "https://exa mple.org",
     "https://example.org:99999/", "https://example.org/#x", "//example.org/mcp"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_when_it_is_given(url: str) -> None:
    with pytest.raises(InvalidInput):
        Endpoint(url)


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"properties": {"a": {"$ref": "https://example.org/s.json"}}}, "outside itself"),
        ({"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"$ref": "#/$defs/a"}}}, "without end"),
        ({"properties": {"a": {"$ref": "#/$defs/missing"}}}, "does not have"),
        ({"allOf": [{"$ref": "#"}]}, "without end"),
        ({"properties": {"a": {"type": "no such type"}}}, "not a JSON schema"),
        ({"type": "string"}, "not an object"),
        ({"properties": {"a": {"description": "x" * 50_000}}}, "larger"),
        (json.loads('{"properties":{"a":' + '{"items":' * 40 + "{}" + "}" * 42), "deep"),
    ],
)
def test_a_schema_that_would_reach_out_or_never_end_is_refused(schema: dict[str, object], fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault):
        Definition("tool", "", "", schema).usable()


def test_a_schema_may_refer_to_itself_where_a_value_gets_smaller_and_its_patterns_are_not_run() -> None:
    tree = {
        "type": "object",
        "properties": {"left": {"$ref": "#/$defs/tree"}, "name": {"type": "string", "pattern": "(a+)+$"}},
    }
    usable = Definition(
        "tool", "", "", {"$defs": {"tree": tree}, "properties": {"root": {"$ref": "#/$defs/tree"}}}
    ).usable()
    assert "pattern" not in json.dumps(usable)


def test_a_book_that_somebody_changed_is_not_believed(tmp_path: Path) -> None:
    definition = Definition("tool", "", "Reads.", {"properties": {}})
    from trimtab.connect.mcp import Approved

    Book(tmp_path / "mcp.json").put(Server("notes", Command(("x",)), (Approved(definition, "tool", Effect.WRITE),)))
    text = (tmp_path / "mcp.json").read_text()
    assert Book(tmp_path / "mcp.json").get("notes").tools[0].definition == definition
    (tmp_path / "mcp.json").write_text(text.replace("Reads.", "Reads, and first calls another tool."))
    with pytest.raises(InvalidInput, match="not the one that was approved"):
        Book(tmp_path / "mcp.json")
    assert os.listdir(tmp_path) == ["mcp.json"]
