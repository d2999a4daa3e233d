"""`trimtab serve`: the API server, in the foreground."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli.importing import uncollected
from trimtab.cli.options import ENGINE_HELP

if TYPE_CHECKING:
    from trimtab.settings import Settings


def register(app: typer.Typer) -> None:
    app.command()(serve)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.")] = None,
    model: Annotated[str | None, typer.Option(help="A catalogue name, a .gguf file, or provider:model.")] = None,
    engine: Annotated[str | None, typer.Option(help=ENGINE_HELP)] = None,
    base_url: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible server instead of the local engine.")
    ] = None,
    expose: Annotated[bool, typer.Option(help="Allow an address that other machines can reach.")] = False,
) -> None:
    """Start the API server and keep it in the foreground."""
    from trimtab.settings import Settings

    given: dict[str, object] = {"host": host, "port": port, "model": model, "engine": engine, "base_url": base_url}
    given["expose"] = expose or None
    run(Settings.load(**{name: value for name, value in given.items() if value is not None}))


def run(settings: Settings) -> None:
    """Serve until a signal comes; then let answers in flight finish.

    Raises:
        InvalidInput: the address is reachable from outside and `expose` is not set.
        Unavailable: the port is taken.
    """
    with uncollected():
        from trimtab.api.serving import run_loop, serve_forever

    run_loop(serve_forever(settings, announce=typer.echo))
