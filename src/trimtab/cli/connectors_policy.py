"""`trimtab connectors approvals` and `audit`: what you allowed for later, and every call that was made.

Both read the database and need no running server.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from trimtab.domain.tool import ToolInfo, ToolOutcome
    from trimtab.store.database import Database

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    app.command()(approvals)
    app.command()(audit)


def approvals(
    revoke: Annotated[str, typer.Option(help="Forget the remembered approval with this id.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show which calls run without asking you, because you remembered an approval; or take one back."""
    from trimtab.own_database import LOCAL_USER
    from trimtab.store import consents, people

    with _database() as database:
        owner = database.write_sync(people.ensure_user, LOCAL_USER)
        if revoke:
            gone = database.write_sync(consents.revoke, owner, revoke)
            typer.echo(json.dumps(gone, indent=2) if as_json else f"{gone['tool']} asks again from now on.")
            return
        rows = database.read_sync(consents.listed, owner)
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        typer.echo(_pattern(row))
    if not rows:
        typer.echo("Nothing is remembered: every call that changes something asks you.")


def audit(
    connector: Annotated[str, typer.Argument(help="One connector; all of them without it.")] = "",
    last: Annotated[int, typer.Option(min=1, max=10_000, help="How many calls.")] = 20,
    turn: Annotated[str, typer.Option(help="Only calls of this turn.")] = "",
    check: Annotated[bool, typer.Option("--check", help="See whether a row was changed or taken out.")] = False,
    noted: Annotated[str, typer.Option(help="With --check: a digest you noted earlier. Is it still there?")] = "",
    as_json: AsJson = False,
) -> None:
    """Show every call of a tool: who, which turn, the arguments' digest, how it ended. Rows are only ever added."""
    from trimtab.store import audit as log
    from trimtab.store import people

    with _database() as database:
        if check or noted:
            _checked(database.read_sync(log.check, noted), as_json=as_json)
            return
        rows = database.read_sync(log.rows, connector=connector, turn=turn, limit=last)[::-1]
        names = database.read_sync(people.names)
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        typer.echo(_line(row, names.get(row["owner_id"], row["owner_id"])))
    if not rows:
        typer.echo("No call yet.")


def _checked(found: Mapping[str, Any], *, as_json: bool) -> None:
    good = found["whole"] and found["noted"] is not False
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif not found["whole"]:
        typer.echo(
            f"Row {found['broken_at']} does not follow from the one before it: something was changed or taken out."
        )
    elif found["noted"] is False:
        typer.echo("The digest you noted is not in the log: rows were taken out, or it is another log.")
    else:
        typer.echo(f"{found['rows']} rows, none changed or taken out.\nNote this digest elsewhere: {found['digest']}")
    if not good:
        raise typer.Exit(1)


def _pattern(row: Mapping[str, Any]) -> str:
    from trimtab.cli.show import plain

    fixed = [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in sorted(row["fixed"].items())]
    said = ", ".join([*fixed, *(f"{name}=anything" for name in row["free"])]) or "no arguments"
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["expires_at"]))
    even = ", even after outside text was read" if row["when_tainted"] else ""
    return plain(f"{row['id']}  {row['tool']} ({row['effect']}): {said}; until {until}{even}; used {row['uses']} times")


def _line(row: Mapping[str, Any], who: str) -> str:
    from trimtab.cli.show import plain

    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["at"]))
    allowed = f" allowed by {row['approval_id']}" if row["approval_id"] else ""
    where = f"{row['via']} {row['turn_id']}".strip()
    told = f"{row['seconds']:7.3f} s  {row['status']:<9} {row['tool']} ({row['effect']}) {row['arguments_digest'][:12]}"
    return plain(f"{row['seq']:>6}  {when}  {told}  {who}, {where}{allowed}")


@contextmanager
def audited(
    tool: ToolInfo, arguments: Mapping[str, Any]
) -> Iterator[Callable[[Callable[[], Awaitable[ToolOutcome]]], Awaitable[ToolOutcome]]]:
    """For a call by hand from the terminal: what runs it and writes it down."""
    from trimtab.auditing import Audit
    from trimtab.own_database import LOCAL_USER
    from trimtab.store import people

    with _database() as database:
        owner = database.write_sync(people.ensure_user, LOCAL_USER)
        yield lambda call: Audit(database).run(owner, "hand", tool, arguments, call)


@contextmanager
def _database() -> Iterator[Database]:
    from trimtab.own_database import open_database
    from trimtab.settings import Settings

    database = open_database(Settings.load())
    try:
        yield database
    finally:
        database.close()
