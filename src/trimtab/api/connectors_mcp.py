"""`/v1/mcp-servers`: MCP servers as connectors; looking at one, adding, approving what changed, removing.

Adding a server means running its program or sending it what people ask, so all of it is for whoever runs this
installation. What is added is what was shown: each step after a look carries the look's `sha256`.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from trimtab.connect.mcp import Command, Endpoint, Server
from trimtab.domain.errors import InvalidInput

from .access import App, Known, Operator
from .threads import Body

router = APIRouter(prefix="/v1/mcp-servers", tags=["mcp servers"])


class Reached(Body):
    """Either `argv` (with `env`, `secrets`, `cwd`) or `url` (with `headers`, `local`)."""

    name: str = Field(max_length=31)
    argv: list[str] = Field([], max_length=200)
    env: dict[str, str] = {}
    secrets: list[str] = Field([], max_length=50)
    cwd: str = Field("", max_length=1000)
    url: str = Field("", max_length=2000)
    headers: dict[str, str] = {}
    local: bool = False
    timeout: float = 60.0

    def server(self) -> Server:
        if bool(self.argv) == bool(self.url):
            raise InvalidInput("Give either a command (`argv`) or an address (`url`) of the MCP server.")
        if self.url:
            return Server(self.name, Endpoint(self.url, self.headers, self.local), timeout=self.timeout)
        command = Command(tuple(self.argv), self.env, tuple(self.secrets), self.cwd)
        return Server(self.name, command, timeout=self.timeout)


class Added(Reached):
    seen: str = Field(description="The `sha256` of the look that the person saw.")
    reads: list[str] | None = None


class Approval(Body):
    seen: str
    reads: list[str] | None = Field(
        None, description="Tools that only read. None keeps what was said of unchanged ones."
    )


class Filled(Body):
    arguments: dict[str, str] = {}


@router.get("")
async def listed(app: App, caller: Known) -> dict[str, Any]:
    return {"servers": app.mcp.listed()}


@router.post("/look")
async def look(app: App, caller: Operator, body: Reached) -> dict[str, Any]:
    """Start or reach a server once and show what it offers. Nothing is stored."""
    return (await app.mcp.look(body.server())).wire()


@router.post("", status_code=201)
async def add(app: App, caller: Operator, body: Added) -> dict[str, Any]:
    return (await app.mcp.add(body.server(), body.reads, body.seen)).wire()


@router.post("/{name}/look")
async def look_again(app: App, caller: Operator, name: str) -> dict[str, Any]:
    """What a server offers now, beside what was approved."""
    return (await app.mcp.look(app.mcp.book.get(name))).wire()


@router.post("/{name}/approve")
async def approve(app: App, caller: Operator, name: str, body: Approval) -> dict[str, Any]:
    return (await app.mcp.approve(name, body.reads, body.seen)).wire()


@router.delete("/{name}", status_code=204)
async def remove(app: App, caller: Operator, name: str) -> None:
    await app.mcp.remove(name)


@router.get("/{name}/prompts")
async def prompts(app: App, caller: Known, name: str) -> dict[str, Any]:
    return {"prompts": await app.mcp.prompts(name)}


@router.post("/{name}/prompts/{prompt}")
async def prompt(app: App, caller: Known, name: str, prompt: str, body: Filled) -> dict[str, Any]:
    """A prompt of the server, filled in, for a person to send. Its text is from outside."""
    return {"messages": await app.mcp.prompt(name, prompt, body.arguments)}
