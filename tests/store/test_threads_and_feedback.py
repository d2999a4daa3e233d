"""Threads, what people say about answers, and what a crash leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from scripted_app import app_with, asked, follow, new_thread, post
from trimtab.app import Trimtab
from trimtab.domain.errors import Conflict, InvalidInput, NotFound
from trimtab.llm.scripted import Say
from trimtab.store import feedback, people, threads, turns
from trimtab.store.export import as_markdown, file_name
from trimtab.store.once import once


async def two_answers(app: Trimtab) -> tuple[dict[str, Any], dict[str, Any]]:
    thread = await new_thread(app)
    await asked(app, "Which is it?", thread=thread)
    first = (await app.database.read(threads.path, app.owner, thread))[-1]
    await follow(app, await app.regenerate(app.owner, first["id"]))
    return first, (await app.database.read(threads.path, app.owner, thread))[-1]


async def test_a_thumb_can_be_turned_and_taken_back(tmp_path: Path) -> None:
    async with app_with(["A."], tmp_path, cycle=True) as app:
        first, _ = await two_answers(app)
        up = await app.database.write(feedback.thumb, app.owner, first["id"], 1, "clear")
        down = await app.database.write(feedback.thumb, app.owner, first["id"], 0, "wrong after all")
        kept = await app.database.read(feedback.listed, app.owner)
        await app.database.write(feedback.withdraw, app.owner, down["id"])
        with pytest.raises(NotFound):
            await app.database.write(feedback.withdraw, app.owner, down["id"])
        assert await app.database.read(feedback.listed, app.owner) == []
    assert up["id"] == down["id"]
    assert [(f["value"], f["reason"], f["generation_digest"]) for f in kept] == [
        (0, "wrong after all", threads.text_digest("A."))
    ]


async def test_preferring_the_other_answer_replaces_the_first_preference(tmp_path: Path) -> None:
    async with app_with(["A.", "B."], tmp_path) as app:
        first, second = await two_answers(app)
        await app.database.write(feedback.prefer, app.owner, first["id"], second["id"])
        await app.database.write(feedback.prefer, app.owner, second["id"], first["id"], "shorter")
        kept = await app.database.read(feedback.listed, app.owner)
    assert [(f["message_id"], f["other_id"], f["reason"]) for f in kept] == [(second["id"], first["id"], "shorter")]


async def test_only_answers_to_the_same_question_can_be_compared(tmp_path: Path) -> None:
    async with app_with(["A."], tmp_path, cycle=True) as app:
        first, _ = await two_answers(app)
        other, _ = await two_answers(app)
        for chosen, rejected in ((first, other), (first, first)):
            with pytest.raises(InvalidInput):
                await app.database.write(feedback.prefer, app.owner, chosen["id"], rejected["id"])


async def test_an_edit_must_change_something_and_leaves_the_answer_as_it_was(tmp_path: Path) -> None:
    async with app_with(["A."], tmp_path, cycle=True) as app:
        first, _ = await two_answers(app)
        for text in ("A.", "  ", "x" * (feedback.EDIT_LIMIT + 1)):
            with pytest.raises(InvalidInput):
                await app.database.write(feedback.edit, app.owner, first["id"], text)
        edited = await app.database.write(feedback.edit, app.owner, first["id"], "A, but better.")
        message = await app.database.read(threads.message_of, app.owner, first["id"])
    assert edited["text"] == "A, but better."
    assert message["text"] == "A."


async def test_a_running_answer_a_question_or_anothers_answer_cannot_be_rated(tmp_path: Path) -> None:
    async with app_with([Say("slow " * 100, delay=0.05)], tmp_path) as app:
        turn = await post(app, "Hello?")
        await follow(app, turn, until=("text.delta",))
        other = await app.database.write(people.ensure_user, "other")
        with pytest.raises(InvalidInput):
            await app.database.write(feedback.thumb, app.owner, turn["answer_id"], 1)
        with pytest.raises(InvalidInput):
            await app.database.write(feedback.thumb, app.owner, turn["question_id"], 1)
        await app.cancel(app.owner, turn["id"])
        with pytest.raises(NotFound):
            await app.database.write(feedback.thumb, other, turn["answer_id"], 1)
        with pytest.raises(InvalidInput):
            await app.database.write(feedback.thumb, app.owner, turn["answer_id"], 2)
        with pytest.raises(InvalidInput):
            await app.database.write(feedback.thumb, app.owner, turn["answer_id"], 1, "x" * 2001)


async def test_a_deleted_thread_takes_everything_of_it_along(tmp_path: Path) -> None:
    async with app_with(["A."], tmp_path, cycle=True) as app:
        first, _ = await two_answers(app)
        await app.database.write(feedback.thumb, app.owner, first["id"], 1)
        await app.database.write(threads.remove, app.owner, first["thread_id"])
        assert await app.database.read(threads.count) == {"threads": 0, "messages": 0, "feedback": 0}
        assert await app.database.read(turns.log, first["turn_id"]) == []
        with pytest.raises(NotFound):
            await app.database.read(threads.path, app.owner, first["thread_id"])


async def test_threads_are_found_by_title_and_words_literally(tmp_path: Path) -> None:
    async with app_with(["100% wool", "plain"], tmp_path) as app:
        await asked(app, "What is it made of?")
        await asked(app, "snake_case?")
        found = {
            text: [t["title"] for t in await app.database.read(threads.find, app.owner, text=text)]
            for text in ("0% w", "%", "_", "MADE", "nowhere")
        }
        renamed = await app.database.read(threads.find, app.owner)
        await app.database.write(threads.rename, app.owner, renamed[0]["id"], "  A  new\nname ")
        with pytest.raises(InvalidInput):
            await app.database.write(threads.rename, app.owner, renamed[0]["id"], " \n ")
        title = (await app.database.read(threads.get, app.owner, renamed[0]["id"]))["title"]
    assert found == {
        "0% w": ["What is it made of?"],
        "%": ["What is it made of?"],
        "_": ["snake_case?"],
        "MADE": ["What is it made of?"],
        "nowhere": [],
    }
    assert title == "A new name"


async def test_events_of_a_thread_come_in_order_and_only_to_its_owner(tmp_path: Path) -> None:
    async with app_with(["A.", "B."], tmp_path) as app:
        thread = await new_thread(app)
        await asked(app, "One?", thread=thread)
        await asked(app, "Two?", thread=thread)
        logged = await app.database.read(turns.log_of_thread, app.owner, thread=thread, after=0)
        later = await app.database.read(turns.log_of_thread, app.owner, thread=thread, after=logged[2][0])
        other = await app.database.write(people.ensure_user, "other")
        assert await app.database.read(turns.log_of_thread, other, thread=thread, after=0) == []
        latest = await app.database.read(turns.latest_seq)
    sequence = [seq for seq, _, _ in logged]
    assert sequence == sorted(set(sequence))
    assert later == logged[3:]
    assert latest == sequence[-1]


async def test_a_thread_can_be_kept_as_markdown(tmp_path: Path) -> None:
    async with app_with(["It is blue."], tmp_path) as app:
        thread = await new_thread(app)
        await asked(app, "What colour?", thread=thread)
        text = as_markdown(
            await app.database.read(threads.get, app.owner, thread),
            await app.database.read(threads.path, app.owner, thread),
        )
    assert text.startswith("# What colour?\n")
    assert "## You\n\nWhat colour?" in text
    assert "## Trimtab\n\nIt is blue." in text
    assert file_name("../../etc/passwd: a title?") == "etc-passwd-a-title.md"


async def test_a_key_belongs_to_one_person_and_one_request(tmp_path: Path) -> None:
    async with app_with([], tmp_path) as app:
        other = await app.database.write(people.ensure_user, "other")

        def create(owner: str, request: str) -> Any:
            return app.database.write(once, owner, "key", [request], lambda c: threads.create(c, owner, request))

        mine, again = await create(app.owner, "a"), await create(app.owner, "a")
        theirs = await create(other, "b")
        with pytest.raises(Conflict):
            await create(app.owner, "b")
    assert mine == again
    assert theirs["id"] != mine["id"]


async def test_keys_are_kept_as_digests_and_can_be_revoked(tmp_path: Path) -> None:
    async with app_with([], tmp_path) as app:
        key = await app.database.write(people.create_key, "ada", "laptop")
        user = await app.database.read(people.user_of_key, key)
        assert user is not None
        assert await app.database.read(people.user_of_key, key + "x") is None
        await app.database.write(people.revoke_key, user["key_id"])
        assert await app.database.read(people.user_of_key, key) is None
        with pytest.raises(NotFound):
            await app.database.write(people.revoke_key, user["key_id"])
    assert key.encode() not in b"".join(p.read_bytes() for p in tmp_path.glob("trimtab.db*"))


CRASHES = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from scripted_app import app_with, new_thread, post
from trimtab.llm.scripted import Say, call

async def main():
    steps = [call("calculator_calculate", expression="2+2"), Say("It is four, and " * 500, delay=0.02)]
    async with app_with(steps, Path(sys.argv[1])) as app:
        turn = await post(app, "2+2?")
        async for seq, _, wire in app.follow(turn["id"]):
            print(wire["type"], turn["id"], wire.get("text", ""), flush=True)

asyncio.run(main())
"""


async def test_a_turn_cut_off_by_kill_nine_is_interrupted_and_keeps_what_it_had(tmp_path: Path) -> None:
    here = str(Path(__file__).parent.parent)
    seen = []
    with subprocess.Popen(
        [sys.executable, "-c", CRASHES, str(tmp_path), here], stdout=subprocess.PIPE, text=True, env={**os.environ}
    ) as process:
        assert process.stdout is not None
        deadline = time.monotonic() + 60
        while sum(line.startswith("text.delta") for line in seen) < 3 and time.monotonic() < deadline:
            seen.append(process.stdout.readline().rstrip("\n"))
        process.send_signal(signal.SIGKILL)
    turn_id = seen[0].split()[1]
    said = "".join(line.split(" ", 2)[2] for line in seen if line.startswith("text.delta"))
    async with app_with(["Yes."], tmp_path) as app:
        turn = await app.database.read(turns.get, app.owner, turn_id)
        line = await app.database.read(threads.path, app.owner, turn["thread_id"])
        events = await follow(app, turn)
        after = await asked(app, "Are you back?", thread=turn["thread_id"])
    assert turn["status"] == line[-1]["status"] == "interrupted"
    assert line[-1]["text"].startswith(said)
    assert events[-1]["type"] == "turn.failed"
    assert events[-1]["text"] == line[-1]["text"]
    assert "tool.finished" in [e["type"] for e in events]
    assert after[-1]["text"] == "Yes."
