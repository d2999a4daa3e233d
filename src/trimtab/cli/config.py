"""`trimtab config`: settings and keys."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Show and change settings; make and revoke API keys.")


@app.command()
def show(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Every setting with its value, where it is not the default, and what it does."""
    from trimtab.settings import Settings

    settings = Settings.load()
    values = settings.model_dump(mode="json")
    if as_json:
        typer.echo(json.dumps(values, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("setting", "value", "what it does", title=str(settings.config_path))
    for name, field in type(settings).model_fields.items():
        mark = "bold" if name in settings.model_fields_set else ""
        table.add_row(name, json.dumps(values[name]), field.description or "", style=mark)
    Console().print(table)


@app.command()
def path() -> None:
    """Print where the settings file is."""
    from trimtab.settings import Settings

    typer.echo(Settings.load().config_path)


@app.command("set")
def set_value(
    name: Annotated[
        str, typer.Argument(help="A setting, as `trimtab config show` lists it; with dots, a line of its table.")
    ],
    value: Annotated[str, typer.Argument(help="Its new value; lists and tables as JSON.")],
) -> None:
    """Write a setting into config.toml. A running server sees it at its next start."""
    from trimtab.settings import Settings

    typer.echo(f"{name} = {json.dumps(_shown(Settings.load().saved(name, _parsed(value)), name))}")


@app.command()
def key(
    user: Annotated[str, typer.Option(help="Whose key; a new name makes a new user.")] = "local",
    name: Annotated[str, typer.Option(help="What it is for.")] = "made by hand",
) -> None:
    """Make an API key and print it. It cannot be shown again."""
    from trimtab.store import people

    with _database() as database:
        typer.echo(database.write_sync(people.create_key, user, name))


@app.command()
def keys(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List API keys, without the keys themselves."""
    from trimtab.store import people

    with _database() as database:
        rows = database.read_sync(people.list_keys)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        state = "revoked" if row["revoked_at"] else "valid"
        typer.echo(f"{row['id']}  {row['hint']:8}  {row['user']:12}  {state:8}  {row['name']}")


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(help="The key's id, as `trimtab config keys` shows it.")]) -> None:
    """Make a key invalid, within five seconds also for a running server."""
    from trimtab.store import people

    with _database() as database:
        database.write_sync(people.revoke_key, key_id)
    typer.echo("Revoked.")


def _database() -> Any:
    import contextlib

    from trimtab.own_database import open_database
    from trimtab.settings import Settings

    return contextlib.closing(open_database(Settings.load()))


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _shown(settings: Any, name: str) -> Any:
    shown = settings.model_dump(mode="json")
    for part in name.split("."):
        shown = shown[part]
    return shown
