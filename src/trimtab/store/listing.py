"""Long lists, latest first, a piece at a time.

Where the next piece begins is said by the last row that was shown, and not by a number of rows: what is new meanwhile
shifts nothing, and no row is left out or shown twice unless it changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Select, Table, and_, or_

from trimtab.domain.errors import InvalidInput


def latest(query: Select[Any], table: Table, *, limit: int, before: str = "") -> Select[Any]:
    """The first `limit` rows of `query`, which selects from `table`, or those that follow the place `before`.

    Raises:
        InvalidInput: `before` is no place.
    """
    at, key = table.c.updated_at, table.c.id
    if before:
        moment, _, last = before.partition("~")
        try:
            when = float(moment)
        except ValueError:
            raise InvalidInput("`before` is not a place in a list. Give what the last answer said as `next`.") from None
        query = query.where(or_(at < when, and_(at == when, key < last)))
    return query.order_by(at.desc(), key.desc()).limit(limit)


def place_after(rows: Sequence[Mapping[str, Any]], shown: int) -> str | None:
    """The place after the first `shown` of these rows; None when there are no more."""
    return f"{rows[shown - 1]['updated_at']!r}~{rows[shown - 1]['id']}" if len(rows) > shown else None
