"""`trimtab connectors auth` and `logs`: signing a connector in, and what it has been doing."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from trimtab.connect import CallRecord, Toolbox
    from trimtab.connect.sign_in import SignIn
    from trimtab.settings import Settings

Name = Annotated[str, typer.Argument(help="A connector's name, as `trimtab connectors list` shows it.")]


def register(app: typer.Typer) -> None:
    app.command()(auth)
    app.command()(logs)


def auth(
    name: Name,
    forget: Annotated[bool, typer.Option("--forget", help="Sign out: delete what is kept.")] = False,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the sign-in page.")] = True,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="How long to wait for you to sign in.")] = 300,
) -> None:
    """Give a connector its key, or sign in at its service in your browser."""
    from trimtab.connect.auth import OAuth, secret_names
    from trimtab.connect.vault import kept_in
    from trimtab.settings import Settings

    settings = Settings.load()
    sign_in = _toolbox(settings).sign_in(name)
    keeper = kept_in(settings.home, settings.connector_secrets)[1]
    if sign_in.auth is None:
        typer.echo(f"{name} needs no key and no sign-in.")
        return
    if forget:
        for known in secret_names(sign_in.auth):
            keeper.forget(known)
        sign_in.forget()
        typer.echo(f"What was kept for {name} is deleted. The service may honour it for a while: revoke it there too.")
        return
    _ask_for_keys(sign_in, settings)
    if isinstance(sign_in.auth, OAuth):
        asyncio.run(_in_browser(sign_in, seconds, browser))
    typer.echo(f"{name} is {sign_in.state()}.")


def _ask_for_keys(sign_in: SignIn, settings: Settings) -> None:
    """Each secret that is not there yet; where the connector needs nothing but keys, each one anew."""
    import os

    from trimtab.connect.auth import OAuth, secret_names
    from trimtab.connect.vault import kept_in

    secret, keeper = kept_in(settings.home, settings.connector_secrets)
    for known in secret_names(sign_in.auth):
        if os.environ.get(known):
            typer.echo(f"{known} is set in the environment, which comes first.")
        elif not (isinstance(sign_in.auth, OAuth) and secret(known)):
            keeper.keep(known, typer.prompt(known, hide_input=True).strip())


async def _in_browser(sign_in: SignIn, seconds: float, browser: bool) -> None:
    import webbrowser

    from trimtab.connect.authorize import answered, asking

    async with asking(sign_in) as question:
        typer.echo(f"Sign in here, in a browser on this machine:\n\n{question.url}\n")
        if browser:
            await asyncio.to_thread(webbrowser.open, question.url)
        await answered(sign_in, question, seconds)


def logs(
    name: Annotated[str, typer.Argument(help="One connector; all of them without it.")] = "",
    last: Annotated[int, typer.Option(min=1, max=10_000, help="How many calls.")] = 20,
    failed: Annotated[bool, typer.Option("--failed", help="Only calls that failed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the last calls: when, which tool, how it ended. Arguments and results are not kept here."""
    from trimtab.own_connectors import connector_log
    from trimtab.settings import Settings

    settings = Settings.load()
    if name:
        _toolbox(settings).connector(name)  # an unknown name is said
    records = connector_log(settings).last(10_000 if failed else last, name)
    records = [record for record in records if not (failed and record.ok)][-last:]
    if as_json:
        typer.echo(json.dumps([asdict(record) for record in records], indent=2, ensure_ascii=False))
        return
    for record in records:
        typer.echo(_line(record))
    if not records:
        typer.echo("No call yet.")


def _line(record: CallRecord) -> str:
    from trimtab.cli.show import plain

    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.at))
    ended = "ok" if record.ok else record.reason
    note = " (old answer: the service was down)" if record.stale else " (from the cache)" if record.cached else ""
    message = f": {plain(record.message)}" if record.message else ""
    return f"{when}  {record.seconds:7.3f} s  {ended:<13} {record.tool}{note}{message}"


def _toolbox(settings: Settings) -> Toolbox:
    from trimtab.own_connectors import open_imports, open_toolbox

    toolbox = open_toolbox(settings)
    open_imports(settings, toolbox)
    return toolbox
