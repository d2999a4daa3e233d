"""Users and their API keys. A key is shown once; only its SHA-256 is kept."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Any

from sqlalchemy import Connection, select, update

from trimtab.domain import ids
from trimtab.domain.errors import InvalidInput, NotFound

from .schema import api_keys, users

PREFIX = "tt_"


def digest(key: str) -> str:
    """A key has 256 random bits, so one fast hash is enough: there is no small space to search (as for a password)."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def ensure_user(connection: Connection, name: str) -> str:
    """The id of the user called `name`, made if new."""
    found = connection.execute(select(users.c.id).where(users.c.name == name)).scalar()
    if found:
        return str(found)
    user_id = ids.new("usr")
    connection.execute(users.insert().values(id=user_id, name=name, created_at=time.time()))
    return user_id


def names(connection: Connection) -> dict[str, str]:
    """Everybody's name, by id."""
    return {row.id: row.name for row in connection.execute(select(users.c.id, users.c.name))}


def create_key(connection: Connection, user: str, name: str, *, key: str | None = None) -> str:
    """A new key for the user named `user`; returns the key itself, which cannot be read again."""
    if key is not None and len(key) < 16:
        raise InvalidInput("A key needs at least 16 characters. Leave it out to have one generated.")
    key = key or PREFIX + secrets.token_urlsafe(32)
    connection.execute(
        api_keys.insert().values(
            id=ids.new("key"),
            user_id=ensure_user(connection, user),
            name=name,
            digest=digest(key),
            hint=key[:6] + "…",
            created_at=time.time(),
        )
    )
    return key


def user_of_key(connection: Connection, key: str) -> dict[str, Any] | None:
    """``{"id", "name", "key_id"}`` of the key's owner, or None. Looked up by digest, so timing tells nothing."""
    row = connection.execute(
        select(users.c.id, users.c.name, api_keys.c.id.label("key_id"))
        .join(api_keys, api_keys.c.user_id == users.c.id)
        .where(api_keys.c.digest == digest(key), api_keys.c.revoked_at.is_(None))
    ).first()
    return dict(row._mapping) if row else None


def list_keys(connection: Connection) -> list[dict[str, Any]]:
    rows = connection.execute(
        select(
            api_keys.c.id,
            api_keys.c.name,
            api_keys.c.hint,
            api_keys.c.created_at,
            api_keys.c.revoked_at,
            users.c.name.label("user"),
        )
        .join(users, users.c.id == api_keys.c.user_id)
        .order_by(api_keys.c.created_at)
    )
    return [dict(row._mapping) for row in rows]


def revoke_key(connection: Connection, key_id: str) -> None:
    changed = connection.execute(
        update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None)).values(revoked_at=time.time())
    )
    if not changed.rowcount:
        raise NotFound(f"No key {key_id} that is still valid. See `trimtab config keys`.")
