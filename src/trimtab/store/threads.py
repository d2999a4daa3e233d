"""Threads and their messages: a tree of which one path, ending in the thread's head, is shown.

A question's parent is the answer before it, an answer's parent is its question. Answers that share a parent are
siblings: asking again makes another one, and people can say which they prefer.
Every function takes the owner and sees nothing of anybody else's.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select, update

from trimtab.domain import ids
from trimtab.domain.errors import InvalidInput, NotFound

from . import prepared
from .listing import latest
from .schema import feedback, messages, threads

UNTITLED = "New chat"
TITLE_LIMIT = 120

_PUBLIC = ("id", "title", "head_id", "created_at", "updated_at")

# Statements of every turn (see `prepared.py`), and some that are often read.
_ONE = select(*(threads.c[name] for name in _PUBLIC)).where(
    threads.c.id == bindparam("thread"), threads.c.owner_id == bindparam("owner")
)
_PATH = select(messages.c.id, messages.c.parent_id, messages.c.role, messages.c.text).where(
    messages.c.thread_id == bindparam("thread")
)
_MESSAGE = (
    select(messages)
    .join(threads, threads.c.id == messages.c.thread_id)
    .where(messages.c.id == bindparam("message"), threads.c.owner_id == bindparam("owner"))
)
_SAID = select(messages.c.parent_id, messages.c.role, messages.c.text).where(messages.c.id == bindparam("message"))
_ADD = messages.insert()
_HEAD = update(threads).where(threads.c.id == bindparam("thread"))


def text_digest(text: str) -> str:
    """SHA-256 of a stored generation; feedback keeps it, so that training can tell our words from altered ones."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def create(connection: Connection, owner: str, title: str = UNTITLED) -> dict[str, Any]:
    now = time.time()
    row = {
        "id": ids.new("thr"),
        "owner_id": owner,
        "title": clean_title(title),
        "head_id": None,
        "created_at": now,
        "updated_at": now,
    }
    connection.execute(threads.insert().values(row))
    return _public(row)


def clean_title(title: str) -> str:
    """One line, at most `TITLE_LIMIT` characters.

    Raises:
        InvalidInput: nothing is left.
    """
    line = " ".join(title.split())
    if not line:
        raise InvalidInput("A title needs at least one visible character.")
    return line if len(line) <= TITLE_LIMIT else line[: TITLE_LIMIT - 1].rstrip() + "…"


def get(connection: Connection, owner: str, thread_id: str) -> dict[str, Any]:
    row = prepared.first(connection, _ONE, {"thread": thread_id, "owner": owner})
    if row is None:
        raise NotFound(f"No thread {thread_id}. It may have been deleted.")
    return dict(zip(_PUBLIC, row, strict=True))


def find(
    connection: Connection, owner: str, *, text: str = "", limit: int = 100, before: str = ""
) -> list[dict[str, Any]]:
    """The owner's threads, latest first; with `text`, those whose title or messages contain it. `before` is a place in
    the list (see `listing`): what comes after it."""
    query = select(threads).where(threads.c.owner_id == owner)
    if text.strip():
        wanted = f"%{_escape_like(text.strip())}%"
        mine = select(threads.c.id).where(threads.c.owner_id == owner)
        inside = select(messages.c.thread_id).where(
            messages.c.thread_id.in_(mine), messages.c.text.ilike(wanted, escape="\\")
        )
        query = query.where(threads.c.title.ilike(wanted, escape="\\") | threads.c.id.in_(inside))
    rows = connection.execute(latest(query, threads, limit=limit, before=before))
    return [_public(row._mapping) for row in rows]


def rename(connection: Connection, owner: str, thread_id: str, title: str) -> dict[str, Any]:
    _touch(connection, owner, thread_id, title=clean_title(title))
    return get(connection, owner, thread_id)


def remove(connection: Connection, owner: str, thread_id: str) -> None:
    """Delete a thread with its messages, events and feedback."""
    gone = connection.execute(delete(threads).where(threads.c.id == thread_id, threads.c.owner_id == owner))
    if not gone.rowcount:
        raise NotFound(f"No thread {thread_id}. It may have been deleted already.")


def choose_head(connection: Connection, owner: str, thread_id: str, message_id: str) -> dict[str, Any]:
    """Show the path through `message_id`, followed down to its newest descendant."""
    thread = get(connection, owner, thread_id)
    tree = tree_of(connection, thread_id)
    if message_id not in tree:
        raise NotFound(f"No message {message_id} in thread {thread_id}.")
    children: dict[str | None, list[str]] = {}
    for message in tree.values():
        children.setdefault(message["parent_id"], []).append(message["id"])
    head = message_id
    while children.get(head):
        head = children[head][-1]
    connection.execute(update(threads).where(threads.c.id == thread_id).values(head_id=head))
    return {**thread, "head_id": head}


def tree_of(connection: Connection, thread_id: str) -> dict[str, dict[str, Any]]:
    """Every message of a thread by id, oldest first. The caller has checked the owner."""
    rows = connection.execute(
        select(messages).where(messages.c.thread_id == thread_id).order_by(messages.c.created_at, messages.c.id)
    )
    return {row.id: _message(row._mapping) for row in rows}


def path(connection: Connection, owner: str, thread_id: str, head: str | None = None) -> list[dict[str, Any]]:
    """Messages from the first question to `head` (default: the thread's), each with the ids of its siblings."""
    thread = get(connection, owner, thread_id)
    tree = tree_of(connection, thread_id)
    siblings: dict[str | None, list[str]] = {}
    for message in tree.values():
        siblings.setdefault(message["parent_id"], []).append(message["id"])
    line: list[dict[str, Any]] = []
    at = head or thread["head_id"]
    while at is not None and at in tree:
        message = tree[at]
        line.append({**message, "siblings": siblings[message["parent_id"]]})
        at = message["parent_id"]
    return line[::-1]


def history(connection: Connection, thread_id: str, head: str | None) -> list[tuple[str, str]]:
    """``(role, text)`` along the path to `head`, oldest first: what the model is shown."""
    tree = {row[0]: row for row in connection.execute(_PATH, {"thread": thread_id})}
    line: list[tuple[str, str]] = []
    while head is not None and head in tree:
        _, head, role, text = tree[head]
        line.append((role, text))
    return line[::-1]


def add_messages(connection: Connection, thread_id: str, rows: Sequence[dict[str, Any]], **changes: Any) -> None:
    """Append messages made by `new_message`; the last becomes the thread's head. `changes` are the thread's."""
    prepared.run_each(connection, _ADD, rows)
    values = {"head_id": rows[-1]["id"], "updated_at": rows[-1]["created_at"], **changes}
    prepared.run(connection, _HEAD, {"thread": thread_id, **values})


def new_message(
    thread_id: str, role: str, text: str, *, parent: str | None, turn: str | None = None, status: str = "done"
) -> dict[str, Any]:
    """A message's row, not stored yet."""
    return {
        "id": ids.new("msg"),
        "thread_id": thread_id,
        "parent_id": parent,
        "turn_id": turn,
        "role": role,
        "text": text,
        "text_digest": text_digest(text),
        "status": status,
        "citations": [],
        "usage": {},
        "timing": {},
        "lineage": {},
        "created_at": time.time(),
    }


def said(connection: Connection, message_id: str) -> tuple[str | None, str, str] | None:
    """``(parent id, role, text)`` of a message. The caller has checked the owner."""
    return prepared.first(connection, _SAID, {"message": message_id})


def message_of(connection: Connection, owner: str, message_id: str) -> dict[str, Any]:
    row = connection.execute(_MESSAGE, {"message": message_id, "owner": owner}).first()
    if row is None:
        raise NotFound(f"No message {message_id}. Its thread may have been deleted.")
    return _message(row._mapping)


def feedback_on(connection: Connection, owner: str, message_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The owner's feedback on these messages, by message."""
    rows = connection.execute(
        select(feedback).where(feedback.c.owner_id == owner, feedback.c.message_id.in_(message_ids))
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row.message_id, []).append(dict(row._mapping))
    return found


def count(connection: Connection) -> dict[str, int]:
    """How much there is, for `doctor`."""
    tables: Iterable[tuple[str, Any]] = (("threads", threads), ("messages", messages), ("feedback", feedback))
    return {name: connection.execute(select(func.count()).select_from(table)).scalar_one() for name, table in tables}


def _touch(connection: Connection, owner: str, thread_id: str, **values: Any) -> None:
    changed = connection.execute(
        update(threads).where(threads.c.id == thread_id, threads.c.owner_id == owner).values(**values)
    )
    if not changed.rowcount:
        raise NotFound(f"No thread {thread_id}. It may have been deleted.")


def _public(row: Any) -> dict[str, Any]:
    return {name: row[name] for name in _PUBLIC}


def _message(row: Any) -> dict[str, Any]:
    return dict(row)


def _escape_like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
