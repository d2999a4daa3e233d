"""What a plan reaches and how it is used: looked up before anything starts, and kept to when it runs."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from scripted_app import app_with
from trimtab.api.server import create_app
from trimtab.app import Trimtab
from trimtab.cli.main import app as command
from trimtab.connect.toolbox import Toolbox
from trimtab.deploy.plan import checked
from trimtab.domain.errors import EngineError, ImpossibleBudget, InvalidInput, NotFound, TrimtabError
from trimtab.domain.events import PassagesFound
from trimtab.llm.scripted import ScriptedModel
from trimtab.own_connectors import open_toolbox
from trimtab.reach import as_settings
from trimtab.settings import Settings


class Models(BaseHTTPRequestHandler):
    """A server that has one model."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"data": [{"id": "qwen3"}]}).encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def elsewhere() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Models)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def refusal(text: str, words: str) -> TrimtabError:
    """What a command says of a plan."""
    Path("deployment.toml").write_text(text, "utf-8")
    done = CliRunner().invoke(command, words.split())
    assert isinstance(done.exception, TrimtabError), done.output
    return done.exception


@pytest.mark.parametrize("words", ["plan check", "up --plan deployment.toml"])
@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("[[resources.connectors]]\nname = 'wether'", NotFound, r"connector 'wether'.*There are: .*weather"),
        ("[[resources.mcp_servers]]\nname = 'files'", NotFound, r"MCP server 'files'.*There are: none"),
        ("[resources]\ncollections = ['law']", NotFound, r"collection 'law'.*no document is in it"),
        (
            "[[resources.connectors]]\nname = 'calculator'\nauthentication = 'oauth'",
            InvalidInput,
            r"knows us by 'oauth', and it is 'none'",
        ),
        ("model = 'qwen3'\n[remote]\nbase_url = 'http://127.0.0.1:9/v1'", EngineError, r"No server answers at"),
    ],
)
def test_what_a_plan_names_and_is_not_there_is_told_before_anything_starts(
    home: Path, words: str, text: str, kind: type[TrimtabError], said: str
) -> None:
    error = refusal(text, words)
    assert isinstance(error, kind)
    with pytest.raises(kind, match=said):
        raise error


def test_a_server_elsewhere_must_know_the_model_and_cost_no_more_than_is_allowed(home: Path, elsewhere: str) -> None:
    remote = f"[remote]\nbase_url = '{elsewhere}'\nprice_per_million = 3.0\n"
    dear = refusal(f"model = 'qwen3'\n{remote}", "plan check")
    assert isinstance(dear, ImpossibleBudget)
    assert dear.detail == {"wanted": 3.0, "there": 0.0}
    allowed = remote + "[budget]\nmoney_per_million = 5.0\n"
    assert "serves no model 'qwen4'. It has: qwen3" in refusal(f"model = 'qwen4'\n{allowed}", "plan check").message
    Path("deployment.toml").write_text(f"model = 'qwen3'\n{allowed}", "utf-8")
    done = CliRunner().invoke(command, ["plan", "check"])
    assert "qwen3 answers at" in done.output
    assert "served at" in refusal(f"model = 'qwen3'\n{allowed}", "plan choose").message


@pytest.mark.model
def test_an_accelerator_that_is_not_there_and_a_plan_without_a_choice_do_not_start(
    home: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir()
    (home / "models").symlink_to(models_dir, target_is_directory=True)
    monkeypatch.setattr("trimtab.deploy.machine._ACCELERATORS", ())
    assert "trimtab plan choose" in refusal("[targets]\nusers = 1", "up --plan deployment.toml").message
    chosen = "[chosen]\nengine = 'openvino'\nweights = 'int8'\nkv = 'u8'\n[budget]\naccelerator = 'required'"
    error = refusal(chosen, "up --plan deployment.toml")
    assert isinstance(error, ImpossibleBudget)
    assert "there is none on this machine" in error.message


def test_what_is_not_served_does_not_start_and_says_what_to_do() -> None:
    with pytest.raises(InvalidInput, match="terminal only, and nothing is served"):
        as_settings(checked({"interface": {"faces": ["terminal"]}}))


async def test_only_the_faces_and_connectors_that_a_plan_wants_are_there(tmp_path: Path) -> None:
    resources = {"connectors": [{"name": "calculator"}], "collections": ["law"]}
    wanted = as_settings(checked({"interface": {"faces": ["web"]}, "resources": resources}))
    assert wanted == {"faces": ["web"], "connectors_only": ["calculator"], "collections": ["law"]}
    settings = Settings.load(home=tmp_path / "home", connectors_only=wanted["connectors_only"])
    toolbox = open_toolbox(settings)
    assert [one.name for one in toolbox.connectors if one.enabled] == ["calculator"]
    await toolbox.aclose()
    for faces, found in ((["web"], 404), (["web", "api", "mcp"], 401)):
        async with app_with([], tmp_path / f"home{found}", faces=faces) as app:
            client = TestClient(create_app(app), base_url="http://127.0.0.1")
            assert client.post("/v1/chat/completions", json={}).status_code == found
            assert client.post("/mcp", json={}).status_code == found
            assert client.get("/v1/threads").status_code == 401


@pytest.mark.model
async def test_an_answer_comes_from_the_collections_that_a_plan_names_and_from_no_other(
    home: Path, models_dir: Path
) -> None:
    home.mkdir()
    (home / "models").symlink_to(models_dir, target_is_directory=True)
    limited = as_settings(checked({"resources": {"collections": ["law"]}}))
    for named, found in (([], {"law.md", "lore.md"}), (limited["collections"], {"law.md"})):
        settings = Settings.load(home=home, collections=named, passage_floor=-1)
        model = ScriptedModel(["It takes three days."])
        async with Trimtab.open(settings, model=model, toolbox=Toolbox()) as app:
            assert app.library is not None
            for collection in ("law", "lore"):
                text = f"By {collection} a salvage claim takes three days."
                await asyncio.to_thread(
                    app.library.ingest_bytes, app.owner, f"{collection}.md", text.encode(), collection
                )
            events = [event async for event in app.ask("How long does a salvage claim take by lore?")]
        (passages,) = (event for event in events if isinstance(event, PassagesFound))
        assert {passage.name for passage in passages.passages} == found
        assert ("By lore" in str(model.asked[0].messages)) == ("lore.md" in found)


def test_a_plan_of_defaults_serves_what_it_says_and_limits_nothing(tmp_path: Path) -> None:
    found: dict[str, Any] = as_settings(checked({}))
    assert found == {"faces": ["web", "api"], "connectors_only": [], "collections": []}
