"""`/v1/threads` and `/v1/messages`: conversations, their turns, regenerating."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection
from starlette.responses import PlainTextResponse, Response

from trimtab.app import Ask
from trimtab.domain import events as ev
from trimtab.domain.errors import InvalidInput
from trimtab.orchestrator.best_of import MOST
from trimtab.store import threads, turns
from trimtab.store.export import as_markdown, file_name
from trimtab.store.listing import place_after
from trimtab.store.once import once

from .access import App, Known, public

router = APIRouter(prefix="/v1", tags=["threads"])

Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=200)]


class Body(BaseModel):
    """Unknown fields are refused: a misspelt one should not be silently ignored."""

    model_config = ConfigDict(extra="forbid")


class NewThread(Body):
    title: str = Field(threads.UNTITLED, max_length=1000)


class ThreadChange(Body):
    title: str | None = Field(None, max_length=1000)
    head_id: str | None = Field(None, max_length=64)


class NewTurn(Body):
    text: str
    documents: Literal["auto", "only", "off"] = "auto"
    tools: bool = True
    best_of: int | None = Field(None, ge=1, le=MOST)
    """Answers to write, of which the best by the reward model is given."""
    parent_id: str | None = Field(None, max_length=64)


@router.get("/me")
async def me(caller: Known) -> dict[str, Any]:
    return {"id": caller.id, "name": caller.name}


@router.get("/threads")
async def find(
    app: App,
    caller: Known,
    q: Annotated[str, Query(max_length=500)] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    before: Annotated[str, Query(max_length=100)] = "",
) -> dict[str, Any]:
    """The latest first; what follows with the `next` of this answer as `before`."""
    found = await app.database.read(threads.find, caller.id, text=q, limit=limit + 1, before=before)
    return {"threads": found[:limit], "next": place_after(found, limit)}


@router.post("/threads", status_code=201)
async def create(app: App, caller: Known, body: NewThread, key: Key = None) -> dict[str, Any]:
    def write(connection: Connection) -> dict[str, Any]:
        return once(
            connection, caller.id, key, ["thread", body.title], lambda c: threads.create(c, caller.id, body.title)
        )

    return await app.database.write(write)


@router.get("/threads/{thread_id}")
async def read(app: App, caller: Known, thread_id: str) -> dict[str, Any]:
    return await app.database.read(whole, caller.id, thread_id)


@router.patch("/threads/{thread_id}")
async def change(app: App, caller: Known, thread_id: str, body: ThreadChange) -> dict[str, Any]:
    if body.title is None and body.head_id is None:
        raise InvalidInput("Nothing to change: give 'title', 'head_id' or both.")

    def write(connection: Connection) -> dict[str, Any]:
        thread = threads.get(connection, caller.id, thread_id)
        if body.title is not None:
            thread = threads.rename(connection, caller.id, thread_id, body.title)
        if body.head_id is not None:
            thread = threads.choose_head(connection, caller.id, thread_id, body.head_id)
        return thread

    return await app.database.write(write)


@router.delete("/threads/{thread_id}", status_code=204)
async def remove(app: App, caller: Known, thread_id: str) -> Response:
    thread = await app.database.read(whole, caller.id, thread_id)
    if thread["active_turn"]:
        await app.cancel(caller.id, thread["active_turn"])
    await app.database.write(threads.remove, caller.id, thread_id)
    return Response(status_code=204)


@router.get("/threads/{thread_id}/export")
async def export(app: App, caller: Known, thread_id: str) -> PlainTextResponse:
    thread = await app.database.read(whole, caller.id, thread_id)
    name = file_name(thread["thread"]["title"])
    return PlainTextResponse(
        as_markdown(thread["thread"], thread["messages"]),
        media_type="text/markdown; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@router.post("/threads/{thread_id}/turns", status_code=202)
async def post(app: App, caller: Known, thread_id: str, body: NewTurn, key: Key = None) -> dict[str, Any]:
    how = Ask(documents=body.documents, tools=body.tools, best_of=body.best_of)
    turn = await app.post(caller.id, thread_id, body.text, how=how, parent=body.parent_id, key=key)
    return public(turn, "options", "runner")


@router.get("/messages/{message_id}")
async def message(app: App, caller: Known, message_id: str) -> dict[str, Any]:
    """One message, also of a path that is not shown."""
    return public(await app.database.read(threads.message_of, caller.id, message_id), "text_digest")


@router.post("/messages/{message_id}/regenerate", status_code=202)
async def regenerate(app: App, caller: Known, message_id: str, key: Key = None) -> dict[str, Any]:
    return public(await app.regenerate(caller.id, message_id, key=key), "options", "runner")


def whole(connection: Connection, owner: str, thread_id: str) -> dict[str, Any]:
    """A thread's shown path with everything needed to draw it."""
    thread = threads.get(connection, owner, thread_id)
    cursor = turns.latest_seq(connection)
    line = threads.path(connection, owner, thread_id)
    steps = turns.steps_of(connection, [m["turn_id"] for m in line if m["role"] == "assistant"])
    opinions = threads.feedback_on(connection, owner, [m["id"] for m in line])
    active = turns.active_in(connection, thread_id)
    messages = []
    for message in line:
        mine = steps.get(message["turn_id"], []) if message["role"] == "assistant" else []
        last = mine[-1] if mine else {}
        shown = public(message, "text_digest", "thread_id")
        shown["steps"] = mine
        shown["unsupported"] = last.get("unsupported", []) if last.get("type") == ev.TurnFinished.type else []
        shown["feedback"] = [public(f, "generation_digest") for f in opinions.get(message["id"], [])]
        messages.append(shown)
    return {"thread": thread, "messages": messages, "active_turn": active, "cursor": cursor}
