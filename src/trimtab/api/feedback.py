"""`/v1/feedback`: what people say about answers, on which terms, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import Field
from sqlalchemy import Connection
from starlette.responses import Response

from trimtab.align.blame import REASONS
from trimtab.app import Trimtab
from trimtab.domain.errors import Forbidden, InvalidInput, NotFound
from trimtab.gathering import Outcome, Outcomes, Reading, datasets_dir, forget_person
from trimtab.own_database import LOCAL_USER
from trimtab.store import feedback, judgements, versions
from trimtab.store.listing import place_after
from trimtab.store.once import once

from .access import App, Caller, Known, public
from .threads import Body, Key

router = APIRouter(prefix="/v1/feedback", tags=["feedback"])

Digest = Annotated[str, Field("", pattern=r"^([0-9a-f]{64})?$")]
"""SHA-256 of the text that was shown; 409 when that is not what is stored."""


class Thumb(Body):
    kind: Literal["thumb"]
    message_id: str
    value: Literal[0, 1]
    label: str = Field(feedback.DEFAULT_LABEL, max_length=40)
    reason: str = ""
    consent: bool | None = None
    digest: Digest = ""


class Preference(Body):
    kind: Literal["preference"]
    chosen_id: str
    rejected_id: str
    reason: str = ""
    consent: bool | None = None


class Edit(Body):
    kind: Literal["edit"]
    message_id: str
    text: str
    reason: str = ""
    consent: bool | None = None
    digest: Digest = ""


Judgement = Annotated[Thumb | Preference | Edit, Field(discriminator="kind")]


class Change(Body):
    consent: bool


class Context(Body):
    context: str = Field("", max_length=100_000)
    """The right text; empty searches the documents again."""


class Decision(Body):
    decision: Literal["include", "exclude", "undo"]
    reason: str = Field("", max_length=2000)


@router.post("", status_code=201)
async def give(app: App, caller: Known, body: Judgement, key: Key = None) -> dict[str, Any]:
    labels = app.settings.feedback_labels
    if isinstance(body, Thumb) and body.label not in labels:
        raise InvalidInput(f"There is no label '{body.label}'. The labels are: {', '.join(labels)}.")
    consent = app.settings.feedback_consent if body.consent is None else body.consent
    digest = "" if isinstance(body, Preference) else body.digest
    terms = feedback.Terms(consent, app.settings.label_others, digest)

    def write(connection: Connection) -> dict[str, Any]:
        return once(connection, caller.id, key, body.model_dump(), lambda c: _public(_keep(c, caller.id, body, terms)))

    return await app.database.write(write)


@router.get("")
async def listed(
    app: App,
    caller: Known,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    before: Annotated[str, Query(max_length=100)] = "",
) -> dict[str, Any]:
    """The latest first; what follows with the `next` of this answer as `before`."""
    found = await app.database.read(feedback.listed, caller.id, limit=limit + 1, before=before)
    return {"feedback": [_public(row) for row in found[:limit]], "next": place_after(found, limit)}


@router.get("/choices")
async def choices(app: App, caller: Known) -> dict[str, Any]:
    """What can be said here: the labels, the reasons a thumb down may have, and whether feedback trains by default."""
    return {
        "labels": app.settings.feedback_labels,
        "reasons": [{"words": reason.words, "blame": reason.blame} for reason in REASONS],
        "consent": app.settings.feedback_consent,
    }


@router.get("/outcomes")
async def what_becomes(
    request: Request,
    app: App,
    caller: Known,
    everybody: bool = False,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> dict[str, Any]:
    """What becomes of feedback, the latest first: does it train, and if not, by which rule and why. The counts are of
    all of it, also of what `limit` leaves out. `everybody` is for those who curate."""
    if everybody and not _curates(app, caller):
        raise Forbidden(
            "Only who curates sees everybody's feedback. Ask whoever runs this to add you to trusted_people."
        )
    known: Outcomes = request.app.state.outcomes
    found = await app.database.read(known.of, app.settings, Reading(app.profile, app.orchestrator.count))
    theirs = [outcome for outcome in found if everybody or outcome.owner == caller.id]
    return {
        "feedback": [_wire(outcome) for outcome in theirs[:limit]],
        "counts": {
            "given": len(theirs),
            "trains": Counter(outcome.row.kind for outcome in theirs if not outcome.rule),
            "left_out": Counter(outcome.rule for outcome in theirs if outcome.rule),
        },
        "curates": _curates(app, caller),
    }


@router.get("/{feedback_id}/versions")
async def its_versions(app: App, caller: Known, feedback_id: str) -> dict[str, Any]:
    """The versions of the model that one judgement of the caller's shaped, oldest first."""

    def find(connection: Connection) -> list[dict[str, Any]]:
        if not feedback.is_of(connection, caller.id, feedback_id) and not _curates(app, caller):
            raise NotFound(f"No feedback {feedback_id} of yours. It may have been withdrawn.")
        shaped = set(versions.shaped_by_feedback(connection, feedback_id))
        return [row for row in versions.listed(connection) if row["id"] in shaped]

    rows = await app.database.read(find)
    return {"versions": [{k: row[k] for k in ("id", "name", "status", "serving", "created_at")} for row in rows]}


@router.patch("/{feedback_id}")
async def change(app: App, caller: Known, feedback_id: str, body: Change) -> dict[str, Any]:
    return _public(await app.database.write(feedback.set_consent, caller.id, feedback_id, body.consent))


@router.post("/{feedback_id}/decision")
async def decide(app: App, caller: Known, feedback_id: str, body: Decision) -> dict[str, Any]:
    """Leave a row out, let it in, or take that back. Everybody may leave out their own; the rest is for curators."""

    def write(connection: Connection) -> dict[str, Any]:
        mine = body.decision == "exclude" and feedback.is_of(connection, caller.id, feedback_id)
        if not _curates(app, caller) and not mine:
            raise Forbidden("This is for who curates. You may leave out your own feedback, or withdraw it.")
        if body.decision == "undo":
            judgements.undecide(connection, feedback_id)
            return {"feedback_id": feedback_id, "decision": None}
        return judgements.decide(connection, feedback_id, body.decision, body.reason, caller.id)

    return await app.database.write(write)


@router.post("/{feedback_id}/replay")
async def replay(app: App, caller: Known, feedback_id: str, body: Context) -> dict[str, Any]:
    """Ask again with the right text, and put the blame for a thumb down where that shows it. For who gave the thumb,
    and for who curates."""
    if not _curates(app, caller) and not await app.database.read(feedback.is_of, caller.id, feedback_id):
        raise NotFound(f"No feedback {feedback_id} of yours. It may have been withdrawn.")
    return await app.replays.replay(feedback_id, body.context)


@router.delete("/{feedback_id}", status_code=204)
async def withdraw(app: App, caller: Known, feedback_id: str) -> Response:
    await app.database.write(feedback.withdraw, caller.id, feedback_id)
    return Response(status_code=204)


@router.delete("/of/{person}")
async def forget(request: Request, app: App, caller: Known, person: str) -> dict[str, Any]:
    """Delete all that a person said, what others said about the person's conversations, and every dataset it is in.
    Answers with the versions it had shaped: `POST /v1/versions/{id}/retrain` trains one again without it. People may do
    that for themselves, whoever runs this for anybody."""
    if caller.name not in (person, LOCAL_USER):
        raise Forbidden("You may delete what you said yourself. For somebody else ask whoever runs this.")
    gone = await asyncio.to_thread(forget_person, app.database, datasets_dir(app.settings), person)
    return {"feedback": gone.feedback, "datasets": gone.datasets, "versions": gone.versions}


def _keep(connection: Connection, owner: str, body: Thumb | Preference | Edit, terms: feedback.Terms) -> dict[str, Any]:
    match body:
        case Thumb():
            said = (owner, body.message_id, body.value, body.reason)
            return feedback.thumb(connection, *said, label=body.label, terms=terms)
        case Preference():
            return feedback.prefer(connection, owner, body.chosen_id, body.rejected_id, body.reason, terms=terms)
        case Edit():
            return feedback.edit(connection, owner, body.message_id, body.text, body.reason, terms=terms)


def _curates(app: Trimtab, caller: Caller) -> bool:
    return caller.name in app.settings.trusted_people


def _public(row: dict[str, Any]) -> dict[str, Any]:
    return public({**row, "consent": bool(row["consent"])}, "generation_digest")


def _wire(outcome: Outcome) -> dict[str, Any]:
    row = outcome.row
    return {
        "id": row.about["feedback"],
        "kind": row.kind,
        "label": row.label,
        "value": row.value,
        "question": row.prompt[-1].content if row.prompt else "",
        "completion": row.completion,
        "rejected": row.rejected,
        "by": outcome.by,
        "at": row.at,
        "reason": row.about.get("reason", ""),
        "blame": row.blame,
        "blame_reason": row.about.get("blame", ""),
        "consent": row.consent,
        "tainted": row.tainted,
        "replayable": row.kind == "label" and row.value == 0 and (row.tainted or row.blame != "model"),
        "trains": not outcome.rule,
        "rule": outcome.rule,
        "why": outcome.why,
        "decision": outcome.decision,
    }
