"""Trimtab on a real PostgreSQL: alone, and two processes over one database."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, select, update

from postgresql import PASSWORD, PostgreSQL
from scripted_app import Desk, app_with, follow, kinds, new_thread, only, post
from trimtab.api.server import create_app
from trimtab.app import SWEEP_SECONDS, Trimtab
from trimtab.domain import events as ev
from trimtab.domain.document import Chunk, Document
from trimtab.domain.errors import Conflict, InvalidInput, Unavailable
from trimtab.domain.events import TextDelta
from trimtab.llm.scripted import Say, call
from trimtab.own_database import open_database
from trimtab.own_models import open_library_on
from trimtab.settings import Settings
from trimtab.store import feedback, people, runners, schema, threads, turns
from trimtab.store.database import Database
from trimtab.store.documents import SqlDocumentStore
from trimtab.store.migrate import migrate

numbers = itertools.count()
WAITS = ("approval.needed",)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with PostgreSQL() as running:
        yield running


@pytest.fixture
def url(server: PostgreSQL) -> str:
    """An empty database of its own."""
    return server.database(f"story{next(numbers)}")


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    opened = Database(url)
    migrate(opened.engine)
    yield opened
    opened.close()


@asynccontextmanager
async def two(
    url: str, home: Path, first: Iterable[Any], second: Iterable[Any], desk: Desk | None = None
) -> AsyncIterator[tuple[Trimtab, Trimtab]]:
    """Two installations, each with its own folder, over one database."""
    async with (
        app_with(first, home / "one", database_url=url, desk=desk) as one,
        app_with(second, home / "two", database_url=url, desk=desk) as other,
    ):
        yield one, other


async def status_of(app: Trimtab, turn: dict[str, Any], wanted: str) -> None:
    for _ in range(1000):
        if (await app.database.read(turns.get, app.owner, turn["id"]))["status"] == wanted:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"the turn never was {wanted}")


# ---------------------------------------------------------------------- one process


def test_the_migrations_make_what_the_code_describes(database: Database) -> None:
    migrate(database.engine)
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    assert database.check()["ok"]
    assert PASSWORD not in str(database.check())


async def test_a_question_is_answered_with_a_tool_and_rated(tmp_path: Path, url: str) -> None:
    desk = Desk()
    script = [call("desk_look", drawer=3), "Drawer 3 holds 30 pencils."]
    async with app_with(script, tmp_path, database_url=url, desk=desk) as app:
        thread = await new_thread(app)
        events = await follow(app, await post(app, "What is in drawer 3?", thread=thread))
        path = await app.database.read(threads.path, app.owner, thread)
        await app.database.write(feedback.thumb, app.owner, path[-1]["id"], 0, "too short")
        await app.database.write(feedback.thumb, app.owner, path[-1]["id"], 1)
        again = await follow(app, await app.regenerate(app.owner, path[-1]["id"]))
        rated = await app.database.read(feedback.listed, app.owner)
        found = await app.database.read(threads.find, app.owner, text="DRAWER")
    assert desk.ran == ["look 3"]
    assert events[-1]["text"] == path[-1]["text"] == "Drawer 3 holds 30 pencils."
    assert [(r["kind"], r["value"]) for r in rated] == [("thumb", 1)]
    assert [t["title"] for t in found] == ["What is in drawer 3?"]
    assert again[0]["type"] == "turn.started"


async def test_an_approval_survives_a_restart_and_the_call_runs_once(tmp_path: Path, url: str) -> None:
    desk = Desk()
    async with app_with([call("desk_stamp", text="PAID")], tmp_path, database_url=url, desk=desk) as app:
        turn = await post(app, "Stamp it")
        await follow(app, turn, until=WAITS)
        await status_of(app, turn, "waiting")
    async with app_with(["Stamped."], tmp_path, database_url=url, desk=desk) as app:
        (pending,) = await app.database.read(turns.pending_approvals, app.owner)
        await app.decide(app.owner, pending["id"], "approve", digest=pending["digest"])
        events = await follow(app, turn)
        with pytest.raises(Conflict):
            await app.decide(app.owner, pending["id"], "approve", digest=pending["digest"])
    assert desk.ran == ["stamp PAID"]
    assert events[-1]["text"] == "Stamped."


async def test_an_approval_that_nobody_gives_expires(tmp_path: Path, url: str) -> None:
    desk = Desk()
    soon = {"database_url": url, "desk": desk, "approval_hours": 0.2 / 3600}
    async with app_with([call("desk_stamp", text="PAID")], tmp_path, **soon) as app:
        turn = await post(app, "Stamp it")
        await follow(app, turn, until=WAITS)
        await status_of(app, turn, "waiting")
        await asyncio.sleep(0.3)
    async with app_with(["Too late."], tmp_path, **soon) as app:  # what sweeps also sweeps at the start
        events = await follow(app, turn)
    assert desk.ran == []
    assert only(events, "approval.decided")["decision"] == "expired"


async def test_text_that_postgresql_cannot_hold_is_mended_or_refused_by_name(tmp_path: Path, url: str) -> None:
    desk = Desk()
    script = [call("desk_stamp", "call\0" + "x" * 300, text="NU\0L"), "An\0swer."]
    async with app_with(script, tmp_path, database_url=url, desk=desk) as app:
        thread = await new_thread(app)
        turn = await post(app, "Has\0 NUL", thread=thread)
        await follow(app, turn, until=WAITS)
        await status_of(app, turn, "waiting")
        (pending,) = await app.database.read(turns.pending_approvals, app.owner)
        await app.decide(app.owner, pending["id"], "approve", digest=pending["digest"])
        await follow(app, turn)
        question, answer = await app.database.read(threads.path, app.owner, thread)
        thumb = await app.database.write(feedback.thumb, app.owner, answer["id"], 1, "\0")
        assert thumb["reason"] == "\ufffd"
        with pytest.raises(InvalidInput):
            await app.database.read(threads.get, app.owner, "thr_\0")
        await app.database.write(feedback.thumb, app.owner, answer["id"], 1, "fine")
    assert desk.ran == ["stamp NU\ufffdL"]
    assert question["text"] == "Has\ufffd NUL"
    assert answer["text"] == "An\ufffdswer."
    assert threads.text_digest(answer["text"]) == answer["text_digest"]


@pytest.mark.model
def test_documents_are_ingested_searched_replaced_and_deleted(tmp_path: Path, url: str, models_dir: Path) -> None:
    (tmp_path / "models").symlink_to(models_dir, target_is_directory=True)
    settings = Settings.load(home=tmp_path, database_url=url)
    text = "# Boats\n\nThe tender is called Puffin and sleeps two.\n\n# Tides\n\nHigh water is at noon.\n"
    with closing(open_database(settings)) as database:
        owner = database.write_sync(people.ensure_user, "local")
        library, embedder = open_library_on(settings, database)
        with closing(embedder), closing(library):
            kept = library.ingest_bytes(owner, "boats.md", text.encode())
            passages = library.search("What is the tender called?", owner)
            assert "Puffin" in passages[0].text
            library.ingest_bytes(owner, "boats.md", text.replace("Puffin", "Heron").encode())
            assert "Heron" in library.search("What is the tender called?", owner)[0].text
            (document,) = library.documents(owner)
            assert library.check().healthy
        library, embedder = open_library_on(settings, database)  # the indexes are compared with the database
        with closing(embedder), closing(library):
            library.delete(owner, document.id)
            assert library.documents(owner) == []
            assert library.search("What is the tender called?", owner) == []
    assert kept


def test_a_document_with_nul_in_its_text_is_kept_and_its_spans_still_fit(database: Database) -> None:
    store = SqlDocumentStore(database.engine, database.reader)
    text = "One\0two. Three four."
    piece = Chunk("chk_1", "doc_1", 0, start=9, end=20, heading=("A\0B",), context="A\0B", embedder="test")
    store.put([(Document("doc_1", "ada", "a\0.txt", "a\0.txt"), text, [piece])])
    chunk, document, found = store.found("ada", ["chk_1"])["chk_1"]
    assert (found, document.name, chunk.start) == ("Three four.", "a\ufffd.txt", 9)
    assert store.text("ada", "doc_1") == "One\ufffdtwo. Three four."


# ---------------------------------------------------------------------- what goes wrong


async def test_a_write_that_fails_takes_back_only_its_own(database: Database) -> None:
    def name(connection: Connection, number: int) -> int:
        people.ensure_user(connection, f"user {number}")
        if number % 3 == 1:
            raise Conflict("no")
        if number % 3 == 2:
            people.ensure_user(connection, "x" * 121)  # longer than the column
        return number

    held = threading.Event()
    first = asyncio.create_task(database.write(lambda c: held.wait(5)))  # what follows queues up and shares a commit
    await asyncio.sleep(0.05)
    waiting = asyncio.gather(*(database.write(name, n) for n in range(12)), return_exceptions=True)
    await asyncio.sleep(0.05)
    held.set()
    results = await waiting
    await first
    kept = await database.read(lambda c: set(c.execute(select(schema.users.c.name)).scalars()))
    assert kept == {f"user {n}" for n in range(0, 12, 3)}
    assert [type(r) for r in results[:3]] == [int, Conflict, InvalidInput]


def test_a_database_that_cannot_be_opened_says_what_to_do_and_keeps_the_password(
    server: PostgreSQL, tmp_path: Path
) -> None:
    nobody = f"postgresql+psycopg://ada:{PASSWORD}@127.0.0.1:1/nowhere"
    wrong = server.url("postgres", password=PASSWORD[::-1])
    for given in (nobody, server.url("no_such_database"), wrong):
        with pytest.raises(Unavailable, match="database_url") as caught:
            open_database(Settings.load(home=tmp_path, database_url=given))
        assert PASSWORD not in caught.value.message + str(caught.value.detail)
        assert PASSWORD[::-1] not in caught.value.message + str(caught.value.detail)
    for odd in ("mysql://root@127.0.0.1/x", "not a url", "postgresql+asyncpg://127.0.0.1/x"):
        with pytest.raises(InvalidInput):
            open_database(Settings.load(home=tmp_path, database_url=odd))


async def test_a_server_that_restarts_costs_nothing_but_the_time(tmp_path: Path) -> None:
    with PostgreSQL() as server:
        async with app_with(["Before.", "After."], tmp_path, database_url=server.database("kept")) as app:
            thread = await new_thread(app)
            await follow(app, await post(app, "One?", thread=thread))
            server.stop()
            for _ in range(2):
                with pytest.raises(Unavailable, match="cannot be reached"):
                    await post(app, "Two?", thread=thread)
                with pytest.raises(Unavailable):
                    await app.database.read(threads.path, app.owner, thread)
            server.start()
            await follow(app, await post(app, "Two?", thread=thread))
            path = await app.database.read(threads.path, app.owner, thread)
    assert [m["text"] for m in path] == ["One?", "Before.", "Two?", "After."]


# ---------------------------------------------------------------------- several processes


def test_processes_that_start_at_once_on_an_empty_database_all_start(tmp_path: Path, url: str) -> None:
    def start(name: str) -> subprocess.Popen[str]:
        known = {**os.environ, "TRIMTAB_HOME": str(tmp_path / name), "TRIMTAB_DATABASE_URL": url}
        command = [sys.executable, "-m", "trimtab.cli.main", "threads", "list", "--json"]
        return subprocess.Popen(command, env=known, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    for process in [start(f"home{n}") for n in range(3)]:
        said, complaint = process.communicate(timeout=60)
        assert (process.returncode, json.loads(said or "null")) == (0, []), complaint


async def test_a_turn_of_one_is_followed_from_the_other_which_does_not_close_it(tmp_path: Path, url: str) -> None:
    async with app_with([Say("word " * 60, delay=0.02)], tmp_path / "one", database_url=url) as one:
        turn = await post(one, "Slowly?")
        await follow(one, turn, until=("text.delta",))
        async with app_with([], tmp_path / "two", database_url=url) as other:
            assert (await other.database.read(turns.get, other.owner, turn["id"]))["status"] == "running"
            await other._close_abandoned()  # what it does every SWEEP_SECONDS
            seen = await follow(other, turn)
            key = await other.database.write(people.create_key, "local", "test")
            web = httpx.ASGITransport(app=create_app(other))
            async with httpx.AsyncClient(transport=web, base_url="http://127.0.0.1") as client:
                client.headers["Authorization"] = f"Bearer {key}"
                asked = asyncio.create_task(client.get("/v1/events", params={"turn": turn["id"], "wait": 5}))
                listed = (await asked).json()["events"]
    assert seen == await _logged(url, turn)
    assert seen[-1]["type"] == "turn.finished"
    assert [e["event"] for e in listed] == seen


async def _logged(url: str, turn: dict[str, Any]) -> list[dict[str, Any]]:
    with closing(Database(url)) as database:
        return [wire for _, wire in await database.read(turns.log, turn["id"])]


async def test_who_waits_for_events_hears_of_those_of_another_process_soon(tmp_path: Path, url: str) -> None:
    async with two(url, tmp_path, ["Hello."], []) as (one, other):
        thread = await new_thread(one)
        key = await other.database.write(people.create_key, "local", "test")
        web = httpx.ASGITransport(app=create_app(other))
        async with httpx.AsyncClient(transport=web, base_url="http://127.0.0.1") as client:
            client.headers["Authorization"] = f"Bearer {key}"
            began = time.monotonic()
            waiting = asyncio.create_task(client.get("/v1/events", params={"thread": thread, "wait": 20}))
            await asyncio.sleep(0.2)
            await follow(one, await post(one, "Hello?", thread=thread))
            listed = (await waiting).json()["events"]
    assert listed[0]["event"]["type"] == "turn.started"
    assert time.monotonic() - began < 10


async def test_a_turn_of_one_is_stopped_from_the_other(tmp_path: Path, url: str) -> None:
    async with two(url, tmp_path, [Say("word " * 600, delay=0.05)], []) as (one, other):
        turn = await post(one, "At length?")
        await follow(one, turn, until=("text.delta",))
        stopped = await other.cancel(other.owner, turn["id"])
        events = await follow(other, turn)
    assert stopped["status"] == "cancelled"
    assert events[-1]["finish_reason"] == "cancelled"
    assert events[-1]["text"].startswith("word")


async def test_an_approval_asked_by_one_is_given_through_the_other(tmp_path: Path, url: str) -> None:
    desk = Desk()
    async with two(url, tmp_path, [call("desk_stamp", text="PAID")], ["Stamped."], desk) as (one, other):
        turn = await post(one, "Stamp it")
        await follow(one, turn, until=WAITS)
        await status_of(one, turn, "waiting")
        (pending,) = await other.database.read(turns.pending_approvals, other.owner)
        both = [app.decide(app.owner, pending["id"], "approve", digest=pending["digest"]) for app in (other, one)]
        results = await asyncio.gather(*both, return_exceptions=True)
        events = await follow(one, turn)
    assert sum(isinstance(r, Conflict) for r in results) == 1
    assert desk.ran == ["stamp PAID"]
    assert kinds(events).count("tool.finished") == 1


async def test_of_two_questions_at_once_in_one_thread_one_is_refused(tmp_path: Path, url: str) -> None:
    async with two(url, tmp_path, ["One."] * 10, ["Other."] * 10) as (one, other):
        for _ in range(10):
            thread = await new_thread(one)
            both = [post(one, "From one", thread=thread), post(other, "From the other", thread=thread)]
            results = await asyncio.gather(*both, return_exceptions=True)
            turn = next(r for r in results if isinstance(r, dict))
            await follow(one, turn)
            path = await one.database.read(threads.path, one.owner, thread)
            # Either one was refused, or it came after the other's answer: never two branches.
            assert [m["role"] for m in path] == ["user", "assistant"] * (len(path) // 2)
            assert len(path) == 2 * sum(isinstance(r, dict) for r in results)
            assert all(isinstance(r, dict | Conflict) for r in results), results


async def test_one_key_used_at_both_at_once_makes_one_turn(tmp_path: Path, url: str) -> None:
    async with two(url, tmp_path, ["One."] * 10, ["Other."] * 10) as (one, other):
        for n in range(10):
            thread = await new_thread(one)
            both = [post(app, "Once", thread=thread, key=f"key-{n}") for app in (one, other)]
            first, second = await asyncio.gather(*both)
            assert first["id"] == second["id"]
            events = await follow(other, first)
            assert kinds(events).count("turn.started") == 1
        asked = len(one.model.asked) + len(other.model.asked)  # type: ignore[attr-defined]
    assert asked == 10


def test_who_reads_on_after_an_event_misses_none_that_was_numbered_before_it(url: str, database: Database) -> None:
    owner = database.write_sync(people.ensure_user, "ada")

    def begin(connection: Connection) -> dict[str, Any]:
        thread = threads.create(connection, owner)
        return turns.start(connection, owner, thread["id"], "Hello?", runner="run_1", options={})

    first, second = database.write_sync(begin), database.write_sync(begin)
    numbered, go_on = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        turns.append(connection, first, [TextDelta("numbered first, committed late")])
        numbered.set()
        assert go_on.wait(10)

    seen: list[str] = []
    after = 0

    def read_on() -> None:
        nonlocal after
        for seq, _, wire in database.read_sync(turns.log_of_thread, owner, thread=None, after=after):
            after = seq
            seen.append(wire["text"])

    with closing(Database(url)) as other:
        late = threading.Thread(target=database.write_sync, args=(slow,))
        late.start()
        assert numbered.wait(10)
        quick = threading.Thread(target=other.write_sync, args=(turns.append, second, [TextDelta("numbered second")]))
        quick.start()
        quick.join(0.3)
        read_on()
        go_on.set()
        late.join()
        quick.join()
        read_on()
    assert seen == ["numbered first, committed late", "numbered second"]


RUN = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from scripted_app import app_with, follow, post
from trimtab.llm.scripted import Say
async def main():
    async with app_with([Say("word " * 1000, delay=0.05)], Path(sys.argv[1]), database_url=sys.argv[2]) as app:
        turn = await post(app, "At length?")
        await follow(app, turn, until=("text.delta",))
        print(turn["id"], flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_a_turn_whose_process_was_killed_is_closed_once_its_lease_is_over(tmp_path: Path, url: str) -> None:
    here = str(Path(__file__).parent.parent)
    command = [sys.executable, "-c", RUN, str(tmp_path / "one"), url, here]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        turn = {"id": await asyncio.to_thread(process.stdout.readline)}
        turn["id"] = turn["id"].strip()
        process.send_signal(signal.SIGKILL)
    async with app_with(["Again."], tmp_path / "two", database_url=url) as app:
        row = await app.database.read(turns.get, app.owner, turn["id"])
        assert row["status"] == "running"  # it may still be alive, for all anybody knows
        dead = schema.runners.c.id == row["runner"]
        later = update(schema.runners).where(dead).values(seen_at=schema.runners.c.seen_at - runners.LEASE_SECONDS)
        await app.database.write(lambda c: c.execute(later).rowcount)
        await app._close_abandoned()  # what it does every SWEEP_SECONDS
        events = await follow(app, turn)
        await follow(app, await post(app, "Again?", thread=row["thread_id"]))
        left = await app.database.read(lambda c: c.execute(select(schema.runners.c.id)).scalars().all())
    assert events[-1]["code"] == "interrupted"
    assert events[-1]["text"].startswith("word")
    assert len(left) == 1
    assert SWEEP_SECONDS <= 60


async def test_a_process_that_comes_back_too_late_adds_nothing_to_a_closed_turn(tmp_path: Path, url: str) -> None:
    async with app_with([Say("word " * 200, delay=0.05)], tmp_path, database_url=url) as app:
        turn = await post(app, "At length?")
        await follow(app, turn, until=("text.delta",))
        await app.database.write(turns.interrupt_abandoned, ["run_of_another"])  # as if this one had been asleep
        closed = await _logged(url, turn)
        await asyncio.wait(set(app.runner._tasks.values()), timeout=10)
        assert app.runner.running == 0
        row = await app.database.read(turns.get, app.owner, turn["id"])
    assert closed[-1]["type"] == ev.TurnFailed.type
    assert await _logged(url, turn) == closed
    assert row["status"] == "interrupted"
