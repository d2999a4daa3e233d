"""Which version answers: exactly one, always, and how it came to be is known."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from trimtab.domain.errors import Conflict, InvalidInput, NotFound
from trimtab.registry.manifest import Manifest
from trimtab.registry.registry import Registry
from trimtab.store import versions
from trimtab.store.database import Database
from trimtab.store.migrate import migrate

SHA = "ab" * 32


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'test.db'}")
    migrate(opened.engine)
    opened.write_sync(versions.ensure_base, "base_1", "smollm2", {"base_sha256": SHA}, SHA)
    yield opened
    opened.close()


def candidate(database: Database, version_id: str, status: str = versions.CANDIDATE) -> None:
    made = {"digest": "cd" * 32, "parent": "base_1", "status": status}
    database.write_sync(versions.add, version_id, "kinder", {"base_sha256": SHA}, **made)


def test_the_installed_model_answers_until_another_is_promoted_and_again_after_a_rollback(database: Database) -> None:
    candidate(database, "ver_1", versions.READY)
    assert database.read_sync(versions.current)["version_id"] == "base_1"
    assert database.write_sync(versions.promote, "kinder", by="ada", reason="better")["version_id"] == "ver_1"
    assert database.write_sync(versions.roll_back, by="ada", reason="hm")["version_id"] == "base_1"
    assert database.write_sync(versions.roll_back, by="ada")["version_id"] == "ver_1"
    told = [(h["action"], h["version_id"], h["by"]) for h in database.read_sync(versions.history)]
    assert told == [
        ("rollback", "ver_1", "ada"),
        ("rollback", "base_1", "ada"),
        ("promote", "ver_1", "ada"),
        ("promote", "base_1", "trimtab"),
    ]


def test_what_the_gate_has_not_let_through_is_not_promoted_unless_somebody_insists_and_is_named(
    database: Database,
) -> None:
    candidate(database, "ver_1")
    with pytest.raises(Conflict, match="has not been through the gate"):
        database.write_sync(versions.promote, "ver_1", by="ada")
    database.write_sync(versions.judge, "ver_1", versions.HELD, {"verdict_reason": "it only got longer"})
    with pytest.raises(Conflict, match="it only got longer"):
        database.write_sync(versions.promote, "ver_1", by="ada")
    database.write_sync(versions.promote, "ver_1", by="ada", reason="demo", anyway=True)
    assert database.read_sync(versions.history)[0]["reason"] == "against the gate (held). demo"


def test_another_base_model_answers_itself_and_not_with_the_old_ones_adapter(database: Database) -> None:
    candidate(database, "ver_1", versions.READY)
    database.write_sync(versions.promote, "ver_1", by="ada")
    database.write_sync(versions.ensure_base, "base_1", "smollm2", {"base_sha256": SHA}, SHA)
    assert database.read_sync(versions.current)["version_id"] == "ver_1"  # the same base: nothing changes
    database.write_sync(versions.ensure_base, "base_2", "qwen", {"base_sha256": "ef" * 32}, "ef" * 32)
    assert database.read_sync(versions.current)["version_id"] == "base_2"


def test_a_version_in_use_is_not_retired(database: Database) -> None:
    candidate(database, "ver_1", versions.READY)
    candidate(database, "ver_2", versions.READY)
    database.write_sync(versions.promote, "ver_1", by="ada")
    for used in ("ver_1", "base_1"):
        with pytest.raises(Conflict, match="in use"):
            database.write_sync(versions.retire, used)
    database.write_sync(versions.retire, "ver_2")
    assert {v["id"]: v["status"] for v in database.read_sync(versions.listed)}["ver_2"] == versions.RETIRED


def test_a_canary_answers_beside_and_ends_with_a_promotion(database: Database) -> None:
    candidate(database, "ver_1", versions.READY)
    database.write_sync(versions.set_canary, "ver_1", 0.1, by="ada")
    now = database.read_sync(versions.current)
    assert (now["version_id"], now["canary_id"], now["canary_share"]) == ("base_1", "ver_1", 0.1)
    database.write_sync(versions.promote, "ver_1", by="ada")
    assert database.read_sync(versions.current)["canary_id"] is None


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_that_is_none_is_refused_and_nothing_changes(database: Database, share: float) -> None:
    candidate(database, "ver_1", versions.READY)
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        database.write_sync(versions.set_canary, "ver_1", share, by="ada")
    assert database.read_sync(versions.current)["canary_id"] is None


def test_two_versions_of_one_name_are_told_apart(database: Database) -> None:
    candidate(database, "ver_1")
    candidate(database, "ver_2")
    assert database.read_sync(versions.get, "kinder-2")["id"] == "ver_2"
    with pytest.raises(NotFound):
        database.read_sync(versions.get, "kinder-3")


def change_for_ever(url: str, folder: Path, begun: Connection) -> None:
    """What promoting and rolling back does to what is on disk, again and again."""
    database, registry = Database(url), Registry(folder)
    begun.send(True)
    while True:
        now = database.read_sync(versions.current)
        other = next(version.id for version in registry.listed() if version.id != now["version_id"])
        with suppress(Conflict):
            registry.verified(other)
            database.write_sync(versions.promote, other, by="x")
            registry.verified(database.read_sync(versions.current)["previous_id"])
            database.write_sync(versions.roll_back, by="x")


@pytest.mark.slow
def test_killed_two_hundred_times_around_promotions_there_is_always_exactly_one_that_answers_and_it_is_whole(
    database: Database, tmp_path: Path
) -> None:
    registry = Registry(tmp_path / "versions")
    for name in ("kinder", "shorter"):
        (tmp_path / name / "adapter").mkdir(parents=True)
        (tmp_path / name / "adapter" / "adapter_model.safetensors").write_bytes(name.encode() * 50_000)
        made = registry.add(tmp_path / name, Manifest(name, "smollm2", SHA, {}))
        candidate(database, made.id, versions.READY)
    database.write_sync(versions.promote, made.id, by="x")
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["trimtab.store.versions", "trimtab.store.database", "trimtab.registry.registry"])
    dice = random.Random(5)
    changes = 0
    for _ in range(200):
        begun, ours = processes.Pipe(duplex=False)
        child = processes.Process(
            target=change_for_ever, args=(f"sqlite:///{tmp_path / 'test.db'}", registry.folder, ours)
        )
        child.start()
        ours.close()
        assert begun.recv()
        child.join(dice.uniform(0.0, 0.1))
        assert child.exitcode is None, "it goes on until it is killed"
        child.kill()
        child.join()
        now = database.read_sync(versions.current)
        lines = database.read_sync(versions.history, 1_000_000)
        assert now["version_id"] == lines[0]["version_id"], "the pointer and its history disagree"
        assert [v["id"] for v in database.read_sync(versions.listed) if v["serving"]] == [now["version_id"]]
        assert registry.verified(now["version_id"]).id == now["version_id"]
        changes = len(lines)
    print(f"\n200 kills around {changes} changes of the version that answers")
    assert changes > 200
