"""`check`: every requirement, one after another, about one connector."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from ..cassettes import Tape
from ..declare import Connector
from . import certificates, declaration, faulty, fuzz, replay
from .bench import Bench, Pace
from .requirement import Line, Report, Requirement, failed
from .source import fingerprint, tapes_of, token_urls

REQUIREMENTS: tuple[Requirement, ...] = (
    *declaration.requirements(),
    *replay.requirements(),
    *fuzz.requirements(),
    *faulty.requirements(),
)


@contextmanager
def bench_for(
    connector: Connector,
    tapes: list[Tape] | None = None,
    *,
    pace: Pace = Pace(),
    examples: int = 100,
    rounds: int = 1,
) -> Iterator[Bench]:
    """A bench with the connector's own cassettes, unless others are given.

    Raises:
        InvalidInput: a cassette cannot be read.
    """
    tapes = tapes_of(connector) if tapes is None else tapes
    with tempfile.TemporaryDirectory(prefix="trimtab-check-") as scratch:
        made = certificates.make(Path(scratch), names(connector, tapes))
        bench = Bench(connector, tapes, made, Path(scratch), pace=pace, examples=examples, rounds=rounds)
        try:
            yield bench
        finally:
            bench.close()


def names(connector: Connector, tapes: list[Tape]) -> list[str]:
    """What the check's server must be able to prove itself as."""
    asked = {urlsplit(exchange.url).hostname or "" for tape in tapes for exchange in tape.exchanges}
    asked |= {urlsplit(url).hostname or "" for url in token_urls(connector)}
    declared = {host.partition(":")[0] for host in connector.hosts}
    return sorted((asked | declared) - {"", "*"})


def lines(bench: Bench, only: tuple[str, ...] = ()) -> Iterator[Line]:
    """Check and tell, line by line. `only` are ids, or beginnings of ids."""
    for requirement in REQUIREMENTS:
        if not only or requirement.id.startswith(only):
            yield line(bench, requirement)


def line(bench: Bench, requirement: Requirement) -> Line:
    started = time.monotonic()
    try:
        finding = requirement.check(bench)
    except TimeoutError as error:
        finding = failed([f"It could not be checked: {error or 'it took too long'}."])
    about = (requirement.id, requirement.must, requirement.how)
    return Line(*about, finding.status, finding.reason, round(time.monotonic() - started, 3))


def report(bench: Bench, found: list[Line], began: float) -> Report:
    connector = bench.connector
    return Report(
        connector=connector.name,
        version=connector.version,
        source=fingerprint(connector),
        lines=tuple(found),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - began, 2),
        figures=dict(bench.figures),
    )


def check(
    connector: Connector,
    tapes: list[Tape] | None = None,
    *,
    only: tuple[str, ...] = (),
    pace: Pace = Pace(),
    examples: int = 100,
    rounds: int = 1,
) -> Report:
    """Everything at once. It opens no connection but to its own server on loopback."""
    began = time.monotonic()
    with bench_for(connector, tapes, pace=pace, examples=examples, rounds=rounds) as bench:
        return report(bench, list(lines(bench, only)), began)


def merged(reports: list[Report]) -> dict[str, int]:
    """The figures of several checks together."""
    total: dict[str, int] = {}
    for one in reports:
        for name, count in one.figures.items():
            total[name] = total.get(name, 0) + count
    return total
