"""`trimtab connectors mcp`: MCP servers as connectors; adding, looking, approving what changed, removing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

if TYPE_CHECKING:
    from trimtab.connect.mcp import Servers

app = typer.Typer(no_args_is_help=True, help="Use MCP servers as connectors.")

Name = Annotated[str, typer.Argument(help="What the server is called here; its tools are NAME.tool.")]
Reads = Annotated[
    list[str] | None,
    typer.Option(
        "--reads", help="A tool that only reads; 'hinted' for all that the server says so of. May be repeated."
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_servers(as_json: AsJson = False) -> None:
    """Show the servers that were added, and what each tool may do."""
    servers = _desk().listed()
    if as_json:
        typer.echo(json.dumps(servers, indent=2, ensure_ascii=False))
        return
    if not servers:
        typer.echo("None yet. Add one: trimtab connectors mcp add NAME -- COMMAND ARGUMENTS")
    for server in servers:
        typer.echo(_plain(f"{server['name']}  {server['says']}  ({_how(server)})"))
        for tool in server["approved"]:
            typer.echo(_plain(f"  {server['name']}.{tool['called']}  {tool['effect']}"))
        if server["resources"]:
            typer.echo(f"  resources  {server['resources']}")


@app.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": True})
def add(
    name: Name,
    command: Annotated[
        list[str] | None, typer.Argument(help="After --: the program and its arguments, exactly.")
    ] = None,
    url: Annotated[str, typer.Option(help="Instead of a command: its address, e.g. https://example.org/mcp")] = "",
    local: Annotated[bool, typer.Option("--local", help="The address may be on this machine or network.")] = False,
    header: Annotated[
        list[str] | None,
        typer.Option(help="A header and the variable with its secret, e.g. Authorization=MY_TOKEN (sent as bearer)."),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE for the program's environment; NAME alone takes the value from ours, unseen."),
    ] = None,
    cwd: Annotated[str, typer.Option(help="The folder the program runs in.")] = "",
    timeout: Annotated[float, typer.Option(help="Seconds a call may take, starting the server included.")] = 60.0,
    reads: Reads = None,
    yes: Yes = False,
) -> None:
    """Add a server: it is started once, its tools are shown, and you say which of them only read.

    All other tools wait for your approval at each call.
    """
    plain = dict(pair.split("=", 1) for pair in env or () if "=" in pair)
    reached = {
        "name": name,
        "argv": command or [],
        "env": plain,
        "secrets": [pair for pair in env or () if "=" not in pair],
        "cwd": cwd,
        "url": url,
        "headers": _pairs(header or []),
        "local": local,
        "timeout": timeout,
    }
    desk = _desk()
    found = desk.look(reached)
    _show(found)
    chosen = _reads(found, reads, ask=not yes)
    if not yes:
        typer.confirm(f"Add {name} with these tools?", abort=True)
    desk.add(reached, chosen or [], found["sha256"])
    typer.echo(f"{name} was added. Its tools: trimtab connectors show {name}")


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Start a server and show what it offers now, beside what you approved."""
    found = _desk().look_again(name)
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False)) if as_json else _show(found)


@app.command()
def approve(name: Name, reads: Reads = None, yes: Yes = False) -> None:
    """Show what a server has changed, and take it over when you say so."""
    desk = _desk()
    found = desk.look_again(name)
    _show(found)
    if found["unchanged"] and reads is None:
        typer.echo("It offers what you approved.")
        return
    chosen = _reads(found, reads, ask=False)
    if not yes:
        typer.confirm(f"Approve {name} as it is now?", abort=True)
    desk.approve(name, chosen, found["sha256"])
    typer.echo(f"{name} is approved as it is now.")


@app.command()
def remove(name: Name) -> None:
    """Stop a server and forget it."""
    _desk().remove(name)
    typer.echo(f"{name} was removed.")


@app.command()
def prompts(name: Name) -> None:
    """List the prompts a server offers you."""
    for prompt in _desk().prompts(name):
        wanted = " ".join(f"{a['name']}=..." for a in prompt["arguments"])
        typer.echo(_plain(f"{prompt['name']} {wanted}\n  {prompt['description']}"))


@app.command()
def prompt(
    name: Name,
    wanted: Annotated[str, typer.Argument(metavar="PROMPT", help="As `prompts` lists it.")],
    arg: Annotated[list[str] | None, typer.Option(help="An argument, e.g. topic=tides. May be repeated.")] = None,
) -> None:
    """Fill in a prompt of a server and print it, to be read and asked."""
    for message in _desk().prompt(name, wanted, _pairs(arg or [])):
        typer.echo(_plain(f"[{message['role']}]\n{message['text']}"))


def _show(found: dict[str, Any]) -> None:
    typer.echo(_plain(f"{found['name']}: {found['says'] or 'a nameless server'}, MCP {found['protocol']}"))
    typer.echo(_plain(f"reached by: {_how(found)}"))
    for tool in found["tools"]:
        told = tool["effect"] or _hint(tool["hints"])
        typer.echo(_plain(f"\n{tool['name']}  [{told}]{'  ' + tool['change'].upper() if tool['change'] else ''}"))
        if tool["was"]:
            typer.echo(_plain(f"  was: {tool['was']}"))
        typer.echo(_plain(f"  {tool['description']}"))
        for argument, shape in tool["schema"]["properties"].items():
            described = shape.get("description", "") if isinstance(shape, dict) else ""
            typer.echo(_plain(f"    {argument}: {described}".rstrip(": ")))
    if found["has_resources"]:
        typer.echo(
            f"\nresources  [{found['resources'] or 'says it only reads'}]\n  Its resources can be listed and read."
        )
    for name, why in found["refused"].items():
        typer.echo(_plain(f"\n{name}  REFUSED\n  {why}"))
    for name in found["gone"]:
        typer.echo(_plain(f"\n{name}  GONE"))
    typer.echo("")


def _hint(hints: dict[str, bool]) -> str:
    return "says it only reads" if hints["only_reads"] else "says it destroys" if hints["destroys"] else "writes"


def _reads(found: dict[str, Any], given: list[str] | None, *, ask: bool) -> list[str] | None:
    if given is None and ask:
        hinted = ", ".join(found["hinted"])
        typer.echo(_plain(f"The server says that these only read: {hinted}" if hinted else "The server says of none."))
        said = typer.prompt("Which of its tools only read? Names, 'hinted' or 'none'", default="none")
        given = [] if said.strip() == "none" else said.replace(",", " ").split()
    if given is None:
        return None
    return sorted({name for one in given for name in (found["hinted"] if one == "hinted" else [one])})


def _how(server: dict[str, Any]) -> str:
    if "url" in server:
        return str(server["url"])
    from trimtab.connect.mcp import Command

    return Command(tuple(server["argv"])).shown


def _pairs(pairs: list[str]) -> dict[str, str]:
    from trimtab.domain.errors import InvalidInput

    for pair in pairs:
        if "=" not in pair:
            raise InvalidInput(f"{pair!r} needs a name and a value, like NAME=value.")
    return dict(pair.split("=", 1) for pair in pairs)


def _plain(text: str) -> str:
    from trimtab.cli.show import plain

    return plain(text)


def _desk() -> _Remote | _Local:
    from trimtab.cli.ingest import server_client
    from trimtab.settings import Settings

    settings = Settings.load()
    client = server_client(settings)
    return _Local(settings) if client is None else _Remote(client)


class _Remote:
    """Through the running server, whose connectors they are."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def _do(self, method: str, path: str, body: Any = None) -> Any:
        from trimtab.cli.talk import checked

        return checked(self._client.request(method, f"/v1/mcp-servers{path}", json=body))

    def listed(self) -> list[dict[str, Any]]:
        return self._do("GET", "")["servers"]  # type: ignore[no-any-return]

    def look(self, reached: dict[str, Any]) -> Any:
        return self._do("POST", "/look", reached)

    def look_again(self, name: str) -> Any:
        return self._do("POST", f"/{quote(name, safe='')}/look")

    def add(self, reached: dict[str, Any], reads: list[str] | None, seen: str) -> None:
        self._do("POST", "", {**reached, "reads": reads, "seen": seen})

    def approve(self, name: str, reads: list[str] | None, seen: str) -> None:
        self._do("POST", f"/{quote(name, safe='')}/approve", {"reads": reads, "seen": seen})

    def remove(self, name: str) -> None:
        self._do("DELETE", f"/{quote(name, safe='')}")

    def prompts(self, name: str) -> Any:
        return self._do("GET", f"/{quote(name, safe='')}/prompts")["prompts"]

    def prompt(self, name: str, wanted: str, arguments: dict[str, str]) -> Any:
        path = f"/{quote(name, safe='')}/prompts/{quote(wanted, safe='')}"
        return self._do("POST", path, {"arguments": arguments})["messages"]


class _Local:
    """In this process, while no server runs."""

    def __init__(self, settings: Any) -> None:
        self._settings = settings

    def _with(self, work: Callable[[Servers], Awaitable[Any]]) -> Any:
        from trimtab.own_connectors import open_connectors

        async def run() -> Any:
            toolbox, servers, _ = open_connectors(self._settings)
            try:
                return await work(servers)
            finally:
                await toolbox.aclose()

        return asyncio.run(run())

    def listed(self) -> list[dict[str, Any]]:
        async def work(servers: Servers) -> list[dict[str, Any]]:
            return servers.listed()

        return self._with(work)  # type: ignore[no-any-return]

    def look(self, reached: dict[str, Any]) -> Any:
        server = _server(reached)

        async def work(servers: Servers) -> Any:
            return (await servers.look(server)).wire()

        return self._with(work)

    def look_again(self, name: str) -> Any:
        async def work(servers: Servers) -> Any:
            return (await servers.look(servers.book.get(name))).wire()

        return self._with(work)

    def add(self, reached: dict[str, Any], reads: list[str] | None, seen: str) -> None:
        server = _server(reached)
        self._with(lambda servers: servers.add(server, reads, seen))

    def approve(self, name: str, reads: list[str] | None, seen: str) -> None:
        self._with(lambda servers: servers.approve(name, reads, seen))

    def remove(self, name: str) -> None:
        self._with(lambda servers: servers.remove(name))

    def prompts(self, name: str) -> Any:
        return self._with(lambda servers: servers.prompts(name))

    def prompt(self, name: str, wanted: str, arguments: dict[str, str]) -> Any:
        return self._with(lambda servers: servers.prompt(name, wanted, arguments))


def _server(reached: dict[str, Any]) -> Any:
    """Through the same checks as the API's body."""
    from trimtab.connect.mcp import Server, reach
    from trimtab.domain.errors import InvalidInput

    if bool(reached["argv"]) == bool(reached["url"]):
        raise InvalidInput("Give either a command (after --) or --url of the MCP server.")
    given = {key: value for key, value in reached.items() if key != "url" or value}
    return Server(reached["name"], reach.from_wire(given), timeout=reached["timeout"])
