"""`/v1/plans`: what the deployment must do, whether this machine can, what was measured, which variant is chosen, and
serving it.

A plan in a body is used instead of the one that is kept; it is not kept by that.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from trimtab import reach
from trimtab.align.jobs import Job
from trimtab.app import Trimtab
from trimtab.deploy.choose import Choice
from trimtab.deploy.estimate import refuse_impossible
from trimtab.deploy.plan import Chosen, Deployment
from trimtab.deployment import Deploying
from trimtab.domain.errors import Conflict, TrimtabError
from trimtab.planning import choice_told, fit_told, machine_told, refusal_told
from trimtab.store import changeovers

from .access import App, Known, Operator
from .jobs import entry
from .threads import Body

router = APIRouter(prefix="/v1/plans", tags=["plans"])

KIND = "measure"


class Given(Body):
    plan: dict[str, Any] | None = None
    """None: the one that is kept."""


class Wanted(Body):
    plan: dict[str, Any]


class Choosing(Given):
    write: bool = False
    """Write the choice into the plan that is kept."""


class Measured(Given):
    variants: list[str] = Field([], max_length=40)
    workload: str = Field("synthetic", max_length=20)
    minutes: float = 15.0
    settings: bool = True
    again: bool = False


class Change(Body):
    reason: str = Field("", max_length=2000)


class Applied(Given, Change):
    pass


@router.get("")
async def kept(app: App, caller: Known) -> dict[str, Any]:
    """The plan, this machine, what is served, and the last changes of that."""
    planning = app.planning
    plan = await asyncio.to_thread(planning.kept)
    told: dict[str, Any] = {"machine": None, "refusal": None}
    try:
        told["machine"] = machine_told(await asyncio.to_thread(planning.deploying, plan))
    except TrimtabError as error:  # the plan can still be read and mended
        told["refusal"] = refusal_told(error)
    return {
        "plan": plan.model_dump(mode="json"),
        "digest": plan.digest,
        "kept": planning.file.exists(),
        "schema": Deployment.model_json_schema(),
        **told,
        "serving": await _serving(app),
        "measuring": await asyncio.to_thread(_alive, app),
    }


@router.put("")
async def keep(app: App, caller: Operator, body: Wanted) -> dict[str, Any]:
    """Keep a plan. 400 names each key that is wrong."""
    plan = app.planning.plan(body.plan)
    await asyncio.to_thread(app.planning.keep, plan)
    return {"plan": plan.model_dump(mode="json"), "digest": plan.digest}


@router.post("/check")
async def check(app: App, caller: Known, body: Given) -> dict[str, Any]:
    """Whether this machine can hold it and has what it reaches, before anything is loaded."""
    plan = app.planning.plan(body.plan)
    told = await asyncio.to_thread(_checked, app, plan)
    try:
        await _refuse_unknown(app, plan)
    except TrimtabError as error:
        told["refusal"] = told["refusal"] or refusal_told(error)
    return told


@router.post("/choose")
async def choose(app: App, caller: Operator, body: Choosing) -> dict[str, Any]:
    """The cheapest that was measured and meets every target, and why not each other."""
    return await asyncio.to_thread(_chosen, app, app.planning.plan(body.plan), body.write)


@router.get("/measurements")
async def measurements(app: App, caller: Known) -> dict[str, Any]:
    """What was measured of the plan's model on this machine, judged by the plan; and what is being measured."""
    told = await asyncio.to_thread(_chosen, app, app.planning.kept(), False)
    return told | {"measuring": await asyncio.to_thread(_alive, app)}


@router.post("/measurements", status_code=201)
async def measure(app: App, caller: Operator, body: Measured) -> dict[str, Any]:
    """Order a measurement; the job is watched and cancelled like any (`/v1/jobs`)."""
    if alive := await asyncio.to_thread(_alive, app):
        raise Conflict(
            "A measurement is under way: a second one would disturb it. Wait for it, or cancel it.", job=alive["id"]
        )
    job = await app.trainings.submit(KIND, body.model_dump(), by=caller.name)
    return entry(app.trainings.jobs, job)


@router.get("/history")
async def history(app: App, caller: Known, limit: int = 100) -> dict[str, Any]:
    return {"history": await app.database.read(changeovers.history, max(1, min(limit, 1000)))}


@router.post("/apply")
async def apply(app: App, caller: Operator, body: Applied) -> dict[str, Any]:
    """Serve what the plan has chosen, without losing a turn. Answers when new questions go to it."""
    plan = await asyncio.to_thread(app.planning.plan, body.plan)
    await _refuse_unknown(app, plan)
    line = await app.changeover.apply(plan, by=caller.name, reason=body.reason)
    return {"changed": line, "serving": await _serving(app)}


@router.post("/undo")
async def undo(app: App, caller: Operator, body: Change) -> dict[str, Any]:
    """Serve what was served before the last change."""
    line = await app.changeover.undo(by=caller.name, reason=body.reason)
    return {"changed": line, "serving": await _serving(app)}


async def _serving(app: Trimtab) -> dict[str, Any]:
    last = await app.database.read(changeovers.latest)
    if not app.versions.adaptable:
        return {"variant": "", "model": app.profile.name, "last": last, "leaving": 0}
    now = app.changeover.settings
    return {
        "variant": app.changeover.variant,
        "model": app.profile.name,
        "context": now.context,
        "parallel": now.parallel,
        "threads": now.threads,
        "batch": now.batch,
        "last": last,
        "leaving": app.changeover.leaving,
    }


async def _refuse_unknown(app: Trimtab, plan: Deployment) -> None:
    known = await app.database.read(reach.collections)
    await asyncio.to_thread(reach.refuse_unknown, plan, app.toolbox, app.mcp, known)


def _checked(app: Trimtab, plan: Deployment) -> dict[str, Any]:
    here = app.planning.deploying(plan)
    fits, refusal = here.fits(), None
    try:
        refuse_impossible(plan, here.machine, here.variants.facts, fits)
    except TrimtabError as error:
        refusal = refusal_told(error)
    return {"machine": machine_told(here), "fits": [fit_told(one) for one in fits], "refusal": refusal}


def _chosen(app: Trimtab, plan: Deployment, write: bool) -> dict[str, Any]:
    here = app.planning.deploying(plan)
    try:
        found = here.choose()
    except TrimtabError as error:
        return {"chosen": None, "nearest": None, "rows": [], "refusal": refusal_told(error), "plan": None}
    told = choice_told(found) | {"refusal": None, "plan": None}
    try:
        found.demanded()
    except TrimtabError as error:
        return told | {"refusal": refusal_told(error)}
    written = _with_choice(here, found)
    if write:
        app.planning.keep(written)
    return told | {"plan": written.model_dump(mode="json")}


def _with_choice(here: Deploying, found: Choice) -> Deployment:
    one = found.demanded().candidate
    return here.plan.model_copy(update={"chosen": Chosen.of(one)})


def _alive(app: Trimtab) -> dict[str, Any] | None:
    jobs = app.trainings.jobs
    found: list[Job] = [job for job in jobs.listed() if job.kind == KIND and not jobs.state(job).status.final]
    return entry(jobs, found[-1]) if found else None
