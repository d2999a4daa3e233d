"""What changes something outside waits for a person, who approves, edits or rejects exactly what was shown, once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from scripted_app import Desk, app_with, follow, new_thread, only, post
from services import LoopbackServices
from trimtab.app import Ask, Trimtab
from trimtab.domain.errors import Conflict, InvalidInput, NotFound
from trimtab.llm.scripted import call
from trimtab.store import people, threads, turns
from trimtab.store.schema import approvals

WAITS = ("approval.needed",)
SCRIPT = (call("notes_add", text="buy milk"), "It is noted.")


@pytest.fixture
def services() -> Iterator[LoopbackServices]:
    with LoopbackServices() as running:
        yield running


async def waiting(app: Trimtab, turn: dict[str, Any]) -> dict[str, Any]:
    """The approval a turn waits for, once it does."""
    await follow(app, turn, until=WAITS)
    for _ in range(3000):
        if (await app.database.read(turns.get, app.owner, turn["id"]))["status"] == "waiting":
            break
        await asyncio.sleep(0.01)
    return (await app.database.read(turns.pending_approvals, app.owner))[0]


async def test_a_write_waits_for_approval_and_then_runs_once(tmp_path: Path, services: LoopbackServices) -> None:
    async with app_with(SCRIPT, tmp_path, services=services) as app:
        turn = await post(app, "Note: buy milk")
        pending = await waiting(app, turn)
        assert services.notes == {}
        assert (pending["tool"], pending["arguments"], pending["effect"]) == (
            "notes_add",
            {"text": "buy milk"},
            "write",
        )
        await app.decide(app.owner, pending["id"], "approve", digest=pending["digest"])
        events = await follow(app, turn)
        with pytest.raises(Conflict):
            await app.decide(app.owner, pending["id"], "approve", digest=pending["digest"])
    assert list(services.notes.values()) == ["buy milk"]
    assert only(events, "approval.decided")["decision"] == "approve"
    assert events[-1]["text"] == "It is noted."


async def test_a_person_edits_the_call_and_the_edited_call_runs(tmp_path: Path, services: LoopbackServices) -> None:
    async with app_with(SCRIPT, tmp_path, services=services) as app:
        turn = await post(app, "Note: buy milk")
        pending = await waiting(app, turn)
        with pytest.raises(InvalidInput):
            await app.decide(app.owner, pending["id"], "approve", digest=pending["digest"], arguments={"text": ""})
        await app.decide(app.owner, pending["id"], "approve", digest=pending["digest"], arguments={"text": "oat milk"})
        await follow(app, turn)
    assert list(services.notes.values()) == ["oat milk"]


async def test_a_rejected_call_is_never_run_and_the_model_is_told(tmp_path: Path, services: LoopbackServices) -> None:
    async with app_with([SCRIPT[0], "As you wish."], tmp_path, services=services) as app:
        turn = await post(app, "Note: buy milk")
        pending = await waiting(app, turn)
        await app.decide(app.owner, pending["id"], "reject", digest=pending["digest"])
        events = await follow(app, turn)
        told = app.model.asked[1].messages[-1].text  # type: ignore[attr-defined]
    assert services.notes == {}
    assert only(events, "tool.finished")["status"] == "rejected"
    assert "did not allow" in told


async def test_an_approval_is_bound_to_what_was_shown(tmp_path: Path, services: LoopbackServices) -> None:
    async with app_with(SCRIPT, tmp_path, services=services) as app:
        turn = await post(app, "Note: buy milk")
        pending = await waiting(app, turn)
        shown_otherwise = turns.call_digest("notes_add", {"text": "buy silk"}, app.owner)
        assert pending["digest"] == turns.call_digest("notes_add", {"text": "buy milk"}, app.owner)
        with pytest.raises(Conflict):
            await app.decide(app.owner, pending["id"], "approve", digest=shown_otherwise)
        with pytest.raises(InvalidInput):
            await app.decide(app.owner, pending["id"], "perhaps", digest=pending["digest"])
        other = await app.database.write(people.ensure_user, "other")
        with pytest.raises(NotFound):
            await app.decide(other, pending["id"], "approve", digest=pending["digest"])
        assert await app.database.read(turns.pending_approvals, other) == []
        assert services.notes == {}
        await app.cancel(app.owner, turn["id"])


async def test_ten_approvals_of_one_call_at_once_run_it_once(tmp_path: Path, services: LoopbackServices) -> None:
    async with app_with(SCRIPT, tmp_path, services=services) as app:
        turn = await post(app, "Note: buy milk")
        pending = await waiting(app, turn)
        tries = [app.decide(app.owner, pending["id"], "approve", digest=pending["digest"]) for _ in range(10)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        await follow(app, turn)
    assert sum(isinstance(r, Conflict) for r in results) == 9
    assert list(services.notes.values()) == ["buy milk"]


async def test_an_approval_that_nobody_gives_expires(tmp_path: Path, services: LoopbackServices) -> None:
    async with app_with([SCRIPT[0], "Too late."], tmp_path, services=services, approval_hours=0.3 / 3600) as app:
        turn = await post(app, "Note: buy milk")
        pending = (await follow(app, turn, until=WAITS))[-1]
        await asyncio.sleep(0.4)
        row = await app.database.read(turns.approval, app.owner, pending["approval_id"])
        with pytest.raises(Conflict):
            await app.decide(app.owner, row["id"], "approve", digest=row["digest"])
    async with app_with(["Too late."], tmp_path, services=services) as app:  # what sweeps also sweeps at the start
        events = await follow(app, turn)
    assert services.notes == {}
    assert only(events, "approval.decided")["decision"] == "expired"
    assert only(events, "tool.finished")["status"] == "rejected"


async def test_a_pending_approval_survives_a_restart_and_runs_once(tmp_path: Path, services: LoopbackServices) -> None:
    async with app_with(SCRIPT[:1], tmp_path, services=services) as app:
        thread = await new_thread(app)
        turn = await post(app, "Note: buy milk", thread=thread)
        pending = await waiting(app, turn)
    async with app_with(SCRIPT[1:], tmp_path, services=services) as app:
        assert (await app.database.read(turns.pending_approvals, app.owner))[0]["id"] == pending["id"]
        await app.decide(app.owner, pending["id"], "approve", digest=pending["digest"])
        events = await follow(app, turn)
        shown = app.model.asked[0].messages  # type: ignore[attr-defined]
        answer = (await app.database.read(threads.path, app.owner, thread))[-1]
    assert list(services.notes.values()) == ["buy milk"]
    assert [m.type for m in shown][-3:] == ["human", "ai", "tool"]
    assert events[-1]["text"] == answer["text"] == "It is noted."


async def test_a_decision_that_was_kept_just_before_a_crash_is_carried_out_at_the_next_start(
    tmp_path: Path, services: LoopbackServices
) -> None:
    async with app_with(SCRIPT[:1], tmp_path, services=services) as app:
        turn = await post(app, "Note: buy milk")
        pending = await waiting(app, turn)
        # The decision is on disk; the process ends before the turn is taken up.
        await app.database.write(turns.decide, app.owner, pending["id"], "approve", digest=pending["digest"])
    async with app_with(SCRIPT[1:], tmp_path, services=services) as app:
        await follow(app, turn)
    assert list(services.notes.values()) == ["buy milk"]


async def test_stopping_a_turn_that_waits_makes_its_approval_useless(
    tmp_path: Path, services: LoopbackServices
) -> None:
    async with app_with(SCRIPT, tmp_path, services=services) as app:
        thread = await new_thread(app)
        turn = await post(app, "Note: buy milk", thread=thread)
        pending = await waiting(app, turn)
        assert (await app.cancel(app.owner, turn["id"]))["status"] == "cancelled"
        with pytest.raises(Conflict):
            await app.decide(app.owner, pending["id"], "approve", digest=pending["digest"])
        assert await app.database.read(turns.pending_approvals, app.owner) == []
        await follow(app, await post(app, "Anything else?", thread=thread))
    assert services.notes == {}


async def test_where_nobody_can_approve_nothing_with_effects_runs(tmp_path: Path, services: LoopbackServices) -> None:
    async with app_with(SCRIPT, tmp_path, services=services) as app:
        turn = await app.post(app.owner, await new_thread(app), "Note: buy milk", how=Ask(can_approve=False))
        events = await follow(app, turn)
    assert services.notes == {}
    assert only(events, "tool.finished")["status"] == "rejected"


async def test_each_of_two_writes_needs_its_own_approval(tmp_path: Path, services: LoopbackServices) -> None:
    both = call("notes_add", "a", text="one")
    both.tool_calls += call("notes_add", "b", text="two").tool_calls
    async with app_with([both, "Done."], tmp_path, services=services) as app:
        turn = await post(app, "Two notes")
        await waiting(app, turn)
        first, second = await app.database.read(turns.pending_approvals, app.owner)
        await app.decide(app.owner, second["id"], "approve", digest=second["digest"])
        for _ in range(200):
            if services.notes and (await app.database.read(turns.get, app.owner, turn["id"]))["status"] == "waiting":
                break
            await asyncio.sleep(0.01)
        assert list(services.notes.values()) == ["two"]
        await app.decide(app.owner, first["id"], "reject", digest=first["digest"])
        events = await follow(app, turn)
    assert list(services.notes.values()) == ["two"]
    assert sorted(e["status"] for e in events if e["type"] == "tool.finished") == ["ok", "rejected"]


async def test_reading_outside_text_is_said_where_approval_is_asked(tmp_path: Path, services: LoopbackServices) -> None:
    script = [call("notes_list_all"), call("notes_add", text="owned"), "Done."]
    async with app_with(script, tmp_path, services=services) as app:
        turn = await post(app, "Read my notes")
        pending = await waiting(app, turn)
        await app.decide(app.owner, pending["id"], "reject", digest=pending["digest"])
        await follow(app, turn)
    assert "outside content" in pending["reason"]
    assert services.notes == {}


async def test_a_tool_that_is_gone_after_the_restart_is_reported_not_run(tmp_path: Path) -> None:
    desk = Desk()
    async with app_with([call("desk_stamp", text="PAID")], tmp_path, desk=desk) as app:
        turn = await post(app, "Stamp it")
        pending = await waiting(app, turn)
    async with app_with(["It is gone."], tmp_path) as app:
        await app.decide(app.owner, pending["id"], "approve", digest=pending["digest"])
        events = await follow(app, turn)
    assert desk.ran == []
    assert only(events, "tool.finished")["status"] == "invalid"


async def test_an_old_approval_is_refused_even_before_it_was_swept(tmp_path: Path, services: LoopbackServices) -> None:
    async with app_with(SCRIPT, tmp_path, services=services) as app:
        turn = await post(app, "Note: buy milk")
        pending = await waiting(app, turn)
        past = update(approvals).values(expires_at=time.time() - 1)
        await app.database.write(lambda c: c.execute(past).rowcount)
        with pytest.raises(Conflict):
            await app.decide(app.owner, pending["id"], "approve", digest=pending["digest"])
    assert services.notes == {}
