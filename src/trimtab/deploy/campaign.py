"""Measuring many candidates in the time there is.

First every variant in one setting; then, of those that nothing else beats in speed, memory and quality at once, the
neighbouring settings. What was measured before is not measured again, and a candidate that cannot run is told and left
out. The reference comes first, since the quality of all others is told against it.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from trimtab.domain.errors import TrimtabError

from .choose import front
from .estimate import Asked, ModelFacts, estimate
from .quality import Position, compare
from .results import Measured, Results, key_of
from .speed import Endpoint, measure
from .variant import REFERENCE, Candidate, Knobs, Variant
from .workload import Workload


class Started(Protocol):
    """A candidate that serves."""

    @property
    def endpoint(self) -> Endpoint: ...

    @property
    def start_seconds(self) -> float:
        """From the order to readiness, files written before."""
        ...

    @property
    def disk(self) -> int:
        """Bytes of its files."""
        ...

    def peak_memory(self) -> int:
        """Bytes, of all its processes, the most since they began. 0 where the system does not say."""
        ...

    async def positions(self) -> list[Position]:
        """What it expects in the fixed texts (`quality.TEXTS`)."""
        ...


class Stage(Protocol):
    """Whoever can start candidates."""

    @property
    def facts(self) -> ModelFacts:
        """Of the installed model."""
        ...

    def facts_of(self, variant: Variant) -> ModelFacts:
        """Of the model that a variant is a form of: another one where it is a student's."""
        ...

    def prepare(self, variant: Variant) -> None:
        """Write the variant's files, if they are not there.

        Raises:
            ModelFileError: the source is damaged, or the disk is full.
        """
        ...

    def start(self, candidate: Candidate) -> AbstractAsyncContextManager[Started]: ...

    def kept_reference(self) -> list[Position] | None:
        """What the reference expects, if it was asked before."""
        ...

    def keep_reference(self, positions: Sequence[Position]) -> None: ...


@dataclass(frozen=True)
class Began:
    candidate: Candidate
    number: int
    of: int
    left_seconds: float
    """Of the time budget."""


@dataclass(frozen=True)
class Done:
    row: Measured
    before: bool
    """It had been measured already."""


@dataclass(frozen=True)
class LeftOut:
    candidate: Candidate
    reason: str


Step = Began | Done | LeftOut


@dataclass(frozen=True)
class Orders:
    """What to measure."""

    variants: tuple[Variant, ...]
    knobs: Knobs
    workload: Workload
    machine: str
    users: int = 1
    alone: int = 5
    """Questions asked one after the other."""
    each: int = 3
    """Questions of each of the users that ask at once."""
    seconds: float = 900.0
    """When this time is over nothing new is begun."""
    settings: bool = True
    """Whether to try other settings of the best variants."""
    again: bool = False
    """Measure also what was measured before."""
    more_words: tuple[str, ...] = ()
    """What the command that repeats a row must say besides the candidate."""

    def key(self, facts: ModelFacts, one: Candidate) -> str:
        return key_of(facts.sha256, one, self.workload.digest, self.users, self.machine)


async def run(
    orders: Orders, stage: Stage, results: Results, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[Step]:
    """Measure, telling each step.

    Raises:
        Unavailable: a result cannot be kept.
    """
    ends = clock() + orders.seconds
    wanted = [Candidate(one, orders.knobs) for one in sorted(orders.variants, key=lambda v: v != REFERENCE)]
    kept = results.all()
    found: list[Measured] = []
    async for step in _measured(orders, wanted, stage, results, kept, ends, clock):
        if isinstance(step, Done):
            found.append(step.row)
        yield step
    if orders.settings and found:
        finer = [one for row in front(found) for one in neighbours(row.candidate)]
        async for step in _measured(orders, finer, stage, results, kept, ends, clock):
            yield step


def neighbours(one: Candidate) -> list[Candidate]:
    """The same variant, set otherwise: fewer threads, and a prompt read in larger pieces."""
    knobs = one.knobs
    tried = [replace(knobs, batch=512)] if knobs.batch != 512 else []
    if knobs.threads > 1:
        tried.append(replace(knobs, threads=knobs.threads // 2))
    return [Candidate(one.variant, other) for other in tried]


async def _measured(
    orders: Orders,
    wanted: Sequence[Candidate],
    stage: Stage,
    results: Results,
    kept: dict[str, Measured],
    ends: float,
    clock: Callable[[], float],
) -> AsyncIterator[Step]:
    longest = 0.0
    for number, one in enumerate(wanted, 1):
        key = orders.key(stage.facts, one)
        if key in kept and not orders.again:
            yield Done(kept[key], before=True)
            continue
        left = ends - clock()
        if left < longest:
            yield LeftOut(one, "the time is over; run it again to go on from here")
            continue
        yield Began(one, number, len(wanted), left)
        began = clock()
        try:
            row = await _one(orders, one, stage)
        except TrimtabError as error:
            yield LeftOut(one, error.message)
            continue
        results.add(row)
        longest = max(longest, clock() - began)
        yield Done(row, before=False)


async def _one(orders: Orders, one: Candidate, stage: Stage) -> Measured:
    """Raises TrimtabError when it cannot be started or asked."""
    began = time.monotonic()
    stage.prepare(one.variant)
    load = os.getloadavg()[0]
    await _ensure_reference(orders, one, stage)
    async with stage.start(one) as started:
        await measure(started.endpoint, orders.workload.part(-1, 1), 1)  # what only the first question pays
        alone = await measure(started.endpoint, orders.workload.part(0, orders.alone), 1)
        together = alone
        if orders.users > 1:
            several = orders.workload.part(orders.alone, orders.users * orders.each)
            together = await measure(started.endpoint, several, orders.users)
        memory = started.peak_memory()
        positions = await started.positions()
        reference = stage.kept_reference()
        runs = [alone] if together is alone else [alone, together]
        asked = Asked(1 + sum(run.answers for run in runs), sum(run.tokens for run in runs))
        guessed = estimate(stage.facts_of(one.variant), one, asked)
        return Measured(
            key=orders.key(stage.facts, one),
            candidate=one,
            model_sha256=stage.facts.sha256,
            workload=orders.workload.name,
            workload_digest=orders.workload.digest,
            machine=orders.machine,
            alone=alone,
            together=together,
            memory=memory,
            disk=started.disk,
            start_seconds=started.start_seconds,
            quality=compare(positions, reference or positions),
            estimated_memory=guessed.memory,
            estimated_disk=guessed.disk,
            load_before=load,
            seconds=time.monotonic() - began,
            at=time.time(),
            command=one.command("--users", str(orders.users), *orders.more_words),
        )


async def _ensure_reference(orders: Orders, one: Candidate, stage: Stage) -> None:
    """What the reference expects is asked once for a model, and before anything is compared with it."""
    if stage.kept_reference() is not None:
        return
    stage.prepare(REFERENCE)
    async with stage.start(Candidate(REFERENCE, orders.knobs)) as started:
        stage.keep_reference(await started.positions())
