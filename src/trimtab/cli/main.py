"""`trimtab`: one file a command. Nothing heavy is imported before a command runs, so `--help` is instant."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Annotated

import typer

import trimtab

COMMANDS = (
    "up", "serve", "ui", "chat", "ask", "ingest", "search", "threads", "feedback", "connectors", "models",
    "align", "learn", "plan", "measure", "mcp", "doctor", "config",
)  # fmt: skip
"""Modules of `trimtab.cli`, in the order of `--help`. Each has `register(app)`, or an `app` of its own."""

app = typer.Typer(
    name="trimtab",
    help="Chat with tools and documents, on your own machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trimtab {trimtab.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more about what happens.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    level = logging.DEBUG if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("httpx", "httpcore", "chromadb", "urllib3", "asyncio"):
        logging.getLogger(noisy).setLevel(max(level, logging.INFO))


for _name in COMMANDS:
    _module = importlib.import_module(f"trimtab.cli.{_name}")
    if hasattr(_module, "register"):
        _module.register(app)
    else:
        app.add_typer(_module.app, name=_name)


def main() -> None:
    """The console script. Our own errors are one sentence on stderr and exit code 1; Ctrl-C is 130."""
    from trimtab.domain.errors import TrimtabError

    try:
        app()
    except TrimtabError as error:
        typer.secho(error.message, err=True, fg="red")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader (head, less) has what it wanted. Keep Python from complaining again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
