"""Turns and the append-only event log that every face reads.

A turn's row, its question, its (still empty) answer and its first events are written in one transaction. Each later
batch of events changes the turn's status and the answer with it, so log, turn and answer never disagree.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, func, or_, select, update

from trimtab.domain import events as ev
from trimtab.domain import ids
from trimtab.domain.errors import Conflict, InvalidInput, NotFound

from . import audit, consents, prepared
from . import threads as _threads
from .encoding import of_event
from .schema import approvals, events, messages, threads, turns

ORPHAN_SECONDS = 30.0
ACTIVE = (ev.TurnStatus.RUNNING, ev.TurnStatus.WAITING)

# Statements of every turn (see `prepared.py`), and some that are often read.
_ACTIVE = select(turns.c.id).where(
    turns.c.thread_id == bindparam("thread"), or_(*(turns.c.status == status.value for status in ACTIVE))
)
_SHOWN = [c for c in turns.c if c.name != "stop_at"]
_ONE = select(*_SHOWN).where(turns.c.id == bindparam("turn"), turns.c.owner_id == bindparam("owner"))
_OPEN = turns.insert()
_READ = (
    select(events.c.seq, events.c.data)
    .where(events.c.turn_id == bindparam("turn"), events.c.seq > bindparam("after"))
    .order_by(events.c.seq)
    .limit(bindparam("most"))
)
_READ_STEPS = _READ.where(events.c.type != ev.TextDelta.type)
_SETTLE_ANSWER = update(messages).where(messages.c.id == bindparam("answer"))
_SETTLE_TURN = update(turns).where(turns.c.id == bindparam("turn"))
_SETTLE_THREAD = update(threads).where(threads.c.id == bindparam("thread"))


def start(
    connection: Connection,
    owner: str,
    thread_id: str,
    text: str,
    *,
    runner: str,
    options: Mapping[str, Any],
    parent: str | None = None,
) -> dict[str, Any]:
    """Store a question under the thread's head (or `parent`) and open a turn for it."""
    thread = _threads.get(connection, owner, thread_id)
    _refuse_if_active(connection, thread_id)
    if parent is not None:
        before = _threads.message_of(connection, owner, parent)
        if before["thread_id"] != thread_id:
            raise NotFound(f"No message {parent} in thread {thread_id}.")
        if before["role"] != "assistant":
            raise InvalidInput("A question follows an answer. Give the id of an assistant message as its parent.")
    turn_id = ids.new("trn")
    question = _threads.new_message(thread_id, "user", text, parent=parent or thread["head_id"], turn=turn_id)
    named = {}
    if thread["head_id"] is None and thread["title"] == _threads.UNTITLED and text.strip():
        named["title"] = _threads.clean_title(text)
    return _open(connection, owner, thread_id, turn_id, question["id"], runner, options, [question], named)


def regenerate(
    connection: Connection, owner: str, message_id: str, *, runner: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Open another turn for the question that `message_id` answers; the new answer becomes its sibling."""
    answer = _threads.message_of(connection, owner, message_id)
    if answer["role"] != "assistant":
        raise InvalidInput("Only an answer can be generated again. Give the id of an assistant message.")
    _refuse_if_active(connection, answer["thread_id"])
    return _open(connection, owner, answer["thread_id"], ids.new("trn"), answer["parent_id"], runner, options)


def _open(
    connection: Connection,
    owner: str,
    thread_id: str,
    turn_id: str,
    question_id: str,
    runner: str,
    options: Mapping[str, Any],
    before: Sequence[dict[str, Any]] = (),
    changes: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    answer = _threads.new_message(
        thread_id, "assistant", "", parent=question_id, turn=turn_id, status=ev.TurnStatus.RUNNING.value
    )
    _threads.add_messages(connection, thread_id, [*before, answer], **changes)
    row = {
        "id": turn_id,
        "thread_id": thread_id,
        "owner_id": owner,
        "question_id": question_id,
        "answer_id": answer["id"],
        "status": ev.TurnStatus.RUNNING.value,
        "options": dict(options),
        "runner": runner,
        "created_at": time.time(),
        "finished_at": None,
    }
    prepared.run(connection, _OPEN, row)
    return row


def _refuse_if_active(connection: Connection, thread_id: str) -> None:
    active = active_in(connection, thread_id)
    if active is not None:
        raise Conflict(
            f"This thread is still answering (turn {active}). Wait for it, decide its approval, or stop it first.",
            turn_id=active,
        )


def active_in(connection: Connection, thread_id: str) -> str | None:
    """The id of the turn that is running or waiting in a thread."""
    found = prepared.first(connection, _ACTIVE, {"thread": thread_id})
    return str(found[0]) if found else None


def append(
    connection: Connection, turn: Mapping[str, Any], batch: Sequence[ev.Event]
) -> list[tuple[int, dict[str, Any]]]:
    """Add events to the log and bring turn, answer and approvals in line with them. Returns ``(seq, wire)``."""
    if not batch:
        return []
    now = time.time()
    written = [of_event(event) for event in batch]
    wires = [orjson.loads(data) for data in written]  # what is announced is what was stored
    common = {"turn_id": turn["id"], "at": now}
    rows = [{**common, "type": event.type, "data": data} for event, data in zip(batch, written, strict=True)]
    numbers = prepared.numbers_of_each(connection, events, rows)
    for event, wire in zip(batch, wires, strict=True):
        _apply(connection, turn, event, wire, wires, now)
    return list(zip(numbers, wires, strict=True))


def _apply(
    connection: Connection,
    turn: Mapping[str, Any],
    event: ev.Event,
    wire: Mapping[str, Any],
    batch: Sequence[Mapping[str, Any]],
    now: float,
) -> None:
    match event:
        case ev.ApprovalNeeded():
            connection.execute(
                approvals.insert().values(
                    id=event.approval_id,
                    turn_id=turn["id"],
                    owner_id=turn["owner_id"],
                    call_id=wire["call_id"],  # as logged: what a model sends may have been mended
                    tool=wire["tool"],
                    connector=event.connector,
                    effect=event.effect,
                    reason=wire["reason"],
                    arguments=wire["arguments"],
                    digest=call_digest(wire["tool"], wire["arguments"], turn["owner_id"]),
                    status="pending",
                    created_at=now,
                    expires_at=event.expires_at,
                )
            )
        case ev.ToolFinished():
            audit.of_turn(connection, turn, wire, batch)
        case ev.TurnFinished():
            made_by = {key: wire[key] for key in ("citations", "usage", "timing", "lineage")}
            _settle(connection, turn, event.status, wire["text"], now, **made_by)
        case ev.TurnFailed():
            _settle(connection, turn, event.status, wire["text"], now)


def _settle(
    connection: Connection, turn: Mapping[str, Any], status: ev.TurnStatus, text: str, now: float, **columns: Any
) -> None:
    answer = {"text": text, "text_digest": _threads.text_digest(text), "status": status.value, **columns}
    prepared.run(connection, _SETTLE_ANSWER, {"answer": turn["answer_id"], **answer})
    prepared.run(connection, _SETTLE_TURN, {"turn": turn["id"], "status": status.value, "finished_at": now})
    prepared.run(connection, _SETTLE_THREAD, {"thread": turn["thread_id"], "updated_at": now})


def get(connection: Connection, owner: str, turn_id: str) -> dict[str, Any]:
    row = connection.execute(_ONE, {"turn": turn_id, "owner": owner}).first()
    if row is None:
        raise NotFound(f"No turn {turn_id}. Its thread may have been deleted.")
    return dict(row._mapping)


def log(
    connection: Connection, turn_id: str, *, after: int = 0, limit: int = 1000, deltas: bool = True
) -> list[tuple[int, dict[str, Any]]]:
    """Events of a turn after `after`, oldest first, as ``(seq, wire)``. The caller has checked the owner."""
    rows = connection.execute(_READ if deltas else _READ_STEPS, {"turn": turn_id, "after": after, "most": limit})
    return [(seq, orjson.loads(data)) for seq, data in rows]


def log_of_thread(
    connection: Connection, owner: str, *, thread: str | None, after: int, limit: int = 1000
) -> list[tuple[int, str, dict[str, Any]]]:
    """Events of one thread, or of all the owner's threads, after `after`: ``(seq, turn_id, wire)``."""
    query = (
        select(events.c.seq, events.c.turn_id, events.c.data)
        .join(turns, turns.c.id == events.c.turn_id)
        .where(turns.c.owner_id == owner, events.c.seq > after)
    )
    if thread is not None:
        query = query.where(turns.c.thread_id == thread)
    rows = connection.execute(query.order_by(events.c.seq).limit(limit))
    return [(row.seq, row.turn_id, orjson.loads(row.data)) for row in rows]


def steps_of(connection: Connection, turn_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """What each turn did, without the text deltas: for drawing past answers with their cards."""
    rows = connection.execute(
        select(events.c.turn_id, events.c.data)
        .where(events.c.turn_id.in_(turn_ids), events.c.type != ev.TextDelta.type)
        .order_by(events.c.seq)
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row.turn_id, []).append(orjson.loads(row.data))
    return found


def latest_seq(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.max(events.c.seq), 0))).scalar_one())


def draft(connection: Connection, turn_id: str) -> str:
    """The answer so far: the deltas, from the last replacement on."""
    text = ""
    for _, wire in log(connection, turn_id, limit=1_000_000):
        if wire["type"] == ev.TextDelta.type:
            text += wire["text"]
        elif wire["type"] == ev.TextReplaced.type:
            text = wire["text"]
    return text


def interrupt_abandoned(connection: Connection, alive: Collection[str]) -> list[str]:
    """Close the turns that were running in a process that is not `alive` (ids of runners), keeping what they had.
    Returns their ids.

    Turns that wait for an approval are left: they go on when the person decides.
    """
    rows = connection.execute(
        select(turns).where(turns.c.status == ev.TurnStatus.RUNNING.value, turns.c.runner.not_in(alive))
    ).all()
    for row in rows:
        _interrupt(connection, dict(row._mapping))
    return [row.id for row in rows]


def close_orphans(connection: Connection, runner: str, live: Collection[str]) -> None:
    """Close the turns that this process should be running and is not: their last event could not be kept."""
    rows = connection.execute(
        select(turns).where(
            turns.c.status == ev.TurnStatus.RUNNING.value,
            turns.c.runner == runner,
            turns.c.id.not_in(live),
            turns.c.created_at < time.time() - ORPHAN_SECONDS,
        )
    ).all()
    for row in rows:
        _interrupt(connection, dict(row._mapping))


def _interrupt(connection: Connection, turn: Mapping[str, Any]) -> None:
    begun = ev.left_open(ev.from_wire(wire) for _, wire in log(connection, turn["id"], limit=1_000_000, deltas=False))
    message = "Trimtab stopped while this was being answered. What it had is kept; ask again for the rest."
    if begun:
        message = f"Trimtab stopped while this was being answered. {ev.CHECK_FIRST}"
    text = draft(connection, turn["id"])
    append(connection, turn, [*begun, ev.TurnFailed(ev.TurnStatus.INTERRUPTED, "interrupted", message, text)])


# ---------------------------------------------------------------------- approvals


def call_digest(tool: str, arguments: Mapping[str, Any], owner: str) -> str:
    """Binds an approval to this tool, these arguments and this person."""
    return audit.arguments_digest(tool, arguments, owner)


def pending_approvals(connection: Connection, owner: str) -> list[dict[str, Any]]:
    rows = connection.execute(
        select(approvals, turns.c.thread_id)
        .join(turns, turns.c.id == approvals.c.turn_id)
        .where(
            approvals.c.owner_id == owner,
            approvals.c.status == "pending",
            approvals.c.expires_at > time.time(),
            turns.c.status.in_(ACTIVE),
        )
        .order_by(approvals.c.created_at)
    )
    return [dict(row._mapping) for row in rows]


def approval(connection: Connection, owner: str, approval_id: str) -> dict[str, Any]:
    row = connection.execute(
        select(approvals).where(approvals.c.id == approval_id, approvals.c.owner_id == owner)
    ).first()
    if row is None:
        raise NotFound(f"No approval {approval_id}.")
    return dict(row._mapping)


def decide(
    connection: Connection,
    owner: str,
    approval_id: str,
    decision: str,
    *,
    digest: str,
    arguments: Mapping[str, Any] | None = None,
    remember: consents.Remember | None = None,
    definition: str = "",
) -> dict[str, Any]:
    """Use an approval, once. `digest` is what the person was shown; with `arguments` they edited the call. With
    `remember` calls like it, of the tool that says `definition` of itself, are approved from now on.

    Returns the turn. The decision is in the log when this returns.

    Raises:
        Conflict: decided before, expired, or not the call that was shown.
        InvalidInput: it cannot be remembered like this. Nothing was decided.
    """
    row = approval(connection, owner, approval_id)
    turn = get(connection, owner, row["turn_id"])
    if row["status"] != "pending":
        raise Conflict(f"This approval was already decided ({row['status']}). Nothing was done again.")
    if turn["status"] not in ACTIVE:
        raise Conflict(f"The turn that asked for this has ended ({turn['status']}). Ask again.")
    if row["digest"] != digest:
        raise Conflict("This is not the call you were shown. Look at it again before you decide.")
    if row["expires_at"] <= time.time():
        raise Conflict("This approval has expired. Ask again.", approval_id=approval_id)
    used = connection.execute(
        update(approvals)
        .where(approvals.c.id == approval_id, approvals.c.status == "pending")
        .values(status=decision, decided_at=time.time())
    )
    if not used.rowcount:
        raise Conflict("This approval was already decided. Nothing was done again.")
    final = dict(arguments) if arguments is not None else dict(row["arguments"])
    if remember is not None and decision == "approve":
        call = consents.Asked(row["connector"], row["tool"], definition, final)
        consents.keep(connection, owner, call, row["effect"], remember)
    append(
        connection,
        turn,
        [ev.ApprovalDecided(approval_id, row["call_id"], decision, final if decision == "approve" else {})],
    )
    return turn


def expire(connection: Connection) -> None:
    """Mark approvals whose time is over and log it; their turns are then among `decided`.

    One that was given but not taken up in time (Trimtab was stopped) is over as well: what it allowed may not be what
    anybody wants by now.
    """
    rows = connection.execute(
        select(approvals, turns.c.status.label("turn_status"))
        .join(turns, turns.c.id == approvals.c.turn_id)
        .where(
            approvals.c.expires_at <= time.time(),
            (approvals.c.status == "pending")
            | ((approvals.c.status == "approve") & (turns.c.status == ev.TurnStatus.WAITING.value)),
        )
    ).all()
    for row in rows:
        if row.status == "approve" and row.call_id in _ended_calls(connection, row.turn_id):
            continue
        connection.execute(update(approvals).where(approvals.c.id == row.id).values(status="expired"))
        if row.turn_status in ACTIVE:
            turn = get(connection, row.owner_id, row.turn_id)
            append(connection, turn, [ev.ApprovalDecided(row.id, row.call_id, "expired")])


def decided(connection: Connection) -> list[dict[str, Any]]:
    """Turns that wait although one of their approvals was decided or has expired: Trimtab stopped, or the caller went
    away, before they were taken up again."""
    found = connection.execute(
        # Not a join and DISTINCT: PostgreSQL cannot compare JSON columns.
        select(turns).where(
            turns.c.status == ev.TurnStatus.WAITING.value,
            turns.c.id.in_(select(approvals.c.turn_id).where(approvals.c.status != "pending")),
        )
    ).all()
    return [dict(row._mapping) for row in found if _has_work(connection, row.id)]


def _ended_calls(connection: Connection, turn_id: str) -> set[str]:
    """The calls of a turn that have a result."""
    results = select(events.c.data).where(events.c.turn_id == turn_id, events.c.type == ev.ToolFinished.type)
    return {orjson.loads(data)["call_id"] for data in connection.execute(results).scalars()}


def _has_work(connection: Connection, turn_id: str) -> bool:
    """Whether an approval of this turn was decided and its call has not ended yet."""
    wanted = approvals.c.turn_id == turn_id, approvals.c.status != "pending"
    calls = set(connection.execute(select(approvals.c.call_id).where(*wanted)).scalars())
    if not calls:
        return False
    return bool(calls - _ended_calls(connection, turn_id))


def wait_if_undecided(connection: Connection, turn_id: str) -> bool:
    """Mark a turn as waiting, unless one of its approvals was decided and its call has not ended yet."""
    if _has_work(connection, turn_id):
        return False
    _mark(connection, turn_id, ev.TurnStatus.WAITING)
    return True


def cancel_idle(connection: Connection, turn: Mapping[str, Any], runner: str) -> bool:
    """End a turn that nobody is running, keeping what it had: one that waits for an approval, or one of `runner` (the
    caller, which knows that it runs it no more). False when it has ended or somebody runs it."""
    current = get(connection, turn["owner_id"], turn["id"])
    left = current["status"] == ev.TurnStatus.RUNNING and turn["runner"] == current["runner"] == runner
    if current["status"] != ev.TurnStatus.WAITING and not (left and turn["status"] == ev.TurnStatus.RUNNING):
        return False
    text = draft(connection, turn["id"])
    append(connection, turn, [ev.TurnFinished(ev.TurnStatus.CANCELLED, text, finish_reason="cancelled")])
    return True


def resume(connection: Connection, turn_id: str, runner: str) -> bool:
    """Take up a waiting turn; False when somebody else has."""
    waiting = (turns.c.id == turn_id, turns.c.status == ev.TurnStatus.WAITING.value)
    if not connection.execute(update(turns).where(*waiting).values(runner=runner)).rowcount:
        return False
    _mark(connection, turn_id, ev.TurnStatus.RUNNING)
    return True


def ensure_owned(connection: Connection, turn: Mapping[str, Any]) -> None:
    """Where processes share a database: whether the process in `turn` still runs it.

    A process that was silent for too long (asleep, cut off) may find its turns closed by another. Nothing may then be
    added to them, and they must not be opened again.

    Raises:
        Conflict: it was closed, or another process has it.
    """
    row = connection.execute(select(turns.c.status, turns.c.runner).where(turns.c.id == turn["id"])).first()
    if row is None or row.status != ev.TurnStatus.RUNNING or row.runner != turn["runner"]:
        raise Conflict(f"Turn {turn['id']} was closed by another process, or deleted. Ask again.", turn_id=turn["id"])


def ask_to_stop(connection: Connection, turn_id: str) -> None:
    """Tell the process that runs a turn that somebody wants it stopped."""
    running = (turns.c.id == turn_id, turns.c.status == ev.TurnStatus.RUNNING.value)
    connection.execute(update(turns).where(*running).values(stop_at=time.time()))


def to_stop(connection: Connection, turn_ids: Sequence[str]) -> list[str]:
    """Those of these turns that another process was asked to stop."""
    wanted = turns.c.id.in_(turn_ids), turns.c.stop_at.is_not(None)
    return list(connection.execute(select(turns.c.id).where(*wanted)).scalars())


def _mark(connection: Connection, turn_id: str, status: ev.TurnStatus) -> None:
    prepared.run(connection, _SETTLE_TURN, {"turn": turn_id, "status": status.value})
    answer = select(turns.c.answer_id).where(turns.c.id == turn_id).scalar_subquery()
    connection.execute(update(messages).where(messages.c.id == answer).values(status=status.value))
