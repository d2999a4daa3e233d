"""Turns that end badly: nothing approved runs late or differently, nothing begun is hidden, nothing is stuck."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.messages.tool import tool_call
from sqlalchemy import update

from scripted_app import Desk, app_with, follow, new_thread, only, post
from trimtab.app import Trimtab
from trimtab.connect import Connector, Effect
from trimtab.connect.standing import CALLER
from trimtab.domain import events as ev
from trimtab.domain.errors import Unavailable
from trimtab.llm.scripted import Say, call
from trimtab.store import turns
from trimtab.store.schema import approvals
from trimtab.store.schema import turns as turn_rows


class Slow:
    """One tool with an optional value that changes things, slowly."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.began: list[str] = []
        self.ended: list[str] = []
        self.connector = Connector(name="slow", version="1", description="Slow things.")
        self.connector.standing = CALLER  # type: ignore[attr-defined]  # as if its badge were current

        async def wipe(folder: Annotated[str, "Which folder"] = "nothing") -> str:
            """Wipe a folder."""
            self.began.append(folder)
            await asyncio.sleep(seconds)
            self.ended.append(folder)
            return "Wiped."

        self.connector.tool(effect=Effect.IRREVERSIBLE)(wipe)


async def pending(app: Trimtab, turn: dict[str, Any]) -> dict[str, Any]:
    await follow(app, turn, until=("approval.needed",))
    for _ in range(3000):
        if (await app.database.read(turns.get, app.owner, turn["id"]))["status"] == "waiting":
            break
        await asyncio.sleep(0.01)
    return (await app.approvals())[0]


async def test_an_edit_to_nothing_runs_with_nothing(tmp_path: Path) -> None:
    slow = Slow()
    async with app_with([call("slow_wipe", folder="photos"), "Done."], tmp_path) as app:
        app.toolbox.add(slow.connector)
        turn = await post(app, "Clean up")
        asked = await pending(app, turn)
        await app.decide(app.owner, asked["id"], "approve", digest=asked["digest"], arguments={})
        await follow(app, turn)
    assert slow.ended == ["nothing"]


async def test_a_decision_that_was_not_taken_up_in_time_is_not_carried_out_late(tmp_path: Path) -> None:
    slow = Slow()
    async with app_with([call("slow_wipe", folder="photos")], tmp_path) as app:
        app.toolbox.add(slow.connector)
        turn = await post(app, "Clean up")
        asked = await pending(app, turn)
        await app.database.write(turns.decide, app.owner, asked["id"], "approve", digest=asked["digest"])
        late = update(approvals).values(expires_at=time.time() - 1)
        await app.database.write(lambda c: c.execute(late).rowcount)
    async with app_with(["I did nothing."], tmp_path) as app:
        app.toolbox.add(slow.connector)
        events = await follow(app, turn)
    assert [e["decision"] for e in events if e["type"] == "approval.decided"] == ["approve", "expired"]
    assert slow.began == []


async def test_an_approved_action_that_is_cut_off_leaves_a_trace(tmp_path: Path) -> None:
    slow = Slow(60.0)
    async with app_with([call("slow_wipe", folder="photos"), "Done."], tmp_path) as app:
        app.toolbox.add(slow.connector)
        turn = await post(app, "Clean up")
        asked = await pending(app, turn)
        await app.decide(app.owner, asked["id"], "approve", digest=asked["digest"])
        for _ in range(3000):
            if slow.began:
                break
            await asyncio.sleep(0.01)
        await app.cancel(app.owner, turn["id"])
        events = await follow(app, turn)
    finished = only(events, "tool.finished")
    assert finished["status"] == "cancelled"
    assert "not known" in finished["text"]
    assert slow.ended == []


async def test_one_message_cannot_ask_for_more_calls_than_the_limit(tmp_path: Path) -> None:
    many = AIMessage(
        "", tool_calls=[tool_call(name="desk_look", args={"drawer": 1 + i % 9}, id=f"c{i}") for i in range(60)]
    )
    desk = Desk()
    async with app_with([many, "Enough."], tmp_path, desk=desk) as app:
        turn = await post(app, "Look everywhere")
        events = await follow(app, turn)
    limit = app.orchestrator.limits.calls
    assert len(desk.ran) == limit
    assert desk.most_at_once <= 6
    statuses = [e["status"] for e in events if e["type"] == "tool.finished"]
    assert statuses.count("cancelled") == 60 - limit
    assert events[-1]["status"] == "done"


async def test_a_turn_whose_end_could_not_be_kept_can_still_be_stopped(tmp_path: Path) -> None:
    async with app_with([Say("It goes on and on.", delay=0.05), "Next."], tmp_path) as app:
        thread = await new_thread(app)
        turn = await post(app, "Talk", thread=thread)
        await follow(app, turn)
        # As after a full disk: the row says running, and nobody runs it.
        stuck = update(turn_rows).where(turn_rows.c.id == turn["id"]).values(status="running")
        await app.database.write(lambda c: c.execute(stuck).rowcount)
        stopped = await app.cancel(app.owner, turn["id"])
        assert stopped["status"] == "cancelled"
        again = await post(app, "And now?", thread=thread)
        assert (await follow(app, again))[-1]["text"] == "Next."


async def test_a_second_process_is_refused_and_disturbs_nothing(tmp_path: Path) -> None:
    async with app_with([Say("A long answer, slowly told.", delay=0.05)], tmp_path) as app:
        turn = await post(app, "Talk")
        with pytest.raises(Unavailable, match="another process"):
            async with app_with(["Hello."], tmp_path):
                pass
        events = await follow(app, turn)
    assert [e["type"] for e in events].count("turn.finished") == 1
    assert "turn.failed" not in [e["type"] for e in events]


def test_only_calls_that_were_approved_and_have_no_result_are_left_open() -> None:
    asked = ev.ToolRequested("c1", "notes_add", "notes", {}, "write")
    approved = ev.ApprovalDecided("a1", "c1", "approve")
    done = ev.ToolFinished("c1", "notes_add", "notes", ev.CallStatus.OK, "ok")
    assert [r.call_id for r in ev.left_open([asked, approved])] == ["c1"]
    assert ev.left_open([asked]) == []
    assert ev.left_open([asked, approved, done]) == []
    assert ev.left_open([asked, approved, ev.ApprovalDecided("a1", "c1", "expired")]) == []


async def test_a_stop_that_meets_a_decision_stops_the_turn_and_nothing_follows_its_end(tmp_path: Path) -> None:
    slow = Slow(60.0)
    async with app_with([call("slow_wipe", folder="photos"), "Done."], tmp_path) as app:
        app.toolbox.add(slow.connector)
        turn = await post(app, "Clean up")
        asked = await pending(app, turn)
        decision = app.decide(app.owner, asked["id"], "approve", digest=asked["digest"])
        stopping = asyncio.create_task(app.cancel(app.owner, turn["id"]))
        await asyncio.gather(decision, stopping, return_exceptions=True)
        await app.cancel(app.owner, turn["id"])
        await app.database.write(turns.close_orphans, app.runner.id, app.runner.turns())
        await asyncio.sleep(0.2)
        types = [wire["type"] for _, wire in await app.database.read(turns.log, turn["id"])]
    assert types.count("turn.finished") == 1
    assert types[-1] == "turn.finished"
    assert slow.ended == []
