"""Statements that go to the driver directly do what they would do through SQLAlchemy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, bindparam, exc, insert, select, update

from trimtab.domain import events as ev
from trimtab.domain.passage import Citation
from trimtab.store import people, prepared, threads, turns
from trimtab.store.database import Database
from trimtab.store.encoding import dumps, of_event
from trimtab.store.migrate import migrate
from trimtab.store.schema import idempotency, users

_RENAME = update(users).where(users.c.id == bindparam("who"))
_NAMES = select(users.c.id, users.c.name).where(users.c.created_at > 0.5, users.c.name != bindparam("but"))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(f"sqlite:///{tmp_path / 'test.db'}")
    migrate(opened.engine)
    yield opened
    opened.close()


def user(name: str) -> dict[str, object]:
    return {"id": f"usr_{name}", "name": name, "created_at": 1}


async def test_what_many_rows_were_given_is_read_back(database: Database) -> None:
    await database.write(prepared.run_each, insert(users), [user(name) for name in "edbca"])
    await database.write(prepared.run, _RENAME, {"who": "usr_a", "name": "z"})
    found = await database.read(prepared.rows, _NAMES, {"but": "z"})
    assert sorted(name for _, name in found) == ["b", "c", "d", "e"]
    assert await database.read(prepared.first, _NAMES, {"but": "nobody"}) is not None


async def test_events_are_numbered_in_the_order_in_which_they_were_written(database: Database) -> None:
    def log(connection: Connection) -> list[list[tuple[int, dict[str, Any]]]]:
        owner = people.ensure_user(connection, "ada")
        thread = threads.create(connection, owner)
        turn = turns.start(connection, owner, thread["id"], "Spell it", runner="run_1", options={})
        told = turns.append(connection, turn, [ev.TextDelta(letter) for letter in "edbca"])
        told += turns.append(connection, turn, [ev.TextDelta("z")])
        return [told, turns.log(connection, turn["id"])]

    told, logged = await database.write(log)
    assert told == logged
    assert "".join(wire["text"] for _, wire in logged) == "edbcaz"


async def test_one_statement_may_be_given_other_columns_each_time(database: Database) -> None:
    await database.write(prepared.run, insert(users), user("ada"))
    await database.write(prepared.run, _RENAME, {"who": "usr_ada", "created_at": 7.0})
    await database.write(prepared.run, _RENAME, {"who": "usr_ada", "name": "Ada", "created_at": 8.0})
    assert await database.read(people_of, 8.0) == [("Ada", 8.0)]


def people_of(connection: Connection, since: float) -> list[tuple[str, float]]:
    return [(row.name, row.created_at) for row in connection.execute(select(users).where(users.c.created_at >= since))]


async def test_json_columns_are_written_as_elsewhere(database: Database) -> None:
    row = {"owner_id": "o", "key": "k", "request_digest": "d", "created_at": 1.0, "response": {"a": [1, "ü", None]}}
    await database.write(prepared.run, insert(idempotency), row)
    read = await database.read(lambda c: c.execute(select(idempotency.c.response)).scalar())
    assert read == row["response"]


async def test_a_broken_constraint_has_the_same_name_and_takes_back_only_its_own(database: Database) -> None:
    await database.write(people.ensure_user, "ada")

    def twice(connection: Connection) -> str:
        with pytest.raises(exc.IntegrityError), connection.begin_nested():
            prepared.run(connection, insert(users), {**user("ada"), "id": "usr_new"})
        prepared.run(connection, insert(users), user("bob"))
        return "went on"

    assert await database.write(twice) == "went on"
    assert [name for _, name in await database.read(prepared.rows, _NAMES, {"but": "ada"})] == ["bob"]


@pytest.mark.parametrize(
    "event",
    [
        ev.ToolsConsidered("guided", (ev.Considered("a", 0.5, "close"),), ("a",), 0.4),
        ev.ToolRequested("c", "t", "k", {"n": 2**70, "text": "half \ud83d"}, "read"),
        ev.ToolRequested("c", "t", "k", {"nul": "a\0b", "back": "\\u0000"}, "read"),
        ev.ToolFinished("c", "t", "k", ev.CallStatus.OK, "x", {1: {"nested": (1, 2)}}, ({"title": "s"},)),
        ev.TurnFinished(
            ev.TurnStatus.DONE,
            "text",
            (Citation(number=1, kind="tool", title="T"),),
            ev.Usage(1, 2, 3),
            ev.Timing(1.5),
            ev.Lineage("m", connectors={"k": "1"}, passages=("p",)),
        ),
        ev.TurnFailed(ev.TurnStatus.FAILED, "code", "message"),
    ],
)
def test_an_event_is_written_as_its_wire_form(event: ev.Event) -> None:
    assert of_event(event) == dumps(ev.to_wire(event))
