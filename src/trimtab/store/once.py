"""Writes a client may retry: the first answer is kept under the client's key, and given again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, delete, select

from trimtab.domain.errors import Conflict

from .encoding import dumps
from .schema import idempotency

KEEP_SECONDS = 7 * 24 * 3600


def once(
    connection: Connection, owner: str, key: str | None, request: Any, write: Callable[[Connection], dict[str, Any]]
) -> dict[str, Any]:
    """Run `write` and remember its answer in the same transaction, or return the answer remembered for `key`.

    Raises:
        Conflict: the key was used before for a different request.
    """
    if not key:
        return write(connection)
    wanted = hashlib.sha256(dumps(request, sort=True).encode()).hexdigest()
    row = connection.execute(
        select(idempotency.c.request_digest, idempotency.c.response).where(
            idempotency.c.owner_id == owner, idempotency.c.key == key
        )
    ).first()
    if row is not None:
        if row.request_digest != wanted:
            raise Conflict("This Idempotency-Key was used for a different request. Use a new key for a new request.")
        return dict(row.response)
    response = write(connection)
    connection.execute(
        idempotency.insert().values(
            owner_id=owner, key=key, request_digest=wanted, response=response, created_at=time.time()
        )
    )
    return response


def forget_old(connection: Connection) -> int:
    """Drop keys older than a week; returns how many."""
    return connection.execute(delete(idempotency).where(idempotency.c.created_at < time.time() - KEEP_SECONDS)).rowcount
