"""`trimtab connectors check` and `new`: whether a connector keeps what it declares, and a fresh one that does."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from trimtab.connect import ConnectOptions, Connector, ToolOutcome
    from trimtab.connect.cassettes import Scrubber
    from trimtab.connect.conformance.requirement import Line, Report
    from trimtab.connect.options import Override
    from trimtab.settings import Settings

MARKS = {"pass": "pass", "fail": "FAIL", "n/a": "n/a"}


def register(app: typer.Typer) -> None:
    app.command()(check)
    app.command()(new)


def check(
    name: Annotated[str, typer.Argument(help="A connector's name, or a Python file that holds one.")],
    only: Annotated[
        list[str] | None, typer.Option(help="Check these lines alone, by id or its beginning; no badge is made.")
    ] = None,
    examples: Annotated[int, typer.Option(min=10, max=100_000, help="Argument sets a tool is tried with.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="How often each fault is injected.")] = 1,
    badge: Annotated[bool, typer.Option("--badge/--no-badge", help="Sign and keep what was found.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a connector offline: its declaration, its cassettes, fuzzed arguments, a faulty service. Then sign it."""
    from trimtab.connect.conformance.badge import Badges
    from trimtab.connect.conformance.runner import bench_for, lines, report
    from trimtab.settings import Settings

    settings = Settings.load()
    connector = find(name, settings)
    began = time.monotonic()
    found: list[Line] = []
    with bench_for(connector, examples=examples, rounds=rounds) as bench:
        for line in lines(bench, tuple(only or ())):
            found.append(line)
            if not as_json:
                typer.echo(row(line))
        whole = report(bench, found, began)
    if not found:
        from trimtab.domain.errors import NotFound

        raise NotFound(f"No line of the check is called {', '.join(only or ())}.")
    where = Badges(settings.home).award(whole) if badge and not only else None
    if as_json:
        typer.echo(json.dumps({**asdict(whole), "passed": whole.passed, "badge": where and str(where)}, indent=2))
    else:
        typer.echo(summary(whole, where))
    if not whole.passed:
        raise typer.Exit(1)


def row(line: Line) -> str:
    """Id, verdict, what must hold, how it was tested, what was found."""
    text = f"{line.id:<23} {MARKS[line.status]:<5} {line.must} ({line.how})"
    if line.status != "fail":
        return f"{text}: {_plain(line.reason)}"
    return "\n".join([text, *(f"{'':<30}{_plain(found)}" for found in line.reason.split("\n"))])


def summary(report: Report, where: Path | None) -> str:
    counts = {status: sum(line.status == status for line in report.lines) for status in MARKS}
    tried = ", ".join(f"{count:,} {what}" for what, count in report.figures.items())
    told = (
        f"\n{report.connector} {report.version}: {counts['pass']} passed, {counts['fail']} failed, "
        f"{counts['n/a']} do not apply, in {report.seconds:.1f} s ({tried or 'nothing to try'})"
    )
    return f"{told}\nbadge: {where}" if where else told


def find(name: str, settings: Settings) -> Connector:
    """An installed connector, one of the settings' files, or one in the file `name`.

    Raises:
        NotFound: there is none of that name.
        InvalidInput: it cannot be loaded.
    """
    from trimtab.connect.discovery import in_file, installed
    from trimtab.domain.errors import InvalidInput, NotFound

    if name.endswith(".py"):
        return in_file(Path(name))
    if (Path(name) / "pyproject.toml").is_file():
        return in_project(Path(name))
    known: dict[str, Any] = {}
    for found in installed():
        if found.connector is not None:
            known[found.connector.name] = found.connector
        elif found.name == name:
            raise InvalidInput(f"Connector {name!r} could not be loaded: {found.error}")
    known |= {connector.name: connector for path in settings.connector_files for connector in [in_file(path)]}
    if name not in known:
        raise NotFound(f"There is no connector {name!r}. Installed: {', '.join(sorted(known)) or 'none'}.")
    return known[name]  # type: ignore[no-any-return]


def in_project(folder: Path) -> Connector:
    """The connector that a project announces, without installing it.

    Raises:
        InvalidInput: it announces none, or more than one, or it cannot be imported.
    """
    import sys
    import tomllib
    from importlib.metadata import EntryPoint

    from trimtab.connect.discovery import GROUP, connector_in
    from trimtab.domain.errors import InvalidInput

    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]
        points = project["entry-points"][GROUP]
    except (ValueError, KeyError) as error:
        raise InvalidInput(f"{folder}/pyproject.toml announces no connector under {GROUP}: {error}.") from None
    if len(points) != 1:
        raise InvalidInput(f"{folder} announces {len(points)} connectors ({', '.join(points)}). Install it, name one.")
    sys.path[:0] = [str((folder / "src").resolve()), str(folder.resolve())]
    ((name, value),) = points.items()
    try:
        return connector_in(EntryPoint(name, value, GROUP).load())
    except Exception as error:
        raise InvalidInput(f"{folder} cannot be imported: {type(error).__name__}: {error}") from error


def new(
    name: Annotated[str, typer.Argument(help="What to call it: a-z, 0-9 and _, e.g. tides")],
    folder: Annotated[Path | None, typer.Option(help="Where to; default: a folder trimtab-NAME here.")] = None,
    host: Annotated[str, typer.Option(help="The service's host.")] = "api.example.com",
) -> None:
    """Write a connector in a package of its own, with a test and a cassette, that passes the check as it is."""
    from trimtab.connect.conformance.starter import write

    place = folder or Path(f"trimtab-{name.replace('_', '-')}")
    for path in write(name, place, host):
        typer.echo(path)
    typer.echo(
        f"\nCheck it:    trimtab connectors check {place}\nInstall it:  pip install -e '{place}[dev]'\n"
        f"Go on:       {place}/README.md"
    )


class Deck:
    """Records or replays the one call that `trimtab connectors call` makes."""

    def __init__(self, record: Path | None, replay: Path | None, not_secret: list[str]) -> None:
        from trimtab.connect.cassettes import Tape, load
        from trimtab.domain.errors import InvalidInput

        if record and replay:
            raise InvalidInput("--record asks the service and --replay does not: give one of them.")
        self._record = record
        self._tapes: list[Tape] | None = None
        if replay:
            self._tapes = load(replay) if replay.is_dir() else [Tape.read(replay)]
        self._tape = Tape.new("", {}, not_secret=not_secret)
        self._secrets: dict[str, str] = {}
        self._overrides: Mapping[str, Override] = {}

    def options(self, given: ConnectOptions) -> ConnectOptions:
        """For the toolbox: where its requests end."""
        from dataclasses import replace

        from trimtab.connect.cassettes import recording, replaying

        if not self._record and self._tapes is None:
            return given
        # A badge needs cassettes, and a cassette of a write needs the write: who records it vouches for this one call.
        given = replace(given, standing=None)
        if self._tapes is not None:
            return replaying(self._tapes, given)
        self._overrides = given.overrides

        def remembered(name: str) -> Any:
            if (found := given.secret(name)) is not None:
                self._secrets[name] = found.get_secret_value()
            return found

        return recording(self._tape, replace(given, secret=remembered))

    async def play(self, tool: str, arguments: Mapping[str, Any], called: Awaitable[ToolOutcome]) -> ToolOutcome:
        """Await the call; then write the cassette, where one is recorded."""
        from trimtab.domain.errors import ToolError

        self._tape.tool, self._tape.arguments = tool, dict(arguments)
        try:
            outcome = await called
        except ToolError as error:
            self._tape.error = error.code
            await self._save("")
            raise
        await self._save(outcome.text)
        return outcome

    async def _save(self, text: str) -> None:
        from trimtab.connect.cassettes import Scrubber

        if not self._record:
            return
        self._as_declared()
        scrubber = Scrubber(self._secrets)
        if text and await self._replayed(scrubber) == scrubber.text(text):
            self._tape.expects = text  # else it changes by itself, with the time for example
        self._tape.save(self._record, scrubber)
        typer.echo(f"recorded: {self._record} ({len(self._tape.exchanges)} requests)", err=True)

    def _as_declared(self) -> None:
        """What a stand-in answered (`base_url` in the settings) is kept as the service's own, which it stands for."""
        from dataclasses import replace

        from trimtab.domain.errors import InvalidInput
        from trimtab.settings import Settings

        name = self._tape.tool.partition(".")[0]
        override = self._overrides.get(name)
        if override is None or not override.base_url or not self._tape.exchanges:
            return
        hosts = find(name, Settings.load()).hosts
        if len(hosts) != 1 or "*" in hosts[0]:
            raise InvalidInput(
                f"{name!r} is pointed at {override.base_url}, which stands for several hosts ({', '.join(hosts)}): "
                "nobody can tell which was meant. Record without the override."
            )
        base = override.base_url.rstrip("/")
        self._tape.exchanges = [
            replace(exchange, url=f"https://{hosts[0]}{exchange.url.removeprefix(base)}")
            for exchange in self._tape.exchanges
        ]
        self._tape.live = False
        self._tape.note = f"Recorded from {base}, which stood for {hosts[0]}; not recorded live."

    async def _replayed(self, scrubber: Scrubber) -> str:
        from trimtab.connect import Toolbox
        from trimtab.connect.cassettes import replaying
        from trimtab.domain.errors import TrimtabError
        from trimtab.settings import Settings

        tape = self._tape.scrubbed(scrubber)
        toolbox = Toolbox(replaying([tape]))
        try:
            toolbox.add(find(tape.tool.partition(".")[0], Settings.load()))
            return (await toolbox.call(tape.tool, tape.arguments)).text
        except TrimtabError:
            return ""
        finally:
            await toolbox.aclose()


def _plain(text: str) -> str:
    from trimtab.cli.show import plain

    return plain(text)
