"""`/v1/turns`, `/v1/events` and `/v1/approvals`: following an answer, stopping it, deciding what it may do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from trimtab.app import Trimtab
from trimtab.domain import events as ev
from trimtab.domain.errors import InvalidInput
from trimtab.orchestrator.runner import POLL_SECONDS
from trimtab.store import threads, turns

from . import sse
from .access import App, Known, public
from .threads import Body

router = APIRouter(prefix="/v1", tags=["turns"])

KEEP_ALIVE_SECONDS = 15.0
LONGEST_WAIT = 25.0
END = (ev.TurnFinished.type, ev.TurnFailed.type)


class Decision(Body):
    decision: Literal["approve", "reject"]
    digest: str
    arguments: dict[str, Any] | None = None


@router.get("/turns/{turn_id}")
async def read(app: App, caller: Known, turn_id: str) -> dict[str, Any]:
    turn = await app.database.read(turns.get, caller.id, turn_id)
    text = await app.database.read(turns.draft, turn_id)
    steps = await app.database.read(turns.steps_of, [turn_id])
    return {**public(turn, "options", "runner"), "text": text, "steps": steps.get(turn_id, [])}


@router.post("/turns/{turn_id}/cancel")
async def cancel(app: App, caller: Known, turn_id: str) -> dict[str, Any]:
    return public(await app.cancel(caller.id, turn_id), "options", "runner")


@router.get("/events", response_model=None)
async def events(
    request: Request,
    app: App,
    caller: Known,
    turn: str | None = None,
    thread: str | None = None,
    after: Annotated[int, Query(ge=0)] = 0,
    wait: Annotated[float, Query(ge=0, le=LONGEST_WAIT)] = 0.0,
    last_event_id: Annotated[int | None, Header(alias="Last-Event-ID", ge=0)] = None,
) -> dict[str, Any] | Response:
    after = max(after, last_event_id or 0)
    if turn is None and thread is None:
        raise InvalidInput("Say which events: give 'turn' or 'thread'.")
    if turn is not None:
        row = await app.database.read(turns.get, caller.id, turn)
    else:
        row = await app.database.read(threads.get, caller.id, str(thread))
    topic = row["id"]
    if "text/event-stream" in request.headers.get("accept", ""):
        return sse.response(_stream(app, caller.id, topic, after, one_turn=turn is not None))
    found = await _waited(app, caller.id, topic, after, wait, one_turn=turn is not None)
    listed = [{"seq": seq, "turn_id": turn_id, "event": wire} for seq, turn_id, wire in found]
    return {"events": listed, "cursor": listed[-1]["seq"] if listed else after}


async def _read(
    app: Trimtab, owner: str, topic: str, after: int, one_turn: bool
) -> list[tuple[int, str, dict[str, Any]]]:
    if one_turn:
        return [(seq, topic, wire) for seq, wire in await app.database.read(turns.log, topic, after=after)]
    return await app.database.read(turns.log_of_thread, owner, thread=topic, after=after)


async def _waited(
    app: Trimtab, owner: str, topic: str, after: int, wait: float, *, one_turn: bool
) -> list[tuple[int, str, dict[str, Any]]]:
    """What is logged after `after`; when that is nothing, what comes within `wait` seconds."""
    with app.hub.watch(topic) as watcher:
        found = await _read(app, owner, topic, after, one_turn)
        if found or not wait:
            return found
        # Our own hub knows nothing of what other processes log; where there may be some, the log is asked as well.
        step = POLL_SECONDS if app.database.shared else wait
        until = asyncio.get_running_loop().time() + wait
        while not found and (left := until - asyncio.get_running_loop().time()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(step, left)):
                    while (await watcher.queue.get())[0] <= after:
                        pass
            found = await _read(app, owner, topic, after, one_turn)
        return found


async def _stream(app: Trimtab, owner: str, topic: str, after: int, *, one_turn: bool) -> AsyncIterator[bytes]:
    """The log and then the hub, as server-sent events. One turn's stream ends with it; a thread's goes on."""
    while True:
        found = await _waited(app, owner, topic, after, KEEP_ALIVE_SECONDS, one_turn=one_turn)
        if not found:
            yield sse.KEEP_ALIVE
        for seq, turn_id, wire in found:
            after = seq
            yield sse.line({"seq": seq, "turn_id": turn_id, "event": wire}, id=seq, event=wire["type"])
            if one_turn and wire["type"] in END:
                return


@router.get("/approvals")
async def approvals(app: App, caller: Known) -> dict[str, Any]:
    rows = await app.database.read(turns.pending_approvals, caller.id)
    return {"approvals": [public(row, "status", "decided_at") for row in rows]}


@router.post("/approvals/{approval_id}")
async def decide(app: App, caller: Known, approval_id: str, body: Decision) -> dict[str, Any]:
    turn = await app.decide(caller.id, approval_id, body.decision, digest=body.digest, arguments=body.arguments)
    return public(turn, "options", "runner")
