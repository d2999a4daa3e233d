"""`trimtab connectors check` and `new` as a person types them; every built-in passes and stands thousands of faults."""

import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import connector_notes
from services import LoopbackServices
from trimtab.cli.connectors import app
from trimtab.connect.cassettes import load
from trimtab.connect.conformance.requirement import Report
from trimtab.connect.conformance.runner import REQUIREMENTS, check, merged
from trimtab.connect.conformance.source import cassette_folder, tapes_of
from trimtab.connect.discovery import installed
from trimtab.domain.errors import Conflict, Forbidden, InvalidInput, NotFound

pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")

BUILT_IN = {
    found.name: found.connector
    for found in installed()
    if found.connector is not None and found.origin.startswith("trimtab_connectors")
}


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a check leaves to the collector is collected in its own test."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(words))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


# ---------------------------------------------------------------------- built-ins


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_built_in_replays_and_keeps_its_declaration(name: str) -> None:
    connector = BUILT_IN[name]
    assert connector is not None
    report = check(connector, only=("DECL", "SCHEMA", "REPLAY", "TRUE", "KEY"))
    assert [(line.id, line.reason) for line in report.failures] == []
    made_up = [tape for tape in tapes_of(connector) if tape.exchanges and not tape.live]
    assert all("not recorded live" in tape.note for tape in made_up)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_built_in_passes_the_whole_check(name: str) -> None:
    connector = BUILT_IN[name]
    assert connector is not None
    assert [(line.id, line.reason) for line in check(connector, examples=1000).failures] == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_thousands_of_faults_are_stood(capsys: pytest.CaptureFixture[str]) -> None:
    """Over all built-ins that ask a service, until there are `TRIMTAB_FAULTS`; the figures are printed."""
    wanted = int(os.environ.get("TRIMTAB_FAULTS", "7000"))
    reports: list[Report] = []
    while not reports or merged(reports)["faults"] < wanted:
        for connector in BUILT_IN.values():
            assert connector is not None
            if connector.hosts:
                reports.append(check(connector, only=("FAULT",)))
                assert [(line.id, line.reason) for line in reports[-1].failures] == []
    figures = merged(reports)
    with capsys.disabled():
        print(f"\n{figures['faults']:,} faults in {sum(one.seconds for one in reports):.0f} s: 0 findings")
    assert figures["faults"] >= wanted


def test_a_connector_that_writes_is_checked_with_its_writes() -> None:
    """The notes of the approval tests: three effects, and no key by which the service knows a repeated write."""
    tapes = load(Path(connector_notes.__file__).parent / "cassettes" / "notes")
    report = check(
        connector_notes.connector, tapes, only=("REPLAY", "TRUE", "FAULT-RESET", "FAULT-5XX", "FAULT-SCHEMA")
    )
    assert [(line.id, line.reason) for line in report.failures] == []


# ---------------------------------------------------------------------- the command


def test_the_table_and_the_badge(home: Path) -> None:
    printed = run("check", "clock", "--examples", "10")
    assert "SCHEMA-CLOSED           pass  no tool takes what its schema does not name (read and tried)" in printed
    assert "FAULT-RESET             n/a" in printed
    assert "0 failed" in printed
    badge = json.loads((home / "badges" / "clock.json").read_text())["badge"]
    assert badge["passed"] is True
    assert str(home / "badges" / "clock.json") in printed.replace("\n", "")


def test_some_lines_alone_make_no_badge(home: Path) -> None:
    told = json.loads(run("check", "weather", "--only", "SCHEMA", "--json"))
    assert [line["id"] for line in told["lines"]] == ["SCHEMA-VALID", "SCHEMA-CLOSED", "SCHEMA-DESCRIBED"]
    assert told["badge"] is None
    assert not (home / "badges").exists()
    with pytest.raises(NotFound, match="NOTHING"):
        run("check", "weather", "--only", "NOTHING")
    with pytest.raises(NotFound, match=r"Installed: .*weather"):
        run("check", "whether")


def test_a_failure_is_said_and_ends_with_a_code_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "dice.py"
    file.write_text(
        "from trimtab.connect import Connector, Effect\n"
        'connector = Connector(name="dice", version="one", description="Throws dice.")\n'
        "@connector.tool(effect=Effect.READ)\n"
        'async def throw() -> int:\n    """Throw a die."""\n    return 4\n'
    )
    printed = run("check", str(file), "--examples", "10", code=1)
    assert "DECL-COMPLETE           FAIL" in printed
    assert "'one'" in printed
    assert "dice.throw has no cassette" in printed


# ---------------------------------------------------------------------- new


def child(words: list[str], cwd: Path) -> str:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_new_connector_passes_the_check_and_its_own_tests_at_once(tmp_path: Path, home: Path) -> None:
    """In processes of their own, as a person has them who has just written it."""
    place = tmp_path / "sea"
    run("new", "sea_marks", "--folder", str(place), "--host", "api.marks.example")
    trimtab = [sys.executable, "-m", "trimtab.cli.main", "connectors"]
    printed = child([*trimtab, "check", str(place), "--examples", "10"], tmp_path)
    assert "0 failed" in printed
    assert (home / "badges" / "sea_marks.json").exists()
    tested = child([sys.executable, "-m", "pytest", "-q", "-k", "DECL or REPLAY or found_by"], place)
    assert "7 passed" in tested
    text = (place / "src" / "trimtab_sea_marks" / "__init__.py").read_text()
    assert 'hosts=("api.marks.example",)' in text
    listed = [path.name for path in place.rglob("*.json")]
    assert listed == ["find-harbour.json"]
    with pytest.raises(Conflict, match="is not empty"):
        run("new", "sea_marks", "--folder", str(place))
    for name, host in (("Sea", "a.example"), ("sea", "https://a.example")):
        with pytest.raises(InvalidInput):
            run("new", name, "--folder", str(tmp_path / "other"), "--host", host)
    for host in ("127.0.0.1:8000", "localhost"):  # no cassette could be of it; the settings say where a service is
        with pytest.raises(InvalidInput, match=r"config set connectors\.sea\.base_url http://127\.0\.0\.1:8000"):
            run("new", "sea", "--folder", str(tmp_path / "other"), "--host", host)


def test_a_call_is_answered_from_a_cassette_and_recorded_again(tmp_path: Path) -> None:
    folder = cassette_folder(BUILT_IN["weather"])  # type: ignore[arg-type]
    assert folder is not None
    words = ("call", "weather.forecast", "--arg", "place=Paris", "--arg", "days=3", "--replay", str(folder))
    assert "now: 11 °C, light rain" in run(*words)
    target = tmp_path / "percent.json"
    run("call", "calculator.calculate", "--arg", "expression=15% of 80", "--record", str(target))
    told: dict[str, Any] = json.loads(target.read_text())
    assert told["tool"] == "calculator.calculate"
    assert told["expects"] == "15% of 80 = 12"
    assert told["recorded_live"] is True
    with pytest.raises(InvalidInput, match="give one of them"):
        run(*words, "--record", str(target))


def test_what_a_stand_in_answered_is_recorded_as_the_services_own(tmp_path: Path, home: Path) -> None:
    """Ten minutes of a new connector: the service runs on this machine, and is declared by the name it will have."""
    target = tmp_path / "list.json"
    with LoopbackServices() as services:
        services.add_note("buy milk")
        home.mkdir()
        (home / "config.toml").write_text(
            f"connector_files = [{str(Path(connector_notes.__file__))!r}]\n"
            f'[connectors.notes]\nbase_url = "{services.url}"\nallow_private = true\n'
        )
        assert "buy milk" in run("call", "notes.list_all", "--record", str(target))
        words = ("call", "notes.add", "--arg", "text=buy eggs", "--yes")
        with pytest.raises(Forbidden, match="runs read-only"):
            run(*words)
        assert list(services.notes.values()) == ["buy milk"]
        # A badge needs cassettes of what writes, too: recorded by hand, it is that person's own doing.
        run(*words, "--record", str(tmp_path / "other" / "add.json"))
        assert list(services.notes.values()) == ["buy milk", "buy eggs"]
    (tape,) = load(tmp_path)
    assert [exchange.url for exchange in tape.exchanges] == ["https://notes.example.org/notes"]
    assert tape.expects == '[{"id": 1, "text": "buy milk"}]'
    assert "not recorded live" in tape.note
    (home / "config.toml").write_text(f"connector_files = [{str(Path(connector_notes.__file__))!r}]\n")
    assert "buy milk" in run("call", "notes.list_all", "--replay", str(target))


def test_the_modules_that_checks_need_are_not_loaded_by_the_help() -> None:
    code = (
        "import sys, trimtab.cli.main; print([m for m in ('hypothesis', 'cryptography', 'pytest') if m in sys.modules])"
    )
    assert child([sys.executable, "-c", code], Path.cwd()).strip() == "[]"
    assert importlib.import_module("trimtab.cli.connectors_check")


def test_every_requirement_is_in_the_handbook_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text("utf-8")
    rows = [f"| `{one.id}` | {one.must} | {one.how} |" for one in REQUIREMENTS]
    assert [row for row in rows if row not in page] == []
    assert page.count("\n| `FAULT-") == sum(one.id.startswith("FAULT-") for one in REQUIREMENTS)
