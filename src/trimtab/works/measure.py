"""The job that measures the variants of the model for a plan, at the low priority that all jobs have.

Each row is on disk before the next begins, so one that was cut off goes on where it was. A wish is heard within a
second, not only between two variants: what was measured of the one under way is lost then.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

from trimtab.align.jobs import Job
from trimtab.align.worker import Report
from trimtab.deploy.campaign import Began, Done, LeftOut, Orders, run
from trimtab.deploy.plan import checked
from trimtab.deploy.variant import variant
from trimtab.deployment import Deploying, workload_named
from trimtab.gathering import reading_of
from trimtab.own_database import own_database
from trimtab.settings import Settings

LISTEN_SECONDS = 0.5


def work(job: Job, report: Report) -> dict[str, Any]:
    """Measure as the job says.

    Raises:
        ModelFileError, ImpossibleBudget, InvalidInput: there is nothing to measure, or no room for it.
        Unavailable: a row cannot be kept.
    """
    asked = job.recipe
    settings = Settings.load(home=Path(asked["home"]))
    here = Deploying(settings, checked(asked["plan"]))
    orders = here.orders(
        workload_named(asked["workload"], lambda: own_database(settings), reading_of(settings)),
        variants=tuple(variant(name) for name in asked["variants"]) or here.known_variants,
        seconds=60 * float(asked["minutes"]),
        settings=bool(asked["settings"]) and not asked["variants"],
        again=bool(asked["again"]),
        more_words=("--workload", str(asked["workload"])),
    )
    return asyncio.run(_heard(here, orders, report))


async def _heard(here: Deploying, orders: Orders, report: Report) -> dict[str, Any]:
    """Measure until that is done or somebody wishes otherwise."""
    measuring = asyncio.create_task(_measured(here, orders, report))
    try:
        while not (await asyncio.wait({measuring}, timeout=LISTEN_SECONDS))[0]:
            report.checkpointed()
        return measuring.result()
    finally:
        measuring.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await measuring


async def _measured(here: Deploying, orders: Orders, report: Report) -> dict[str, Any]:
    counts = {"measured": 0, "before": 0, "left_out": 0}
    async for step in run(orders, here.variants, here.results):
        match step:
            case Began():
                told = f"{step.candidate.name}, {step.left_seconds / 60:.0f} minutes left at most"
                report.moved("measuring", step.number - 1, step.of, told)
                report.tell("began", variant=step.candidate.name, number=step.number, of=step.of)
            case Done(row=row):
                counts["before" if step.before else "measured"] += 1
                report.tell("measured", variant=row.candidate.name, key=row.key, before=step.before)
            case LeftOut():
                counts["left_out"] += 1
                report.tell("left out", variant=step.candidate.name, reason=step.reason)
    report.moved("measured", 1, 1)
    return counts
