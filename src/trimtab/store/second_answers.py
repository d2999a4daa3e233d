"""What a version says where an earlier one got a thumb down. Each goes with the thumb it is about."""

from __future__ import annotations

import time

from sqlalchemy import Connection, or_, select

from .alignment import second_answers
from .imports import FILES
from .judgements import refused_answers
from .schema import feedback, messages


def waiting(connection: Connection, version_id: str, most: int) -> list[str]:
    """Of the newest `most` thumbs down, by people who let theirs train, on answers of other versions: the ids of those
    that this version has not answered."""
    spoken = messages.c.lineage["version"].as_string()
    rows = connection.execute(
        select(feedback.c.id, feedback.c.message_id, second_answers.c.version_id)
        .join(messages, messages.c.id == feedback.c.message_id)
        .outerjoin(
            second_answers,
            (second_answers.c.feedback_id == feedback.c.id) & (second_answers.c.version_id == version_id),
        )
        .where(feedback.c.kind == "thumb", feedback.c.value == 0, feedback.c.consent == 1)
        .where(feedback.c.owner_id.not_in(FILES), or_(spoken.is_(None), spoken != version_id))
        .order_by(feedback.c.updated_at.desc(), feedback.c.id)
        .limit(most)
    ).all()
    refused = refused_answers(connection)
    return [row.id for row in rows if row.version_id is None and row.message_id not in refused]


def message_of(connection: Connection, feedback_id: str) -> str:
    """The answer that a judgement is about; empty when it was withdrawn."""
    found = connection.execute(select(feedback.c.message_id).where(feedback.c.id == feedback_id)).scalar()
    return str(found or "")


def keep(connection: Connection, version_id: str, feedback_id: str, text: str) -> None:
    """Unless the judgement was withdrawn meanwhile, or somebody was faster."""
    key = (second_answers.c.version_id == version_id) & (second_answers.c.feedback_id == feedback_id)
    known = connection.execute(select(second_answers.c.at).where(key)).first()
    if known is None and message_of(connection, feedback_id):
        row = {"version_id": version_id, "feedback_id": feedback_id, "text": text, "at": time.time()}
        connection.execute(second_answers.insert().values(row))
