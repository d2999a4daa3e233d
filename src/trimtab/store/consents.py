"""Approvals that a person has remembered: this tool of this connector, with arguments like these, until a day.

What a pattern covers: the arguments in `fixed` must be there with exactly these values, those named in `free` may be
anything or missing, and there may be no others. With nothing free it is one exact call.

When it is not used, and the person is asked as ever:

* it has expired or was revoked, belongs to somebody else, or the tool says something else of itself than it did then;
* the turn, or an earlier one of its thread, has read anything from outside (a tool's result that is not trusted, a
  passage of a document): whatever was read may be what makes the model ask. Unless the person said for this very
  pattern that it counts even then, which is possible for exact calls only (outside text would fill in what is free),
  and then for one call a turn (outside text would say how often).

What cannot be undone is remembered for exact calls only, and never counts after reading.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy import Connection, select, update

from trimtab.domain import events as ev
from trimtab.domain import ids
from trimtab.domain.errors import InvalidInput, NotFound
from trimtab.domain.tool import Effect

from .encoding import dumps
from .schema import consents, events, turns

DAYS = 30.0
MOST_DAYS = 365.0
MOST = 500
"""Patterns one person may have."""
_HIDDEN = ("owner_id", "definition")


@dataclass(frozen=True)
class Remember:
    """How an approval is to be remembered. `free` are the names of the arguments that may be anything."""

    free: frozenset[str] = field(default_factory=frozenset)
    days: float = DAYS
    when_tainted: bool = False
    """Whether it counts even after outside text was read."""


@dataclass(frozen=True)
class Asked:
    """A call that may be covered by a pattern."""

    connector: str
    tool: str
    definition: str
    arguments: Mapping[str, Any]


def keep(connection: Connection, owner: str, call: Asked, effect: str, how: Remember) -> str:
    """Remember that calls like this one may run; returns the pattern's id.

    Raises:
        InvalidInput: the pattern is not a safe one; says what to change.
    """
    _check(call, effect, how)
    mine = select(consents.c.id).where(*_in_force(owner)).limit(MOST + 1)
    if len(connection.execute(mine).all()) >= MOST:
        raise InvalidInput(f"{MOST} approvals are remembered already. Revoke some (trimtab connectors approvals).")
    now = time.time()
    row = {
        "id": ids.new("con"),
        "owner_id": owner,
        "connector": call.connector,
        "tool": call.tool,
        "definition": call.definition,
        "effect": effect,
        "fixed": {name: value for name, value in call.arguments.items() if name not in how.free},
        "free": sorted(how.free),
        "when_tainted": int(how.when_tainted),
        "created_at": now,
        "expires_at": now + how.days * 86_400,
        "revoked_at": None,
        "used_at": None,
        "uses": 0,
    }
    connection.execute(consents.insert().values(row))
    return str(row["id"])


def _check(call: Asked, effect: str, how: Remember) -> None:
    if not 0 < how.days <= MOST_DAYS:
        raise InvalidInput(f"An approval is remembered for up to {MOST_DAYS:g} days, not for {how.days:g}.")
    if unknown := sorted(how.free - set(call.arguments)):
        raise InvalidInput(
            f"{', '.join(unknown)[:200]} cannot be left free: the call that was approved has no such argument."
        )
    if how.free and effect == Effect.IRREVERSIBLE:
        raise InvalidInput(
            "What cannot be undone is remembered for exactly these arguments or not at all: leave none free."
        )
    if how.when_tainted and (how.free or effect == Effect.IRREVERSIBLE):
        raise InvalidInput(
            "An approval counts after outside text was read only for exactly these arguments, and only for what can be "
            "undone. Otherwise that text would decide what is done."
        )


def claim(
    connection: Connection, owner: str, call: Asked, *, turn: str, tainted: bool, used: Collection[str] = ()
) -> str:
    """The id of a pattern in force that covers a call, counted as used; empty when there is none. `tainted` is what is
    known of the turn itself, `used` what it has used already."""
    rows = connection.execute(
        select(consents).where(
            *_in_force(owner),
            consents.c.connector == call.connector,
            consents.c.tool == call.tool,
            consents.c.definition == call.definition,
        )
    )
    fitting = [row for row in rows if _covers(row.fixed, row.free, call.arguments)]
    if fitting and (tainted or thread_has_read(connection, turn)):
        fitting = [row for row in fitting if row.when_tainted and not row.free and row.id not in used]
    if not fitting:
        return ""
    found = fitting[0].id
    connection.execute(
        update(consents).where(consents.c.id == found).values(used_at=time.time(), uses=consents.c.uses + 1)
    )
    return str(found)


def _in_force(owner: str) -> tuple[Any, ...]:
    return consents.c.owner_id == owner, consents.c.revoked_at.is_(None), consents.c.expires_at > time.time()


def _covers(fixed: Mapping[str, Any], free: Collection[str], arguments: Mapping[str, Any]) -> bool:
    bound = {name: value for name, value in arguments.items() if name not in free}
    # As text: Python holds 1, 1.0 and True for equal, a service may not.
    return dumps(bound, sort=True) == dumps(dict(fixed), sort=True)


def thread_has_read(connection: Connection, turn_id: str) -> bool:
    """Whether any turn of a turn's thread has read outside text: it may stand in the answers that a model is shown. A
    turn that is not there counts as one that has."""
    thread = connection.execute(select(turns.c.thread_id).where(turns.c.id == turn_id)).scalar()
    if thread is None:
        return True
    found = connection.execute(
        select(events.c.data)
        .join(turns, turns.c.id == events.c.turn_id)
        .where(turns.c.thread_id == thread, events.c.type.in_((ev.ToolFinished.type, ev.PassagesFound.type)))
    )
    wires = (orjson.loads(data) for data in found.scalars())
    return any(wire.get("untrusted") or wire.get("used") for wire in wires)


def listed(connection: Connection, owner: str) -> list[dict[str, Any]]:
    """What a person has remembered and is in force, newest first."""
    found = connection.execute(select(consents).where(*_in_force(owner)).order_by(consents.c.created_at.desc()))
    return [_public(dict(row._mapping)) for row in found]


def revoke(connection: Connection, owner: str, consent_id: str) -> dict[str, Any]:
    """Forget one; from now on the person is asked again. Raises `NotFound`, also for one that is not in force."""
    wanted = consents.c.id == consent_id
    row = connection.execute(select(consents).where(wanted, *_in_force(owner))).first()
    if row is None:
        raise NotFound(
            f"There is no remembered approval {consent_id[:60]!r}: it was revoked, has expired, or never was."
        )
    connection.execute(update(consents).where(wanted).values(revoked_at=time.time()))
    return _public(dict(row._mapping))


def _public(row: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in row.items() if name not in (*_HIDDEN, "revoked_at")}
    return {**shown, "when_tainted": bool(row["when_tainted"])}
