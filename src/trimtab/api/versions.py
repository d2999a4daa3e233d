"""`/v1/versions`: which versions of the model there are, which answers, and changing that."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from trimtab.own_database import LOCAL_USER
from trimtab.registry.card import card
from trimtab.registry.manifest import Manifest
from trimtab.registry.registry import difference
from trimtab.store import versions

from .access import App, Caller, Known, Operator
from .threads import Body

router = APIRouter(prefix="/v1/versions", tags=["versions"])


class Change(Body):
    reason: str = Field("", max_length=2000)


class Promotion(Change):
    anyway: bool = False
    """Against the gate; the history says so."""


class Canary(Change):
    version: str | None = None
    """None ends it."""
    share: float = Field(0.1, ge=0.0, le=1.0)


class Comparison(Body):
    prompt: str = Field(min_length=1, max_length=8000)
    versions: list[str] = Field(min_length=1, max_length=4)
    max_tokens: int = Field(128, ge=1, le=1024)


@router.get("")
async def listed(app: App, caller: Known) -> dict[str, Any]:
    rows = await app.database.read(versions.listed)
    return {"versions": [_entry(row) for row in rows], "serving": await _serving(app), "fault": app.versions.fault}


@router.get("/history")
async def history(app: App, caller: Known, limit: int = 100) -> dict[str, Any]:
    return {"history": await app.database.read(versions.history, min(limit, 1000))}


@router.post("/rollback")
async def roll_back(app: App, caller: Operator, body: Change) -> dict[str, Any]:
    await app.versions.roll_back(by=caller.name, reason=body.reason)
    return await _serving(app)


@router.post("/canary")
async def canary(app: App, caller: Operator, body: Canary) -> dict[str, Any]:
    await app.versions.canary(body.version, body.share, by=caller.name, reason=body.reason)
    return await _serving(app)


@router.post("/compare")
async def compare(app: App, caller: Known, body: Comparison) -> dict[str, Any]:
    """The same prompt, answered by several versions. Nothing is stored."""
    with app.versions.asking():
        voices = [await app.versions.answer_of(version) for version in body.versions]
        asked = (voice.model.ainvoke(body.prompt, max_tokens=body.max_tokens, seed=1) for voice in voices)
        answers = await asyncio.gather(*asked)
    told = zip(voices, answers, strict=True)
    return {"answers": [{"version": v.version, "name": v.name, "text": a.text} for v, a in told]}


@router.get("/{version}")
async def one(app: App, caller: Known, version: str) -> dict[str, Any]:
    row = await app.database.read(versions.get, version)
    rows = await app.database.read(versions.rows_of, row["id"])
    evidence = _evidence(row, caller)
    gone = await app.database.read(versions.deleted_from, row["id"])
    told = {"manifest": row["manifest"], "evidence": evidence, "rows": len(rows), "rows_deleted": gone}
    return _entry(row) | told


@router.get("/{version}/card")
async def its_card(app: App, caller: Known, version: str) -> dict[str, Any]:
    row = await app.database.read(versions.get, version)
    if row["kind"] == "base":
        return {"card": f"# {row['name']}\n\nThe model as it was installed (sha256 `{row['digest']}`).\n"}
    return {"card": card(Manifest.from_json(row["manifest"]), row["evidence"])}


@router.get("/{version}/feedback")
async def its_feedback(app: App, caller: Known, version: str) -> dict[str, Any]:
    """What the caller said that shaped this version, or that it answered again (`after`). Of other people's judgements
    only the number is told."""
    row = await app.database.read(versions.get, version)
    mine = await app.database.read(versions.said_in, row["id"], caller.id)
    everybody = await app.database.read(versions.rows_of, row["id"])
    shown = ("id", "message_id", "kind", "label", "value", "text", "reason", "question", "completion", "updated_at",
             "shaped", "after")  # fmt: skip
    return {"feedback": [{name: said[name] for name in shown} for said in mine], "rows": len(everybody)}


@router.get("/{version}/diff/{other}")
async def diff(app: App, caller: Known, version: str, other: str) -> dict[str, Any]:
    old, new = [await app.database.read(versions.get, v) for v in (version, other)]
    found = difference(old["manifest"], new["manifest"])
    return {"old": old["name"], "new": new["name"], "differs": {name: list(pair) for name, pair in found.items()}}


@router.post("/{version}/promote")
async def promote(app: App, caller: Operator, version: str, body: Promotion) -> dict[str, Any]:
    await app.versions.promote(version, by=caller.name, reason=body.reason, anyway=body.anyway)
    return await _serving(app)


@router.post("/{version}/retrain", status_code=202)
async def retrain(app: App, caller: Operator, version: str) -> dict[str, Any]:
    """Order a training by the same recipe on the feedback that is left. Its version has a name of its own."""
    row = await app.database.read(versions.get, version)
    job = await app.trainings.again(row, by=caller.name)
    return {"job": job.id, "name": row["name"]}


TEXTS = ("samples", "reward", "judge")
"""Parts of the evidence that quote what people asked and were answered."""


def _evidence(row: dict[str, Any], caller: Caller) -> dict[str, Any]:
    """What was measured, and for whoever runs this installation also the texts it was measured on."""
    evidence: dict[str, Any] = row["evidence"]
    if caller.name == LOCAL_USER:
        return evidence
    return {key: value for key, value in evidence.items() if key not in TEXTS}


async def _serving(app: App) -> dict[str, Any]:
    if not app.versions.adaptable:
        return {}
    return await app.database.read(versions.current)


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    shown = {
        k: row.get(k) for k in ("id", "name", "kind", "status", "parent_id", "created_at", "serving", "rows", "fell")
    }
    manifest, evidence = row["manifest"], row["evidence"]
    return shown | {
        "base": manifest.get("base", ""),
        "method": manifest.get("lineage", {}).get("method", ""),
        "metrics": manifest.get("metrics", {}),
        "verdict": evidence.get("verdict", ""),
        "verdict_reason": evidence.get("verdict_reason", ""),
    }
