"""The constitution and the recipe over HTTP; an alignment is ordered with the constitution that is in force."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripted_app import app_with, asked, new_thread
from trimtab.align.amendments import Amendments
from trimtab.align.constitution import DEFAULT
from trimtab.align.curation import Rules
from trimtab.align.dataset import load
from trimtab.align.jobs import Jobs
from trimtab.api.server import create_app
from trimtab.api.serving import ensure_key
from trimtab.app import Trimtab
from trimtab.domain.errors import InvalidInput
from trimtab.gathering import curated
from trimtab.llm.catalogue import DEFAULT_CHAT
from trimtab.store import feedback, people, threads

PATH = "/v1/align/constitution"
BUNDLED = DEFAULT.read_text("utf-8")
EDITED = BUNDLED.replace("name: trimtab-default", "name: ours")


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Trimtab]:
    async with app_with([], tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def with_models(tmp_path: Path, models_dir: Path) -> Path:
    """A home whose models are here."""
    (tmp_path / "models").symlink_to(models_dir, target_is_directory=True)
    return tmp_path


@pytest.fixture
async def client(app: Trimtab) -> AsyncIterator[httpx.AsyncClient]:
    await ensure_key(app)
    async with caller(app, app.settings.key_path.read_text("utf-8").strip()) as opened:
        yield opened


def caller(app: Trimtab, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(app)), base_url="http://127.0.0.1",
        headers={"Authorization": f"Bearer {key}"},
    )  # fmt: skip


async def ok(response: httpx.Response) -> Any:
    assert response.status_code < 400, response.text
    return response.json()


def refused(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    return error


async def test_a_recipes_schema_says_what_each_value_is_and_its_defaults_are_a_recipe(
    client: httpx.AsyncClient,
) -> None:
    found = await ok(await client.get("/v1/align/recipe"))
    steps = found["schema"]["$defs"]["Policy"]["properties"]["steps"]
    assert (steps["minimum"], steps["default"]) == (1, found["defaults"]["policy"]["steps"])
    assert "curation" in found["schema"]["$defs"]["Data"]["properties"]["feedback"]["description"]
    assert found["defaults"]["data"]["bundled"] is True


async def test_the_bundled_constitution_is_in_force_until_another_is_saved(client: httpx.AsyncClient) -> None:
    first = await ok(await client.get(PATH))
    assert (first["text"], first["bundled"]) == (BUNDLED, True)
    assert "harmless" in [p["id"] for p in first["principles"]]
    assert await ok(await client.get(f"{PATH}/history")) == {"history": [], "bundled": first["version"]}

    body = {"text": EDITED, "after": first["version"], "note": "our own name"}
    saved = await ok(await client.put(PATH, json=body))
    assert (saved["name"], saved["bundled"]) == ("ours", False)
    assert await ok(await client.get(PATH)) == saved
    (line,) = (await ok(await client.get(f"{PATH}/history")))["history"]
    assert (line["version"], line["by"], line["note"]) == (saved["version"], "local", "our own name")
    assert (await ok(await client.get(f"{PATH}/versions/{first['version']}")))["text"] == BUNDLED


async def test_who_edited_an_older_text_is_told_and_nothing_is_lost(client: httpx.AsyncClient) -> None:
    first = (await ok(await client.get(PATH)))["version"]
    saved = await ok(await client.put(PATH, json={"text": EDITED, "after": first}))
    late = refused(await client.put(PATH, json={"text": EDITED + "# late\n", "after": first}), 409)
    assert late["detail"]["current"] == saved["version"]
    assert (await ok(await client.get(PATH)))["version"] == saved["version"]


@pytest.mark.parametrize(
    ("broken", "line", "words"),
    [
        (BUNDLED.replace("title: Declines what would harm", "heading: Declines"), 13, "no field 'heading'"),
        (BUNDLED.replace("for: [decline]", "for: [everything]", 1), 15, "'everything'"),
        ("name: x\nprinciples:\n  - [", 3, "not YAML"),
        ("a: &a [1]\nb: *a\n", 1, "anchors"),
    ],
)
async def test_a_fault_is_told_with_its_line_and_changes_nothing(
    client: httpx.AsyncClient, broken: str, line: int, words: str
) -> None:
    before = await ok(await client.get(PATH))
    error = refused(await client.put(PATH, json={"text": broken, "after": before["version"]}), 400)
    assert error["detail"]["line"] == line, error
    assert words in error["message"]
    assert await ok(await client.get(PATH)) == before


async def test_an_earlier_version_is_put_back_and_the_history_says_so(client: httpx.AsyncClient) -> None:
    first = await ok(await client.get(PATH))
    await ok(await client.put(PATH, json={"text": EDITED, "after": first["version"]}))
    back = await ok(await client.post(f"{PATH}/restore", json={"version": first["version"]}))
    assert back == first
    lines = (await ok(await client.get(f"{PATH}/history")))["history"]
    assert lines[0]["note"] == f"restored {first['version']}"
    refused(await client.post(f"{PATH}/restore", json={"version": "0" * 16}), 404)
    refused(await client.get(f"{PATH}/versions/..%2f..%2fkey"), 404)
    refused(await client.get(f"{PATH}/versions/nonsense"), 400)


async def test_only_who_runs_this_may_change_it(app: Trimtab, client: httpx.AsyncClient) -> None:
    await app.database.write(people.ensure_user, "ann")
    first = (await ok(await client.get(PATH)))["version"]
    async with caller(app, await app.database.write(people.create_key, "ann", "test")) as ann:
        assert (await ok(await ann.get(PATH)))["version"] == first
        refused(await ann.put(PATH, json={"text": EDITED, "after": first}), 403)
        refused(await ann.post(f"{PATH}/restore", json={"version": first}), 403)
    async with caller(app, "nobody") as stranger:
        for path in ("recipe", "constitution", "constitution/history", "constitution/judges"):
            refused(await stranger.get(f"/v1/align/{path}"), 401)


@pytest.mark.model
async def test_an_alignment_is_ordered_with_the_constitution_that_is_in_force(with_models: Path) -> None:
    async with app_with([], with_models, model=DEFAULT_CHAT) as app:
        own = Amendments(app.settings.constitution_dir).save(EDITED)
        made = []
        for constitution in (True, False):
            job = await app.trainings.submit("align", {"data": {"constitution": constitution}}, by="local")
            made.append(job.recipe["resolved"]["constitution"])
        assert made[1] == ""
        assert Path(made[0]).read_text("utf-8") == own.text


@pytest.mark.model
async def test_without_a_word_of_people_it_learns_from_the_bundled_data_alone_or_says_what_to_do(
    with_models: Path,
) -> None:
    async with app_with([], with_models, model=DEFAULT_CHAT) as app:
        job = await app.trainings.submit("align", {"data": {"bundled": True, "feedback": True}}, by="local")
        assert job.recipe["resolved"]["dataset"] == ""
        with pytest.raises(InvalidInput, match="--bundled"):
            await app.trainings.submit("align", {"data": {"bundled": False, "feedback": True}}, by="local")


@pytest.mark.model
async def test_what_a_trusted_person_said_trains_as_curation_shows_it(with_models: Path) -> None:
    many = 60
    words = [f"{random.Random(n).getrandbits(60):x}" for n in range(many)]
    async with app_with([f"{word} it is." for word in words], with_models, model=DEFAULT_CHAT) as app:
        for number, word in enumerate(words):
            thread = await new_thread(app)
            await asked(app, f"What is {word}?", thread=thread)
            answer = (await app.database.read(threads.path, app.owner, thread))[-1]
            await app.database.write(feedback.thumb, app.owner, answer["id"], number % 2)
        job = await app.trainings.submit("align", {"data": {"bundled": False, "feedback": True}}, by="local")
        shown = curated(app.database, Rules(trusted=frozenset({app.owner})))
        capped = curated(app.database, Rules())
    assert len(capped.rows) < len(shown.rows)
    assert load(Path(job.recipe["resolved"]["dataset"])).card["rows"] == len(shown.rows)


async def test_how_the_judges_did_is_told_from_the_latest_alignment_that_measured_them(
    app: Trimtab, client: httpx.AsyncClient
) -> None:
    assert await ok(await client.get(f"{PATH}/judges")) == {"judges": None}
    jobs: Jobs = app.trainings.jobs
    for name, form in (("old", "contrast"), ("new", "likelihood"), ("not that far", "")):
        order = {"recipe": {"name": name, "method": "ppo", "data": {"constitution": True}}, "resolved": {}}
        job = jobs.submit("align", order)
        found = [{"principle": "harmless", "form": form, "usable": True, "why": "agrees"}]
        told = [{"at": 1.0, "stage": "base"}, *([{"at": 2.0, "stage": "judges", "agreement": found}] if form else [])]
        (job.folder / "progress.jsonl").write_text("".join(json.dumps(line) + "\n" for line in told), "utf-8")
    jobs.submit("align", {"recipe": {"name": "people", "method": "ppo", "data": {"constitution": False}}})
    judges = (await ok(await client.get(f"{PATH}/judges")))["judges"]
    assert (judges["name"], judges["agreement"][0]["form"]) == ("new", "likelihood")
    assert judges["version"] == (await ok(await client.get(PATH)))["version"]
