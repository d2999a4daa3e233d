"""`trimtab up`: everything at once: models fetched, server and web UI started, the address printed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trimtab.cli.importing import uncollected
from trimtab.cli.options import ENGINE_HELP

if TYPE_CHECKING:
    from trimtab.settings import Settings


UI_PAUSE_SECONDS = 1.0


def register(app: typer.Typer) -> None:
    app.command()(up)


def up(
    port: Annotated[int | None, typer.Option(help="Port of the API.")] = None,
    ui_port: Annotated[int | None, typer.Option(help="Port of the web UI.")] = None,
    model: Annotated[str | None, typer.Option(help="A catalogue name, a .gguf file, or provider:model.")] = None,
    engine: Annotated[str | None, typer.Option(help=ENGINE_HELP)] = None,
    base_url: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible server instead of the local engine.")
    ] = None,
    ui: Annotated[bool, typer.Option(help="Start the web UI too.")] = True,
    plan: Annotated[Path | None, typer.Option(help="Run what was chosen in this deployment.toml, or stop.")] = None,
) -> None:
    """Start Trimtab: fetch what is missing, serve the API and the web UI, print the address."""
    from trimtab.settings import Settings

    given: dict[str, Any] = {"port": port, "ui_port": ui_port, "model": model, "engine": engine, "base_url": base_url}
    given = {name: value for name, value in given.items() if value is not None}
    if plan is None:
        settings = Settings.load(**given)
        fetch_missing(settings)
    else:
        settings, in_web = _planned(plan, given)
        ui = ui and in_web
    with uncollected():
        from trimtab.api.serving import run_loop

    run_loop(_up(settings, with_ui=ui))


def _planned(file: Path, given: dict[str, Any]) -> tuple[Settings, bool]:
    """Settings that run a plan, and whether it wants the web UI."""
    from trimtab.deploy import plan as plans
    from trimtab.deployment import Deploying
    from trimtab.reach import as_settings, refuse_unreachable
    from trimtab.settings import Settings

    plan = plans.read(file)
    local = {"model": plan.model, "engine": "auto", "base_url": plan.remote.base_url, "weights": "auto"}
    local |= as_settings(plan)
    settings = Settings.load(**given | local)
    refuse_unreachable(plan, settings)
    if plan.remote.base_url:
        targets = {"context": plan.targets.context, "variant": ""}
        settings = Settings.load(**given | local | targets)
        fetch_missing(settings)
        return settings, "web" in plan.interface.faces
    fetch_missing(settings, ready=False)
    chosen = Deploying(settings, plan).chosen()
    return Settings.load(**given | local | chosen), "web" in plan.interface.faces


def fetch_missing(settings: Settings, *, ready: bool = True) -> None:
    """Fetch the default models that these settings need and that are not here. `ready`: write the engine's weights."""
    from trimtab.cli.models import _pull, prepare
    from trimtab.llm import catalogue, shelf

    wanted = [catalogue.DEFAULT_EMBEDDING]
    if settings.model in ("default", *catalogue.CATALOGUE) and not settings.base_url:
        wanted.insert(0, catalogue.DEFAULT_CHAT if settings.model == "default" else settings.model)
    for name in wanted:
        if not shelf.is_installed(catalogue.entry(name), settings.models_dir):
            _pull(catalogue.entry(name), settings.models_dir)
    if ready:
        prepare(settings.model, settings)


async def _up(settings: Settings, *, with_ui: bool) -> None:
    from trimtab.api.serving import checked_socket, key_line, serving
    from trimtab.app import Trimtab

    typer.echo("Starting …")
    with contextlib.closing(checked_socket(settings)) as listening:
        async with Trimtab.open(settings) as app, serving(app, listening) as server:
            key = await key_line(app)
            page = asyncio.create_task(_keep_ui(settings)) if with_ui else None
            try:
                if page is not None:
                    await _reachable(settings, page)
                _say(settings, app.profile.name, key, with_ui=with_ui)
                await server.until_stopped()
                typer.echo("\nStopping …")
            finally:
                if page is not None:
                    page.cancel()
                    await asyncio.gather(page, return_exceptions=True)


async def _keep_ui(settings: Settings) -> None:
    """The web UI as a child; started again when it dies, ended when this task is."""
    from trimtab.cli import ui as web

    while True:
        child = web.start(settings, settings.url, quiet=True)
        try:
            await asyncio.to_thread(child.wait)
        finally:
            await asyncio.shield(asyncio.to_thread(web.stop, child))
        typer.secho(f"The web UI ended by itself (see {settings.logs_dir / 'ui.log'}); starting it again.", err=True)
        await asyncio.sleep(UI_PAUSE_SECONDS)


async def _reachable(settings: Settings, page: asyncio.Task[None]) -> None:
    """Wait until the UI answers, so that the printed address works.

    Raises:
        TrimtabError: it cannot be started at all.
    """
    for _ in range(600):
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(settings.host, settings.ui_port)
            writer.close()
            return
        if page.done():
            page.result()
        await asyncio.sleep(0.1)
    typer.secho(f"The web UI does not answer yet; {settings.logs_dir / 'ui.log'} may say why.", err=True)


def _say(settings: Settings, model: str, key: str, *, with_ui: bool) -> None:
    if with_ui:
        typer.secho(f"\n  Open  http://{settings.host}:{settings.ui_port}\n", bold=True)
    typer.echo(f"  API   {settings.url}/v1")
    typer.echo(f"  key   {key}")
    typer.echo(f"  model {model}")
    typer.echo(f"  data  in {settings.home}")
    typer.echo("\nCtrl-C stops it.")
    sys.stdout.flush()
