"""What people say about answers: a thumb (0/1), a preference between two answers, an edit.

One row a person, message and kind: saying it again changes the row. The digest of the text that was judged is kept,
so later training can tell that the words are ours and unchanged.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Connection, delete, select

from trimtab.domain import ids
from trimtab.domain.errors import InvalidInput, NotFound

from .schema import feedback
from .threads import message_of

REASON_LIMIT = 2000
EDIT_LIMIT = 64_000


def thumb(connection: Connection, owner: str, message_id: str, value: int, reason: str = "") -> dict[str, Any]:
    """1 is up, 0 is down."""
    if value not in (0, 1):
        raise InvalidInput(f"A thumb is 0 (down) or 1 (up), not {value}.")
    answer = _answer(connection, owner, message_id)
    return _keep(connection, owner, answer, "thumb", value=value, reason=reason)


def prefer(connection: Connection, owner: str, chosen_id: str, rejected_id: str, reason: str = "") -> dict[str, Any]:
    """Of two answers to the same question, `chosen_id` is the better."""
    chosen, rejected = _answer(connection, owner, chosen_id), _answer(connection, owner, rejected_id)
    if chosen["id"] == rejected["id"] or chosen["parent_id"] != rejected["parent_id"]:
        raise InvalidInput("A preference needs two different answers to the same question.")
    # The opposite judgement of the same pair, if there was one, is replaced.
    connection.execute(
        delete(feedback).where(
            feedback.c.owner_id == owner,
            feedback.c.kind == "preference",
            feedback.c.message_id == rejected_id,
            feedback.c.other_id == chosen_id,
        )
    )
    return _keep(connection, owner, chosen, "preference", other=rejected_id, reason=reason)


def edit(connection: Connection, owner: str, message_id: str, text: str, reason: str = "") -> dict[str, Any]:
    """What the answer should have been."""
    answer = _answer(connection, owner, message_id)
    if not text.strip() or len(text) > EDIT_LIMIT:
        raise InvalidInput(f"An edited answer needs 1 to {EDIT_LIMIT} characters.")
    if text == answer["text"]:
        raise InvalidInput("The edited answer is the same as the original. Change something, or rate it instead.")
    return _keep(connection, owner, answer, "edit", text=text, reason=reason)


def withdraw(connection: Connection, owner: str, feedback_id: str) -> None:
    gone = connection.execute(delete(feedback).where(feedback.c.id == feedback_id, feedback.c.owner_id == owner))
    if not gone.rowcount:
        raise NotFound(f"No feedback {feedback_id}. It may have been withdrawn already.")


def listed(connection: Connection, owner: str, *, limit: int = 1000) -> list[dict[str, Any]]:
    rows = connection.execute(
        select(feedback).where(feedback.c.owner_id == owner).order_by(feedback.c.updated_at.desc()).limit(limit)
    )
    return [dict(row._mapping) for row in rows]


def _answer(connection: Connection, owner: str, message_id: str) -> dict[str, Any]:
    message = message_of(connection, owner, message_id)
    if message["role"] != "assistant":
        raise InvalidInput("Feedback is about answers. Give the id of an assistant message.")
    if message["status"] in ("running", "waiting"):
        raise InvalidInput("This answer is still being written. Rate it when it has finished.")
    return message


def _keep(
    connection: Connection,
    owner: str,
    answer: dict[str, Any],
    kind: str,
    *,
    value: int | None = None,
    other: str = "",
    text: str = "",
    reason: str = "",
) -> dict[str, Any]:
    if len(reason) > REASON_LIMIT:
        raise InvalidInput(f"A reason has at most {REASON_LIMIT} characters.")
    now = time.time()
    where = (
        feedback.c.owner_id == owner,
        feedback.c.message_id == answer["id"],
        feedback.c.kind == kind,
        feedback.c.other_id == other,
    )
    values = {
        "value": value,
        "reason": reason,
        "text": text,
        "generation_digest": answer["text_digest"],
        "updated_at": now,
    }
    changed = connection.execute(feedback.update().where(*where).values(**values))
    if not changed.rowcount:
        connection.execute(
            feedback.insert().values(
                id=ids.new("fbk"),
                owner_id=owner,
                message_id=answer["id"],
                kind=kind,
                other_id=other,
                created_at=now,
                **values,
            )
        )
    row = connection.execute(select(feedback).where(*where)).one()
    return dict(row._mapping)
