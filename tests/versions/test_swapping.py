"""Promote and roll back while people are being answered, on the real model and engine."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tiny_adapter import adapter
from trimtab.api.health import ready
from trimtab.app import Ask, Trimtab
from trimtab.domain import events as ev
from trimtab.domain.errors import Conflict, ModelFileError
from trimtab.registry.manifest import Manifest
from trimtab.settings import Settings
from trimtab.store import feedback, threads, versions

pytestmark = pytest.mark.model

PLAIN = Ask(documents="off", tools=False, sampling={"temperature": 0.0, "max_tokens": 6, "seed": 1})
QUESTION = "Tell me about the sea."


on_both = pytest.mark.parametrize("app", ["llamacpp", "openvino"], indirect=True)
"""They put a version in force in different ways: one adds it, the other begins anew."""
on_each = pytest.mark.parametrize("app", ["llamacpp", pytest.param("openvino", marks=pytest.mark.slow)], indirect=True)


@pytest.fixture
async def app(request: pytest.FixtureRequest, tmp_path: Path, models_dir: Path) -> AsyncIterator[Trimtab]:
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(models_dir, target_is_directory=True)
    settings = Settings.load(home=home, engine=request.param, parallel=2, context=1024)
    async with Trimtab.open(settings, retrieval=False) as opened:
        yield opened


async def version(app: Trimtab, folder: Path, name: str, seed: int) -> str:
    assert app.served is not None
    base = app.served.base
    assert base is not None
    made = app.versions.registry.add(
        adapter(folder / name, seed, base.path), Manifest(name, base.name, base.sha256, {})
    )
    manifest = made.manifest.to_json()
    await app.database.write(versions.add, made.id, name, manifest, digest=made.manifest.digest, status=versions.READY)
    return made.id


async def answer(app: Trimtab, thread: str | None = None) -> ev.TurnFinished:
    events = [e async for e in app.ask(QUESTION, thread=thread, how=PLAIN)]
    assert isinstance(events[-1], ev.TurnFinished), events[-1]
    return events[-1]


@on_both
async def test_a_promoted_version_answers_next_and_is_named_and_a_rollback_brings_the_old_words_back(
    app: Trimtab, tmp_path: Path
) -> None:
    before = await answer(app)
    assert before.lineage.version.startswith("base_")
    made = await version(app, tmp_path, "salty", 1)
    await app.versions.promote(made, by="ada")
    after = await answer(app)
    assert after.lineage.version == made
    assert after.text != before.text
    await app.versions.roll_back(by="ada")
    again = await answer(app)
    assert (again.lineage.version, again.text) == (before.lineage.version, before.text)


@pytest.mark.slow
@on_each
async def test_versions_are_swapped_under_load_without_a_failed_turn(app: Trimtab, tmp_path: Path) -> None:
    names = [await version(app, tmp_path, name, seed) for seed, name in enumerate(("one", "two"))]
    base = (await app.database.read(versions.current))["version_id"]
    going = True
    seen: dict[str, set[str]] = {}

    async def keep_asking() -> int:
        asked = 0
        while going:
            found = await answer(app)
            seen.setdefault(found.lineage.version, set()).add(found.text)
            asked += 1
        return asked

    askers = [asyncio.create_task(keep_asking()) for _ in range(3)]
    for _ in range(3):
        for name in names:
            await app.versions.promote(name, by="ada")
            await asyncio.sleep(0.4)
        for _ in range(2):
            await app.versions.roll_back(by="ada")
            await asyncio.sleep(0.2)
    going = False
    assert sum(await asyncio.gather(*askers)) > 5
    assert set(seen) <= {base, *names}
    assert len(seen) >= 2
    # Greedy words may differ on a near-tie (read from the cache or anew), but never be another version's.
    for one, other in itertools.combinations(seen.values(), 2):
        assert not one & other, "a version spoke with another's adapter"


@on_each
async def test_a_version_replaced_twice_is_let_go_when_no_turn_can_be_asking_it(app: Trimtab, tmp_path: Path) -> None:
    assert app.served is not None
    base = (await app.database.read(versions.current))["version_id"]
    made = [await version(app, tmp_path, name, seed) for seed, name in enumerate(("one", "two", "three"))]
    first, before, serving = made
    for name in made:
        await app.versions.promote(name, by="ada")
    words = (await (await app.versions.answer_of(first)).bare.ainvoke(QUESTION, max_tokens=6, temperature=0.0)).text
    assert app.versions.loaded == {base, *made}, "a turn may still be asking the first"
    app.versions.longest_turn = 0.0
    await app.versions.refresh()
    assert app.versions.loaded == {base, before, serving}
    assert app.served.engine is not None
    if not app.served.engine.capabilities.hot_adapters:
        assert app.served.beside == {before, serving}, "an engine runs on for nobody"
    assert (await answer(app)).lineage.version == serving
    again = await app.versions.answer_of(first)
    assert (await again.bare.ainvoke(QUESTION, max_tokens=6, temperature=0.0)).text == words
    await app.versions.roll_back(by="ada")
    assert (await answer(app)).lineage.version == before


@on_each
async def test_a_version_whose_files_were_changed_does_not_answer(app: Trimtab, tmp_path: Path) -> None:
    made = await version(app, tmp_path, "changed", 3)
    file = app.versions.registry.get(made).folder / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(ModelFileError, match="changed"):
        await app.versions.promote(made, by="ada")
    assert (await answer(app)).lineage.version.startswith("base_")


@on_both
async def test_a_damaged_version_that_should_answer_is_a_visible_fault_and_the_base_answers(
    app: Trimtab, tmp_path: Path
) -> None:
    made = await version(app, tmp_path, "rotten", 4)
    file = app.versions.registry.get(made).folder / "adapter.gguf"
    file.write_bytes(b"no adapter")
    await app.database.write(versions.promote, made, by="another process")
    await app.versions.refresh()
    assert "cannot answer" in app.versions.fault
    assert (await answer(app)).lineage.version.startswith("base_")
    told = await ready(app)
    assert json.loads(told.body)["parts"]["version"] == {"ok": False}
    assert told.status_code == 200, "questions are answered"


@on_each
async def test_an_adapter_of_another_base_is_refused(app: Trimtab) -> None:
    await app.database.write(
        versions.add, "ver_x", "foreign", {"base": "qwen", "base_sha256": "00"}, digest="00", status=versions.READY
    )
    with pytest.raises(Conflict, match="trained on qwen"):
        await app.versions.promote("ver_x", by="ada")


@on_each
async def test_a_canary_gets_about_its_share_of_the_threads_and_always_the_same(app: Trimtab, tmp_path: Path) -> None:
    made = await version(app, tmp_path, "canary", 5)
    await app.versions.canary(made, 0.3, by="ada")
    ids = [f"thr_{n}" for n in range(1000)]
    chosen = [app.versions.voice(thread).version == made for thread in ids]
    assert 240 < sum(chosen) < 360
    assert chosen == [app.versions.voice(thread).version == made for thread in ids]


@on_each
async def test_a_version_that_people_like_less_is_rolled_back_by_itself(app: Trimtab, tmp_path: Path) -> None:
    thread = (await app.database.write(threads.create, app.owner))["id"]
    await rate(app, thread, 1)
    await app.versions.promote(await version(app, tmp_path, "worse", 6), by="ada")
    assert await app.versions.watch_ratings() == ""  # nobody has said anything about it yet
    await rate(app, thread, 0)
    reason = await app.versions.watch_ratings()
    assert "0% of 20" in reason
    assert (await answer(app)).lineage.version.startswith("base_")
    told = (await app.database.read(versions.history))[0]
    assert (told["action"], told["reason"]) == ("auto-rollback", reason)
    marked = {row["name"]: row["fell"] for row in await app.database.read(versions.listed)}
    assert marked.pop("worse") == reason
    assert not any(marked.values())
    assert await app.versions.watch_ratings() == ""


async def rate(app: Trimtab, thread: str, value: int) -> None:
    """Twenty thumbs from twenty people's worth of answers."""
    for _ in range(20):
        await answer(app, thread)
        last = (await app.database.read(threads.path, app.owner, thread))[-1]
        await app.database.write(feedback.thumb, app.owner, last["id"], value)
