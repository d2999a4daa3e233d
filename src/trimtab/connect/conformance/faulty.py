"""The fault lines: what is injected, into which calls, and what counts as having stood it.

Each recorded run that ends in a result is repeated with its service misbehaving: at every request, and where a run has
several, at each one alone. A call stands a fault when it ends within its deadline in a result or an error that a model
can read, sent nothing twice that changes something, reached nothing else, and did not claim success where no proper
answer ever came.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trimtab.domain.tool import Effect

from ..addresses import allowed
from ..auth import secret_names
from ..cassettes import Exchange, Tape
from ..cassettes.playing import placeholder, without_network
from ..declare import Connector
from . import faults
from .bench import SLACK, Bench, Stuck
from .faults import Asked, Behave, Wire
from .kinds import INSIDE, KINDS, Fault, Kind
from .requirement import Finding, Requirement, does_not_apply, failed, passed, several
from .source import token_urls
from .trial import Trial, attempt

AT_ONCE = 12
MAX_SENT = 64_000_000
"""Bytes a server may get rid of before the client hangs up; the kernel's buffers are in it."""


@dataclass(frozen=True)
class Case:
    """A fault, in a recorded run, at every exchange or at one."""

    fault: Fault
    tape: Tape
    at: int | None = None

    @property
    def told(self) -> str:
        where = f" at request {self.at + 1} of {len(self.tape.exchanges)}" if self.at is not None else ""
        return f"{self.tape.tool} with {self.fault.name}{where}"


def injected(fault: Fault, exchange: Exchange | None) -> Behave:
    """The fault at one exchange (at all when None) where it makes sense; elsewhere the proper answer."""

    async def behave(wire: Wire, asked: Asked, good: bytes) -> None:
        if asked.exchange is faults.TOKEN:
            await fault.tokens(wire, asked, good)
            return
        here = asked.exchange is not None and (exchange is None or asked.exchange is exchange)
        # A redirect loop leads to addresses that were never recorded; it goes on there.
        wanted = here or (asked.exchange is None and fault.behave is faults.loop)
        if wanted and (asked.exchange is None or fault.only(asked.exchange)):
            await fault.behave(wire, asked, good)
        else:
            await faults.honest(wire, asked, good)

    return behave


def cases(bench: Bench, kind: Sequence[Fault]) -> Iterator[Case]:
    for tape in bench.good_tapes():
        for fault in kind:
            fitting = [i for i, exchange in enumerate(tape.exchanges) if fault.only(exchange)]
            if not fitting:
                continue
            yield Case(fault, tape)
            if len(tape.exchanges) > 1 and not fault.setup:
                yield from (Case(fault, tape, at) for at in fitting)


def inside(host: str, port: int) -> list[str]:
    """A resolver for which one name lies in a private network."""
    return ["10.0.0.7"] if host == INSIDE else without_network(host, port)


async def run_case(connector: Connector, bench: Bench, case: Case) -> Trial:
    exchange = None if case.at is None else case.tape.exchanges[case.at]
    behave = injected(case.fault, exchange)
    return await attempt(
        connector,
        case.tape.tool,
        case.tape.arguments,
        case.tape.exchanges,
        bench.certificates,
        behave,
        resolver=inside,
        options=case.tape.setup,
        **case.fault.setup,
    )


def problems(connector: Connector, case: Case, trial: Trial, deadline: float) -> list[str]:
    """What did not stand the fault, each as a sentence."""
    found = trial.typed()
    if trial.seconds > deadline + SLACK:
        found.append(f"It ended after {trial.seconds:.1f} s; the deadline was {deadline:g} s.")
    if trial.outcome and _hopeless(connector, case):
        found.append(f"It claims success (“{trial.outcome.text[:80]}”) though no proper answer came.")
    found += [f"It opened {what} past its client." for what in trial.watch.reached]
    found += [f"{url} was asked at {address}." for address, _, url in trial.dialed if _private(address)]
    if trial.sent > MAX_SENT:
        found.append(f"It took {trial.sent:,} bytes before it hung up.")
    found += repeated(connector, case, trial)
    if connector.auth and any(
        placeholder(env).get_secret_value() in trial.message for env in secret_names(connector.auth)
    ):
        found.append("The error shows the key.")
    return [f"{case.told}: {problem}" for problem in found]


def _hopeless(connector: Connector, case: Case) -> bool:
    """Whether no exchange of the run had an answer from which success could follow."""
    if not case.fault.hopeless or case.at is not None:
        return False
    if case.fault.in_body and connector.tools[case.tape.tool.partition(".")[2]].effect is not Effect.READ:
        return False
    return all(case.fault.only(exchange) for exchange in case.tape.exchanges)


def _private(address: str) -> bool:
    return not allowed(address)


def repeated(connector: Connector, case: Case, trial: Trial) -> list[str]:
    """Requests that were sent more often than the declaration allows."""
    if case.fault.behave is faults.loop:
        most = (connector.limits.redirects + 1) * connector.retry.attempts * len(case.tape.exchanges)
        return [f"It sent {len(trial.asked)} requests."] if len(trial.asked) > most else []
    found = []
    renewals = sum(asked.exchange is faults.TOKEN for asked in trial.asked)
    if case.fault.behave is faults.stale_token and renewals > 1:
        found.append(f"It asked for a token {renewals} times; a refresh token may be good for one use.")
    writes = connector.tools[case.tape.tool.partition(".")[2]].effect is not Effect.READ
    same = Counter((asked.method, asked.url, asked.body) for asked in trial.asked)
    normal = Counter((e.method, e.url) for e in case.tape.exchanges)
    for (method, url, body), times in same.items():
        tokens = 2 if token_urls(connector) else 1
        if times > connector.retry.attempts * max(1, normal[method, url]) * tokens:
            found.append(f"It sent {method} {url} {times} times; it declares {connector.retry.attempts} attempts.")
        keys = [asked.key for asked in trial.asked if (asked.method, asked.url, asked.body) == (method, url, body)]
        effects = len({key for key in keys if key}) + keys.count("")
        if method in ("POST", "PATCH") and effects > max(1, normal[method, url]) and writes:
            found.append(f"It did {method} {url} {effects} times over: a repeated write needs one idempotency key.")
    return found


def check_kind(kind: Kind, bench: Bench) -> Finding:
    if not bench.good_tapes():
        if bench.connector.speaks:
            return does_not_apply(f"It speaks {', '.join(bench.connector.speaks)}, whose faults are not played here.")
        return does_not_apply("It asks no service." if not bench.connector.hosts else "No cassette ends in a result.")
    if kind.id == "FAULT-EXPIRED" and bench.connector.auth is None:
        return does_not_apply("It needs no key.")
    if kind.id in ("FAULT-TOKEN", "FAULT-REFRESH") and not token_urls(bench.connector):
        return does_not_apply("It has no tokens to renew.")
    todo = list(cases(bench, kind.faults)) * bench.rounds
    if not todo:
        return does_not_apply("None of its answers is JSON.")
    random.Random(bench.seed).shuffle(todo)  # noqa: S311
    connector = bench.pace.quick(bench.connector)
    found: list[str] = []
    for start in range(0, len(todo), AT_ONCE):
        found += _batch(connector, bench, todo[start : start + AT_ONCE])
        if len(found) > 8:
            break
    bench.count("faults", len(todo))
    return failed(found) if found else passed(f"{several(len(todo), 'case')}.")


def _batch(connector: Connector, bench: Bench, batch: list[Case]) -> list[str]:
    """Together first; whoever was late or stuck is tried again alone, where nobody else can be the reason."""
    deadline = bench.pace.tool

    async def together() -> list[Trial]:
        return await asyncio.gather(*(run_case(connector, bench, case) for case in batch))

    try:
        trials: list[Trial | None] = list(bench.run(together, deadline + SLACK + 2.0))
    except Stuck:
        trials = [None] * len(batch)
    found = []
    for case, trial in zip(batch, trials, strict=True):
        told = problems(connector, case, trial, deadline) if trial else [""]
        if trial is None or trial.seconds > deadline + SLACK:  # perhaps the machine's doing: alone, that is counted
            told = _alone(connector, bench, case, deadline)
        found += told
    return found


def _alone(connector: Connector, bench: Bench, case: Case, deadline: float) -> list[str]:
    """Twice where it was late: on a busy machine once proves nothing."""
    told: list[str] = []
    for _ in range(2):
        before = bench.starved()
        try:
            trial = bench.run(lambda: run_case(connector, bench, case), deadline + SLACK + 1.0)
        except Stuck as stuck:
            told = [f"{case.told}: {str(stuck).capitalize()}."]
            continue
        trial.seconds -= bench.starved() - before
        told = problems(connector, case, trial, deadline)
        if trial.seconds <= deadline + SLACK:
            break
    return told


def requirements() -> list[Requirement]:
    return [Requirement(kind.id, kind.must, kind.how, functools.partial(check_kind, kind)) for kind in KINDS]
