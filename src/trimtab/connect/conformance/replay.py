"""Lines about cassettes: each tool has one, each replays, none holds a secret, and all bear the declaration out."""

from __future__ import annotations

import contextlib
import shlex
from base64 import b64encode
from pathlib import Path
from urllib.parse import urlsplit

from trimtab.domain.tool import Effect

from ..auth import secret_names
from ..cassettes import Tape
from ..cassettes.playing import placeholder
from ..declare import Connector, Declaration
from ..reach import _matches
from .bench import SLACK, Bench, Stuck
from .requirement import Finding, Requirement, does_not_apply, several, verdict
from .source import cassette_folder, token_urls
from .trial import Trial, attempt

READING = frozenset({"GET", "HEAD", "OPTIONS"})


def covered(bench: Bench) -> Finding:
    missing = [
        f"{tool.dotted} has no cassette. Record one: {_recording(bench, tool)}"
        for tool in bench.tools()
        if not any(not tape.error or bench.connector.speaks for tape in bench.tapes_for(tool))
    ]
    known = {tool.dotted for tool in bench.tools()}
    missing += [
        f"Cassette {tape.name} is of {tape.tool}, which is no tool of it: delete it or name another."
        for tape in bench.tapes
        if tape.tool not in known
    ]
    missing += [
        f"Cassette {tape.name} was not recorded live; its note must say after which documentation it was written."
        for tape in bench.tapes
        if not tape.live and not tape.note and tape.exchanges
    ]
    made = sum(not tape.live for tape in bench.tapes if tape.exchanges)
    told = several(len(bench.tapes), "cassette") + (f", {made} of them written after documentation." if made else ".")
    if bench.connector.speaks:
        told += f" What it says by {', '.join(bench.connector.speaks)} is not recorded."
    return verdict(missing, told)


def _recording(bench: Bench, tool: Declaration) -> str:
    """The command that records the tool's first cassette, ready but for the values."""
    needed = "".join(f" --arg {name}=..." for name in tool.json_schema().get("required", ()))
    place = cassette_folder(bench.connector)
    file = place / f"{tool.name}.json" if place else Path(f"{tool.name}.json")
    with contextlib.suppress(ValueError):
        file = file.relative_to(Path.cwd())
    return f"trimtab connectors call {tool.dotted}{needed} --record {shlex.quote(str(file))}"


def clean(bench: Bench) -> Finding:
    if not bench.tapes:
        return does_not_apply("It has no cassettes.")
    found = [
        f"{tape.name}: {where} holds what looks like a secret ({string[:4]}…)."
        for tape in bench.tapes
        for where, string in tape.secrets_left()
    ]
    return verdict(found, f"{several(len(bench.tapes), 'cassette')}.")


def replays(bench: Bench) -> Finding:
    if not bench.tapes:
        return does_not_apply("It has no cassettes.")
    found: list[str] = []
    known = {tool.dotted for tool in bench.tools()}
    for tape in bench.tapes:
        if tape.tool not in known:
            continue  # another line says so
        trial = played(bench, tape)
        found += [f"{tape.name}: {problem}" for problem in _replay_problems(tape, trial)]
    bench.count("replays", len(bench.tapes))
    return verdict(found, f"{several(len(bench.tapes), 'cassette')}, over TLS on loopback.")


def _replay_problems(tape: Tape, trial: Trial | None) -> list[str]:
    if trial is None:
        return ["It did not end in time."]
    unknown = [f"{asked.method} {asked.url}" for asked in trial.asked if asked.exchange is None]
    if unknown:
        return [f"It asked for {unknown[0]}, which is not recorded."]
    if trial.error or trial.stray:
        code = trial.error.code if trial.error else "stray"
        told = [] if tape.error == code else [f"It ended in “{trial.message[:200]}”."]
        return told + trial.typed()
    if tape.error:
        return [f"It ended in a result; recorded was the error {tape.error!r}."]
    unused = [e.url for e in tape.exchanges if not any(asked.exchange is e for asked in trial.asked)]
    if unused:
        return [f"It never asked for {unused[0]}, which is recorded."]
    if tape.expects and trial.outcome and trial.outcome.text != tape.expects:
        return [f"Its text is “{trial.outcome.text[:80]}”; recorded was “{tape.expects[:80]}”."]
    return []


def played(bench: Bench, tape: Tape) -> Trial | None:
    """The tape's run once more; None when it did not end in time. Kept, for several lines look at it."""
    kept: dict[int, Trial | None] = bench.__dict__.setdefault("_played", {})
    if id(tape) not in kept:
        known = {tool.dotted: tool for tool in bench.tools()}
        if tape.tool not in known:
            kept[id(tape)] = None
            return None
        try:
            kept[id(tape)] = bench.run(
                lambda: attempt(
                    bench.connector,
                    tape.tool,
                    tape.arguments,
                    tape.exchanges,
                    bench.certificates,
                    options=tape.setup,
                ),
                known[tape.tool].timeout + SLACK + 1.0,
            )
        except Stuck:
            kept[id(tape)] = None
    return kept[id(tape)]


def hosts(bench: Bench) -> Finding:
    """Used hosts are declared, declared ones are used, and nothing is reached but through the client."""
    found: list[str] = []
    asked: set[str] = set()
    token_hosts = {urlsplit(url).netloc for url in token_urls(bench.connector)}
    for tape in bench.tapes:
        asked |= {urlsplit(exchange.url).netloc for exchange in tape.exchanges}
        if trial := played(bench, tape):
            asked |= {urlsplit(url).netloc for _, _, url in trial.dialed} - token_hosts
            found += [
                f"{tape.tool} opened {what} past its client."
                for what in trial.watch.reached
                if not named_by(tape, bench.connector, what)
            ]
            found += [f"{tape.tool} started {what}." for what in trial.watch.started]
    found += [
        f"It asks {host}, which it does not declare." for host in sorted(asked) if not declared(bench.connector, host)
    ]
    if bench.tapes:
        unused = [
            p for p in bench.connector.hosts if p != "*" and not any(_matches(p, h.partition(":")[0]) for h in asked)
        ]
        found += [f"It declares {p} and never asks it: record a cassette, or drop the host." for p in unused]
    told = ", ".join(sorted(asked)) or "no host"
    if bench.connector.speaks:
        told += f", and by {', '.join(bench.connector.speaks)} no other than its options name"
    return verdict(found, f"Asked: {told}.")


def named_by(tape: Tape, connector: Connector, reached: str) -> bool:
    """Whether a connection is to a server that the options name, by a protocol that the connector declares."""
    address = reached.rpartition(" ")[2]
    host = address.rpartition(":")[0] if reached.startswith("a connection") else address
    return bool(connector.speaks) and any(host and host in value for value in tape.setup.values())


def declared(connector: Connector, host: str) -> bool:
    return any(_matches(pattern, host.partition(":")[0]) for pattern in connector.hosts)


def effects(bench: Bench) -> Finding:
    """A tool that says it reads sends nothing that writes, and leaves the disk alone."""
    found: list[str] = []
    for tool in bench.tools():
        if tool.effect is not Effect.READ:
            continue
        for tape in bench.tapes_for(tool):
            found += [
                f"{tool.dotted} is declared to read, and sends {e.method} {e.url}. Declare what it changes."
                for e in tape.exchanges
                if e.method not in READING and not (tool.read_by_post and e.method == "POST")
            ]
            if trial := played(bench, tape):
                found += [f"{tool.dotted} is declared to read, and writes {what}." for what in trial.watch.written]
    changing = [tool.dotted for tool in bench.tools() if tool.effect is not Effect.READ]
    return verdict(found, f"Change something: {', '.join(changing) or 'none'}.")


def secrets(bench: Bench) -> Finding:
    """A service that echoes what it was sent does not get the key into a result or an error."""
    from . import faults

    if not (names := secret_names(bench.connector.auth)) or not bench.good_tapes():
        return does_not_apply("It needs no key." if not names else "No cassette asks a service.")
    keys = [placeholder(name).get_secret_value() for name in names]
    found = []
    for tape in bench.good_tapes():
        for behave in (faults.echo, faults.echo_status):
            trial = bench.run(
                lambda tape=tape, behave=behave: attempt(  # type: ignore[misc]
                    bench.connector,
                    tape.tool,
                    tape.arguments,
                    tape.exchanges,
                    bench.certificates,
                    behave,
                    options=tape.setup,
                ),
                bench.connector.tools[tape.tool.partition(".")[2]].timeout + SLACK + 1.0,
            )
            shown = f"{trial.message} {trial.outcome}".casefold()
            forms = {form for key in keys for form in (key.casefold(), b64encode(key.encode()).decode().casefold())}
            if any(form in shown for form in forms):
                found.append(f"{tape.tool} shows the key when the service echoes it.")
    return verdict(found, f"{several(len(keys), 'key')}.")


def requirements() -> list[Requirement]:
    return [
        Requirement(
            "REPLAY-COVERED", "every tool has a cassette, and each says where it is from", "files read", covered
        ),
        Requirement(
            "REPLAY-WORKS",
            "each cassette replays to what was recorded",
            "each run once, nothing else reachable",
            replays,
        ),
        Requirement("REPLAY-CLEAN", "no cassette holds a secret", "known forms, known names, entropy", clean),
        Requirement(
            "TRUE-HOSTS",
            "it asks the hosts it declares and no others",
            "cassettes replayed; sockets, look-ups and processes watched",
            hosts,
        ),
        Requirement(
            "TRUE-EFFECTS",
            "what is declared to read changes nothing",
            "methods sent; files written while replaying",
            effects,
        ),
        Requirement(
            "KEY-KEPT", "its key shows in no result and no error", "a service that echoes what it is sent", secrets
        ),
    ]
