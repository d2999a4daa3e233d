"""`trimtab up`: everything at once: models fetched, server and web UI started, the address printed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from trimtab.settings import Settings


def register(app: typer.Typer) -> None:
    app.command()(up)


def up(
    port: Annotated[int | None, typer.Option(help="Port of the API.")] = None,
    ui_port: Annotated[int | None, typer.Option(help="Port of the web UI.")] = None,
    model: Annotated[str | None, typer.Option(help="A catalogue name, a .gguf file, or provider:model.")] = None,
    base_url: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible server instead of the local engine.")
    ] = None,
    ui: Annotated[bool, typer.Option(help="Start the web UI too.")] = True,
) -> None:
    """Start Trimtab: fetch what is missing, serve the API and the web UI, print the address."""
    from trimtab.settings import Settings

    given = {"port": port, "ui_port": ui_port, "model": model, "base_url": base_url}
    settings = Settings.load(**{name: value for name, value in given.items() if value is not None})
    fetch_missing(settings)
    asyncio.run(_up(settings, with_ui=ui))


def fetch_missing(settings: Settings) -> None:
    """Fetch the default models that these settings need and that are not here."""
    from trimtab.cli.models import _pull
    from trimtab.llm import catalogue, shelf

    wanted = [catalogue.DEFAULT_EMBEDDING]
    if settings.model in ("default", *catalogue.CATALOGUE) and not settings.base_url:
        wanted.insert(0, catalogue.DEFAULT_CHAT if settings.model == "default" else settings.model)
    for name in wanted:
        if not shelf.is_installed(catalogue.entry(name), settings.models_dir):
            _pull(catalogue.entry(name), settings.models_dir)


async def _up(settings: Settings, *, with_ui: bool) -> None:
    from trimtab.api.serving import checked_socket, ensure_key, serving
    from trimtab.app import Trimtab
    from trimtab.cli import ui as web

    typer.echo("Starting …")
    with contextlib.closing(checked_socket(settings)) as listening:
        async with Trimtab.open(settings) as app, serving(app, listening) as server:
            key_file = await ensure_key(app)
            child = web.start(settings, settings.url, quiet=True) if with_ui else None
            try:
                if child is not None:
                    await _reachable(settings, child.poll)
                _say(settings, app.profile.name, key_file, with_ui=with_ui)
                stopped = asyncio.create_task(server.until_stopped())
                while not stopped.done() and (child is None or child.poll() is None):
                    await asyncio.wait({stopped}, timeout=0.5)
                if child is not None and child.poll() is not None and not stopped.done():
                    typer.secho("The web UI ended by itself; stopping the server too.", err=True, fg="red")
                typer.echo("\nStopping …")
                stopped.cancel()
            finally:
                if child is not None:
                    await asyncio.to_thread(web.stop, child)


async def _reachable(settings: Settings, ended: object) -> None:
    """Wait until the UI answers, so that the printed address works."""
    for _ in range(300):
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(settings.host, settings.ui_port)
            writer.close()
            return
        if callable(ended) and ended() is not None:
            return
        await asyncio.sleep(0.1)


def _say(settings: Settings, model: str, key_file: str, *, with_ui: bool) -> None:
    if with_ui:
        typer.secho(f"\n  Open  http://{settings.host}:{settings.ui_port}\n", bold=True)
    typer.echo(f"  API   {settings.url}/v1  (docs at {settings.url}/docs)")
    typer.echo(f"  key   in {key_file}")
    typer.echo(f"  model {model}")
    typer.echo(f"  data  in {settings.home}")
    typer.echo("\nCtrl-C stops it.")
    sys.stdout.flush()
