"""How the model came to be served as it is: each plan that was applied, and each that was taken back.

The last line says what the next start serves. `before` and `after` are settings (`variant`, `context`, `parallel`,
`threads`, `batch`); empty means that the settings alone decide, without a plan.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Connection, Float, Integer, String, Table, Text, select

from trimtab.domain.errors import Conflict

from .schema import metadata

APPLY, UNDO = "apply", "undo"

changeovers = Table(
    "changeovers",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("action", String(16), nullable=False),  # apply, undo
    Column("by", String(120), nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("model", Text, nullable=False),  # the setting it holds for
    Column("plan_digest", String(64), nullable=False),  # of the plan that is in force then; empty without one
    Column("plan", JSON, nullable=False),
    Column("before_variant", String(80), nullable=False),
    Column("after_variant", String(80), nullable=False),
    Column("before", JSON, nullable=False),
    Column("after", JSON, nullable=False),
    sqlite_autoincrement=True,
)


def latest(connection: Connection) -> dict[str, Any] | None:
    """What is in force; None when no plan was ever applied."""
    row = connection.execute(select(changeovers).order_by(changeovers.c.seq.desc()).limit(1)).first()
    return dict(row._mapping) if row else None


def history(connection: Connection, limit: int = 100) -> list[dict[str, Any]]:
    """The latest first."""
    rows = connection.execute(select(changeovers).order_by(changeovers.c.seq.desc()).limit(limit))
    return [dict(row._mapping) for row in rows]


def keep(connection: Connection, line: Mapping[str, Any], *, after: int) -> dict[str, Any]:
    """Write down a changeover.

    Args:
        line: every column but `seq` and `at`.
        after: `seq` of the one that was the latest when this was decided; 0 when there was none.

    Raises:
        Conflict: another one came between.
    """
    now = latest(connection)
    if (now["seq"] if now else 0) != after:
        raise Conflict("Another plan was applied in the meantime. See what is served now, and try again.")
    connection.execute(changeovers.insert().values(**line, at=time.time()))
    found = latest(connection)
    assert found is not None
    return found


def plan_before(connection: Connection, state: Mapping[str, Any]) -> dict[str, Any]:
    """The plan that last led to this state, and its digest; empty ones when none did."""
    for line in history(connection, 1000):
        if line["after"] == dict(state) and line["plan"]:
            return {"plan": line["plan"], "plan_digest": line["plan_digest"]}
    return {"plan": {}, "plan_digest": ""}
