"""Measuring many candidates in the time there is.

From coarse to fine: first every variant in one setting; then, of those that nothing else beats in speed, memory and
quality at once, the neighbouring settings, and theirs, while that makes something better. Settings of one variant
have its quality, so only speed and memory are measured again, and a setting that is surely slower than the one it was
to improve, with no less memory, is stopped after its first questions. What was measured before is not measured again,
and a candidate that cannot run is told and left out. The reference comes first, since the quality of all others is
told against it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from trimtab.domain.errors import TrimtabError

from .answers import Asker, Sizes, collect
from .choose import front
from .estimate import Asked, ModelFacts, estimate
from .machine import others_at_work
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

    def asking(self) -> AbstractAsyncContextManager[Asker]:
        """Whoever asks it the fixed sets."""
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
    sizes: Sizes = Sizes()
    """Of the sets that its answers are measured by."""
    answer_seconds: float = 60.0
    """For those, of each variant; less when the time would not do for all variants."""
    again: bool = False
    """Measure also what was measured before."""
    more_words: tuple[str, ...] = ()
    """What the command that repeats a row must say besides the candidate."""

    def key(self, facts: ModelFacts, one: Candidate) -> str:
        return key_of(facts.sha256, one, self.workload.digest, self.users, self.machine)


ROUNDS = 2
"""Of finer settings."""
SLOWER = 0.9
"""A setting whose whole interval lies below this share of the speed it was to improve cannot win."""


class CannotWin(TrimtabError):
    """A setting was stopped early. Says why."""

    code = "cannot_win"


async def run(
    orders: Orders, stage: Stage, results: Results, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[Step]:
    """Measure, telling each step.

    Raises:
        Unavailable: a result cannot be kept.
    """
    ends = clock() + orders.seconds
    order = sorted(orders.variants, key=lambda v: v != REFERENCE)
    wanted: list[tuple[Candidate, Measured | None]] = [(Candidate(one, orders.knobs), None) for one in order]
    kept = results.all()
    found: list[Measured] = []
    seen = {one for one, _ in wanted}
    for _ in range(1 + (ROUNDS if orders.settings else 0)):
        new: list[Measured] = []
        async for step in _measured(orders, wanted, stage, results, kept, ends, clock):
            if isinstance(step, Done):
                new.append(step.row)
            yield step
        found += new
        best = front(found)
        wanted = [(one, row) for row in best if row in new for one in neighbours(row.candidate) if one not in seen]
        seen |= {one for one, _ in wanted}
        if not wanted:
            return


def neighbours(one: Candidate) -> list[Candidate]:
    """The same variant, set otherwise: half the threads, prompts read in larger or smaller pieces, fewer slots."""
    knobs = one.knobs
    tried = [replace(knobs, batch=batch) for batch in (knobs.batch * 2, knobs.batch // 2) if 128 <= batch <= 1024]
    if knobs.threads > 1:
        tried.append(replace(knobs, threads=knobs.threads // 2))
    if knobs.slots > 2:  # the others wait, and each answer that is worked on is quicker
        tried.append(replace(knobs, slots=knobs.slots // 2))
    return [Candidate(one.variant, other) for other in tried]


async def _measured(
    orders: Orders,
    wanted: Sequence[tuple[Candidate, Measured | None]],
    stage: Stage,
    results: Results,
    kept: dict[str, Measured],
    ends: float,
    clock: Callable[[], float],
) -> AsyncIterator[Step]:
    longest = 0.0
    for number, (one, better) in enumerate(wanted, 1):
        key = orders.key(stage.facts, one)
        if key in kept and not orders.again and (kept[key].answers or not orders.sizes.any):
            yield Done(kept[key], before=True)
            continue
        left = ends - clock()
        if left < longest:
            yield LeftOut(one, "the time is over; run it again to go on from here")
            continue
        yield Began(one, number, len(wanted), left)
        began = clock()
        share = left / (len(wanted) - number + 1)
        try:
            row = await _one(orders, one, stage, better, share, clock)
        except TrimtabError as error:
            yield LeftOut(one, error.message)
            continue
        results.add(row)
        longest = max(longest, clock() - began)
        yield Done(row, before=False)


async def _one(
    orders: Orders,
    one: Candidate,
    stage: Stage,
    better: Measured | None,
    share: float,
    clock: Callable[[], float],
) -> Measured:
    """Measure one candidate.

    Args:
        better: the same variant in the setting that this one is to improve.
        share: seconds it may take, of which its answers get what its speed leaves.

    Raises:
        CannotWin: it is slower than `better`, and no smaller.
        TrimtabError: it cannot be started or asked.
    """
    began, ticks = time.monotonic(), clock()
    stage.prepare(one.variant)
    load = await asyncio.to_thread(others_at_work)
    await _ensure_reference(orders, one, stage)
    async with stage.start(one) as started:
        await measure(started.endpoint, orders.workload.part(-1, 1), 1)  # what only the first question pays
        alone = await measure(started.endpoint, orders.workload.part(0, orders.alone), 1)
        if better is not None and orders.users == 1:
            _stop_what_cannot_win(one, better, alone.rate.high, better.alone.rate.value, started.peak_memory())
        together = alone
        if orders.users > 1:
            if better is not None:
                first = await measure(started.endpoint, orders.workload.part(orders.alone, orders.users), orders.users)
                _stop_what_cannot_win(one, better, first.total, better.together.total, started.peak_memory())
            several = orders.workload.part(orders.alone, orders.users * orders.each)
            together = await measure(started.endpoint, several, orders.users)
        memory = started.peak_memory()
        runs = [alone] if together is alone else [alone, together]
        asked = Asked(1 + sum(run.answers for run in runs), sum(run.tokens for run in runs))
        guessed = estimate(stage.facts_of(one.variant), one, asked)
        if better is not None:
            quality, answers = better.quality, better.answers
        else:
            positions = await started.positions()
            quality, answers = compare(positions, stage.kept_reference() or positions), None
            left = min(orders.answer_seconds, share - (clock() - ticks))
            if orders.sizes.any and left > 0:
                async with started.asking() as asker:
                    answers = await collect(asker, orders.sizes, left, clock)
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
            quality=quality,
            estimated_memory=guessed.memory,
            estimated_disk=guessed.disk,
            load_before=load,
            seconds=time.monotonic() - began,
            at=time.time(),
            command=one.command("--users", str(orders.users), *orders.more_words),
            answers=answers,
        )


def _stop_what_cannot_win(one: Candidate, better: Measured, most: float, wanted: float, memory: int) -> None:
    if most < SLOWER * wanted and memory >= SLOWER * better.memory:
        knobs = better.candidate.knobs
        raise CannotWin(
            f"stopped after its first questions: {most:.0f} tokens/s at most, where {knobs.threads} threads with batch "
            f"{knobs.batch} gave {wanted:.0f}, and it takes no less memory"
        )


async def _ensure_reference(orders: Orders, one: Candidate, stage: Stage) -> None:
    """What the reference expects is asked once for a model, and before anything is compared with it."""
    if stage.kept_reference() is not None:
        return
    stage.prepare(REFERENCE)
    async with stage.start(Candidate(REFERENCE, orders.knobs)) as started:
        stage.keep_reference(await started.positions())
