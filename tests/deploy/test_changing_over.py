"""Applying a plan while people are being answered, on the real model and engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tiny_adapter import adapter
from trimtab.app import Ask, Trimtab
from trimtab.deploy.plan import Deployment, checked
from trimtab.domain import events as ev
from trimtab.domain.errors import Conflict, ImpossibleBudget, InvalidInput, ModelFileError
from trimtab.registry.manifest import Manifest
from trimtab.settings import Settings
from trimtab.store import changeovers, versions
from trimtab.variants import Variants

pytestmark = pytest.mark.model

LONG = Ask(documents="off", tools=False, sampling={"temperature": 0.0, "max_tokens": 48, "seed": 1})
SHORT = Ask(documents="off", tools=False, sampling={"temperature": 0.0, "max_tokens": 6, "seed": 1})
QUESTION = "Tell me about the sea."


def plan(weights: str = "q5_0", **more: Any) -> Deployment:
    chosen = {"engine": "llamacpp", "weights": weights, "kv": "f16", "slots": 2, "threads": 1, "batch": 128}
    return checked({"targets": {"users": 2, "context": 512}, "chosen": chosen, **more})


@pytest.fixture
def settings(tmp_path: Path, models_dir: Path) -> Settings:
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(models_dir, target_is_directory=True)
    return Settings.load(home=home, parallel=2, context=1024)


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[Trimtab]:
    async with Trimtab.open(settings, retrieval=False) as opened:
        yield opened


async def answer(app: Trimtab, how: Ask = SHORT) -> ev.TurnFinished:
    events = [e async for e in app.ask(QUESTION, how=how)]
    assert isinstance(events[-1], ev.TurnFinished), events[-1]
    return events[-1]


def serves(app: Trimtab) -> tuple[str, int]:
    """Which weights, and how many at once."""
    assert app.served is not None
    status = app.served.engine_status()
    assert status is not None
    return Path(app.served.engine.model_path).name, status["slots"]  # type: ignore[union-attr]


async def promoted(app: Trimtab, folder: Path) -> str:
    assert app.served is not None
    base = app.served.base
    assert base is not None
    made = app.versions.registry.add(
        adapter(folder / "salty", 1, base.path), Manifest("salty", base.name, base.sha256, {})
    )
    await app.database.write(
        versions.add, made.id, "salty", made.manifest.to_json(), digest=made.manifest.digest, status=versions.READY
    )
    await app.versions.promote(made.id, by="ada")
    return made.id


@pytest.mark.slow  # more than a minute
async def test_a_plan_is_applied_under_load_without_a_lost_turn_and_taken_back(
    app: Trimtab, settings: Settings, tmp_path: Path
) -> None:
    assert app.served is not None
    base_words = (await answer(app)).text
    salty = await promoted(app, tmp_path)
    before, before_words = app.served.engine, (await answer(app)).text
    going = True

    async def keep_asking() -> int:
        asked = 0
        while going:
            assert (await answer(app, LONG)).lineage.version == salty
            asked += 1
        return asked

    askers = [asyncio.create_task(keep_asking()) for _ in range(3)]
    while app.runner.running < 3:
        await asyncio.sleep(0.05)
    line = await app.changeover.apply(plan(), by="ada", reason="smaller")
    assert serves(app)[0].endswith("q5_0.gguf") or "q5_0" in serves(app)[0]
    assert serves(app)[1] == 2
    going = False
    assert sum(await asyncio.gather(*askers)) >= 3
    while app.changeover.leaving:
        await asyncio.sleep(0.05)
    assert before is not None
    assert not await before.health(), "the engine before runs on for nobody"
    assert (line["action"], line["by"], line["before_variant"], line["after_variant"]) == (
        "apply", "ada", "openvino/int8", "llamacpp/q5_0",
    )  # fmt: skip
    assert line["plan_digest"] == plan().digest

    with_adapter = await answer(app)
    assert with_adapter.lineage.version == salty, "the adapter of the promoted version went with it"
    assert with_adapter.text != base_words
    with pytest.raises(Conflict, match="served like that already"):
        await app.changeover.apply(plan(), by="ada")

    await app.changeover.undo(by="bob")
    after = await answer(app)
    assert (after.lineage.version, after.text) == (salty, before_words)
    lines = await app.database.read(changeovers.history)
    assert [(told["action"], told["by"]) for told in lines] == [("undo", "bob"), ("apply", "ada")]


@pytest.mark.slow
async def test_what_was_applied_is_served_after_a_restart_and_a_damaged_variant_is_not_replaced(
    settings: Settings,
) -> None:
    async with Trimtab.open(settings, retrieval=False) as app:
        await app.changeover.apply(plan(), by="ada")
    async with Trimtab.open(settings, retrieval=False) as app:
        assert "q5_0" in serves(app)[0]
        assert app.profile.context_tokens <= 512
    found = Variants("default", settings.models_dir, settings.home / "variants")
    file = found.path(plan().chosen.variant)  # type: ignore[arg-type]
    with file.open("r+b") as stream:
        stream.seek(-10, 2)
        stream.write(b"otherbytes")
    with pytest.raises(ModelFileError, match=r"it is not what was written.*trimtab plan undo"):
        async with Trimtab.open(settings, retrieval=False):
            pass
    with pytest.raises(InvalidInput, match="`engine` says openvino"):
        async with Trimtab.open(Settings.load(home=settings.home, engine="openvino"), retrieval=False):
            pass


async def test_what_cannot_be_applied_leaves_the_old_one_serving_and_says_why(app: Trimtab, settings: Settings) -> None:
    before, free = serves(app), app.changeover.free
    with pytest.raises(InvalidInput, match="trimtab plan choose"):
        await app.changeover.apply(checked({}), by="ada")
    with pytest.raises(ImpossibleBudget, match="there is none on this machine"):
        await app.changeover.apply(plan(budget={"accelerator": "required"}), by="ada")
    app.changeover.free = lambda: 10_000_000
    with pytest.raises(ImpossibleBudget, match=r"llamacpp/q5_0 needs \d+ MB beside .* and 10 MB are free"):
        await app.changeover.apply(plan(), by="ada")
    app.changeover.free = free
    file = Variants("default", settings.models_dir, settings.home / "variants").path(plan().chosen.variant)  # type: ignore[arg-type]
    file.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(ModelFileError, match="not what was written"):
        await app.changeover.apply(plan(), by="ada")
    with pytest.raises(Conflict, match="nothing to take back"):
        await app.changeover.undo(by="ada")
    assert serves(app) == before
    assert (await answer(app)).text
    assert await app.database.read(changeovers.latest) is None
