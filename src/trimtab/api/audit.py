"""`/v1/audit`: every call of a tool, for whoever runs this Trimtab; each person may see their own."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from trimtab.store import audit

from .access import App, Known, Operator

router = APIRouter(prefix="/v1/audit", tags=["audit"])


@router.get("")
async def everybody(
    app: App,
    caller: Operator,
    connector: Annotated[str, Query(max_length=120)] = "",
    turn: Annotated[str, Query(max_length=40)] = "",
    before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """The newest calls of everybody, newest first; older ones with `before`, the last `seq` that was given."""
    rows = await app.database.read(audit.rows, connector=connector, turn=turn, before=before, limit=limit)
    return {"calls": rows}


@router.get("/mine")
async def mine(
    app: App,
    caller: Known,
    connector: Annotated[str, Query(max_length=120)] = "",
    turn: Annotated[str, Query(max_length=40)] = "",
    before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """The same, of the calls made for this person."""
    rows = await app.database.read(
        audit.rows, owner=caller.id, connector=connector, turn=turn, before=before, limit=limit
    )
    return {"calls": rows}


@router.get("/check")
async def check(
    app: App, caller: Operator, noted: Annotated[str, Query(pattern="^([0-9a-f]{64})?$")] = ""
) -> dict[str, Any]:
    """Whether no row was changed or taken out, and whether a digest that was noted earlier is still there."""
    return await app.database.read(audit.check, noted)
