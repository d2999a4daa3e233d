"""Answers that somebody could be asked about: finished, visible to the person, and not judged by the person yet."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from sqlalchemy import ColumnElement, Connection, exists, func, select

from .imports import FILES
from .schema import feedback, messages, threads

NEWEST = 2000
"""Answers that are looked at, the newest first."""


@dataclass(frozen=True)
class Open:
    """One answer, or two answers to the same question, that could be judged."""

    messages: tuple[str, ...]
    judged: int
    """By how many other people."""
    people: float | None = None
    """What they said on average, 0 to 1: that it is good, or that the first of two is better."""

    @property
    def id(self) -> str:
        return "+".join(sorted(self.messages))


def visible(connection: Connection, owner: str, *, anybody: bool) -> ColumnElement[bool]:
    """Which answers a person may see: their own, those from files, and where allowed everybody's whose owner has not
    said of them that they must not train."""
    seen = (threads.c.owner_id == owner) | threads.c.owner_id.in_(FILES)
    if anybody:
        other = feedback.alias()
        refused = exists().where(
            other.c.message_id == messages.c.id, other.c.owner_id == threads.c.owner_id, other.c.consent == 0
        )
        seen = seen | ~refused
    return seen


def to_label(connection: Connection, owner: str, label: str, *, anybody: bool = False) -> list[Open]:
    """Answers without this person's word on `label`."""
    rows = _answers(connection, owner, anybody)
    said = _said(connection, "thumb", feedback.c.label == label)
    open_to = [(row["id"], said.get((row["id"], ""), {})) for row in rows]
    return [Open((key,), len(by), _mean(by.values())) for key, by in open_to if owner not in by]


def to_compare(connection: Connection, owner: str, *, anybody: bool = False) -> list[Open]:
    """Pairs of different answers to the same question without this person's preference."""
    siblings: dict[str, list[Mapping[str, Any]]] = {}
    for row in _answers(connection, owner, anybody):
        siblings.setdefault(row["parent_id"], []).append(row)
    said = _said(connection, "preference")
    found = []
    for some in siblings.values():
        for one, other in combinations(some, 2):
            first, second = (said.get(pair, {}) for pair in ((one["id"], other["id"]), (other["id"], one["id"])))
            raters = dict.fromkeys(first, 1) | dict.fromkeys(second, 0)
            if one["text_digest"] != other["text_digest"] and owner not in raters:
                found.append(Open((one["id"], other["id"]), len(raters), _mean(raters.values())))
    return found


def _mean(values: Collection[int]) -> float | None:
    return sum(values) / len(values) if values else None


def done_by(connection: Connection, owner: str) -> int:
    """How many judgements a person has given."""
    return connection.execute(
        select(func.count()).select_from(feedback).where(feedback.c.owner_id == owner)
    ).scalar_one()


def votes(connection: Connection, owner: str, *, anybody: bool = False) -> list[tuple[str, dict[str, int]]]:
    """What people said of the same answers, as far as this person may see them: ``(label, {rater: value})``, for
    preferences with the label ``""`` and 1 for the answer whose id comes first."""
    found: dict[tuple[str, str, str], dict[str, int]] = {}
    query = (
        select(feedback)
        .join(messages, messages.c.id == feedback.c.message_id)
        .join(threads, threads.c.id == messages.c.thread_id)
        .where(visible(connection, owner, anybody=anybody), feedback.c.kind.in_(("thumb", "preference")))
        .where(feedback.c.owner_id.not_in(FILES))
        .order_by(feedback.c.updated_at)
    )
    for row in connection.execute(query):
        if row.kind == "thumb":
            found.setdefault((row.label, row.message_id, ""), {})[row.owner_id] = int(row.value)
        else:
            one, other = sorted((row.message_id, row.other_id))
            found.setdefault(("", one, other), {})[row.owner_id] = int(row.message_id == one)
    return [(key[0], said) for key, said in sorted(found.items())]


def _answers(connection: Connection, owner: str, anybody: bool) -> list[Mapping[str, Any]]:
    query = (
        select(messages.c.id, messages.c.parent_id, messages.c.text_digest, messages.c.lineage)
        .join(threads, threads.c.id == messages.c.thread_id)
        .where(
            messages.c.role == "assistant",
            messages.c.status == "done",
            messages.c.text != "",
            visible(connection, owner, anybody=anybody),
        )
        .order_by(messages.c.created_at.desc(), messages.c.id)
        .limit(NEWEST)
    )
    rows = [dict(row._mapping) for row in connection.execute(query)]
    # What the assistant says inside an imported prompt is no answer of anybody's: nothing says where it came from.
    return [row for row in rows if not row["id"].startswith("imp_") or "source" in (row["lineage"] or {})]


def _said(connection: Connection, kind: str, *also: ColumnElement[bool]) -> dict[tuple[str, str], dict[str, int]]:
    """Who has given such feedback, and the value of it, by answer and the other answer."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    query = select(feedback.c.message_id, feedback.c.other_id, feedback.c.owner_id, feedback.c.value)
    by_people = feedback.c.owner_id.not_in(FILES)
    for row in connection.execute(query.where(feedback.c.kind == kind, by_people, *also)):
        found.setdefault((row.message_id, row.other_id), {})[row.owner_id] = int(row.value or 0)
    return found
