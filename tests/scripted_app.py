"""A whole Trimtab around a `ScriptedModel`: everything is real but the model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

import connector_notes
from services import LoopbackServices
from trimtab.app import Ask, Trimtab
from trimtab.connect import Connector, Effect
from trimtab.connect.toolbox import ConnectOptions, Toolbox
from trimtab.domain.errors import ToolError
from trimtab.domain.model import Profile
from trimtab.llm.scripted import ScriptedModel
from trimtab.settings import Settings
from trimtab.store import threads

END = ("turn.finished", "turn.failed")


class Desk:
    """A connector of local tools that note when they ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self.connector = Connector(name="desk", version="1.2.0", description="Things on a desk.")
        self.connector.tool(effect=Effect.READ)(self.look())
        self.connector.tool(effect=Effect.READ)(self.drop())
        self.connector.tool(effect=Effect.WRITE)(self.stamp())

    def look(self) -> Any:
        async def look(drawer: Annotated[int, Field(ge=1, le=9), "Which drawer"]) -> str:
            """Look into a drawer of the desk."""
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            await asyncio.sleep(0.05)
            self.at_once -= 1
            self.ran.append(f"look {drawer}")
            return f"Drawer {drawer} holds {drawer * 10} pencils."

        return look

    def drop(self) -> Any:
        async def drop(what: Annotated[str, "The thing to drop"]) -> str:
            """Drop something; it always breaks."""
            self.ran.append(f"drop {what}")
            raise ToolError(f"The {what} broke.")

        return drop

    def stamp(self) -> Any:
        async def stamp(text: Annotated[str, Field(min_length=1), "What the stamp says"]) -> str:
            """Stamp a paper."""
            self.ran.append(f"stamp {text}")
            return f"Stamped: {text}"

        return stamp


@asynccontextmanager
async def app_with(
    steps: Iterable[Any],
    home: Path,
    *,
    services: LoopbackServices | None = None,
    desk: Desk | None = None,
    profile: Profile | None = None,
    cycle: bool = False,
    **settings: Any,
) -> AsyncIterator[Trimtab]:
    """Trimtab in `home` with the notes connector (when `services` run), a desk, or the installed connectors."""
    toolbox = Toolbox(ConnectOptions(overrides=services.overrides)) if services else None
    if services and toolbox:
        toolbox.add(connector_notes)
    if desk:
        toolbox = toolbox or Toolbox()
        toolbox.add(desk.connector)
    model = ScriptedModel(steps, cycle=cycle)
    loaded = Settings.load(home=home, **settings)
    async with Trimtab.open(loaded, model=model, toolbox=toolbox, retrieval=False, profile=profile) as app:
        yield app


async def new_thread(app: Trimtab, owner: str = "") -> str:
    return str((await app.database.write(threads.create, owner or app.owner))["id"])


async def post(app: Trimtab, text: str, *, thread: str = "", **fields: Any) -> dict[str, Any]:
    return await app.post(app.owner, thread or await new_thread(app), text, how=Ask(), **fields)


async def follow(
    app: Trimtab, turn: dict[str, Any], *, until: tuple[str, ...] = END, seconds: float = 20
) -> list[dict[str, Any]]:
    """A turn's events from the first on, to the first of the types in `until`. Loading torch takes more `seconds`."""
    seen = []
    async with asyncio.timeout(seconds):
        async for _, _, wire in app.follow(turn["id"]):
            seen.append(wire)
            if wire["type"] in (*until, *END):
                return seen
    raise AssertionError("the events ended without an end")


async def asked(app: Trimtab, text: str, **fields: Any) -> list[dict[str, Any]]:
    return await follow(app, await post(app, text, **fields))


def only(events: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    found = [e for e in events if e["type"] == kind]
    assert len(found) == 1, [e["type"] for e in events]
    return found[0]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [e["type"] for e in events]
