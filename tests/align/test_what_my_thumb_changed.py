"""A thumb down, the version that was made of it, and what becomes of both when the person deletes what they said."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripted_app import app_with, follow, new_thread
from trimtab.align.dataset import load
from trimtab.api.server import create_app
from trimtab.app import Trimtab
from trimtab.domain.model import Profile
from trimtab.gathering import Reading
from trimtab.llm.catalogue import DEFAULT_CHAT
from trimtab.llm.scripted import Say, ScriptedModel
from trimtab.registry.manifest import Lineage, Manifest
from trimtab.second_answers import SecondAnswers
from trimtab.store import feedback, people, threads, versions
from trimtab.versions import Versions, Voice

SHA = "ab" * 32
SMALL = Profile(name="small", tools="none", grounding="quote")
RECIPE = {"name": "kinder", "data": {"bundled": True, "feedback": True}}


def client(app: Trimtab, user: str = "local") -> httpx.AsyncClient:
    key = app.database.write_sync(people.create_key, user, "test")
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(app)), base_url="http://127.0.0.1",
        headers={"Authorization": f"Bearer {key}"},
    )  # fmt: skip


async def rated(app: Trimtab, user: str, question: str, value: int, consent: bool = True) -> str:
    owner = await app.database.write(people.ensure_user, user)
    thread = await new_thread(app, owner)
    await follow(app, await app.post(owner, thread, question))
    answer = (await app.database.read(threads.path, owner, thread))[-1]
    terms = feedback.Terms(consent, False, "")
    return str((await app.database.write(feedback.thumb, owner, answer["id"], value, terms=terms))["id"])


@dataclass
class Speaker:
    """What can answer with an adapter: scripted, and the same with any."""

    says: ScriptedModel
    base: Base

    async def voice(self, version: str, adapter: Path | None, adapter_gguf: Path | None = None) -> Voice:
        return Voice(version, version, self.says, self.says, SMALL)

    async def release(self, version: str) -> None: ...


@dataclass
class Base:
    name: str = "smol"
    sha256: str = SHA


async def promoted(app: Trimtab, shaped_by: list[str], says: ScriptedModel) -> tuple[SecondAnswers, str]:
    """A version that answers with this model, made known as a finished training makes one known; and its id."""
    source = app.settings.home / "new"
    (source / "adapter").mkdir(parents=True)
    (source / "adapter" / "adapter_config.json").write_text("{}")
    made = app.versions.registry.add(source, Manifest("kinder", "smol", SHA, {}, lineage=Lineage(recipe=RECIPE)))
    given = Voice("", "small", says, says, SMALL)
    held = Versions(app.database, app.versions.registry, Speaker(says, Base()), given)
    await held.open()
    second = SecondAnswers(app.database, held, Reading(SMALL), lambda: app.runner.running > 0)
    assert await second.go_on() == 0, "the model as installed is no news"
    about: dict[str, Any] = {"digest": made.manifest.digest, "status": versions.READY, "shaped_by": shaped_by}
    await app.database.write(versions.add, made.id, "kinder", made.manifest.to_json(), **about)
    await held.promote(made.id, by="local")
    return second, made.id


async def shown(http: httpx.AsyncClient) -> dict[str, Any]:
    return {said["question"]: said for said in (await http.get("/v1/versions/kinder/feedback")).json()["feedback"]}


async def test_what_got_a_thumb_down_is_asked_again_and_both_answers_are_shown_to_who_gave_it(tmp_path: Path) -> None:
    async with app_with(["No.", "Go away.", "Fine.", "Never."], tmp_path, profile=SMALL) as app:
        down = await rated(app, "ann", "Can you help me?", 0)
        await rated(app, "ann", "And my dog?", 0, consent=False)
        await rated(app, "ann", "Is it late?", 1)
        await rated(app, "bob", "Where is Bob?", 0)
        model = ScriptedModel(["He is at home.", "Gladly."])
        second, _ = await promoted(app, [down], model)
        assert await second.go_on() == 2
        assert await second.go_on() == 0, "once is enough"
        async with client(app, "ann") as ann, client(app, "bob") as bob:
            found = await shown(ann)
            assert set(found) == {"Can you help me?"}, "neither what she keeps to herself nor what Bob said"
            said = found["Can you help me?"]
            assert (said["completion"], said["after"], said["shaped"]) == ("No.", "Gladly.", True)
            said = (await shown(bob))["Where is Bob?"]
            assert (said["after"], said["shaped"]) == ("He is at home.", False)
            assert [asked.messages[-1].text for asked in model.asked] == ["Where is Bob?", "Can you help me?"]


async def test_nobody_waits_for_it(tmp_path: Path) -> None:
    async with app_with(["No.", Say("Well, then.", delay=60)], tmp_path, profile=SMALL) as app:
        second, _ = await promoted(app, [await rated(app, "ann", "Can you help me?", 0)], ScriptedModel(["Gladly."]))
        second.pauses = 1
        turn = await app.post(app.owner, await new_thread(app), "And me?")
        assert await second.go_on() == 0, "somebody is being answered"
        await app.cancel(app.owner, turn["id"])
        assert await second.go_on() == 1


@pytest.mark.model
async def test_who_deletes_what_they_said_is_told_which_versions_learnt_it_and_they_can_be_trained_again(
    tmp_path: Path, models_dir: Path
) -> None:
    (tmp_path / "models").symlink_to(models_dir, target_is_directory=True)
    async with app_with(["No.", "Go away."], tmp_path, profile=SMALL, model=DEFAULT_CHAT) as app:
        down = [await rated(app, "ann", "Can you help me?", 0), await rated(app, "bob", "And me?", 0)]
        second, made = await promoted(app, down, ScriptedModel(["Gladly."], cycle=True))
        assert await second.go_on() == 2
        async with client(app, "ann") as ann, client(app, "bob") as bob, client(app) as local:
            assert (await bob.delete("/v1/feedback/of/ann")).status_code == 403
            gone = (await ann.delete("/v1/feedback/of/ann")).json()
            assert gone["feedback"] == 1
            assert [(v["id"], v["name"], v["rows"]) for v in gone["versions"]] == [(made, "kinder", 1)]
            assert await shown(ann) == {}, "what was answered again went, too"
            assert set(await shown(bob)) == {"And me?"}
            assert (await local.get("/v1/versions/kinder")).json()["rows_deleted"] == 1
            assert (await ann.post("/v1/versions/kinder/retrain")).status_code == 403
            base = (await local.get("/v1/versions")).json()["versions"][0]["id"]
            assert "no recipe" in (await local.post(f"/v1/versions/{base}/retrain")).json()["error"]["message"]
            assert (await local.delete("/v1/feedback/of/nobody")).status_code == 404
            ordered = (await local.post("/v1/versions/kinder/retrain")).json()
        job = app.trainings.jobs.get(ordered["job"])
    assert job.recipe["recipe"]["name"] == "kinder"
    assert load(Path(job.recipe["resolved"]["dataset"])).feedback_ids() == [down[1]], "without what ann said"
