"""One writer, acknowledgement after commit, and errors that say what to do."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from trimtab.domain.errors import Conflict, Unavailable
from trimtab.store.database import Database
from trimtab.store.encoding import dumps, whole


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'test.db'}")
    opened.write_sync(lambda c: c.execute(text("CREATE TABLE t (n INTEGER UNIQUE, filler TEXT)")).rowcount)
    yield opened
    opened.close()


def add(connection: Connection, number: int, filler: str = "") -> int:
    connection.execute(text("INSERT INTO t VALUES (:n, :f)"), {"n": number, "f": filler})
    return number


def numbers(connection: Connection) -> list[int]:
    return [row[0] for row in connection.execute(text("SELECT n FROM t ORDER BY n"))]


async def test_a_write_that_fails_takes_back_only_its_own(database: Database) -> None:
    def refuse(connection: Connection, number: int) -> int:
        add(connection, number)
        raise Conflict("no")

    held = threading.Event()
    first = asyncio.create_task(database.write(lambda c: held.wait(5)))  # what follows queues up and shares a commit
    await asyncio.sleep(0.05)
    writes = [database.write(refuse if n % 3 == 0 else add, n) for n in range(30)]
    writes.append(database.write(add, 1))  # breaks a constraint
    waiting = asyncio.gather(*writes, return_exceptions=True)
    await asyncio.sleep(0.05)
    held.set()
    results = await waiting
    await first
    kept = [n for n in range(30) if n % 3]
    assert await database.read(numbers) == kept
    assert [r for r in results if isinstance(r, int)] == kept
    assert sum(isinstance(r, Conflict) for r in results) == 10
    assert isinstance(results[-1], Unavailable)


def test_a_write_alone_that_fails_leaves_nothing_and_the_next_one_works(database: Database) -> None:
    def refuse(connection: Connection) -> None:
        add(connection, 1)
        raise Conflict("no")

    with pytest.raises(Conflict):
        database.write_sync(refuse)
    with pytest.raises(Unavailable):
        database.write_sync(lambda c: c.execute(text("INSERT INTO nowhere VALUES (1)")).rowcount)
    assert database.write_sync(add, 2) == 2
    assert database.read_sync(numbers) == [2]


async def test_what_begins_ahead_of_its_commit_is_told_when_that_fails(database: Database) -> None:
    table = "CREATE TABLE child (n INTEGER REFERENCES t (n) DEFERRABLE INITIALLY DEFERRED)"
    await database.write(lambda c: c.execute(text(table)).rowcount)

    def orphan(connection: Connection) -> int:
        return connection.execute(text("INSERT INTO child VALUES (7)")).rowcount  # refused by COMMIT, not before

    told: list[tuple[str, int]] = []
    kept = database.submit_ahead(lambda value: told.append(("kept", value)), add, 1)
    assert await kept == 1
    lost = database.submit_ahead(lambda value: told.append(("lost", value)), orphan)
    lost.add_done_callback(lambda future: told.append(("failed", 0)) if future.exception() else None)
    with pytest.raises(Unavailable, match="FOREIGN KEY"):
        await lost
    assert told == [("kept", 1), ("lost", 1), ("failed", 0)]
    assert await database.write(add, 2) == 2
    assert await database.read(numbers) == [1, 2]


async def test_what_was_acknowledged_is_seen_by_the_next_read(database: Database) -> None:
    for n in range(50):
        await database.write(add, n)
        assert n in await database.read(numbers)


async def test_a_full_disk_is_a_typed_error_and_costs_nothing_that_was_acknowledged(database: Database) -> None:
    def limit(connection: Connection) -> int:
        used = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        return int(connection.exec_driver_sql(f"PRAGMA max_page_count={used + 5}").scalar_one())

    database.write_sync(limit)
    held = threading.Event()
    first = asyncio.create_task(database.write(lambda c: held.wait(5)))
    await asyncio.sleep(0.05)
    writes = asyncio.gather(*(database.write(add, n, "x" * 3000) for n in range(40)), return_exceptions=True)
    await asyncio.sleep(0.05)
    held.set()
    results = await writes
    await first
    for n in range(100, 140):
        results.append(await asyncio.gather(database.write(add, n, "x" * 3000), return_exceptions=True))
    flat = [r[0] if isinstance(r, list) else r for r in results]
    acknowledged = {r for r in flat if isinstance(r, int)}
    refused = [r for r in flat if isinstance(r, BaseException)]
    assert refused
    assert all(isinstance(r, Unavailable) and "disk is full" in r.message for r in refused)
    assert set(await database.read(numbers)) == acknowledged
    database.write_sync(lambda c: c.exec_driver_sql("PRAGMA max_page_count=1000000").scalar_one())
    assert database.write_sync(add, 1000) == 1000


def test_a_database_that_cannot_be_written_is_a_typed_error(database: Database) -> None:
    database.write_sync(lambda c: c.exec_driver_sql("PRAGMA query_only=ON").close())
    with pytest.raises(Unavailable, match="The database refused"):
        database.write_sync(add, 1)


def test_a_file_that_is_no_database_is_a_typed_error(tmp_path: Path) -> None:
    path = tmp_path / "junk.db"
    path.write_bytes(b"this is not a database, however long one looks at it " * 40)
    database = Database(f"sqlite:///{path}")
    with pytest.raises(Unavailable):
        database.write_sync(add, 1)
    with pytest.raises(Unavailable):
        database.read_sync(numbers)
    database.close()


def test_a_database_held_by_another_program_is_a_typed_error(tmp_path: Path, database: Database) -> None:
    other = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="Another program is holding the database"):
        database.write_sync(add, 1)
    other.execute("ROLLBACK")
    other.close()
    assert database.write_sync(add, 2) == 2


def test_writes_from_many_threads_are_each_kept_once(database: Database) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: database.write_sync(add, n), range(400)))
    assert database.read_sync(numbers) == list(range(400))


def test_closing_writes_what_is_queued_and_refuses_what_comes_after(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'a.db'}")
    database.write_sync(lambda c: c.execute(text("CREATE TABLE t (n INTEGER UNIQUE, filler TEXT)")).rowcount)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(database.write_sync, add, n) for n in range(200)]
        database.close()
        ended = [f.exception(timeout=10) for f in futures]
    again = Database(f"sqlite:///{tmp_path / 'a.db'}")
    kept = again.read_sync(numbers)
    again.close()
    assert kept == [n for n in range(200) if ended[n] is None]
    assert all(isinstance(e, Unavailable) for e in ended if e is not None)
    with pytest.raises(Unavailable):
        database.write_sync(add, 999)


async def test_a_caller_that_gives_up_does_not_stop_the_writer(database: Database) -> None:
    for n in range(20):
        task = asyncio.create_task(database.write(add, n))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await database.write(add, 100) == 100


WRITER = """
import sys
from sqlalchemy import text
from trimtab.store.database import Database
database = Database(sys.argv[1])
database.write_sync(lambda c: c.execute(text("CREATE TABLE IF NOT EXISTS t (n INTEGER UNIQUE, filler TEXT)")).rowcount)
n = database.read_sync(lambda c: c.execute(text("SELECT coalesce(max(n), -1) FROM t")).scalar_one())
while True:
    n += 1
    database.write_sync(lambda c: c.execute(text("INSERT INTO t VALUES (:n, '')"), {"n": n}).rowcount)
    print(n, flush=True)
"""


def test_kill_nine_loses_no_acknowledged_write(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'killed.db'}"
    acknowledged = -1
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(40):
                acknowledged = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split()
            acknowledged = int(rest[-1]) if rest else acknowledged
        database = Database(url)
        assert database.read_sync(numbers)[: acknowledged + 1] == list(range(acknowledged + 1))
        assert database.check()["ok"]
        database.close()


@pytest.mark.parametrize(
    "value",
    [
        {"text": "half \ud83d of a pair"},
        {"\udc00": 1},
        [10**30, -(10**30)],
        {"deep": json.loads("[" * 300 + "]" * 300)},
        {1: "a key that is no text"},
        {"object": object()},
        {"nan": float("nan")},
    ],
)
def test_no_value_is_too_strange_to_be_kept(value: object) -> None:
    assert json.loads(dumps(value)) is not None
    assert dumps(value, sort=True)


def test_halves_of_a_pair_that_meet_are_joined() -> None:
    assert whole("\ud83d" + "\ude00") == "\N{GRINNING FACE}"
    assert whole("plain") == "plain"
