"""`trimtab models versions|promote|rollback|diff|card|history`: which version of the model answers.

A running server is asked, so that it changes over at once; without one the database is changed, and the next start
follows it.
"""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Version = Annotated[str, typer.Argument(help="A version's id or name, from `trimtab models versions`.")]
Reason = Annotated[str, typer.Option(help="Why; kept in the history.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `trimtab models`."""
    for command in (versions, promote, rollback, history, card, diff):
        app.command()(command)


def versions(as_json: AsJson = False) -> None:
    """Show every version, which one answers, and what the gate said."""
    from trimtab.store import versions as store

    rows = _read(store.listed)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo("No model was ever opened here. Start Trimtab once: trimtab up")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("", "version", "name", "method", "state", "verdict", "feedback", box=None, pad_edge=False)
    for row in rows:
        line = row["manifest"].get("lineage", {})
        verdict = row["evidence"].get("verdict", "")
        mark = "answers" if row["serving"] else ""
        state = "rolled back" if row["fell"] else row["status"]
        table.add_row(mark, row["id"], row["name"], line.get("method", ""), state, verdict, str(row["rows"]))
    Console(highlight=False).print(table)
    for row in rows:
        if row["fell"]:
            typer.echo(f"{row['name']} was rolled back by itself: {row['fell']}.")


def promote(
    version: Version,
    reason: Reason = "",
    anyway: Annotated[bool, typer.Option("--anyway", help="Against the gate; the history says so.")] = False,
) -> None:
    """Let a version answer from the next turn on. `rollback` undoes it."""
    from trimtab.store import versions as store

    if sent("POST", f"/v1/versions/{version}/promote", {"reason": reason, "anyway": anyway}) is None:
        row = _read(store.get, version)
        if row["kind"] != "base":
            _registry().verified(row["id"])
        _write(store.promote, version, by="local", reason=reason, anyway=anyway)
    typer.echo(f"{version} answers now. Back to the one before: trimtab models rollback")


def rollback(reason: Reason = "") -> None:
    """Let the version before answer again."""
    from trimtab.store import versions as store

    now = sent("POST", "/v1/versions/rollback", {"reason": reason})
    if now is None:
        now = _write(store.roll_back, by="local", reason=reason)
    typer.echo(f"{now['version_id']} answers again.")


def history(as_json: AsJson = False) -> None:
    """Show promotions and rollbacks, the latest first."""
    from trimtab.cli.show import plain
    from trimtab.store import versions as store

    rows = _read(store.history)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["at"]))
        typer.echo(plain(f"{when}  {row['action']:14} {row['version_id']}  by {row['by']}  {row['reason']}"))


def card(version: Version) -> None:
    """Print a version's card: where it comes from, how it was measured."""
    from trimtab.cli.show import plain
    from trimtab.registry.card import card as made
    from trimtab.registry.manifest import Manifest
    from trimtab.store import versions as store

    row = _read(store.get, version)
    if row["kind"] == "base":
        typer.echo(f"# {row['name']}\n\nThe model as it was installed (sha256 {row['digest']}).")
        return
    typer.echo(plain(made(Manifest.from_json(row["manifest"]), row["evidence"])))


def diff(old: Version, new: Version, as_json: AsJson = False) -> None:
    """Show what differs between two versions."""
    from trimtab.registry.registry import difference
    from trimtab.store import versions as store

    found = difference(_read(store.get, old)["manifest"], _read(store.get, new)["manifest"])
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for name, (before, after) in found.items():
        typer.echo(f"{name}: {before} -> {after}")


def _read(job: Any, *args: Any) -> Any:
    database = _database()
    try:
        return database.read_sync(job, *args)
    finally:
        database.close()


def _write(job: Any, *args: Any, **options: Any) -> Any:
    database = _database()
    try:
        return database.write_sync(job, *args, **options)
    finally:
        database.close()


def _database() -> Any:
    from trimtab.own_database import open_database
    from trimtab.settings import Settings

    return open_database(Settings.load())


def _registry() -> Any:
    from trimtab.registry.registry import Registry
    from trimtab.settings import Settings

    return Registry(Settings.load().versions_dir)


def sent(method: str, path: str, body: Any) -> Any:
    """The running server's answer; None when there is no server."""
    import asyncio

    from trimtab.cli.talk import checked, running_server
    from trimtab.settings import Settings

    server = running_server(Settings.load())
    if server is None:
        return None

    async def send() -> Any:
        async with server:
            return checked(await server.request(method, path, json=body))

    return asyncio.run(send())
