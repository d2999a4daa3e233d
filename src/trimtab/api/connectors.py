"""`/v1/connectors`: what the assistant can reach, switching it on and off, trying a tool by hand."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from trimtab.app import Trimtab
from trimtab.connect.auth import OAuth
from trimtab.connect.toolbox import ConnectorStatus, ToolStatus
from trimtab.domain.errors import Forbidden, NotFound
from trimtab.domain.tool import Effect

from .access import App, Known
from .threads import Body

router = APIRouter(prefix="/v1/connectors", tags=["connectors"])


class Switch(Body):
    enabled: bool


class HandCall(Body):
    tool: str
    arguments: dict[str, Any] = {}
    confirm: bool = False


@router.get("")
async def listed(app: App, caller: Known) -> dict[str, Any]:
    return {"connectors": [_entry(app, status) for status in app.toolbox.connectors]}


@router.get("/{name}")
async def one(app: App, caller: Known, name: str) -> dict[str, Any]:
    return _entry(app, app.toolbox.connector(name))


@router.patch("/{name}")
async def switch(app: App, caller: Known, name: str, body: Switch) -> dict[str, Any]:
    if body.enabled:
        app.toolbox.enable(name)
    else:
        app.toolbox.disable(name)
    app.settings = await asyncio.to_thread(app.settings.set_connector_enabled, name, body.enabled)
    return _entry(app, app.toolbox.connector(name))


@router.post("/{name}/call")
async def call(app: App, caller: Known, name: str, body: HandCall) -> dict[str, Any]:
    """Run one tool because a person asked for exactly this."""
    tool = _tool(app.toolbox.connector(name), body.tool)
    if tool.info.effect is not Effect.READ and not body.confirm:
        raise Forbidden(
            f"'{tool.name}' changes something outside ({tool.info.effect}). Send \"confirm\": true to run it."
        )
    began = time.monotonic()
    outcome = await app.audit.run(
        caller.id, "hand", tool.info, body.arguments, lambda: app.toolbox.call(tool.name, body.arguments)
    )
    return {**asdict(outcome), "seconds": round(time.monotonic() - began, 4)}


def _tool(status: ConnectorStatus, wanted: str) -> ToolStatus:
    """The connector's tool by its own name, ``connector.tool`` or the model's ``connector_tool``.

    The toolbox knows every connector's tools by several names. Only the tool found here is run, by its full name, so
    that the effect that was looked at is the effect of what runs.

    Raises:
        NotFound: this connector has no such tool, whatever others may have.
    """
    for tool in status.tools:
        if wanted in (tool.name, tool.info.name, tool.name.partition(".")[2]):
            return tool
    own = ", ".join(tool.name for tool in status.tools) or "none"
    raise NotFound(f"Connector '{status.name}' has no tool {wanted[:200]!r}. It has: {own}.")


def _entry(app: Trimtab, status: ConnectorStatus) -> dict[str, Any]:
    return {
        "name": status.name,
        "kind": _kind(app, status.name),
        "version": status.version,
        "description": status.description,
        "hosts": list(status.hosts),
        "auth": status.auth,
        "options": [asdict(option) for option in status.options],
        "speaks": list(status.speaks),
        "sign_in": _sign_in(app, status),
        "enabled": status.enabled,
        "error": status.error,
        "badge": {**asdict(status.standing), "vouched": status.standing.vouched},
        "calls": status.calls,
        "failures": status.failures,
        "last_errors": [asdict(error) for error in status.last_errors],
        "health": {name: value for name, value in vars(status.health).items() if name != "recent"},
        "tools": [
            {
                "name": tool.name,
                "model_name": tool.info.name,
                "description": tool.info.description,
                "effect": tool.info.effect.value,
                "untrusted": tool.info.untrusted,
                "examples": list(tool.info.examples),
                "schema": dict(tool.schema),
            }
            for tool in status.tools
        ],
    }


def _kind(app: Trimtab, name: str) -> str:
    """How it came here, which is also where it is taken away: ``mcp``, ``openapi`` or ``python``."""
    if name in app.mcp.book.servers:
        return "mcp"
    return "openapi" if name in app.imports.names() else "python"


def _sign_in(app: Trimtab, status: ConnectorStatus) -> str:
    """What a person does for it: nothing, gives a ``key``, or signs in with a ``browser``."""
    if status.error or (auth := app.toolbox.sign_in(status.name).auth) is None:
        return ""
    return "browser" if isinstance(auth, OAuth) else "key"
