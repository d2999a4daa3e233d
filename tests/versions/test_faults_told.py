"""A version that cannot answer, or that people liked less, says so where somebody looks."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from trimtab.cli.main import app as cli
from trimtab.own_database import open_database
from trimtab.registry.manifest import Manifest
from trimtab.registry.registry import Registry
from trimtab.settings import Settings
from trimtab.store import versions
from trimtab.store.database import Database

SHA = "ab" * 32


def opened(home: Path) -> contextlib.closing[Database]:
    return contextlib.closing(open_database(Settings.load(home=home)))


def run(home: Path, *words: str) -> str:
    return CliRunner().invoke(cli, words, env={"TRIMTAB_HOME": str(home), "COLUMNS": "200"}).output


def doctor(home: Path) -> dict[str, Any]:
    return {found["part"]: found for found in json.loads(run(home, "doctor", "--json"))}["version"]


def promoted(home: Path) -> Path:
    """A version that answers; returns its folder."""
    (home / "new" / "adapter").mkdir(parents=True)
    for name, text in (("adapter_model.safetensors", "weights"), ("adapter_config.json", "{}")):
        (home / "new" / "adapter" / name).write_text(text)
    made = Registry(home / "versions").add(home / "new", Manifest("kinder", "smol", SHA, {}))
    with opened(home) as database:
        database.write_sync(versions.ensure_base, "base_1", "smol", {"base_sha256": SHA}, SHA)
        manifest = made.manifest.to_json()
        database.write_sync(versions.add, made.id, "kinder", manifest, digest=made.manifest.digest, status="ready")
        database.write_sync(versions.promote, made.id, by="local")
    return made.folder


def test_the_doctor_names_the_file_of_the_version_that_was_changed_and_the_way_out(tmp_path: Path) -> None:
    assert doctor(tmp_path)["ok"], "no model was ever opened"
    folder = promoted(tmp_path)
    assert doctor(tmp_path) == {"part": "version", "ok": True, "found": "kinder, its files are whole"} | {
        "mend": doctor(tmp_path)["mend"]
    }
    (folder / "adapter" / "adapter_model.safetensors").write_text("WEIGHTS")
    found = doctor(tmp_path)
    assert not found["ok"]
    assert "adapter_model.safetensors" in found["found"]
    assert "trimtab models rollback" in found["mend"]


def test_a_version_that_fell_is_marked_until_somebody_promotes_it_again(tmp_path: Path) -> None:
    promoted(tmp_path)
    with opened(tmp_path) as database:
        why = "12% of 25 ratings were up, and 80% of 30 for the version before"
        database.write_sync(versions.roll_back, by="trimtab", reason=why, action=versions.AUTO_ROLLBACK)
    told = run(tmp_path, "models", "versions")
    assert "rolled back" in told
    assert f"kinder was rolled back by itself: {why}." in told
    run(tmp_path, "models", "promote", "kinder")
    assert "rolled back" not in run(tmp_path, "models", "versions")
    run(tmp_path, "models", "rollback")
    assert "rolled back" not in run(tmp_path, "models", "versions"), "by hand"
