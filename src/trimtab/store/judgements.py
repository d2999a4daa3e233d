"""Feedback as training sees it: each row with the answer it is about, what led to that answer, and what was decided.

Nothing is judged here: `records` only gathers. A decision about a row (let it in, leave it out) is kept beside it with
its reason and its author, and can be taken back.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, delete, func, or_, select

from trimtab.domain import events as ev
from trimtab.domain.errors import InvalidInput, NotFound

from .alignment import curation, replays
from .pages import pages
from .schema import events, feedback, messages, threads, users

INCLUDE, EXCLUDE = "include", "exclude"


@dataclass(frozen=True)
class Answer:
    """One answer with what led to it."""

    message: Mapping[str, Any]
    """Its row, and `owner_id` of whose thread it is in."""
    path: tuple[tuple[str, str], ...]
    """``(role, text)`` of the thread up to the question, the question last."""
    events: tuple[ev.Event, ...]
    """What its turn did; empty for an answer that came from a file."""

    @property
    def origin(self) -> Mapping[str, Any]:
        """For an answer from a file: `source`, `file`, `line`. Empty for one of our model's."""
        lineage = self.message["lineage"] or {}
        return lineage if "source" in lineage else {}


@dataclass(frozen=True)
class Record:
    """One row of feedback."""

    feedback: Mapping[str, Any]
    """Its row, and `by`: the name of who gave it."""
    answer: Answer
    other: Answer | None
    """Of a preference: the worse answer. None when it was deleted."""
    consent: bool
    """Of who gave it, and of whose conversation it is about."""
    decision: Mapping[str, Any] | None
    """`decision`, `reason`, `decided_by`, `decided_at`."""
    replay: Mapping[str, Any] | None = None
    """What came of asking again with the right text: see `keep_replay`."""


def records(connection: Connection) -> list[Record]:
    """Everybody's feedback, oldest first."""
    rows = _feedback(connection)
    wanted = {row["message_id"] for row in rows} | {row["other_id"] for row in rows if row["other_id"]}
    found = answers(connection, wanted)
    decided = decisions(connection)
    refused = refused_answers(connection)
    replayed = {row.feedback_id: dict(row._mapping) for row in connection.execute(select(replays))}
    return [
        Record(
            row,
            found[row["message_id"]],
            found.get(row["other_id"]),
            bool(row["consent"]) and not refused & {row["message_id"], row["other_id"]},
            decided.get(row["id"]),
            replayed.get(row["id"]),
        )
        for row in rows
        if row["message_id"] in found
    ]


def state(connection: Connection) -> tuple[Any, ...]:
    """Changes whenever any feedback, any decision about it or any replay of it does."""
    said = select(func.count(), func.max(feedback.c.updated_at)).select_from(feedback)
    decided = select(func.count(), func.max(curation.c.decided_at)).select_from(curation)
    replayed = select(func.count(), func.max(replays.c.at)).select_from(replays)
    return tuple(figure for query in (said, decided, replayed) for figure in connection.execute(query).one())


def _feedback(connection: Connection) -> list[dict[str, Any]]:
    query = select(feedback, users.c.name.label("by")).outerjoin(users, users.c.id == feedback.c.owner_id)
    rows = connection.execute(query.order_by(feedback.c.created_at, feedback.c.id))
    return [dict(row._mapping) for row in rows]


def refused_answers(connection: Connection) -> set[str]:
    """Answers whose own person said, of any of their feedback on it, that it must not train."""
    mine = feedback.c.owner_id == threads.c.owner_id
    query = (
        select(feedback.c.message_id, feedback.c.other_id)
        .join(messages, messages.c.id == feedback.c.message_id)
        .join(threads, threads.c.id == messages.c.thread_id)
        .where(feedback.c.consent == 0, mine)
    )
    return {found for row in connection.execute(query) for found in row if found}


def answers(connection: Connection, message_ids: Collection[str]) -> dict[str, Answer]:
    """Answers by id, each with the path to it and its turn. Those that are gone are left out."""
    rows: dict[str, dict[str, Any]] = {}
    for some in pages(message_ids):
        query = select(messages, threads.c.owner_id).join(threads, threads.c.id == messages.c.thread_id)
        rows |= {row.id: dict(row._mapping) for row in connection.execute(query.where(messages.c.id.in_(some)))}
    trees = _trees(connection, {row["thread_id"] for row in rows.values()})
    by_turn = {row["turn_id"] for row in rows.values() if row["turn_id"]}
    logs = _logs(connection, by_turn)
    return {
        key: Answer(row, _path(trees, row["parent_id"]), tuple(logs.get(row["turn_id"], ())))
        for key, row in rows.items()
    }


def answers_in(connection: Connection, thread_id: str) -> list[Answer]:
    """The answers of a thread that were given to their end, oldest first."""
    query = select(messages.c.id).where(
        messages.c.thread_id == thread_id, messages.c.role == "assistant", messages.c.status == "done"
    )
    ids = [row.id for row in connection.execute(query.order_by(messages.c.created_at, messages.c.id))]
    found = answers(connection, ids)
    return [found[one] for one in ids if one in found]


def _trees(connection: Connection, thread_ids: Collection[str]) -> dict[str, tuple[str | None, str, str]]:
    """Of each message in these threads: parent, role, text."""
    tree: dict[str, tuple[str | None, str, str]] = {}
    for some in pages(thread_ids):
        query = select(messages.c.id, messages.c.parent_id, messages.c.role, messages.c.text)
        for row in connection.execute(query.where(messages.c.thread_id.in_(some))):
            tree[row.id] = (row.parent_id, row.role, row.text)
    return tree


def _path(tree: Mapping[str, tuple[str | None, str, str]], at: str | None) -> tuple[tuple[str, str], ...]:
    line: list[tuple[str, str]] = []
    while at is not None and at in tree:
        at, role, text = tree[at]
        line.append((role, text))
    return tuple(line[::-1])


def _logs(connection: Connection, turn_ids: Collection[str]) -> dict[str, list[ev.Event]]:
    logs: dict[str, list[ev.Event]] = {}
    for some in pages(turn_ids):
        query = select(events.c.turn_id, events.c.type, events.c.data).where(events.c.turn_id.in_(some))
        for row in connection.execute(query.order_by(events.c.seq)):
            if row.type in ev.TYPES:
                logs.setdefault(row.turn_id, []).append(ev.from_wire(orjson.loads(row.data)))
    return logs


# ---------------------------------------------------------------------- decisions


def decisions(connection: Connection) -> dict[str, dict[str, Any]]:
    """What people decided about rows, by the feedback's id."""
    return {row.feedback_id: dict(row._mapping) for row in connection.execute(select(curation))}


def decide(connection: Connection, feedback_id: str, decision: str, reason: str, by: str) -> dict[str, Any]:
    """Let a row in or leave it out, whatever the rules say of it (but consent and whose words they are, which no
    decision overrules). Deciding again replaces the decision.

    Args:
        by: the id of whoever decides.
    """
    if decision not in (INCLUDE, EXCLUDE):
        raise InvalidInput(f"A decision is '{INCLUDE}' or '{EXCLUDE}', not {decision!r}.")
    if connection.execute(select(feedback.c.id).where(feedback.c.id == feedback_id)).first() is None:
        raise NotFound(f"No feedback {feedback_id}. It may have been withdrawn.")
    undecide(connection, feedback_id)
    row = {"decision": decision, "reason": reason[:2000], "decided_by": by, "decided_at": time.time()}
    connection.execute(curation.insert().values(feedback_id=feedback_id, **row))
    return {"feedback_id": feedback_id, **row}


def undecide(connection: Connection, feedback_id: str) -> bool:
    """Take a decision back; False when there was none."""
    return bool(connection.execute(delete(curation).where(curation.c.feedback_id == feedback_id)).rowcount)


# ---------------------------------------------------------------------- replays


def feedback_row(connection: Connection, feedback_id: str) -> dict[str, Any] | None:
    row = connection.execute(select(feedback).where(feedback.c.id == feedback_id)).first()
    return dict(row._mapping) if row is not None else None


def keep_replay(connection: Connection, feedback_id: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Keep what a replay showed: `blame`, `why`, `context`, `answers`, `score`. A later one replaces it.

    Raises:
        NotFound: the feedback was withdrawn meanwhile.
    """
    if feedback_row(connection, feedback_id) is None:
        raise NotFound(f"No feedback {feedback_id}. It was withdrawn meanwhile.")
    connection.execute(delete(replays).where(replays.c.feedback_id == feedback_id))
    row = {"feedback_id": feedback_id, **found}
    connection.execute(replays.insert().values(**row, at=time.time()))
    return row


# ---------------------------------------------------------------------- forgetting


def forget(connection: Connection, owner: str) -> list[str]:
    """Delete all feedback that a person gave, and all that others gave on answers in the person's threads: those hold
    the person's words. Returns the ids of what is gone. Which versions it shaped is still known afterwards."""
    theirs = (
        select(messages.c.id).join(threads, threads.c.id == messages.c.thread_id).where(threads.c.owner_id == owner)
    )
    unwanted = or_(feedback.c.owner_id == owner, feedback.c.message_id.in_(theirs), feedback.c.other_id.in_(theirs))
    gone = list(connection.execute(select(feedback.c.id).where(unwanted)).scalars())
    for some in pages(gone):
        connection.execute(delete(curation).where(curation.c.feedback_id.in_(some)))
        connection.execute(delete(feedback).where(feedback.c.id.in_(some)))
    return gone
