"""Versions in a folder: what goes in comes out unchanged, or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.domain.errors import ModelFileError, NotFound
from trimtab.registry.card import card
from trimtab.registry.manifest import Lineage, Manifest
from trimtab.registry.registry import Registry, difference


def adapter(folder: Path, text: str = "weights") -> Path:
    (folder / "adapter").mkdir(parents=True)
    (folder / "adapter" / "adapter_model.safetensors").write_text(text)
    (folder / "adapter" / "adapter_config.json").write_text("{}")
    return folder


def manifest(name: str = "kinder") -> Manifest:
    lineage = Lineage(
        method="ppo", parent="base_1", datasets={"train": "ab" * 32}, rows=40, recipe={"steps": 10}, seed=3
    )
    return Manifest(name, "smollm2", "cd" * 32, {}, lineage=lineage, metrics={"reward": 1.25}, created_at=1.0)


def test_a_version_is_found_again_whole_and_its_id_is_its_content(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "versions")
    made = registry.add(adapter(tmp_path / "new"), manifest())
    found = registry.verified(made.id)
    assert found.manifest == made.manifest
    assert found.adapter is not None
    assert (found.adapter / "adapter_model.safetensors").read_text() == "weights"
    other = registry.add(adapter(tmp_path / "other", "other weights"), manifest())
    assert other.id != made.id
    assert [v.id for v in registry.listed()] == sorted([made.id, other.id])


def test_the_same_version_added_twice_is_one(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "versions")
    source = adapter(tmp_path / "new")
    assert registry.add(source, manifest()).id == registry.add(source, manifest()).id
    assert len(registry.listed()) == 1


@pytest.mark.parametrize("harm", ["change", "shorten", "delete", "link", "manifest"])
def test_a_version_that_was_tampered_with_is_not_loaded(tmp_path: Path, harm: str) -> None:
    registry = Registry(tmp_path / "versions")
    version = registry.add(adapter(tmp_path / "new"), manifest())
    file = version.folder / "adapter" / "adapter_model.safetensors"
    match harm:
        case "change":
            file.write_text("WEIGHTS")
        case "shorten":
            file.write_text("weigh")
        case "delete":
            file.unlink()
        case "link":
            file.rename(tmp_path / "elsewhere")
            file.symlink_to(tmp_path / "elsewhere")
        case "manifest":
            data = json.loads((version.folder / "manifest.json").read_text())
            data["metrics"]["reward"] = 9.0
            (version.folder / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(ModelFileError):
        registry.verified(version.id)


@pytest.mark.parametrize("name", ["model.pkl", "pytorch_model.bin", "run.py", "adapter/x.pt", "a b.json", "..json/x"])
def test_a_file_that_python_would_run_or_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    source = adapter(tmp_path / "new")
    (source / name).parent.mkdir(exist_ok=True, parents=True)
    (source / name).write_text("x")
    registry = Registry(tmp_path / "versions")
    with pytest.raises(ModelFileError, match="no place"):
        registry.add(source, manifest())
    assert registry.listed() == []
    assert not list((tmp_path / "versions").glob(".part-*"))


def test_a_link_in_a_version_is_refused(tmp_path: Path) -> None:
    source = adapter(tmp_path / "new")
    (source / "extra.json").symlink_to("/etc/hostname")
    with pytest.raises(ModelFileError, match="plain files"):
        Registry(tmp_path / "versions").add(source, manifest())


@pytest.mark.parametrize("wrong", ["../../etc", "ver_nothing", "", "ver_../x"])
def test_an_unknown_version_is_not_found(tmp_path: Path, wrong: str) -> None:
    registry = Registry(tmp_path / "versions")
    registry.add(adapter(tmp_path / "new"), manifest())
    with pytest.raises(NotFound, match="trimtab models versions"):
        registry.get(wrong)


def test_a_removed_version_is_gone(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "versions")
    version = registry.add(adapter(tmp_path / "new"), manifest())
    registry.remove(version.id)
    assert registry.listed() == []
    assert list((tmp_path / "versions").iterdir()) == []


def test_a_version_added_while_the_process_is_killed_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """Killed at 25 moments; what is listed verifies, and the rest is tidied away."""
    source = adapter(tmp_path / "new", "x" * 5_000_000)
    program = (
        "import sys; from pathlib import Path; from trimtab.registry.registry import Registry\n"
        "from trimtab.registry.manifest import Manifest\n"
        "print('go', flush=True); n = 0\n"
        "while True:\n"
        "    Registry(Path(sys.argv[1])).add(Path(sys.argv[2]), Manifest(str(n), 'b', 'c', {})); n += 1\n"
    )
    registry = Registry(tmp_path / "versions")
    for moment in range(25):
        command = [sys.executable, "-c", program, str(registry.folder), str(source)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            try:
                child.wait(timeout=0.004 * moment)
            except subprocess.TimeoutExpired:
                child.kill()
        for version in registry.listed():
            registry.verified(version.id)
    registry.tidy()
    assert {p.name[:4] for p in registry.folder.iterdir()} <= {"ver_"}
    assert os.listdir(registry.folder)


def test_what_differs_between_two_versions_is_named() -> None:
    old = manifest()
    new = replace(old, name="kinder still", metrics={"reward": 2.0})
    assert difference(old.to_json(), new.to_json()) == {
        "name": ("kinder", "kinder still"),
        "metrics.reward": (1.25, 2.0),
    }


def test_the_card_says_where_a_version_comes_from_and_how_it_was_measured() -> None:
    text = card(manifest(), {"verdict": "promote", "win_rate": 0.8125})
    for fact in ("# kinder", "base_1", "method: ppo", "judgements that shaped it: 40", "| reward | 1.25 |", "0.8125"):
        assert fact in text


def test_a_manifest_of_a_newer_trimtab_is_refused() -> None:
    with pytest.raises(ModelFileError, match="Upgrade"):
        Manifest.from_json({**manifest().to_json(), "format": 2})
