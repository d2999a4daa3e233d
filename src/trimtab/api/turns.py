"""`/v1/turns`, `/v1/events` and `/v1/approvals`: following an answer, stopping it, deciding what it may do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request
from pydantic import Field
from starlette.responses import Response

from trimtab.app import Trimtab
from trimtab.domain import events as ev
from trimtab.domain.errors import InvalidInput, NotFound, Unauthenticated
from trimtab.orchestrator.runner import POLL_SECONDS
from trimtab.store import consents, threads, turns

from . import sse
from .access import App, Gate, Known, gate_of, public
from .threads import Body

router = APIRouter(prefix="/v1", tags=["turns"])

KEEP_ALIVE_SECONDS = 15.0
CHECK_SECONDS = 5.0
"""How often an open stream asks whether its key still counts and what it shows is still there."""
LONGEST_WAIT = 25.0
END = (ev.TurnFinished.type, ev.TurnFailed.type)


class Remembering(Body):
    """`free` names the arguments that may be anything from now on."""

    free: list[str] = Field(default=[], max_length=100)
    days: float = Field(default=consents.DAYS, gt=0, le=consents.MOST_DAYS)
    when_tainted: bool = False


class Decision(Body):
    decision: Literal["approve", "reject"]
    digest: str
    arguments: dict[str, Any] | None = None
    remember: Remembering | None = None


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
        view = View(gate_of(request), request.headers["authorization"], app, caller.id, topic, turn is not None)
        left = view.gate.watch(caller)
        return sse.response(_stream(view, after), left)
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


@dataclass(frozen=True)
class View:
    """What an open stream shows, and by whose leave."""

    gate: Gate
    authorization: str
    app: Trimtab
    owner: str
    topic: str
    one_turn: bool

    async def may_go_on(self) -> bool:
        """False once the key was revoked, or the turn or thread deleted."""
        try:
            await self.gate.caller(self.authorization)
            await self.app.database.read(turns.get if self.one_turn else threads.get, self.owner, self.topic)
        except (Unauthenticated, NotFound):
            return False
        return True


async def _stream(view: View, after: int) -> AsyncIterator[bytes]:
    """The log and then the hub, as server-sent events. One turn's stream ends with it; a thread's goes on."""
    clock = asyncio.get_running_loop().time
    checked = spoke = clock()
    while True:
        pause = min(CHECK_SECONDS, KEEP_ALIVE_SECONDS)
        found = await _waited(view.app, view.owner, view.topic, after, pause, one_turn=view.one_turn)
        if not found and clock() - spoke >= KEEP_ALIVE_SECONDS:
            spoke = clock()
            yield sse.KEEP_ALIVE
        if clock() - checked >= CHECK_SECONDS:
            if not await view.may_go_on():
                return
            checked = clock()
        for seq, turn_id, wire in found:
            after, spoke = seq, clock()
            yield sse.line({"seq": seq, "turn_id": turn_id, "event": wire}, id=seq, event=wire["type"])
            if view.one_turn and wire["type"] in END:
                return


@router.get("/approvals")
async def approvals(app: App, caller: Known) -> dict[str, Any]:
    rows = await app.database.read(turns.pending_approvals, caller.id)
    return {"approvals": [public(row, "status", "decided_at") for row in rows]}


@router.get("/approvals/remembered")
async def remembered(app: App, caller: Known) -> dict[str, Any]:
    """What runs unasked for this person."""
    rows = await app.database.read(consents.listed, caller.id)
    return {"remembered": rows}


@router.delete("/approvals/remembered/{consent_id}")
async def revoke(app: App, caller: Known, consent_id: str) -> dict[str, Any]:
    return await app.database.write(consents.revoke, caller.id, consent_id)


@router.post("/approvals/{approval_id}")
async def decide(app: App, caller: Known, approval_id: str, body: Decision) -> dict[str, Any]:
    how = body.remember
    remember = consents.Remember(frozenset(how.free), how.days, how.when_tainted) if how else None
    turn = await app.decide(
        caller.id,
        approval_id,
        body.decision,
        digest=body.digest,
        arguments=body.arguments,
        remember=remember,
    )
    return public(turn, "options", "runner")
