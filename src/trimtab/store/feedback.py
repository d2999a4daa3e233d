"""What people say about answers: a thumb (0/1) for a label, a preference between two answers, an edit.

One row a person, message, kind and label: saying it again changes the row. The digest of the text that was judged is
kept, so later training can tell that the words are ours and unchanged. `consent` says whether the row may train.

People judge their own answers and those that were imported; other people's only where `anybody` says so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select, update

from trimtab.domain import ids
from trimtab.domain.errors import Conflict, InvalidInput, NotFound

from .alignment import curation
from .encoding import whole
from .listing import latest
from .schema import feedback, messages, threads
from .threads import message_of

REASON_LIMIT = 2000
EDIT_LIMIT = 64_000
DEFAULT_LABEL = "helpful"


@dataclass(frozen=True)
class Terms:
    """On which terms a judgement is given."""

    consent: bool = True
    """It may train a model."""
    anybody: bool = False
    """Other people's answers may be judged, too."""
    digest: str = ""
    """SHA-256 (hexadecimal) of the text the person was shown; checked when given."""


def thumb(
    connection: Connection,
    owner: str,
    message_id: str,
    value: int,
    reason: str = "",
    *,
    label: str = DEFAULT_LABEL,
    terms: Terms = Terms(),
) -> dict[str, Any]:
    """1 is up, 0 is down. `label` is what it is about.

    Raises:
        Conflict: the text that was judged is not the text that is stored.
    """
    if value not in (0, 1):
        raise InvalidInput(f"A thumb is 0 (down) or 1 (up), not {value}.")
    answer = _answer(connection, owner, message_id, terms)
    return _keep(connection, owner, answer, "thumb", terms, value=value, reason=reason, label=label)


def prefer(
    connection: Connection,
    owner: str,
    chosen_id: str,
    rejected_id: str,
    reason: str = "",
    *,
    terms: Terms = Terms(),
) -> dict[str, Any]:
    """Of two answers to the same question, `chosen_id` is the better."""
    chosen, rejected = (_answer(connection, owner, one, terms) for one in (chosen_id, rejected_id))
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
    return _keep(connection, owner, chosen, "preference", terms, other=rejected_id, reason=reason)


def edit(
    connection: Connection, owner: str, message_id: str, text: str, reason: str = "", *, terms: Terms = Terms()
) -> dict[str, Any]:
    """What the answer should have been."""
    answer, text = _answer(connection, owner, message_id, terms), whole(text)
    if not text.strip() or len(text) > EDIT_LIMIT:
        raise InvalidInput(f"An edited answer needs 1 to {EDIT_LIMIT} characters.")
    if text == answer["text"]:
        raise InvalidInput("The edited answer is the same as the original. Change something, or rate it instead.")
    return _keep(connection, owner, answer, "edit", terms, text=text, reason=reason)


def withdraw(connection: Connection, owner: str, feedback_id: str) -> None:
    gone = connection.execute(delete(feedback).where(feedback.c.id == feedback_id, feedback.c.owner_id == owner))
    if not gone.rowcount:
        raise NotFound(f"No feedback {feedback_id}. It may have been withdrawn already.")
    connection.execute(delete(curation).where(curation.c.feedback_id == feedback_id))


def set_consent(connection: Connection, owner: str, feedback_id: str, consent: bool) -> dict[str, Any]:
    """Whether a row may train. What a model has learned from it already is another matter: see the versions."""
    mine = (feedback.c.id == feedback_id, feedback.c.owner_id == owner)
    changed = connection.execute(update(feedback).where(*mine).values(consent=int(consent), updated_at=time.time()))
    if not changed.rowcount:
        raise NotFound(f"No feedback {feedback_id}. It may have been withdrawn.")
    return dict(connection.execute(select(feedback).where(*mine)).one()._mapping)


def is_of(connection: Connection, owner: str, feedback_id: str) -> bool:
    """Whether a person gave it."""
    mine = select(feedback.c.id).where(feedback.c.id == feedback_id, feedback.c.owner_id == owner)
    return connection.execute(mine).first() is not None


def listed(connection: Connection, owner: str, *, limit: int = 1000, before: str = "") -> list[dict[str, Any]]:
    """What a person said, latest first; `before` is a place in the list (see `listing`): what comes after it."""
    query = select(feedback).where(feedback.c.owner_id == owner)
    rows = connection.execute(latest(query, feedback, limit=limit, before=before))
    return [dict(row._mapping) for row in rows]


def _answer(connection: Connection, owner: str, message_id: str, terms: Terms) -> dict[str, Any]:
    message = _readable(connection, owner, message_id, anybody=terms.anybody)
    if message["role"] != "assistant":
        raise InvalidInput("Feedback is about answers. Give the id of an assistant message.")
    if message["status"] in ("running", "waiting"):
        raise InvalidInput("This answer is still being written. Rate it when it has finished.")
    if terms.digest and terms.digest != message["text_digest"]:
        raise Conflict("The text you judged is not what was generated. Read the answer again, then judge it.")
    return message


def _readable(connection: Connection, owner: str, message_id: str, *, anybody: bool) -> dict[str, Any]:
    """A message of the person's own, of a file, or (where allowed) of anybody."""
    found = select(messages, threads.c.owner_id).join(threads, threads.c.id == messages.c.thread_id)
    row = connection.execute(found.where(messages.c.id == message_id)).first()
    if row is not None and (row.owner_id == owner or anybody or "source" in (row.lineage or {})):
        return {name: value for name, value in row._mapping.items() if name != "owner_id"}
    return message_of(connection, owner, message_id)  # says that there is none


def _keep(
    connection: Connection,
    owner: str,
    answer: dict[str, Any],
    kind: str,
    terms: Terms,
    *,
    label: str = DEFAULT_LABEL,
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
        feedback.c.label == label,
    )
    values = {
        "value": value,
        "reason": whole(reason),
        "consent": int(terms.consent),
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
                label=label,
                created_at=now,
                **values,
            )
        )
    row = connection.execute(select(feedback).where(*where)).one()
    return dict(row._mapping)
