"""`trimtab connectors`: what is installed, on or off, and trying a tool by hand."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from trimtab.cli import connectors_auth, connectors_check, connectors_mcp, connectors_openapi, connectors_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trimtab.connect import ConnectOptions, ConnectorStatus, Toolbox, ToolOutcome, ToolStatus

app = typer.Typer(no_args_is_help=True, help="List, switch and try the connectors.")
connectors_check.register(app)
connectors_auth.register(app)
connectors_policy.register(app)
app.add_typer(connectors_mcp.app, name="mcp")
app.add_typer(connectors_openapi.app, name="import")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="A connector's name, as `trimtab connectors list` shows it.")]


@app.command("list")
def list_connectors(as_json: AsJson = False) -> None:
    """Show every installed connector, those that are off or broken included."""
    statuses = _toolbox().connectors
    if as_json:
        _echo([_wire(status) for status in statuses])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("connector", "state", "badge", "reaches", "key", "tools", box=None, pad_edge=False)
    for status in statuses:
        tools = ", ".join(tool.name.partition(".")[2] for tool in status.tools)
        table.add_row(
            status.name, _state(status), _badge(status), _reach(status), status.auth, tools or _plain(status.error)
        )
    Console(highlight=False).print(table)


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show one connector: what it may reach, its tools, their arguments and effects."""
    status = _toolbox().connector(name)
    if as_json:
        _echo(_wire(status))
        return
    typer.echo(f"{status.name} {status.version} ({_state(status)})\n{_plain(status.description or status.error)}")
    if not status.error:
        typer.echo(f"badge: {_badge(status)}. {_plain(status.standing.reason)}")
    typer.echo(f"reaches: {_reach(status)}\nkey: {status.auth}\nfrom: {status.origin}")
    for option in status.options:
        state = "set" if option.set else "to be set" if option.required else "not set"
        typer.echo(f"option {option.name} ({state}): {_plain(option.about)}")
    for tool in status.tools:
        trust = "its results are untrusted" if tool.info.untrusted else "its results are trusted"
        typer.echo(f"\n{tool.name} ({tool.info.effect}, {trust})\n  {_plain(tool.info.description)}")
        for argument, shape in tool.schema["properties"].items():
            needed = "" if argument in tool.schema.get("required", []) else " (optional)"
            typer.echo(f"  --arg {argument}=...{needed}: {_plain(shape['description'])}")
        if tool.info.examples:
            typer.echo(f"  e.g. {_plain(tool.info.examples[0])}")


@app.command()
def enable(name: Name) -> None:
    """Switch a connector on."""
    _switch(name, True)


@app.command()
def disable(name: Name) -> None:
    """Switch a connector off: no model is shown its tools, and nothing can call them."""
    _switch(name, False)


@app.command()
def call(
    tool: Annotated[str, typer.Argument(help="A tool's name, e.g. calculator.calculate")],
    arg: Annotated[list[str] | None, typer.Option(help="An argument, e.g. expression=2+2. May be repeated.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before a call that changes something.")] = False,
    as_json: AsJson = False,
    record: Annotated[Path | None, typer.Option(help="Keep what is asked and answered as this cassette.")] = None,
    replay: Annotated[Path | None, typer.Option(help="Answer from this cassette or folder; no network.")] = None,
    not_secret: Annotated[list[str] | None, typer.Option(help="A string in a recording that is no secret.")] = None,
) -> None:
    """Call one tool by hand and print what it returns."""
    deck = connectors_check.Deck(record, replay, not_secret or [])
    toolbox = _toolbox(deck.options)
    status = _find(toolbox, tool)
    arguments = _arguments(arg or [], status.schema)
    if status.info.effect != "read" and not yes:
        typer.confirm(f"{status.name} is declared '{status.info.effect}': it changes something. Call it?", abort=True)
    outcome = asyncio.run(_called(toolbox, status, arguments, deck, asks=replay is None))
    if as_json:
        _echo(asdict(outcome))
        return
    typer.echo(_plain(outcome.text))
    for source in outcome.sources:
        typer.echo(_plain(f"source: {source.title} {source.url}".rstrip()), err=True)


async def _called(
    toolbox: Toolbox, tool: ToolStatus, arguments: Mapping[str, Any], deck: connectors_check.Deck, *, asks: bool
) -> ToolOutcome:
    """`asks`: a service is asked, so that the call is written down."""

    async def run() -> ToolOutcome:
        return await deck.play(tool.name, arguments, toolbox.call(tool.name, arguments))

    try:
        if not asks:
            return await run()
        with connectors_policy.audited(tool.info, arguments) as audit:
            return await audit(run)
    finally:
        await toolbox.aclose()


def _toolbox(change: Callable[[ConnectOptions], ConnectOptions] = lambda options: options) -> Toolbox:
    from trimtab.own_connectors import open_connectors
    from trimtab.settings import Settings

    return open_connectors(Settings.load(), change)[0]


def _switch(name: str, enabled: bool) -> None:
    from trimtab.cli.ingest import server_client
    from trimtab.cli.talk import checked
    from trimtab.settings import Settings

    settings = Settings.load()
    if (client := server_client(settings)) is not None:
        with client:
            checked(client.patch(f"/v1/connectors/{quote(name, safe='')}", json={"enabled": enabled}))
    else:
        _toolbox().connector(name)  # an unknown name is said, not written down
        settings.set_connector_enabled(name, enabled)
    typer.echo(f"{name} is {'on' if enabled else 'off'}.")


def _find(toolbox: Toolbox, name: str) -> ToolStatus:
    toolbox.tool(name)  # unknown or off: says so
    for status in toolbox.connectors:
        for tool in status.tools:
            if name in (tool.name, tool.info.name):
                return tool
    raise AssertionError(f"{name} was found and is not listed")


def _arguments(pairs: list[str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """``name=value`` pairs; a value is text where the tool wants text, else JSON when it is JSON."""
    from trimtab.domain.errors import InvalidInput

    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise InvalidInput(f"{pair!r} is not an argument. Write it like expression=2+2.")
        found[name] = value
        if schema["properties"].get(name, {}).get("type") != "string":
            try:
                found[name] = json.loads(value)
            except ValueError:
                found[name] = value
    return found


def _state(status: ConnectorStatus) -> str:
    if status.error:
        return "broken"
    if status.enabled and any(option.required and not option.set for option in status.options):
        return "to be set up"
    return "on" if status.enabled else "off"


def _badge(status: ConnectorStatus) -> str:
    """The badge's state in a word, and what it means where that is less than everything."""
    if status.error:
        return "-"
    return status.standing.state if status.standing.vouched else f"{status.standing.state} (read-only)"


def _reach(status: ConnectorStatus) -> str:
    if status.speaks:
        return f"the server that its options name, by {', '.join(status.speaks)}"
    if "*" in status.hosts:
        return "any public host"
    return ", ".join(status.hosts) or "nothing"


def _plain(text: str) -> str:
    from trimtab.cli.show import plain

    return plain(text)


def _wire(status: ConnectorStatus) -> dict[str, Any]:
    tools = [
        {**asdict(tool.info), "name": tool.name, "model_name": tool.info.name, "schema": tool.schema}
        for tool in status.tools
    ]
    return {**asdict(status), "tools": tools}


def _echo(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
