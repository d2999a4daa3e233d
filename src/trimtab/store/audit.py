"""The audit log: one row for every call of a tool, each with a digest of itself and of the row before it.

It says who, from where (`via`), in which turn, which tool, the arguments' digest (never the arguments), the effect,
which approval allowed it, how it ended and how long it took. Calls of a turn are written in the transaction that logs
their result, so neither is there without the other. Rows are numbered without a gap by the one writer there is.

A row that was changed, or taken out of the middle, breaks the chain: `check` says where. Rows cut off at the end leave
a whole chain; they show against a digest that was noted elsewhere. Who can write to the database file can make a new
chain: this is no protection against them, unless the last digest is noted where they cannot reach.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, or_, select

from trimtab.domain import events as ev

from . import prepared
from .encoding import dumps, whole
from .schema import audit_log, events

VIA = ("turn", "hand", "mcp", "openai")
"""A turn of a conversation, by hand, for an MCP client, a turn of an OpenAI client that keeps its own conversation."""
BEGUN = "begun"
"""Written before a call with effects that no turn has logged: a crash in the middle leaves this."""
START = "0" * 64
"""What the first row takes for the digest of the row before it."""

_LAST = select(audit_log.c.seq, audit_log.c.digest).order_by(audit_log.c.seq.desc()).limit(1)
_ADD = audit_log.insert()
_TELLING = (ev.ToolRequested.type, ev.ApprovalDecided.type)
"""The events that say what a call was and who allowed it."""
_OF_CALLS = (
    select(events.c.data)
    .where(events.c.turn_id == bindparam("turn"), or_(*(events.c.type == kind for kind in _TELLING)))
    .order_by(events.c.seq)
)
_CHAINED = [c.name for c in audit_log.c if c.name != "digest"]


def arguments_digest(tool: str, arguments: Mapping[str, Any], owner: str) -> str:
    """What stands for a call's arguments: the same as the `digest` of an approval for it. Bound to the person, so that
    equal calls of two people do not look equal."""
    text = dumps([tool, dict(arguments), owner], sort=True)
    return hashlib.sha256(text.encode()).hexdigest()


def add(
    connection: Connection,
    *,
    owner: str,
    via: str,
    connector: str,
    tool: str,
    arguments: Mapping[str, Any],
    effect: str,
    status: str,
    seconds: float = 0.0,
    turn: str = "",
    call: str = "",
    approval: str = "",
) -> dict[str, Any]:
    """Write one row down; returns it."""
    last = prepared.first(connection, _LAST, {})
    seq, before = (int(last[0]), str(last[1])) if last else (0, START)
    row: dict[str, Any] = {
        "seq": seq + 1,
        "at": round(time.time(), 3),
        "owner_id": owner,
        "via": via,
        "turn_id": turn,
        "call_id": whole(call)[:120],
        "connector": whole(connector)[:120],
        "tool": whole(tool)[:200],
        "arguments_digest": arguments_digest(tool, arguments, owner),
        "effect": effect[:16],
        "approval_id": approval,
        "status": status,
        "seconds": round(seconds, 4),
    }
    row["digest"] = _digest(before, row)
    prepared.run(connection, _ADD, row)
    return row


def of_turn(
    connection: Connection,
    turn: Mapping[str, Any],
    finished: Mapping[str, Any],
    logged_with: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write down a call of a turn, as its `tool.finished` (on the wire's form) and what is logged of it say.

    `logged_with` are the events that were logged together with it. Mostly the whole call is among them, and nothing
    need be read back.
    """
    call = finished["call_id"]
    logged = [wire for wire in logged_with if wire["type"] in _TELLING and wire["call_id"] == call]
    if not logged or logged[0]["type"] != ev.ToolRequested.type:
        stored = (orjson.loads(data) for (data,) in prepared.rows(connection, _OF_CALLS, {"turn": turn["id"]}))
        logged = [wire for wire in stored if wire["call_id"] == call]
    effect, arguments, approval = "", {}, ""
    for wire in logged:
        if wire["type"] == ev.ToolRequested.type:
            effect, arguments = wire["effect"], wire["arguments"]
        else:
            approval = wire["approval_id"]
            arguments = wire["arguments"] if wire["decision"] == "approve" else arguments
    add(
        connection,
        owner=turn["owner_id"],
        via="turn",
        connector=finished["connector"],
        tool=finished["tool"],
        arguments=arguments,
        effect=effect,
        status=finished["status"],
        seconds=finished["seconds"],
        turn=turn["id"],
        call=call,
        approval=approval,
    )


def rows(
    connection: Connection,
    *,
    owner: str | None = None,
    connector: str = "",
    turn: str = "",
    before: int | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """The newest `limit` rows, newest first; of one person, connector or turn where named, and older than `before`."""
    query = select(audit_log).order_by(audit_log.c.seq.desc()).limit(limit)
    if owner is not None:
        query = query.where(audit_log.c.owner_id == owner)
    if connector:
        query = query.where(audit_log.c.connector == connector)
    if turn:
        query = query.where(audit_log.c.turn_id == turn)
    if before is not None:
        query = query.where(audit_log.c.seq < before)
    return [dict(row._mapping) for row in connection.execute(query)]


def check(connection: Connection, noted: str = "") -> dict[str, Any]:
    """Whether the chain is whole: `{"whole", "rows", "digest", "broken_at", "noted"}`.

    `broken_at` is the first row that does not follow from the one before it. `noted` says whether a digest that
    somebody noted earlier is still in the chain; None when none is given.
    """
    found = connection.execute(select(audit_log).order_by(audit_log.c.seq).execution_options(yield_per=1000))
    count, last, broken, seen = 0, START, None, noted == START
    for row in _mappings(found):
        if row["seq"] != count + 1 or row["digest"] != _digest(last, row):
            broken = int(row["seq"])
            break
        count, last = count + 1, row["digest"]
        seen = seen or last == noted
    return {
        "whole": broken is None,
        "rows": count,
        "digest": last,
        "broken_at": broken,
        "noted": seen if noted else None,
    }


def _mappings(found: Iterable[Any]) -> Iterable[Mapping[str, Any]]:
    return (row._mapping for row in found)


def _digest(before: str, row: Mapping[str, Any]) -> str:
    # As text: a float may come back from a database as another number of the same decimals.
    values = [f"{row[name]:.4f}" if name in ("at", "seconds") else str(row[name]) for name in _CHAINED]
    return hashlib.sha256(dumps([before, *values]).encode()).hexdigest()
