"""`trimtab connectors` as a person types it."""

import importlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services import LoopbackServices
from trimtab.cli.connectors import app
from trimtab.domain.errors import Forbidden, InvalidInput, NotFound, ToolError
from vouching import vouch_for_notes


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path))
    return tmp_path


def run(*words: str, answer: str = "") -> str:
    result = CliRunner().invoke(app, list(words), input=answer)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_the_list_shows_what_each_may_reach() -> None:
    lines = {line.split()[0]: line for line in run("list").splitlines()}
    assert "any public host" in lines["web"]
    assert "nothing" in lines["calculator"]
    names = {status["name"] for status in json.loads(run("list", "--json"))}
    assert {"calculator", "clock", "weather", "web", "wikipedia"} <= names


def test_one_connector_is_shown_with_its_arguments() -> None:
    shown = run("show", "weather")
    assert "api.open-meteo.com" in shown
    assert "--arg place=...: A town or city" in shown
    assert "--arg days=... (optional)" in shown
    told = json.loads(run("show", "weather", "--json"))
    assert told["tools"][0]["model_name"] == "weather_forecast"
    assert told["tools"][0]["effect"] == "read"


def test_a_tool_is_called_by_hand() -> None:
    assert run("call", "calculator.calculate", "--arg", "expression=2+2") == "2+2 = 4\n"
    told = json.loads(run("call", "calculator.calculate", "--arg", "expression=15% of 80", "--json"))
    assert told["data"]["result"] == "12"


def test_mistakes_are_named() -> None:
    with pytest.raises(InvalidInput, match="expression"):
        run("call", "calculator.calculate")
    with pytest.raises(InvalidInput, match="not an argument"):
        run("call", "calculator.calculate", "--arg", "expression")
    with pytest.raises(InvalidInput, match="days"):
        run("call", "weather.forecast", "--arg", "place=Paris", "--arg", "days=99")
    with pytest.raises(ToolError, match="zero"):
        run("call", "calculator.calculate", "--arg", "expression=1/0")
    with pytest.raises(NotFound, match="nothing"):
        run("show", "nothing")


def test_a_connector_is_switched_off_and_on_again() -> None:
    run("disable", "calculator")
    with pytest.raises(NotFound, match="turned off"):
        run("call", "calculator.calculate", "--arg", "expression=2+2")
    states = {status["name"]: status["enabled"] for status in json.loads(run("list", "--json"))}
    assert states["calculator"] is False
    assert states["clock"] is True
    run("enable", "calculator")
    assert "4" in run("call", "calculator.calculate", "--arg", "expression=2+2")
    with pytest.raises(NotFound):
        run("disable", "nothing")


def test_a_call_that_changes_something_is_asked_about(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notes connector, installed as a package would be, its service on loopback by a setting."""
    info = home / "notes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: notes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[trimtab.connectors]\nnotes = connector_notes")
    monkeypatch.syspath_prepend(str(home))
    importlib.invalidate_caches()
    with LoopbackServices() as services:
        (home / "config.toml").write_text(f'[connectors.notes]\nbase_url = "{services.url}"\nallow_private = true\n')
        words = ("call", "notes.add", "--arg", "text=buy milk")
        with pytest.raises(Forbidden, match=r"runs read-only.*trimtab connectors check notes"):
            run(*words, "--yes")
        assert services.requests == []
        vouch_for_notes(home)
        assert "declared 'write'" in run(*words, answer="n\n")
        assert services.requests == []
        assert "Note 1 was added." in run(*words, answer="y\n")
        assert run(*words, "--yes") == "Note 2 was added.\n"
        assert services.notes == {1: "buy milk", 2: "buy milk"}
