"""Judgements from files, kept like everything else: as answers in threads, with feedback on them.

So people can label what was imported, and everything that reads feedback finds it. The threads belong to a user that
nobody has a key of, one a source; what an answer came from is in its lineage. Ids are made from the content: importing
a file twice adds nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, delete, select

from trimtab.domain.judgement import Judgement, Kind, Said, Source

from . import people
from .encoding import dumps, whole
from .pages import pages
from .schema import feedback, messages, threads, users
from .threads import clean_title, new_message

OWNERS = {Source.IMPORT: "trimtab:import", Source.BUNDLED: "trimtab:bundled", Source.CONSTITUTION: "trimtab:judge"}
KINDS = {Kind.LABEL: "thumb", Kind.PREFERENCE: "preference", Kind.DEMONSTRATION: "demonstration"}
FILES = select(users.c.id).where(users.c.name.in_(list(OWNERS.values())))
"""Ids of who "said" what files say: nobody."""


@dataclass
class _Batch:
    """Rows by table and id, not stored yet."""

    threads: dict[str, dict[str, Any]] = field(default_factory=dict)
    messages: dict[str, dict[str, Any]] = field(default_factory=dict)
    feedback: dict[str, dict[str, Any]] = field(default_factory=dict)


def add(connection: Connection, rows: Sequence[Judgement], *, file: str) -> int:
    """Store what a file said; returns how many judgements are new.

    Args:
        rows: of source import, bundled or constitution; some hundreds at a time, so that others may write in between.
    """
    owners = {
        source: people.ensure_user(connection, OWNERS[source]) for source in dict.fromkeys(row.source for row in rows)
    }
    batch = _Batch()
    for row in rows:
        _plan(batch, row, owners[row.source], file)
    # In this order: each table refers to the one before.
    _store(connection, threads, batch.threads)
    _store(connection, messages, batch.messages)
    return _store(connection, feedback, batch.feedback)


def remove(connection: Connection, file: str) -> int:
    """Take back what a file said, and its answers, but those that people have judged meanwhile.

    Returns how many judgements went.
    """
    mine = select(feedback.c.id, messages.c.lineage).join(messages, messages.c.id == feedback.c.message_id)
    owned = mine.where(feedback.c.owner_id.in_(FILES))
    gone = [row.id for row in connection.execute(owned) if (row.lineage or {}).get("file") == file]
    for some in pages(gone):
        connection.execute(delete(feedback).where(feedback.c.id.in_(some)))
    if gone:
        judged = select(messages.c.thread_id).join(feedback, feedback.c.message_id == messages.c.id)
        connection.execute(delete(threads).where(threads.c.owner_id.in_(FILES), threads.c.id.not_in(judged)))
    return len(gone)


def files(connection: Connection) -> list[str]:
    """The names of the files that were imported."""
    mine = select(messages.c.lineage).join(threads, threads.c.id == messages.c.thread_id)
    rows = connection.execute(mine.where(threads.c.owner_id.in_(FILES), messages.c.role == "assistant"))
    return sorted({str(row.lineage["file"]) for row in rows if row.lineage and "file" in row.lineage})


def _plan(batch: _Batch, row: Judgement, owner: str, file: str) -> None:
    prompt = [Said(said.role, whole(said.content)) for said in row.prompt]
    thread = _id("imp", owner, [(said.role, said.content) for said in prompt])
    parent = _prompt(batch, thread, owner, prompt)
    lineage = {"source": row.source.value, "file": file, "line": row.about.get("line", "")}
    if row.version:
        lineage["model"] = row.version
    chosen = _answer(batch, thread, parent, whole(row.completion), lineage)
    other = _answer(batch, thread, parent, whole(row.rejected), lineage) if row.kind is Kind.PREFERENCE else ""
    now = row.at or time.time()
    key = _id("imf", row.kind.value, chosen, other, row.label)
    batch.feedback[key] = {
        "id": key,
        "owner_id": owner,
        "message_id": chosen,
        "kind": KINDS[row.kind],
        "value": row.value,
        "reason": row.about.get("reason", ""),
        "other_id": other,
        "text": "",
        "generation_digest": batch.messages[chosen]["text_digest"],
        "label": row.label,
        "consent": int(row.consent),
        "created_at": now,
        "updated_at": now,
    }


def _prompt(batch: _Batch, thread: str, owner: str, prompt: Sequence[Said]) -> str:
    """The thread and its messages up to the last question; returns that one's id."""
    now = time.time()
    title = clean_title(prompt[-1].content.strip()[:300] or "Imported")
    batch.threads[thread] = {
        "id": thread,
        "owner_id": owner,
        "title": title,
        "head_id": None,
        "created_at": now,
        "updated_at": now,
    }
    parent: str | None = None
    for place, said in enumerate(prompt):
        message = new_message(thread, said.role, said.content, parent=parent)
        parent = message["id"] = _id("imp", thread, place)
        batch.messages[parent] = message
    assert parent is not None
    return parent


def _answer(batch: _Batch, thread: str, parent: str, text: str, lineage: dict[str, str]) -> str:
    message = new_message(thread, "assistant", text, parent=parent)
    message["id"] = _id("imp", thread, "answer", text)
    message["lineage"] = lineage
    batch.messages.setdefault(message["id"], message)
    return str(message["id"])


def _store(connection: Connection, table: Table, rows: dict[str, dict[str, Any]]) -> int:
    """Insert those that are not there; returns how many."""
    known: set[str] = set()
    for some in pages(rows):
        known.update(connection.execute(select(table.c.id).where(table.c.id.in_(some))).scalars())
    fresh = [row for key, row in rows.items() if key not in known]
    if fresh:
        connection.execute(table.insert(), fresh)
    return len(fresh)


def _id(prefix: str, *of: Any) -> str:
    return f"{prefix}_{hashlib.sha256(dumps(list(of)).encode()).hexdigest()[:32]}"
