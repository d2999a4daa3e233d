"""`/v1/align`: what a recipe may hold, and the constitution: reading it, amending it, going back."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Path as InPath
from pydantic import Field

from trimtab.align.amendments import Amendments
from trimtab.align.constitution import DEFAULT, Constitution
from trimtab.align.jobs import Job, Jobs
from trimtab.align.recipe import Recipe
from trimtab.app import Trimtab

from .access import App, Known, Operator
from .threads import Body

router = APIRouter(prefix="/v1/align", tags=["align"])

KIND = "align"
LOOKED_AT = 50
"""Alignments, the latest first, that are searched for the judges' last measurement."""

Version = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Named = Annotated[str, InPath(pattern=r"^[0-9a-f]{16}$")]


class Amended(Body):
    text: str = Field(max_length=300_000)
    after: Version
    """The version that was edited; 409 when another one is in force by now."""
    note: str = Field("", max_length=500)


class Restored(Body):
    version: Version
    note: str = Field("", max_length=500)


@router.get("/recipe")
async def recipe(caller: Known) -> dict[str, Any]:
    """What a recipe may hold, as JSON Schema, and what holds where nothing is said."""
    return {"schema": Recipe.model_json_schema(), "defaults": Recipe().model_dump(mode="json")}


@router.get("/constitution")
async def constitution(app: App, caller: Known) -> dict[str, Any]:
    """The one in force."""
    return _told(await asyncio.to_thread(_amendments(app).current))


@router.put("/constitution")
async def amend(app: App, caller: Operator, body: Amended) -> dict[str, Any]:
    """Put a text in force as a version of its own; the ones before stay."""
    save = _amendments(app).save
    return _told(await asyncio.to_thread(save, body.text, after=body.after, by=caller.name, note=body.note))


@router.get("/constitution/history")
async def history(app: App, caller: Known) -> dict[str, Any]:
    """What was put in force, the latest first, and the version everything began with."""
    lines = await asyncio.to_thread(_amendments(app).history)
    return {"history": [asdict(line) for line in reversed(lines)], "bundled": _bundled()}


@router.get("/constitution/judges")
async def judges(app: App, caller: Known) -> dict[str, Any]:
    """How far the model's judgement agreed with people's, principle by principle, when that was last measured."""
    return {"judges": await asyncio.to_thread(_judges, app.trainings.jobs)}


@router.get("/constitution/versions/{version}")
async def one(app: App, caller: Known, version: Named) -> dict[str, Any]:
    return _told(await asyncio.to_thread(_amendments(app).version, version))


@router.post("/constitution/restore")
async def restore(app: App, caller: Operator, body: Restored) -> dict[str, Any]:
    put_back = _amendments(app).restore
    return _told(await asyncio.to_thread(put_back, body.version, by=caller.name, note=body.note))


def _amendments(app: Trimtab) -> Amendments:
    return Amendments(app.settings.constitution_dir)


def _bundled() -> str:
    return Constitution.load(DEFAULT).version


def _told(found: Constitution) -> dict[str, Any]:
    return {
        "version": found.version,
        "name": found.name,
        "text": found.text,
        "bundled": found.version == _bundled(),
        "principles": [
            {"id": p.id, "title": p.title, "text": p.text, "for": list(p.expected), "judge": p.judge}
            for p in found.principles
        ],
    }


def _judges(jobs: Jobs) -> dict[str, Any] | None:
    """Of the latest alignment that got as far as measuring them; None when there is none."""
    learnt = [job for job in jobs.listed() if job.kind == KIND and _by_constitution(job)]
    for job in reversed(learnt[-LOOKED_AT:]):
        for line in reversed(jobs.progress(job)):
            if line.get("stage") == "judges":
                used = str(job.recipe["resolved"].get("constitution", ""))
                told = {"job": job.id, "name": job.recipe["recipe"]["name"], "at": line["at"]}
                version = Path(used).stem if used else _bundled()
                return told | {"version": version, "agreement": line["agreement"]}
    return None


def _by_constitution(job: Job) -> bool:
    return bool(job.recipe["recipe"]["data"].get("constitution"))
