"""`trimtab models`: the models Trimtab knows by name, and which of them are on this machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trimtab.cli.progress import progress_of
from trimtab.cli.students import register as register_students
from trimtab.cli.versions import register as register_versions

if TYPE_CHECKING:
    from trimtab.llm.catalogue import Entry
    from trimtab.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Fetch, list and remove models.")

register_versions(app)
register_students(app)

Name = Annotated[str, typer.Argument(help="A name from `trimtab models list`.")]


@app.command()
def pull(
    names: Annotated[list[str] | None, typer.Argument(help="Names to fetch; none means the default models.")] = None,
) -> None:
    """Fetch models. What is on this machine already is left alone; a broken download is resumed."""
    from trimtab.llm import catalogue, fetch

    for name in names or [catalogue.DEFAULT_CHAT, catalogue.DEFAULT_EMBEDDING]:
        _pull(catalogue.entry(name), _models_dir())
        if catalogue.entry(name).kind == "chat":
            prepare(name)
        typer.echo(f"{name}: {fetch.path(catalogue.entry(name), _models_dir())}")


@app.command("list")
def list_models(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show every model known by name."""
    from trimtab.llm import catalogue

    rows = [_row(model, _models_dir()) for model in catalogue.CATALOGUE.values()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "kind", "MB", "installed", "licence", "what it is")
    for row in rows:
        mark = "yes" if row["installed"] else "no"
        size = f"{int(str(row['size'])) / 1e6:.0f}"
        table.add_row(str(row["name"]), str(row["kind"]), size, mark, str(row["license"]), str(row["description"]))
    Console().print(table)


@app.command()
def remove(name: Name) -> None:
    """Delete a model from this machine."""
    from trimtab.llm import catalogue, fetch

    gone = fetch.remove(catalogue.entry(name), _models_dir())
    typer.echo(f"{name}: {'removed' if gone else 'was not on this machine'}")


@app.command()
def path(name: Name) -> None:
    """Print where a model is: a chat model's file, another model's folder."""
    from trimtab.domain.errors import ModelFileError
    from trimtab.llm import catalogue, shelf

    model = catalogue.entry(name)
    if model.kind == "chat":
        typer.echo(shelf.resolve_model(name, _models_dir()))
        return
    if not shelf.is_installed(model, _models_dir()):
        raise ModelFileError(f"{name!r} is not on this machine. Run: trimtab models pull {name}")
    typer.echo(shelf.path(model, _models_dir()))


def _models_dir() -> Path:
    from trimtab.settings import Settings

    return Settings.load().models_dir


def _row(model: Entry, models_dir: Path) -> dict[str, object]:
    from trimtab.llm import shelf

    return {
        "name": model.name,
        "kind": model.kind,
        "size": model.size,
        "installed": shelf.is_installed(model, models_dir),
        "path": str(shelf.path(model, models_dir)),
        "license": model.license,
        "description": model.description,
    }


def _pull(model: Entry, models_dir: Path) -> None:
    from trimtab.llm import fetch

    with progress_of(f"Fetching {model.name} ({model.size / 1e6:.0f} MB)", in_bytes=True) as show:
        fetch.pull(model, models_dir, show)


def prepare(model: str, settings: Settings | None = None) -> None:
    """Write the weights that the engine serves for this model, if that has not been done."""
    from trimtab.llm import catalogue
    from trimtab.llm.served import prepare_weights
    from trimtab.own_models import serving_options
    from trimtab.settings import Settings

    options = replace(serving_options(settings or Settings.load()), model=model, base_url="")
    name = catalogue.DEFAULT_CHAT if model == "default" else model
    with progress_of(f"Preparing {name} for its engine") as show:
        prepare_weights(options, show)
