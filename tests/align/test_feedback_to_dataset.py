"""From a thumb in a chat to a line in a dataset, over the real database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripted_app import app_with, asked, follow, new_thread
from trimtab.align.curation import Rules
from trimtab.align.dataset import load
from trimtab.app import Trimtab
from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Kind, Said
from trimtab.gathering import Reading, curated, make_dataset
from trimtab.store import feedback, threads


async def answer_to(app: Trimtab, text: str, thread: str = "") -> dict[str, Any]:
    thread = thread or await new_thread(app)
    await asked(app, text, thread=thread)
    return (await app.database.read(threads.path, app.owner, thread))[-1]


async def another(app: Trimtab, answer: dict[str, Any]) -> dict[str, Any]:
    await follow(app, await app.regenerate(app.owner, answer["id"]))
    return (await app.database.read(threads.path, app.owner, answer["thread_id"]))[-1]


def reading(app: Trimtab) -> Reading:
    return Reading(app.profile, app.orchestrator.count)


async def test_thumbs_preferences_and_edits_become_a_dataset_with_a_card(tmp_path: Path) -> None:
    async with app_with(["Tea is a drink.", "No.", "Tea comes from a plant.", "Blue."], tmp_path) as app:
        tea = await answer_to(app, "What is tea?")
        rude = await answer_to(app, "Can you help me with my taxes?")
        plant = await another(app, tea)
        sky = await answer_to(app, "Which colour has the sky?")
        write = app.database.write
        await write(feedback.thumb, app.owner, tea["id"], 1)
        await write(feedback.thumb, app.owner, rude["id"], 0, "unfriendly")
        await write(feedback.prefer, app.owner, plant["id"], tea["id"])
        await write(feedback.edit, app.owner, sky["id"], "The sky is blue.")
        made = make_dataset(curated(app.database, how=reading(app)), tmp_path / "datasets")
    rows = [row for found in made.splits.values() for row in found]
    assert {(r.kind, r.completion, r.rejected, r.value) for r in rows} == {
        (Kind.LABEL, "Tea is a drink.", "", 1),
        (Kind.LABEL, "No.", "", 0),
        (Kind.PREFERENCE, "Tea comes from a plant.", "Tea is a drink.", None),
        (Kind.PREFERENCE, "The sky is blue.", "Blue.", None),
        (Kind.DEMONSTRATION, "The sky is blue.", "", None),
    }
    assert made.card["rows"] == 5
    assert made.card["labels"] == {"helpful": {"0": 1, "1": 1}}
    assert made.card["people"] == 1
    assert "person-1" in (made.folder / "README.md").read_text()
    assert app.owner not in (made.folder / "train.jsonl").read_text()
    assert load(made.folder) == made


async def test_the_same_feedback_makes_the_same_dataset_and_a_changed_file_is_noticed(tmp_path: Path) -> None:
    async with app_with(["A.", "B."], tmp_path) as app:
        first = await answer_to(app, "One?")
        await app.database.write(feedback.thumb, app.owner, first["id"], 1)
        made = make_dataset(curated(app.database), tmp_path / "datasets")
        again = make_dataset(curated(app.database), tmp_path / "datasets")
        second = await answer_to(app, "Something else entirely?")
        await app.database.write(feedback.thumb, app.owner, second["id"], 0)
        more = make_dataset(curated(app.database), tmp_path / "datasets")
    assert (again.id, again.card) == (made.id, made.card)
    assert more.id != made.id
    split = next(name for name, rows in made.splits.items() if rows)
    file = made.folder / f"{split}.jsonl"
    file.write_text(file.read_text().replace('"value":1', '"value":0'))
    with pytest.raises(InvalidInput, match="changed after it was written"):
        load(made.folder)


async def test_without_feedback_there_is_no_dataset(tmp_path: Path) -> None:
    async with app_with([], tmp_path) as app:
        with pytest.raises(InvalidInput, match="nothing to write"):
            make_dataset(curated(app.database), tmp_path / "datasets")


async def test_the_prompt_of_a_later_question_is_the_whole_thread_before_it(tmp_path: Path) -> None:
    async with app_with(["Paris.", "About two million."], tmp_path) as app:
        thread = await new_thread(app)
        await answer_to(app, "What is the capital of France?", thread)
        second = await answer_to(app, "How many people live there?", thread)
        await app.database.write(feedback.thumb, app.owner, second["id"], 1)
        kept = curated(app.database, Rules(), reading(app))
    assert [said for said in kept.rows[0].prompt if said.role != "system"] == [
        Said("user", "What is the capital of France?"),
        Said("assistant", "Paris."),
        Said("user", "How many people live there?"),
    ]
