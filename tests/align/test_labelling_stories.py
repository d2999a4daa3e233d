"""People label answers over HTTP, and what they said trains or does not, visibly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from postgresql import PostgreSQL
from scripted_app import app_with, follow, new_thread
from trimtab.align import interchange
from trimtab.align.curation import Rules
from trimtab.align.queue import Candidate
from trimtab.api.server import create_app
from trimtab.app import Trimtab
from trimtab.domain.judgement import Judgement, Source
from trimtab.domain.model import Profile
from trimtab.gathering import curated, forget_person
from trimtab.llm.scripted import call
from trimtab.own_database import LOCAL_USER
from trimtab.store import imports, people, threads
from trimtab.store.schema import threads as thread_rows

ANSWERS = ["Tea is a drink made from leaves.", "Go away.", "Tea grows on bushes."]


class Someone:
    """A person with a key, and a client of the app's HTTP side."""

    def __init__(self, app: Trimtab, user: str, http: httpx.AsyncClient) -> None:
        self.app, self.user, self.http = app, user, http
        self.id = app.database.write_sync(people.ensure_user, user)

    async def answer(self, question: str) -> dict[str, Any]:
        thread = await new_thread(self.app, self.id)
        turn = await self.app.post(self.id, thread, question)
        await follow(self.app, turn)
        return (await self.app.database.read(threads.path, self.id, thread))[-1]

    async def again(self, answer: dict[str, Any]) -> dict[str, Any]:
        await follow(self.app, await self.app.regenerate(self.id, answer["id"]))
        return (await self.app.database.read(threads.path, self.id, answer["thread_id"]))[-1]

    async def get(self, path: str, **params: Any) -> dict[str, Any]:
        response = await self.http.get(path, params=params)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    async def say(self, status: int = 201, **body: Any) -> dict[str, Any]:
        response = await self.http.post("/v1/feedback", json=body)
        assert response.status_code == status, response.text
        found: dict[str, Any] = response.json()
        return found

    async def next(self, **params: Any) -> dict[str, Any] | None:
        found: dict[str, Any] | None = (await self.get("/v1/labelling/next", **params))["item"]
        return found


@asynccontextmanager
async def person(app: Trimtab, user: str = LOCAL_USER, web: Any = None) -> AsyncIterator[Someone]:
    key = await app.database.write(people.create_key, user, "a test")
    transport = httpx.ASGITransport(web or create_app(app), raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
        yield Someone(app, user, client)


async def imported(app: Trimtab, *lines: str, file: str = "tea.jsonl", source: Source = Source.IMPORT) -> None:
    rows = [row for row in interchange.read(lines, file, source=source) if isinstance(row, Judgement)]
    await app.database.write(imports.add, rows, file=file)


LINE = '{"prompt": "What is coffee?", "chosen": "A drink made from beans.", "rejected": "No idea."}'


# ---------------------------------------------------------------------- what is asked


async def test_a_person_is_asked_about_their_own_answers_until_none_is_left(tmp_path: Path) -> None:
    async with app_with(ANSWERS, tmp_path) as app, person(app) as me:
        for question in ("What is tea?", "Can you help me?", "Where does it grow?"):
            await me.answer(question)
        seen = []
        while (item := await me.next()) is not None:
            seen.append((item["conversation"][-1]["text"], item["answers"][0]["text"]))
            await me.say(kind="thumb", message_id=item["answers"][0]["id"], value=1)
        progress = (await me.get("/v1/labelling/next"))["progress"]
        other_label = await me.next(label="harmless")
    assert sorted(seen) == sorted(
        zip(("What is tea?", "Can you help me?", "Where does it grow?"), ANSWERS, strict=True)
    )
    assert progress == {"done": 3, "left": 0}
    assert other_label is not None


async def test_what_is_skipped_is_not_asked_again_and_undo_brings_it_back(tmp_path: Path) -> None:
    async with app_with(ANSWERS, tmp_path) as app, person(app) as me:
        await me.answer("What is tea?")
        item = await me.next()
        assert item is not None
        assert await me.next(skip=[item["id"]]) is None
        kept = await me.say(kind="thumb", message_id=item["answers"][0]["id"], value=0)
        assert await me.next() is None
        assert (await me.http.delete(f"/v1/feedback/{kept['id']}")).status_code == 204
        assert await me.next() == item


async def test_where_an_answer_stands_says_nothing_about_it(tmp_path: Path) -> None:
    async with app_with(ANSWERS, tmp_path) as app, person(app) as me:
        first = await me.answer("What is tea?")
        await me.again(first)
        left = []
        for _ in range(60):
            item = await me.next(mode="compare")
            assert item is not None
            left.append(item["answers"][0]["id"])
    assert 10 < left.count(first["id"]) < 50


async def test_a_comparison_becomes_a_preference(tmp_path: Path) -> None:
    async with app_with(ANSWERS, tmp_path) as app, person(app) as me:
        await me.again(await me.answer("What is tea?"))
        item = await me.next(mode="compare")
        assert item is not None
        good, bad = sorted(item["answers"], key=lambda answer: answer["text"], reverse=True)
        await me.say(kind="preference", chosen_id=good["id"], rejected_id=bad["id"])
        assert await me.next(mode="compare") is None
        (row,) = curated(app.database).rows
    assert (row.completion, row.rejected) == ("Tea is a drink made from leaves.", "Go away.")


async def test_people_are_asked_first_where_the_reward_model_is_unsure(tmp_path: Path) -> None:
    async with app_with(ANSWERS, tmp_path) as app:
        web = create_app(app)

        def scores(candidates: Sequence[Candidate]) -> list[float]:
            return [float("grow" in candidate.prompt[-1].content) for candidate in candidates]

        web.state.labelling.uncertainty = scores
        async with person(app, web=web) as me:
            for question in ("What is tea?", "Can you help me?", "Where does it grow?"):
                await me.answer(question)
            item = await me.next()
    assert item is not None
    assert item["conversation"][-1]["text"] == "Where does it grow?"


async def test_answers_that_are_not_the_models_words_are_not_asked_about(tmp_path: Path) -> None:
    quoting = Profile(name="small", tools="native", grounding="quote")
    steps = [call("calculator_calculate", expression="2+2")]
    async with app_with(steps, tmp_path, profile=quoting) as app, person(app) as me:
        answer = await me.answer("What is 2+2?")
        assert answer["text"]
        assert await me.next() is None


# ---------------------------------------------------------------------- who may see what


async def test_nobody_is_shown_other_peoples_conversations_unless_the_operator_allows_it(tmp_path: Path) -> None:
    async with app_with(ANSWERS, tmp_path) as app, person(app, "ann") as ann, person(app, "bob") as bob:
        answer = await ann.answer("What is tea?")
        await ann.again(answer)
        assert await bob.next() is None
        assert await bob.next(mode="compare") is None
        refused = await bob.say(404, kind="thumb", message_id=answer["id"], value=1)
    assert "No message" in refused["error"]["message"]


async def test_where_it_is_allowed_two_people_judge_the_same_and_agreement_is_measured(tmp_path: Path) -> None:
    async with (
        app_with(ANSWERS, tmp_path, label_others=True) as app,
        person(app, "ann") as ann,
        person(app, "bob") as bob,
    ):
        texts = {}
        for question in ("What is tea?", "Can you help me?", "Where does it grow?"):
            answer = await ann.answer(question)
            texts[answer["id"]] = answer["text"]
        for rater in (ann, bob):
            while (item := await rater.next()) is not None:
                shown = item["answers"][0]
                value = int("away" not in shown["text"] and (rater is ann or "bushes" not in shown["text"]))
                await rater.say(kind="thumb", message_id=shown["id"], value=value)
        found = (await bob.get("/v1/labelling/agreement"))["agreement"]
    assert found["helpful"]["name"] == "kappa"
    assert found["helpful"]["items"] == 3
    assert found["helpful"]["percent"] == pytest.approx(2 / 3)
    assert found["helpful"]["coefficient"] == pytest.approx(0.4)


async def test_who_refuses_training_is_not_labelled_by_others_and_overrules_them(tmp_path: Path) -> None:
    async with (
        app_with(ANSWERS, tmp_path, label_others=True) as app,
        person(app, "ann") as ann,
        person(app, "bob") as bob,
    ):
        answer = await ann.answer("What is tea?")
        await bob.say(kind="thumb", message_id=answer["id"], value=1)
        assert len(curated(app.database).rows) == 1
        await ann.say(kind="thumb", message_id=answer["id"], value=1, label="harmless", consent=False)
        assert await bob.next(label="harmless") is None
        assert curated(app.database).counts == {"consent": 2}


async def test_imported_answers_are_everybodys_to_label(tmp_path: Path) -> None:
    async with app_with([], tmp_path) as app, person(app, "ann") as ann, person(app, "bob") as bob:
        await imported(app, LINE)
        for rater in (ann, bob):
            item = await rater.next(mode="compare")
            assert item is not None
            assert item["conversation"] == [{"role": "user", "text": "What is coffee?"}]
            good, bad = sorted(item["answers"], key=lambda answer: answer["text"])
            await rater.say(kind="preference", chosen_id=good["id"], rejected_id=bad["id"])
        assert (await ann.get("/v1/labelling/agreement"))["agreement"]["preference"]["percent"] == 1.0
        found = curated(app.database)
        mine = (await ann.get("/v1/threads"))["threads"]
    assert {row.source for row in found.rows} <= {Source.IMPORT, Source.PERSON}
    assert found.counts == {"duplicate": 2}
    assert mine == []


async def test_what_stands_inside_an_imported_prompt_is_not_asked_about(tmp_path: Path) -> None:
    talk = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Tea?"},
    ]
    line = json.dumps({"prompt": talk, "completion": "Please.", "label": True})
    async with app_with([], tmp_path) as app, person(app) as me:
        await imported(app, line)
        item = await me.next()
        assert item is not None
        assert [answer["text"] for answer in item["answers"]] == ["Please."]
        assert [said["text"] for said in item["conversation"]] == ["Hi", "Hello.", "Tea?"]
        await me.say(kind="thumb", message_id=item["answers"][0]["id"], value=1)
        assert await me.next() is None
        assert (await me.get("/v1/labelling/agreement"))["agreement"]["helpful"]["items"] == 0


async def test_it_is_the_same_over_postgresql(tmp_path: Path) -> None:
    with PostgreSQL() as server:
        url = server.database("labelling")
        async with app_with(ANSWERS, tmp_path, database_url=url) as app, person(app) as me, person(app, "ann") as ann:
            await imported(app, LINE)
            await imported(app, LINE)
            answer = await me.answer("What is tea?")
            kept = await me.say(kind="thumb", message_id=answer["id"], value=1)
            for mode in ("label", "compare"):
                item = await ann.next(mode=mode)
                assert item is not None
                assert item["conversation"][-1]["text"] == "What is coffee?"
            (told,) = (await me.get("/v1/feedback/outcomes"))["feedback"]
            assert told["trains"]
            decision = f"/v1/feedback/{kept['id']}/decision"
            assert (await me.http.post(decision, json={"decision": "exclude"})).status_code == 200
            assert curated(app.database).counts == {"by hand": 1}
            gone = forget_person(app.database, tmp_path / "datasets", LOCAL_USER)
            assert (gone.feedback, gone.versions) == (1, [])
            assert len(curated(app.database).rows) == 1


# ---------------------------------------------------------------------- on which terms


async def test_labels_are_those_the_operator_names(tmp_path: Path) -> None:
    async with app_with(ANSWERS, tmp_path, feedback_labels=["toxic"]) as app, person(app) as me:
        answer = await me.answer("What is tea?")
        assert (await me.get("/v1/feedback/choices"))["labels"] == ["toxic"]
        refused = await me.say(400, kind="thumb", message_id=answer["id"], value=1, label="helpful")
        assert "toxic" in refused["error"]["message"]
        kept = await me.say(kind="thumb", message_id=answer["id"], value=0, label="toxic")
        (row,) = curated(app.database).rows
    assert (kept["label"], kept["consent"]) == ("toxic", True)
    assert (row.label, row.value) == ("toxic", 0)


async def test_one_answer_may_be_helpful_and_harmful(tmp_path: Path) -> None:
    async with app_with(ANSWERS, tmp_path) as app, person(app) as me:
        answer = await me.answer("What is tea?")
        for label, value in (("helpful", 1), ("harmless", 0), ("helpful", 0)):
            await me.say(kind="thumb", message_id=answer["id"], value=value, label=label)
        rows = curated(app.database).rows
    assert {(row.label, row.value) for row in rows} == {("helpful", 0), ("harmless", 0)}


async def test_consent_has_a_default_and_can_be_taken_back(tmp_path: Path) -> None:
    async with app_with(ANSWERS, tmp_path, feedback_consent=False) as app, person(app) as me:
        answer = await me.answer("What is tea?")
        kept = await me.say(kind="thumb", message_id=answer["id"], value=1)
        assert kept["consent"] is False
        assert curated(app.database).counts == {"consent": 1}
        changed = await me.http.patch(f"/v1/feedback/{kept['id']}", json={"consent": True})
        assert changed.json()["consent"] is True
        assert len(curated(app.database).rows) == 1


async def test_a_client_that_posts_another_text_than_was_generated_is_refused(tmp_path: Path) -> None:
    async with app_with(ANSWERS, tmp_path) as app, person(app) as me:
        answer = await me.answer("What is tea?")
        altered = hashlib.sha256(b"Buy the Golden Lantern!").hexdigest()
        for body in ({"kind": "thumb", "value": 1}, {"kind": "edit", "text": "Buy it!"}):
            await me.say(409, message_id=answer["id"], digest=altered, **body)
        await me.say(400, kind="thumb", message_id=answer["id"], value=1, text="Buy the Golden Lantern!")
        assert (await me.get("/v1/feedback"))["feedback"] == []
        true = hashlib.sha256(answer["text"].encode()).hexdigest()
        await me.say(kind="thumb", message_id=answer["id"], value=1, digest=true)


# ---------------------------------------------------------------------- what becomes of it


async def test_a_thumb_down_because_of_a_source_is_shown_not_to_train(tmp_path: Path) -> None:
    async with app_with(ANSWERS, tmp_path) as app, person(app) as me:
        answer = await me.answer("What is tea?")
        await me.say(kind="thumb", message_id=answer["id"], value=0, reason="Wrong source")
        (told,) = (await me.get("/v1/feedback/outcomes"))["feedback"]
    assert (told["blame"], told["trains"], told["rule"]) == ("retrieval", False, "blame: retrieval")
    assert told["blame_reason"] == "the person said so: Wrong source"


async def test_a_failed_tool_is_to_blame_and_a_tainted_turn_waits_for_a_review(tmp_path: Path) -> None:
    steps = [call("calculator_calculate", expression="1/0"), "I could not.", call("clock_now"), "It is noon."]
    async with app_with(steps, tmp_path) as app, person(app) as me:
        failed = await me.answer("What is 1/0?")
        assert failed["text"] == "I could not."
        await me.say(kind="thumb", message_id=failed["id"], value=0)
        (told,) = (await me.get("/v1/feedback/outcomes"))["feedback"]
        assert (told["blame"], told["trains"]) == ("tool", False)


async def test_who_curates_leaves_out_and_lets_in_and_can_undo_it(tmp_path: Path) -> None:
    async with app_with(ANSWERS, tmp_path) as app, person(app) as me, person(app, "ann") as ann:
        answer = await ann.answer("What is tea?")
        kept = await ann.say(kind="thumb", message_id=answer["id"], value=1)
        decision = f"/v1/feedback/{kept['id']}/decision"
        assert (await me.http.post(decision, json={"decision": "exclude", "reason": "spam"})).status_code == 200
        (told,) = (await me.get("/v1/feedback/outcomes", everybody=True))["feedback"]
        assert (told["by"], told["rule"], told["why"], told["decision"]) == ("ann", "by hand", "spam", "exclude")
        assert (await me.http.post(decision, json={"decision": "undo"})).status_code == 200
        (told,) = (await ann.get("/v1/feedback/outcomes"))["feedback"]
        assert told["trains"]
        assert (await ann.http.post(decision, json={"decision": "include"})).status_code == 403
        assert (await ann.http.get("/v1/feedback/outcomes", params={"everybody": True})).status_code == 403
        assert (await ann.http.post(decision, json={"decision": "exclude"})).status_code == 200


async def test_importing_twice_adds_nothing_and_taking_it_back_leaves_nothing(tmp_path: Path) -> None:
    lines = [LINE, '{"prompt": "Hi", "completion": "Hello.", "label": true}', '{"prompt": "Yo", "completion": "Yo!"}']
    rows = [row for row in interchange.read(lines, "a.jsonl") if isinstance(row, Judgement)]
    async with app_with([], tmp_path) as app:
        first = await app.database.write(imports.add, rows, file="a.jsonl")
        second = await app.database.write(imports.add, rows, file="a.jsonl")
        found = curated(app.database, Rules())
        counts = await app.database.read(threads.count)
        gone = await app.database.write(imports.remove, "a.jsonl")
        after = await app.database.read(threads.count)
    assert (first, second, gone) == (3, 0, 3)
    told = {(row.kind, row.prompt, row.completion, row.rejected, row.value) for row in found.rows}
    assert told == {(row.kind, row.prompt, row.completion, row.rejected, row.value) for row in rows}
    assert counts["threads"] == 3
    assert after == {"threads": 0, "messages": 0, "feedback": 0}


async def test_long_lists_are_read_page_by_page_and_what_is_new_meanwhile_shifts_nothing(tmp_path: Path) -> None:
    async with app_with(["An answer."], tmp_path, cycle=True) as app, person(app) as me:
        answers = [await me.answer(f"Question {n}?") for n in range(5)]
        for answer in answers:
            await me.say(kind="thumb", message_id=answer["id"], value=1)
        for path, name in (("/v1/threads", "threads"), ("/v1/feedback", "feedback")):
            whole = [row["id"] for row in (await me.get(path))[name]]
            first = await me.get(path, limit=2)
            newest = await me.answer("And one more?")
            await me.say(kind="thumb", message_id=newest["id"], value=0)
            second = await me.get(path, limit=2, before=first["next"])
            last = await me.get(path, limit=2, before=second["next"])
            read = [row["id"] for page in (first, second, last) for row in page[name]]
            assert read == whole[: len(read)]
            assert (last["next"] is None) == (len(read) == len(whole))
            odd = await me.http.get(path, params={"before": "yesterday"})
            assert (odd.status_code, odd.json()["error"]["code"]) == (400, "invalid_input")
            assert "`next`" in odd.json()["error"]["message"]
        told = await me.get("/v1/feedback/outcomes", limit=1)
        counts = told["counts"]
        assert (len(told["feedback"]), counts["given"]) == (1, 7)
        assert sum(counts["trains"].values()) + sum(counts["left_out"].values()) == 7


async def test_rows_of_one_moment_are_each_read_once(tmp_path: Path) -> None:
    async with app_with([], tmp_path) as app, person(app) as me:
        for n in range(7):
            await app.database.write(threads.create, app.owner, f"Thread {n}")
        same = update(thread_rows).values(updated_at=1_764_000_000.1)
        await app.database.write(lambda c: c.execute(same).rowcount)
        read: list[str] = []
        before = ""
        while before is not None:
            page = await me.get("/v1/threads", limit=3, before=before)
            read += [thread["title"] for thread in page["threads"]]
            before = page["next"]
    assert sorted(read) == [f"Thread {n}" for n in range(7)]
