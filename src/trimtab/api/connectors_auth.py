"""`/v1/connectors/{name}/sign-in` and `/calls`: signing a connector in from a page, and its last calls.

The browser that signs in must be on the machine of the server: the service sends it back to 127.0.0.1 there. Elsewhere
use `trimtab connectors auth` on the server.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query

from .access import App, Known, Operator

router = APIRouter(prefix="/v1/connectors", tags=["connectors"])


@router.get("/{name}/calls")
async def calls(app: App, caller: Known, name: str, last: Annotated[int, Query(ge=1, le=200)] = 50) -> dict[str, Any]:
    """The newest calls of this process, oldest first; neither arguments nor results."""
    records = app.toolbox.connector(name).health.recent
    return {"calls": [asdict(record) for record in records[-last:]]}


@router.get("/{name}/sign-in")
async def state(app: App, caller: Known, name: str) -> dict[str, Any]:
    """How far it is: `auth` as in the list, whether a sign-in waits for its person, why the last one failed."""
    desk, sign_in = app.toolbox.desk(name), app.toolbox.sign_in(name)
    return {"auth": await asyncio.to_thread(sign_in.state), "waiting": desk.busy, "problem": desk.problem}


@router.post("/{name}/sign-in")
async def begin(app: App, caller: Operator, name: str) -> dict[str, str]:
    """Begin one. `url` is for a browser on the server's machine, and is good for five minutes."""
    return {"url": await app.toolbox.desk(name).begin()}


@router.delete("/{name}/sign-in")
async def forget(app: App, caller: Operator, name: str) -> dict[str, Any]:
    """Sign out: what is kept of the sign-in is deleted. The service may honour it until it ends."""
    await asyncio.to_thread(app.toolbox.sign_in(name).forget)
    return await state(app, caller, name)
