"""Which versions there are, which one answers, and how that came to be.

The serving version changes in one transaction together with its line in `promotions`, so there is always exactly one
and its history is whole. Files are not known here: see `trimtab.registry`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, func, select, update

from trimtab.domain.errors import Conflict, InvalidInput, NotFound

from .alignment import promotions, second_answers, serving, version_rows, versions
from .pages import pages
from .schema import feedback, messages

AUTO_ROLLBACK = "auto-rollback"
CANDIDATE, READY, HELD, RETIRED = "candidate", "ready", "held", "retired"


def add(
    connection: Connection,
    version_id: str,
    name: str,
    manifest: Mapping[str, Any],
    *,
    digest: str,
    kind: str = "adapter",
    parent: str | None = None,
    status: str = CANDIDATE,
    shaped_by: Iterable[str] = (),
) -> dict[str, Any]:
    """Make a version known. Adding one that is known changes nothing.

    Args:
        shaped_by: ids of the feedback it was trained on; those that are no people's feedback are left out.
    """
    if (known := _find(connection, version_id)) is not None:
        return known
    connection.execute(
        versions.insert().values(
            id=version_id,
            name=_free_name(connection, name),
            parent_id=parent,
            kind=kind,
            status=status,
            digest=digest,
            manifest=dict(manifest),
            evidence={},
            created_at=time.time(),
        )
    )
    _remember_rows(connection, version_id, shaped_by)
    return get(connection, version_id)


def ensure_base(connection: Connection, version_id: str, name: str, manifest: Mapping[str, Any], digest: str) -> None:
    """The model as it was installed is a version, too. It answers until another is promoted; when another base was
    configured, it answers instead of what was promoted on the old one."""
    add(connection, version_id, name, manifest, digest=digest, kind="base", status=READY)
    now = _serving_row(connection)
    if now is None:
        connection.execute(
            serving.insert().values(id=1, version_id=version_id, canary_share=0.0, changed_at=time.time())
        )
        _log(connection, version_id, None, "promote", "trimtab", "the first model", {})
        return
    current = get(connection, now["version_id"])
    if current["id"] != version_id and current["manifest"].get("base_sha256") != digest:
        _switch(connection, version_id, None)
        _log(connection, version_id, current["id"], "promote", "trimtab", "another base model was configured", {})


def get(connection: Connection, version_id: str) -> dict[str, Any]:
    """By id or by name.

    Raises:
        NotFound
    """
    row = _find(connection, version_id)
    if row is None:
        raise NotFound(f"No version {version_id}. `trimtab models versions` lists them.")
    return row


def listed(connection: Connection) -> list[dict[str, Any]]:
    """All versions, oldest first, each with `serving`, `rows` (judgements that shaped it) and `fell`: why it was rolled
    back by itself, where that was the last thing that became of it."""
    now = _serving_row(connection) or {}
    grouped = select(version_rows.c.version_id, func.count()).group_by(version_rows.c.version_id)
    counts: dict[str, int] = {row[0]: row[1] for row in connection.execute(grouped)}
    rows = connection.execute(select(versions).order_by(versions.c.created_at, versions.c.id))
    fell = _fallen(connection)
    return [
        {
            **row._mapping,
            "serving": row.id == now.get("version_id"),
            "rows": counts.get(row.id, 0),
            "fell": fell.get(row.id, ""),
        }
        for row in rows
    ]


def current(connection: Connection) -> dict[str, Any]:
    """What answers: `version_id`, `previous_id`, `canary_id`, `canary_share`, `changed_at`.

    Raises:
        NotFound: no model was ever opened here.
    """
    row = _serving_row(connection)
    if row is None:
        raise NotFound("No model answers yet. Start Trimtab once: trimtab up")
    return row


def serving_or_none(connection: Connection) -> dict[str, Any] | None:
    """`current`, or None when no model was ever opened here."""
    return _serving_row(connection)


def judge(connection: Connection, version_id: str, status: str, evidence: Mapping[str, Any]) -> None:
    """Keep the gate's verdict: `ready` to be promoted or `held`, and why."""
    connection.execute(
        update(versions).where(versions.c.id == version_id).values(status=status, evidence=dict(evidence))
    )


def promote(
    connection: Connection, version_id: str, *, by: str, reason: str = "", anyway: bool = False
) -> dict[str, Any]:
    """Let a version answer from now on. Returns what `current` says then.

    Raises:
        NotFound: no such version.
        Conflict: the gate has not let it through (`anyway` overrides, and the history says so), or it answers already.
    """
    row = get(connection, version_id)
    now = current(connection)
    if now["version_id"] == row["id"]:
        raise Conflict(f"{row['name']} answers already.")
    if row["status"] != READY and not anyway:
        why = row["evidence"].get("verdict_reason") or "it has not been through the gate"
        raise Conflict(f"{row['name']} may not be promoted: {why}. See: trimtab models card {row['name']}")
    if row["status"] != READY:
        reason = f"against the gate ({row['status']}). {reason}".strip()
    _switch(connection, row["id"], now["version_id"])
    _log(connection, row["id"], now["version_id"], "promote", by, reason, row["evidence"])
    return current(connection)


def roll_back(connection: Connection, *, by: str, reason: str = "", action: str = "rollback") -> dict[str, Any]:
    """Let the version before answer again. Done twice, it is as it was.

    Raises:
        Conflict: nothing was promoted before.
    """
    now = current(connection)
    if not now["previous_id"]:
        raise Conflict("There is no earlier version to go back to.")
    _switch(connection, now["previous_id"], now["version_id"])
    _log(connection, now["previous_id"], now["version_id"], action, by, reason, {})
    return current(connection)


def set_canary(connection: Connection, version_id: str | None, share: float, *, by: str, reason: str = "") -> None:
    """Let a version answer a share (0..1) of the conversations beside the serving one; None ends it.

    Raises:
        InvalidInput: the share is not one.
        NotFound: no such version.
    """
    if version_id is not None:
        version_id = get(connection, version_id)["id"]
    if not 0.0 <= share <= 1.0:
        raise InvalidInput(f"A canary's share is between 0 and 1, not {share}.")
    connection.execute(
        update(serving).values(canary_id=version_id, canary_share=share if version_id else 0.0, changed_at=time.time())
    )
    _log(connection, version_id or "", current(connection)["version_id"], "canary", by, reason, {"share": share})


def retire(connection: Connection, version_id: str) -> None:
    """Its files may go. What it said keeps naming it.

    Raises:
        Conflict: it answers, or is what a rollback would bring back.
    """
    row, now = get(connection, version_id), current(connection)
    if row["id"] in (now["version_id"], now["previous_id"], now["canary_id"]):
        raise Conflict(f"{row['name']} is in use. Promote another version first.")
    connection.execute(
        update(versions).where(versions.c.id == row["id"]).values(status=RETIRED, retired_at=time.time())
    )


def history(connection: Connection, limit: int = 100) -> list[dict[str, Any]]:
    """Promotions and rollbacks, the latest first."""
    rows = connection.execute(select(promotions).order_by(promotions.c.seq.desc()).limit(limit))
    return [dict(row._mapping) for row in rows]


def shaped_by_person(connection: Connection, owner: str) -> list[dict[str, Any]]:
    """The versions that a person's feedback is in, each with how many rows of it."""
    rows = connection.execute(
        select(versions.c.id, versions.c.name, versions.c.status, func.count().label("rows"))
        .join(version_rows, version_rows.c.version_id == versions.c.id)
        .where(version_rows.c.owner_id == owner)
        .group_by(versions.c.id)
        .order_by(versions.c.created_at)
    )
    return [dict(row._mapping) for row in rows]


def shaped_by_feedback(connection: Connection, feedback_id: str) -> list[str]:
    """Ids of the versions that one judgement is in."""
    return list(
        connection.execute(select(version_rows.c.version_id).where(version_rows.c.feedback_id == feedback_id)).scalars()
    )


def said_in(connection: Connection, version_id: str, owner: str) -> list[dict[str, Any]]:
    """What a person said that shaped a version, or that the version answered again, the latest first: each judgement
    with the question and the answer it is about, `shaped`, and `after`: what the version says instead, where it was
    asked (see `second_answers`). What was withdrawn since is gone."""
    questions = messages.alias()
    shaped = (version_rows.c.feedback_id == feedback.c.id) & (version_rows.c.version_id == version_id)
    again = (second_answers.c.feedback_id == feedback.c.id) & (second_answers.c.version_id == version_id)
    rows = connection.execute(
        select(
            feedback,
            messages.c.text.label("completion"),
            questions.c.text.label("question"),
            version_rows.c.version_id.is_not(None).label("shaped"),
            second_answers.c.text.label("after"),
        )
        .join(messages, messages.c.id == feedback.c.message_id)
        .outerjoin(questions, questions.c.id == messages.c.parent_id)
        .outerjoin(version_rows, shaped)
        .outerjoin(second_answers, again)
        .where(feedback.c.owner_id == owner)
        .where(version_rows.c.version_id.is_not(None) | second_answers.c.version_id.is_not(None))
        .order_by(feedback.c.updated_at.desc(), feedback.c.id)
    )
    return [{**row._mapping, "shaped": bool(row.shaped)} for row in rows]


def deleted_from(connection: Connection, version_id: str) -> int:
    """How many of the judgements that shaped a version are not there any more: withdrawn, or deleted with a person's
    data."""
    there = select(feedback.c.id)
    return connection.execute(
        select(func.count())
        .select_from(version_rows)
        .where(version_rows.c.version_id == version_id, version_rows.c.feedback_id.not_in(there))
    ).scalar_one()


def rows_of(connection: Connection, version_id: str) -> list[str]:
    """Ids of the feedback that shaped a version."""
    return list(
        connection.execute(select(version_rows.c.feedback_id).where(version_rows.c.version_id == version_id)).scalars()
    )


def ratings(connection: Connection, version_id: str) -> tuple[int, int]:
    """Thumbs up, and thumbs in all, that people gave to what a version said."""
    ups, given = connection.execute(
        select(func.coalesce(func.sum(feedback.c.value), 0), func.count())
        .join(messages, messages.c.id == feedback.c.message_id)
        .where(
            feedback.c.kind == "thumb",
            feedback.c.label == "helpful",
            messages.c.lineage["version"].as_string() == version_id,
        )
    ).one()
    return int(ups), int(given)


def _fallen(connection: Connection) -> dict[str, str]:
    """Of each version that was rolled back by itself and not promoted since: why."""
    fell: dict[str, str] = {}
    switched = promotions.c.action != "canary"
    for row in connection.execute(select(promotions).where(switched).order_by(promotions.c.seq)):
        fell.pop(row.version_id, None)
        if row.action == AUTO_ROLLBACK:
            fell[row.previous_id] = row.reason
    return fell


def _remember_rows(connection: Connection, version_id: str, ids: Iterable[str]) -> None:
    for some in pages(ids):
        owners = connection.execute(select(feedback.c.id, feedback.c.owner_id).where(feedback.c.id.in_(some)))
        rows = [{"version_id": version_id, "feedback_id": row_id, "owner_id": owner} for row_id, owner in owners]
        if rows:
            connection.execute(version_rows.insert(), rows)


def _find(connection: Connection, key: str) -> dict[str, Any] | None:
    row = connection.execute(select(versions).where((versions.c.id == key) | (versions.c.name == key))).first()
    return dict(row._mapping) if row is not None else None


def _free_name(connection: Connection, name: str) -> str:
    taken = set(connection.execute(select(versions.c.name).where(versions.c.name.startswith(name))).scalars())
    if name not in taken:
        return name
    number = 2
    while f"{name}-{number}" in taken:
        number += 1
    return f"{name}-{number}"


def _serving_row(connection: Connection) -> dict[str, Any] | None:
    row = connection.execute(select(serving).where(serving.c.id == 1)).first()
    return dict(row._mapping) if row is not None else None


def _switch(connection: Connection, version_id: str, previous: str | None) -> None:
    connection.execute(
        update(serving).values(
            version_id=version_id, previous_id=previous, canary_id=None, canary_share=0.0, changed_at=time.time()
        )
    )


def _log(
    connection: Connection,
    version_id: str,
    previous: str | None,
    action: str,
    by: str,
    reason: str,
    evidence: Mapping[str, Any],
) -> None:
    connection.execute(
        promotions.insert().values(
            version_id=version_id,
            previous_id=previous,
            action=action,
            by=by,
            reason=reason,
            evidence=dict(evidence),
            at=time.time(),
        )
    )
