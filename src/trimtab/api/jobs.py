"""`/v1/jobs`: trainings in the background; starting, watching, pausing and ending them.

For whoever runs this installation only: what a training reports holds other people's questions and answers.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from trimtab.align.jobs import Job, Jobs

from .access import App, Operator
from .threads import Body

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


class Order(Body):
    kind: str = Field(max_length=40)
    recipe: dict[str, Any] = {}


@router.get("")
async def listed(app: App, caller: Operator) -> dict[str, Any]:
    jobs = app.trainings.jobs
    return {"jobs": await asyncio.to_thread(lambda: [entry(jobs, job) for job in reversed(jobs.listed())])}


@router.post("", status_code=201)
async def submit(app: App, caller: Operator, body: Order) -> dict[str, Any]:
    job = await app.trainings.submit(body.kind, body.recipe, by=caller.name)
    return entry(app.trainings.jobs, job)


@router.get("/{job_id}")
async def one(app: App, caller: Operator, job_id: str) -> dict[str, Any]:
    jobs = app.trainings.jobs
    job = jobs.get(job_id)
    return entry(jobs, job) | {"recipe": job.recipe}


@router.get("/{job_id}/progress")
async def progress(app: App, caller: Operator, job_id: str, after: int = 0) -> dict[str, Any]:
    """What it reported from its `after`-th report on, and how it stands."""
    jobs = app.trainings.jobs
    job = jobs.get(job_id)
    lines = await asyncio.to_thread(jobs.progress, job, max(0, after))
    return {"progress": lines, "next": max(0, after) + len(lines), "job": entry(jobs, job)}


@router.get("/{job_id}/log")
async def log(app: App, caller: Operator, job_id: str) -> dict[str, Any]:
    jobs = app.trainings.jobs
    return {"log": await asyncio.to_thread(jobs.log, jobs.get(job_id))}


@router.post("/{job_id}/pause")
async def pause(app: App, caller: Operator, job_id: str) -> dict[str, Any]:
    return await _wished(app.trainings.jobs, job_id, Jobs.pause)


@router.post("/{job_id}/resume")
async def resume(app: App, caller: Operator, job_id: str) -> dict[str, Any]:
    return await _wished(app.trainings.jobs, job_id, Jobs.resume)


@router.post("/{job_id}/cancel")
async def cancel(app: App, caller: Operator, job_id: str) -> dict[str, Any]:
    return await _wished(app.trainings.jobs, job_id, Jobs.cancel)


async def _wished(jobs: Jobs, job_id: str, wish: Any) -> dict[str, Any]:
    job = jobs.get(job_id)
    await asyncio.to_thread(wish, jobs, job)
    return entry(jobs, job)


def entry(jobs: Jobs, job: Job) -> dict[str, Any]:
    """A job as everybody who watches is told of it."""
    state = jobs.state(job)
    return {
        "id": job.id,
        "kind": job.kind,
        "by": job.by,
        "created_at": job.created_at,
        **_named(job),
        **{key: value for key, value in asdict(state).items() if key != "pid"},
        "eta": state.eta,
    }


def _named(job: Job) -> dict[str, str]:
    """What an alignment is called, and how it learns; other kinds have no name."""
    recipe = job.recipe.get("recipe", {})
    return {key: str(recipe.get(key, "")) for key in ("name", "method")}
