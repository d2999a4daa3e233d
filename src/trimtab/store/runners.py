"""Which processes are alive, where several share one database.

A process says every few seconds that it is there. One that has been silent for `LEASE_SECONDS` is taken for dead, and
whoever notices closes the turns it was running. All times are the database's, so no two machines' clocks are compared.
SQLite has one process at a time and needs none of this: there, every other runner is dead.
"""

from __future__ import annotations

from sqlalchemy import Connection, Float, delete, extract, func, select, type_coerce, update
from sqlalchemy.sql.elements import ColumnElement

from .schema import runners

BEAT_SECONDS = 5.0
LEASE_SECONDS = 30.0


def beat(connection: Connection, runner: str) -> None:
    """`runner` is alive."""
    if not connection.execute(update(runners).where(runners.c.id == runner).values(seen_at=_now())).rowcount:
        connection.execute(runners.insert().values(id=runner, seen_at=_now()))


def leave(connection: Connection, runner: str) -> None:
    """`runner` has ended in good order; what it left running may be closed at once."""
    connection.execute(delete(runners).where(runners.c.id == runner))


def alive(connection: Connection) -> list[str]:
    """The runners that are there. Those that were silent for too long are forgotten."""
    connection.execute(delete(runners).where(runners.c.seen_at < _now() - LEASE_SECONDS))
    return list(connection.execute(select(runners.c.id)).scalars())


def _now() -> ColumnElement[float]:
    return type_coerce(extract("epoch", func.clock_timestamp()), Float)
