"""`trimtab threads`: past conversations."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="List, read, search and delete conversations.")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Id = Annotated[str, typer.Argument(help="A thread's id, as `trimtab threads list` shows it.")]


def _store() -> tuple[Any, str]:
    """The database and this machine's user. Safe beside a running server: SQLite has many readers and one writer."""
    from trimtab.own_database import LOCAL_USER, open_database
    from trimtab.settings import Settings
    from trimtab.store import people

    database = open_database(Settings.load())
    return database, database.write_sync(people.ensure_user, LOCAL_USER)


@app.command("list")
def list_threads(
    search: Annotated[str, typer.Option(help="Only those that contain this.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500)] = 30,
    as_json: AsJson = False,
) -> None:
    """Show conversations, latest first."""
    from trimtab.cli.show import plain
    from trimtab.store import threads

    database, owner = _store()
    rows = database.read_sync(threads.find, owner, text=search, limit=limit)
    database.close()
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["updated_at"]))
        typer.echo(f"{row['id']}  {when}  {plain(row['title'])}")


@app.command()
def show(thread: Id, as_json: AsJson = False) -> None:
    """Print a conversation as Markdown."""
    from trimtab.cli.show import plain
    from trimtab.store import threads
    from trimtab.store.export import as_markdown

    database, owner = _store()
    try:
        found = database.read_sync(threads.get, owner, thread)
        messages = database.read_sync(threads.path, owner, thread)
    finally:
        database.close()
    typer.echo(
        json.dumps({**found, "messages": messages}, indent=2) if as_json else plain(as_markdown(found, messages))
    )


@app.command()
def delete(thread: Id, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Delete a conversation with its feedback. This cannot be undone."""
    from trimtab.store import threads

    if not yes:
        typer.confirm(f"Delete {thread} for good?", abort=True)
    database, owner = _store()
    try:
        database.write_sync(threads.remove, owner, thread)
    finally:
        database.close()
    typer.echo("Deleted.")
