"""What a person has allowed for later runs unasked, exactly as far as they said, and is written down like any call."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Connection, text, update
from typer.testing import CliRunner

from scripted_app import Desk, app_with, asked, follow, new_thread, only, post
from services import LoopbackServices
from trimtab.api.server import create_app
from trimtab.app import Trimtab
from trimtab.cli.connectors import app as command
from trimtab.connect import Connector, Effect
from trimtab.connect.standing import CALLER
from trimtab.domain.errors import InvalidInput, NotFound, Unavailable
from trimtab.llm.scripted import call
from trimtab.own_database import LOCAL_USER
from trimtab.store import audit, consents, people, prepared, threads, turns
from trimtab.store.consents import Remember

NEEDED = ("approval.needed",)
ANY_TEXT = Remember(frozenset({"text"}))


@pytest.fixture
def services() -> Iterator[LoopbackServices]:
    with LoopbackServices() as running:
        yield running


def note(words: str) -> Any:
    return call("notes_add", text=words)


async def approve(app: Trimtab, question: str, remember: Remember | None = None, **how: Any) -> list[dict[str, Any]]:
    """Ask, and approve the call that comes of it."""
    turn = await post(app, question, **how)
    pending = (await follow(app, turn, until=NEEDED))[-1]
    assert pending["type"] == "approval.needed"
    row = await app.database.read(turns.approval, app.owner, pending["approval_id"])
    await app.decide(app.owner, row["id"], "approve", digest=row["digest"], remember=remember)
    return await follow(app, turn)


def refuse_questions(connection: Connection) -> None:
    """Let each question be written, and have the database refuse its commit."""
    key = "REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED"
    connection.execute(text(f"CREATE TABLE doomed (id TEXT {key})"))
    connection.execute(
        text("CREATE TRIGGER doom AFTER INSERT ON turns BEGIN INSERT INTO doomed VALUES ('nobody'); END")
    )


async def is_asked(app: Trimtab, question: str, **how: Any) -> bool:
    """Ask; whether a person is needed. If so the turn is stopped."""
    turn = await post(app, question, **how)
    needed = (await follow(app, turn, until=NEEDED))[-1]["type"] == "approval.needed"
    await app.cancel(app.owner, turn["id"])
    return needed


async def test_nothing_that_was_remembered_is_done_for_a_question_that_could_not_be_kept(
    tmp_path: Path,
    services: LoopbackServices,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = [note("one"), "Done.", note("two"), note("three"), "Done."]
    execute = prepared.execute
    async with app_with(script, tmp_path, services=services) as app:
        thread = await new_thread(app)
        await approve(app, "Note one", ANY_TEXT)
        await app.database.write(refuse_questions)
        model: Any = app.model

        def slowly(connection: Connection, sql: str, arguments: Any = ()) -> Any:
            for _ in range(3000 if sql == "COMMIT" and len(model.asked) < 3 else 0):
                time.sleep(0.01)  # a disk so slow that the model has asked for the call meanwhile
                if len(model.asked) == 3:
                    break
            return execute(connection, sql, arguments)

        monkeypatch.setattr(prepared, "execute", slowly)
        with pytest.raises(Unavailable, match="refused"):
            await post(app, "Note two", thread=thread)
        assert len(model.asked) == 3
        async with asyncio.timeout(30):
            while app.runner.running:
                await asyncio.sleep(0.01)
        await app.database.write(lambda c: c.execute(text("DROP TRIGGER doom")).rowcount)
        assert await app.database.read(threads.path, app.owner, thread) == []
        assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
        await asked(app, "Note three", thread=thread)
    assert list(services.notes.values()) == ["one", "three"]


async def test_what_was_remembered_runs_unasked_until_it_is_revoked(tmp_path: Path, services: LoopbackServices) -> None:
    script = [note("one"), "Done.", note("two"), "Done.", note("three"), "Done."]
    async with app_with(script, tmp_path, services=services) as app:
        await approve(app, "Note one", ANY_TEXT)
        events = await asked(app, "Note two")
        (kept,) = await app.database.read(consents.listed, app.owner)
        await app.database.write(consents.revoke, app.owner, kept["id"])
        assert await app.database.read(consents.listed, app.owner) == []
        assert await is_asked(app, "Note three")
        with pytest.raises(NotFound):
            await app.database.write(consents.revoke, app.owner, kept["id"])
        rows = await app.database.read(audit.rows)
    assert list(services.notes.values()) == ["one", "two"]
    decided = only(events, "approval.decided")
    assert (decided["remembered"], decided["approval_id"]) == (True, kept["id"])
    assert (kept["fixed"], kept["free"], kept["uses"]) == ({}, ["text"], 1)
    assert rows[0]["approval_id"] == kept["id"]


async def test_only_the_same_arguments_are_covered_and_only_for_the_same_person(
    tmp_path: Path, services: LoopbackServices
) -> None:
    async with app_with(
        [note("milk"), "Done.", note("milk"), "Done.", note("silk")], tmp_path, services=services
    ) as app:
        await approve(app, "Note milk", Remember())
        assert not await is_asked(app, "Note milk again")
        assert await is_asked(app, "Note silk")
        other = await app.database.write(people.ensure_user, "other")
        assert await app.database.read(consents.listed, other) == []
        kept = (await app.database.read(consents.listed, app.owner))[0]
        with pytest.raises(NotFound):
            await app.database.write(consents.revoke, other, kept["id"])


async def test_equal_to_python_is_not_the_same(tmp_path: Path) -> None:
    async with app_with(["."], tmp_path, desk=Desk()) as app:
        one = consents.Asked("desk", "desk_set", "d", {"n": 1})
        await app.database.write(consents.keep, app.owner, one, Effect.WRITE, Remember())
        await post(app, "Hello")
        for value, covered in ((True, False), (1.0, False), ("1", False), (1, True)):
            like = consents.Asked("desk", "desk_set", "d", {"n": value})
            row = (await app.database.read(lambda c: c.execute(text("select id from turns")).one()))[0]
            assert bool(await app.database.write(consents.claim, app.owner, like, turn=row, tainted=False)) is covered
        more = consents.Asked("desk", "desk_set", "d", {"n": 1, "force": True})
        assert not await app.database.write(consents.claim, app.owner, more, turn=row, tainted=False)


async def test_once_anything_from_outside_was_read_the_person_is_asked_again(
    tmp_path: Path, services: LoopbackServices
) -> None:
    script = [note("one"), "Done.", call("notes_list_all"), note("two"), "Never said.", note("three"), "Never said."]
    async with app_with(script, tmp_path, services=services) as app:
        thread = await new_thread(app)
        await approve(app, "Note one", ANY_TEXT)
        assert await is_asked(app, "Read my notes and add one", thread=thread)
        # What was read may stand in the answer, which the next question of the thread is shown with.
        model = app.model
        model.steps = [*model.steps[:4], note("three")]  # type: ignore[attr-defined]
        assert await is_asked(app, "Note three", thread=thread)
    assert list(services.notes.values()) == ["one"]


async def test_even_after_reading_counts_where_the_person_said_so_and_once_a_turn(
    tmp_path: Path, services: LoopbackServices
) -> None:
    script = [note("done"), "Done.", call("notes_list_all"), note("done"), note("done")]
    async with app_with(script, tmp_path, services=services) as app:
        await approve(app, "Note done", Remember(when_tainted=True))
        assert await is_asked(app, "Read my notes, and note that it is done")
    assert list(services.notes.values()) == ["done", "done"]


@pytest.mark.parametrize(
    ("effect", "how", "why"),
    [
        (Effect.WRITE, Remember(frozenset({"text"}), when_tainted=True), "exactly these arguments"),
        (Effect.IRREVERSIBLE, Remember(frozenset({"text"})), "leave none free"),
        (Effect.IRREVERSIBLE, Remember(when_tainted=True), "can be undone"),
        (Effect.WRITE, Remember(frozenset({"colour"})), "has no such argument"),
        (Effect.WRITE, Remember(days=0), "days"),
        (Effect.WRITE, Remember(days=3650), "days"),
    ],
)
async def test_what_would_not_be_safe_cannot_be_remembered(
    tmp_path: Path, effect: Effect, how: Remember, why: str
) -> None:
    async with app_with([], tmp_path, desk=Desk()) as app:
        one = consents.Asked("desk", "desk_stamp", "d", {"text": "x"})
        with pytest.raises(InvalidInput, match=why):
            await app.database.write(consents.keep, app.owner, one, effect, how)


async def test_an_approval_that_cannot_be_remembered_is_not_given_either(
    tmp_path: Path, services: LoopbackServices
) -> None:
    async with app_with([note("one"), "Done."], tmp_path, services=services) as app:
        with pytest.raises(InvalidInput):
            await approve(app, "Note one", Remember(frozenset({"text"}), when_tainted=True))
        assert [row["status"] for row in await app.approvals()] == ["pending"]
    assert services.notes == {}


async def test_a_tool_that_says_something_else_of_itself_asks_again(tmp_path: Path) -> None:
    done: list[str] = []

    def desk(promise: str) -> Connector:
        connector = Connector(name="lamp", version="1", description="A lamp.")

        async def switch() -> str:
            done.append(promise)
            return "Done."

        switch.__doc__ = promise
        connector.tool(effect=Effect.WRITE, untrusted=False)(switch)
        connector.standing = CALLER  # type: ignore[attr-defined]
        return connector

    script = [call("lamp_switch"), "Done.", call("lamp_switch"), "Done.", call("lamp_switch")]
    async with app_with(script, tmp_path) as app:
        app.toolbox.add(desk("Switch the lamp."))
        await approve(app, "Light", Remember())
        assert not await is_asked(app, "Light")
        app.toolbox.remove("lamp")
        app.toolbox.add(desk("Switch everything."))
        assert await is_asked(app, "Light")
    assert done == ["Switch the lamp."] * 2


async def test_a_remembered_approval_ends_on_its_day(tmp_path: Path, services: LoopbackServices) -> None:
    async with app_with([note("one"), "Done.", note("one")], tmp_path, services=services) as app:
        await approve(app, "Note one", Remember())
        over = update(consents.consents).values(expires_at=1.0)
        await app.database.write(lambda c: c.execute(over).rowcount)
        assert await app.database.read(consents.listed, app.owner) == []
        assert await is_asked(app, "Note one")


async def test_a_connector_without_a_badge_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    connector = Connector(name="lamp", version="1", description="A lamp.")

    @connector.tool(effect=Effect.WRITE)
    async def switch() -> str:
        """Switch the lamp."""
        raise AssertionError("it ran")

    async with app_with([call("lamp_switch"), "It is read-only."], tmp_path) as app:
        app.toolbox.add(connector)
        events = await asked(app, "Light")
    assert "approval.needed" not in [e["type"] for e in events]
    assert "trimtab connectors check lamp" in only(events, "tool.finished")["text"]


async def test_over_http_a_person_remembers_lists_and_revokes_their_own_and_the_operator_reads_the_log(
    tmp_path: Path, services: LoopbackServices
) -> None:
    async with app_with([note("one"), "Done.", note("two"), "Done."], tmp_path, services=services) as app:
        mine = await app.database.write(people.create_key, LOCAL_USER, "test")
        other = await app.database.write(people.create_key, "bo", "test")
        transport = httpx.ASGITransport(create_app(app), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:

            async def ask(method: str, path: str, key: str = mine, **more: Any) -> httpx.Response:
                return await client.request(method, path, headers={"Authorization": f"Bearer {key}"}, **more)

            turn = await post(app, "Note one")
            await follow(app, turn, until=NEEDED)
            (pending,) = (await ask("GET", "/v1/approvals")).json()["approvals"]
            decision = {"decision": "approve", "digest": pending["digest"]}
            for unsafe in ({"days": 1000}, {"free": ["text"], "when_tainted": True}, {"free": ["colour"]}):
                refused = await ask("POST", f"/v1/approvals/{pending['id']}", json={**decision, "remember": unsafe})
                assert refused.status_code in (400, 422)
            body = {**decision, "remember": {"free": ["text"], "days": 7}}
            assert (await ask("POST", f"/v1/approvals/{pending['id']}", json=body)).status_code == 200
            await follow(app, turn)
            assert only(await asked(app, "Note two"), "approval.decided")["remembered"]
            (kept,) = (await ask("GET", "/v1/approvals/remembered")).json()["remembered"]
            assert (kept["tool"], kept["free"], kept["uses"]) == ("notes_add", ["text"], 1)
            assert (await ask("GET", "/v1/approvals/remembered", other)).json() == {"remembered": []}
            one = f"/v1/approvals/remembered/{kept['id']}"
            assert (await ask("DELETE", one, other)).status_code == 404
            assert (await ask("DELETE", one)).status_code == 200
            assert (await ask("DELETE", one)).status_code == 404
            hand = {"tool": "add", "arguments": {"text": "by hand"}, "confirm": True}
            assert (await ask("POST", "/v1/connectors/notes/call", json=hand)).status_code == 200
            calls = (await ask("GET", "/v1/audit?connector=notes&limit=10")).json()["calls"]
            assert [(c["via"], c["status"]) for c in calls] == [("hand", "ok"), ("hand", "begun")] + [
                ("turn", "ok")
            ] * 2
            assert (await ask("GET", "/v1/audit/check")).json()["whole"]
            assert len((await ask("GET", "/v1/audit/mine")).json()["calls"]) == 4
            assert (await ask("GET", "/v1/audit/mine", other)).json() == {"calls": []}
            for path in ("/v1/audit", "/v1/audit/check"):
                assert (await ask("GET", path, other)).status_code == 403
    assert list(services.notes.values()) == ["one", "two", "by hand"]


# ---------------------------------------------------------------------- the audit log


async def test_every_call_is_written_down_with_who_and_how_it_ended(tmp_path: Path, services: LoopbackServices) -> None:
    script = [call("notes_list_all"), call("notes_add", text=""), note("one"), "Done."]
    async with app_with(script, tmp_path, services=services) as app:
        turn = await post(app, "Read, then note")
        pending = (await follow(app, turn, until=NEEDED))[-1]
        row = await app.database.read(turns.approval, app.owner, pending["approval_id"])
        await app.decide(app.owner, row["id"], "approve", digest=row["digest"], arguments={"text": "edited"})
        await follow(app, turn)
        rows = await app.database.read(audit.rows, turn=turn["id"])
        checked = await app.database.read(audit.check, rows[1]["digest"])
    told = [(r["tool"], r["effect"], r["status"], r["approval_id"]) for r in reversed(rows)]
    assert told == [
        ("notes_list_all", "read", "ok", ""),
        ("notes_add", "write", "invalid", ""),
        ("notes_add", "write", "ok", row["id"]),
    ]
    assert {(r["owner_id"], r["turn_id"], r["via"]) for r in rows} == {(app.owner, turn["id"], "turn")}
    assert rows[0]["arguments_digest"] == turns.call_digest("notes_add", {"text": "edited"}, app.owner)
    assert "edited" not in json.dumps(rows)
    assert (checked["whole"], checked["rows"], checked["noted"]) == (True, 3, True)


async def test_no_row_can_be_changed_and_one_that_was_shows(tmp_path: Path, services: LoopbackServices) -> None:
    script = [call("notes_list_all"), "None."]
    async with app_with(script, tmp_path, services=services, cycle=True) as app:
        for _ in range(4):
            await asked(app, "Read my notes")
        last = (await app.database.read(audit.rows, limit=1))[0]["digest"]
        for change in ("DELETE FROM audit_log WHERE seq = 2", "UPDATE audit_log SET status = 'ok'"):
            with pytest.raises(Unavailable, match="append-only"):
                await app.database.write(lambda c, change=change: c.execute(text(change)).rowcount)
        assert (await app.database.read(audit.check))["whole"]
        path = str(app.database.url.database)

        def tamper(*statements: str) -> None:
            with sqlite3.connect(path) as raw:
                raw.execute("DROP TRIGGER IF EXISTS audit_log_no_DELETE")
                for statement in statements:
                    raw.execute(statement)
            raw.close()

        tamper("DELETE FROM audit_log WHERE seq = 4")
        assert await app.database.read(audit.check, last) == {
            "whole": True, "rows": 3, "digest": (await app.database.read(audit.rows, limit=1))[0]["digest"],
            "broken_at": None, "noted": False,
        }  # fmt: skip
        tamper("DELETE FROM audit_log WHERE seq = 2")
        assert (await app.database.read(audit.check))["broken_at"] == 3


def test_the_commands_list_revoke_and_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path))

    def run(*words: str) -> str:
        result = CliRunner().invoke(command, list(words))
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output

    assert "Nothing is remembered" in run("approvals")
    assert "No call yet" in run("audit")
    run("call", "calculator.calculate", "--arg", "expression=2+2")
    shown = run("audit", "calculator")
    assert "calculator_calculate (read)" in shown
    assert "local, hand" in shown
    (row,) = json.loads(run("audit", "--json"))
    assert "1 rows, none changed" in run("audit", "--check", "--noted", row["digest"])
    assert "not in the log" in run("audit", "--noted", "0" * 63 + "1")
    with pytest.raises(NotFound):
        run("approvals", "--revoke", "con_none")
