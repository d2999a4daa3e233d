"""`trimtab ask`: one question, one answer."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimtab.cli.options import ENGINE_HELP, given

if TYPE_CHECKING:
    from trimtab.cli.talk import Talk
    from trimtab.settings import Settings


def register(app: typer.Typer) -> None:
    app.command()(ask)


def ask(
    question: Annotated[str, typer.Argument(help="The question; '-' reads it from standard input.")],
    thread: Annotated[str | None, typer.Option(help="Go on in this thread.")] = None,
    documents: Annotated[str, typer.Option(help="auto, only or off.")] = "auto",
    best_of: Annotated[
        int | None, typer.Option("--best-of", min=1, max=8, help="Write so many answers; the reward model picks.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Another model, when no server runs.")] = None,
    engine: Annotated[str | None, typer.Option(help=ENGINE_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every event as a line of JSON.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Approve what the answer needs. Think before you use it.")] = False,
) -> None:
    """Ask once and print the answer with its sources."""
    import asyncio

    from trimtab.settings import Settings

    other = given(model=model, engine=engine)
    settings = Settings.load(**other)
    text = sys.stdin.read() if question == "-" else question
    failed = asyncio.run(_ask(settings, text, thread, documents, best_of, other, as_json=as_json, yes=yes))
    if failed:
        raise typer.Exit(1)


async def _ask(
    settings: Settings,
    text: str,
    thread: str | None,
    documents: str,
    best_of: int | None,
    other: dict[str, str],
    *,
    as_json: bool,
    yes: bool,
) -> bool:
    from trimtab.cli.talk import talk

    async with talk(settings, other=other) as line:
        thread = thread or await line.new_thread()
        approve = True if yes else None
        return await follow(line, thread, text, documents, best_of, as_json=as_json, approve=approve)


async def follow(
    line: Talk,
    thread: str,
    text: str,
    documents: str,
    best_of: int | None = None,
    *,
    as_json: bool = False,
    approve: bool | None = None,
) -> bool:
    """Print a turn as it happens; whether it failed. `approve=None` asks the person."""
    from trimtab.cli.show import Show

    show: Any = Show()
    failed = False
    async for event in line.ask(thread, text, documents, best_of):
        if as_json:
            print(json.dumps(event, ensure_ascii=False), flush=True)
        else:
            show.event(event)
        if event["type"] == "approval.needed":
            decision = approve if approve is not None else (not as_json and show.confirm(event))
            await line.decide(event["approval_id"], "approve" if decision else "reject")
        failed = event["type"] == "turn.failed"
    return failed
