"""Imports are kept in the data folder as data, come back at the next start, and go through every door."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trimtab.cli.main import app
from trimtab.connect import ConnectorStatus, Toolbox
from trimtab.connect.openapi import Choices, Imports
from trimtab.domain.errors import Conflict, InvalidInput, NotFound

DOCUMENTS = Path(__file__).parent / "documents"
HARBOUR = (DOCUMENTS / "harbour.yaml").read_bytes()
STALLS = (DOCUMENTS / "stalls.json").read_bytes()


def opened(folder: Path) -> tuple[Imports, Toolbox]:
    toolbox = Toolbox()
    imports = Imports(folder, toolbox)
    imports.load()
    return imports, toolbox


def status(toolbox: Toolbox, name: str) -> ConnectorStatus:
    return toolbox.connector(name)


def test_an_import_is_there_after_a_restart_and_gone_after_removal(tmp_path: Path) -> None:
    imports, toolbox = opened(tmp_path)
    imports.add(HARBOUR, choices=Choices(include=("ships",), source="harbour.yaml"))
    assert {tool.name for tool in status(toolbox, "harbour_office").tools} == {
        "harbour_office.add_ship", "harbour_office.list_ships", "harbour_office.papers_upload",
    }  # fmt: skip
    again, toolbox = opened(tmp_path)
    assert status(toolbox, "harbour_office").hosts == ("north.harbour.example",)
    assert again.describe("harbour_office")["choices"]["include"] == ("ships",)
    for path in [tmp_path / "documents", *tmp_path.rglob("*")]:
        assert not path.is_file() or stat.S_IMODE(path.stat().st_mode) == 0o600
    again.remove("harbour_office")
    assert opened(tmp_path)[1].connectors == []
    assert list((tmp_path / "documents").iterdir()) == []
    with pytest.raises(NotFound):
        again.remove("harbour_office")


def test_a_name_is_taken_once_and_replaced_only_when_said(tmp_path: Path) -> None:
    imports, toolbox = opened(tmp_path)
    imports.add(HARBOUR, name="api")
    with pytest.raises(Conflict, match="--replace"):
        imports.add(STALLS, name="api")
    imports.add(STALLS, name="api", replace=True)
    assert status(toolbox, "api").hosts == ("stalls.example:8443",)
    assert len(list((tmp_path / "documents").iterdir())) == 1
    with pytest.raises(InvalidInput, match="cannot name"):
        imports.add(STALLS, name="../up")


def test_a_document_that_was_changed_costs_only_its_own_connector(tmp_path: Path) -> None:
    imports, _ = opened(tmp_path)
    imports.add(HARBOUR, name="harbour")
    imports.add(STALLS, name="stalls")
    changed = tmp_path / "documents" / imports.describe("stalls")["document"]
    changed.write_bytes(STALLS.replace(b"stalls.example", b"evil.example"))
    (tmp_path / "odd.json").write_text('{"format": 1, "name": "odd", "document": "../../etc/passwd"}')
    imports, toolbox = opened(tmp_path)
    assert status(toolbox, "harbour").enabled
    assert "changed or is damaged" in status(toolbox, "stalls").error
    assert "no record of an import" in status(toolbox, "odd").error
    imports.remove("stalls")
    imports.remove("odd")
    assert [one.name for one in toolbox.connectors] == ["harbour"]


def test_the_command_imports_shows_and_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path))
    run = CliRunner()
    spec = str(DOCUMENTS / "stalls.json")
    looked = run.invoke(app, ["connectors", "import", "openapi", spec, "--preview"])
    assert "market_stalls: 3 operations would be imported (1 read, 2 write)" in looked.stdout
    done = run.invoke(app, ["connectors", "import", "openapi", spec, "--name", "stalls", "--json"])
    assert json.loads(done.stdout)["secrets"] == ["STALLS_USER", "STALLS_PASSWORD"]
    assert "stalls  3 operations of Market stalls" in run.invoke(app, ["connectors", "import", "list"]).stdout
    assert "stalls.picture (write" in run.invoke(app, ["connectors", "show", "stalls"]).stdout
    assert run.invoke(app, ["connectors", "disable", "stalls"]).exit_code == 0
    assert "stalls was removed" in run.invoke(app, ["connectors", "import", "remove", "stalls"]).stdout
    private = run.invoke(app, ["connectors", "import", "openapi", "http://127.0.0.1:9/openapi.json"])
    assert private.exit_code != 0
    assert "private" in str(private.exception)
