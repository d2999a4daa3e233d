"""`trimtab chat`: a conversation in the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli.options import ENGINE_HELP, given

if TYPE_CHECKING:
    from trimtab.cli.talk import Talk
    from trimtab.settings import Settings

HELP = "Ask something. /new begins another thread, /quit ends, Ctrl-C stops an answer."


def register(app: typer.Typer) -> None:
    app.command()(chat)


def chat(
    thread: Annotated[str | None, typer.Option(help="Go on in this thread.")] = None,
    documents: Annotated[str, typer.Option(help="auto, only or off.")] = "auto",
    best_of: Annotated[
        int | None, typer.Option("--best-of", min=1, max=8, help="Write so many answers; the reward model picks.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Another model, when no server runs.")] = None,
    engine: Annotated[str | None, typer.Option(help=ENGINE_HELP)] = None,
) -> None:
    """Talk with the assistant; an empty line or /quit ends."""
    from trimtab.settings import Settings

    other = given(model=model, engine=engine)
    asyncio.run(_chat(Settings.load(**other), thread, documents, best_of, other))


async def _chat(
    settings: Settings, thread: str | None, documents: str, best_of: int | None, other: dict[str, str]
) -> None:
    from trimtab.cli.talk import talk

    async with talk(settings, other=other) as line:
        thread = thread or await line.new_thread()
        typer.secho(HELP, dim=True)
        while text := await _read_line():
            if text == "/quit":
                return
            if text == "/new":
                thread = await line.new_thread()
                typer.secho("A new thread.", dim=True)
                continue
            await _answer(line, thread, text, documents, best_of)


async def _read_line() -> str:
    try:
        return (await asyncio.to_thread(input, "\n> ")).strip()
    except (EOFError, KeyboardInterrupt):
        return ""


async def _answer(line: Talk, thread: str, text: str, documents: str, best_of: int | None) -> None:
    """One turn; Ctrl-C stops it and the conversation goes on."""
    from trimtab.cli.ask import follow
    from trimtab.domain.errors import TrimtabError

    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []
    with contextlib.suppress(NotImplementedError):
        loop.add_signal_handler(signal.SIGINT, lambda: stopping.append(asyncio.create_task(line.cancel())))
    try:
        await follow(line, thread, text, documents, best_of)
    except TrimtabError as error:
        typer.secho(error.message, err=True, fg="red")
    finally:
        with contextlib.suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGINT)
        await asyncio.gather(*stopping, return_exceptions=True)
