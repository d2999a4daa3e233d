"""`/v1/feedback`: what people say about answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy import Connection
from starlette.responses import Response

from trimtab.store import feedback
from trimtab.store.once import once

from .access import App, Known, public
from .threads import Body, Key

router = APIRouter(prefix="/v1/feedback", tags=["feedback"])


class Thumb(Body):
    kind: Literal["thumb"]
    message_id: str
    value: Literal[0, 1]
    reason: str = ""


class Preference(Body):
    kind: Literal["preference"]
    chosen_id: str
    rejected_id: str
    reason: str = ""


class Edit(Body):
    kind: Literal["edit"]
    message_id: str
    text: str
    reason: str = ""


Judgement = Annotated[Thumb | Preference | Edit, Field(discriminator="kind")]


@router.post("", status_code=201)
async def give(app: App, caller: Known, body: Judgement, key: Key = None) -> dict[str, Any]:
    def write(connection: Connection) -> dict[str, Any]:
        return once(
            connection,
            caller.id,
            key,
            body.model_dump(),
            lambda c: public(_keep(c, caller.id, body), "generation_digest"),
        )

    return await app.database.write(write)


@router.get("")
async def listed(app: App, caller: Known) -> dict[str, Any]:
    rows = await app.database.read(feedback.listed, caller.id)
    return {"feedback": [public(row, "generation_digest") for row in rows]}


@router.delete("/{feedback_id}", status_code=204)
async def withdraw(app: App, caller: Known, feedback_id: str) -> Response:
    await app.database.write(feedback.withdraw, caller.id, feedback_id)
    return Response(status_code=204)


def _keep(connection: Connection, owner: str, body: Thumb | Preference | Edit) -> dict[str, Any]:
    match body:
        case Thumb():
            return feedback.thumb(connection, owner, body.message_id, body.value, body.reason)
        case Preference():
            return feedback.prefer(connection, owner, body.chosen_id, body.rejected_id, body.reason)
        case Edit():
            return feedback.edit(connection, owner, body.message_id, body.text, body.reason)
