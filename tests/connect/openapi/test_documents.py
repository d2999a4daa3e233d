"""Documents of one's own become connectors whose requests are right, byte for byte, on a real loopback server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import SecretStr

from trimtab.connect import ConnectOptions, InvalidInput, Override, Toolbox, ToolError
from trimtab.connect.auth import ApiKey, Basic
from trimtab.connect.openapi import Choices, Imported, make, read_document
from trimtab.domain.tool import Effect

DOCUMENTS = Path(__file__).parent / "documents"


def harbour(**choices: Any) -> Imported:
    return make(read_document((DOCUMENTS / "harbour.yaml").read_bytes()), "harbour", Choices(**choices))


def stalls(**choices: Any) -> Imported:
    return make(read_document((DOCUMENTS / "stalls.json").read_bytes()), "stalls", Choices(**choices))


@dataclass
class Asked:
    line: str
    headers: dict[str, str]
    body: bytes


class Service:
    """A server that takes whatever comes, and a toolbox whose connectors are pointed at it."""

    def __init__(self, *imported: Imported) -> None:
        self.asked: list[Asked] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            def handle_one(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked.append(Asked(f"{self.command} {self.path}", headers, body))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(b'{"ok": true}')

            do_GET = do_POST = do_PUT = do_DELETE = handle_one

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        here = Override(base_url=self.url, allow_private=True)
        names = {one.connector.name for one in imported}
        self.toolbox = Toolbox(
            ConnectOptions(overrides=dict.fromkeys(names, here), secret=lambda name: SecretStr(f"secret-of-{name}"))
        )
        for one in imported:
            self.toolbox.add(one.connector)

    async def call(self, tool: str, **arguments: Any) -> Asked:
        await self.toolbox.call(tool, arguments)
        return self.asked[-1]


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service(harbour(), stalls())
    thread = threading.Thread(target=running.server.serve_forever, daemon=True)
    thread.start()
    yield running
    running.server.shutdown()
    running.server.server_close()
    thread.join()


def test_a_connector_says_where_it_goes_and_what_each_tool_does() -> None:
    made = harbour()
    assert made.connector.hosts == ("mail.harbour.example", "north.harbour.example")
    assert {made.servers[one.id].url for one in made.operations} == {
        "https://north.harbour.example/v2",
        "https://mail.harbour.example",
    }
    effects = {name: tool.effect for name, tool in made.connector.tools.items()}
    assert effects["berths_get"] is Effect.READ
    assert effects["berths_replace"] is Effect.WRITE
    assert effects["berths_remove"] is Effect.IRREVERSIBLE
    assert made.left_out == ()
    assert made.connector.auth == ApiKey("HARBOUR_KEY", header="X-Harbour-Key", optional=True)


async def test_a_path_parameter_is_shared_and_an_operations_own_wins(service: Service) -> None:
    asked = await service.call("harbour.berths_get", berth="a/../b?c#d", lang="de")
    assert asked.line == "GET /v2/berths/a%2F..%2Fb%3Fc%23d?lang=de"
    assert asked.headers["x-harbour-key"] == "secret-of-HARBOUR_KEY"
    with pytest.raises(InvalidInput, match="lang"):  # the path's own says it is optional; the operation's wins
        await service.call("harbour.berths_get", berth="a")


async def test_no_argument_climbs_out_of_its_place(service: Service) -> None:
    for value in ("..", ".", ""):
        with pytest.raises((InvalidInput, ToolError)):
            await service.call("harbour.berths_get", berth=value, lang="de")
    assert service.asked == []


async def test_every_style_of_parameter_is_written_as_openapi_says(service: Service) -> None:
    asked = await service.call(
        "harbour.list_ships",
        flags=["nl", "b&e"],
        sizes=[10, 20],
        filter={"owner": "Ada & Co", "tons": 7},
        X_Trace="abc",
        visit="a;b",
        where={"pier": 3},
    )
    assert asked.line == (
        "GET /v2/ships?flags=nl&flags=b%26e&sizes=10%7C20&filter%5Bowner%5D=Ada%20%26%20Co&filter%5Btons%5D=7"
        "&where=%7B%22pier%22%3A3%7D"
    )
    assert asked.headers["x-trace"] == "abc"
    assert asked.headers["cookie"] == "visit=a%3Bb"
    assert asked.headers["accept"] == "application/vnd.harbour+json, */*;q=0.1"
    asked = await service.call("harbour.papers_upload", ship=["a", "b"], way=["x", "y"], version=7, paper="Dear Sir")
    assert asked.line == "POST /v2/ships/a,b.x.y/papers;version=7"


async def test_a_header_with_a_line_break_is_never_sent(service: Service) -> None:
    with pytest.raises(InvalidInput, match="does not have the form"):
        await service.call("harbour.list_ships", X_Trace="a\r\nX-Evil: 1")
    assert service.asked == []


async def test_json_form_and_multipart_bodies_are_sent_as_described(service: Service) -> None:
    asked = await service.call("harbour.berths_replace", berth="7", name="East", keeper={"name": "Ada"})
    assert json.loads(asked.body) == {"name": "East", "keeper": {"name": "Ada"}}
    asked = await service.call("harbour.book", berth="a b", days=["2026-05-01", "2026-05-02"], guest={"name": "A&B"})
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert asked.body == b"berth=a%20b&days=2026-05-01%2C2026-05-02&guest%5Bname%5D=A%26B"
    asked = await service.call(
        "harbour.papers_upload",
        ship=["a"], way=["b"], version=1, paper="Dear\r\nSir", about={"pages": 2}, tags=["x", "y"],
    )  # fmt: skip
    boundary = asked.headers["content-type"].partition("boundary=")[2]
    parts = asked.body.decode().split(f"--{boundary}")
    assert 'name="paper"; filename="paper"\r\nContent-Type: application/octet-stream\r\n\r\nDear\r\nSir' in parts[1]
    assert 'name="about"\r\nContent-Type: application/json\r\n\r\n{"pages":2}' in parts[2]
    assert [part.strip().rpartition("\r\n")[2] for part in parts[3:5]] == ["x", "y"]


async def test_swagger_2_is_read_as_well(service: Service) -> None:
    made = stalls()
    assert made.connector.hosts == ("stalls.example:8443",)
    assert made.connector.auth == Basic("STALLS_USER", "STALLS_PASSWORD")
    asked = await service.call("stalls.stalls", goods=["a", "b"], rows=[1, 2], near=0.5)
    assert asked.line == "GET /api/stalls?goods=a&goods=b&rows=1,2&near=0.5"
    asked = await service.call("stalls.post_stalls", name="Fish", open=True)
    assert json.loads(asked.body) == {"name": "Fish", "open": True}
    asked = await service.call("stalls.picture", id=7, title="Cod", picture="<svg/>")
    assert asked.line == "POST /api/stalls/7/picture"
    assert asked.headers["content-type"].startswith("multipart/form-data")
    with pytest.raises(InvalidInput, match="near"):
        await service.call("stalls.stalls", near=0)


async def test_arguments_are_held_against_what_the_document_says(service: Service) -> None:
    for wrong in ({"masts": 0}, {"boilers": "two"}, {"kind": "Steam", "masts": 2}, {"masts": 2, "wings": 2}):
        with pytest.raises(InvalidInput, match="do not fit"):
            await service.call("harbour.add_ship", body=wrong)
    asked = await service.call("harbour.add_ship", body={"kind": "Sail", "masts": 2})
    assert json.loads(asked.body) == {"kind": "Sail", "masts": 2}
    with pytest.raises(InvalidInput, match="unexpected"):
        await service.call("harbour.berths_get", berth="a", lang="de", unexpected=1)


def test_what_a_model_is_shown_is_closed_described_and_written_out() -> None:
    made = harbour()
    for tool in made.connector.tools.values():
        assert tool.given is not None
        Draft202012Validator.check_schema(tool.given)
        assert "$ref" not in json.dumps(tool.given)
        assert "pattern" not in json.dumps(tool.given)  # a stranger's pattern could keep a checker busy for years
        for name, one in _objects(tool.given):
            assert one["additionalProperties"] is False, (tool.name, name)
        assert all(one.get("description") for one in tool.given["properties"].values())
    keeper = made.connector.tools["berths_replace"].given["properties"]["keeper"]
    assert set(keeper["properties"]) == {"name"}  # friends and boss are persons again: cut
    assert "seen" not in made.connector.tools["berths_replace"].given["properties"]


def _objects(schema: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        if "properties" in schema and "type" in schema:
            yield name, schema
        for key, inner in schema.items():
            yield from _objects(inner, key)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _objects(inner, name)


async def test_a_large_api_is_searched_rather_than_shown() -> None:
    made = harbour(offer="search")
    assert set(made.connector.tools) == {"find", "read", "write", "remove"}
    running = Service(made)
    thread = threading.Thread(target=running.server.serve_forever, daemon=True)
    thread.start()
    try:
        found = await running.toolbox.call("harbour.find", {"query": "register a new ship"})
        assert found.data[0]["operation"] == "addShip"
        assert "call with harbour.write" in found.text
        exact = await running.toolbox.call("harbour.find", {"query": "berths/get"})
        assert exact.data[0]["operation"] == "berths/get"
        berth = {"operation": "berths/get", "arguments": {"berth": "7", "lang": "de"}}
        outcome = await running.toolbox.call("harbour.read", berth)
        assert outcome.data == {"ok": True}
        assert outcome.sources[0].url == "https://north.harbour.example/v2/berths/7?lang=de"
        with pytest.raises(InvalidInput, match=r"harbour\.remove"):  # a read tool never deletes
            await running.toolbox.call("harbour.read", {**berth, "operation": "berths/remove"})
        with pytest.raises(InvalidInput, match="Alike: berths/get"):
            await running.toolbox.call("harbour.read", {**berth, "operation": "get berth"})
        with pytest.raises(InvalidInput, match="lang: 'deutsch' is too long"):
            await running.toolbox.call("harbour.read", {**berth, "arguments": {"berth": "7", "lang": "deutsch"}})
        assert len(running.asked) == 1
    finally:
        running.server.shutdown()
        running.server.server_close()
        thread.join()


def test_only_what_is_asked_for_is_imported() -> None:
    assert set(harbour(include=("ships",)).connector.tools) == {"list_ships", "add_ship", "papers_upload"}
    assert set(harbour(include=("berths/*",)).connector.tools) == {"berths_get", "berths_replace", "berths_remove"}
    with pytest.raises(InvalidInput, match="Tags: berths, ships"):
        harbour(include=("planes",))


async def test_a_private_server_must_be_allowed_by_who_runs_the_installation() -> None:
    made = harbour(base_url="http://127.0.0.1:9/x")
    assert made.connector.hosts == ("127.0.0.1:9",)
    toolbox = Toolbox(ConnectOptions(secret=lambda name: SecretStr("s")))
    toolbox.add(made.connector)
    with pytest.raises(ToolError, match="private"):
        await toolbox.call("harbour.berths_get", {"berth": "a", "lang": "de"})
    with pytest.raises(InvalidInput, match="user name"):
        harbour(base_url="https://user:secret@api.example.org")
