"""`/healthz`, `/readyz`, `/metrics`, `/v1/info`: is it alive, can it answer, how is it doing."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse, PlainTextResponse

import trimtab
from trimtab.app import Trimtab
from trimtab.store import turns

from .access import App, Known

router = APIRouter(tags=["health"])
_STARTED = time.time()
DEGRADED = frozenset({"version"})
"""Parts without which questions are answered all the same."""


@router.get("/healthz")
async def alive() -> dict[str, str]:
    return {"status": "alive"}


@router.get("/readyz")
async def ready(app: App) -> JSONResponse:
    parts = await check(app)
    ok = all(part["ok"] for name, part in parts.items() if name not in DEGRADED)
    # Without a key one learns whether each part works, not where it is.
    shown = {name: {"ok": part["ok"]} for name, part in parts.items()}
    return JSONResponse({"ready": ok, "parts": shown}, 200 if ok else 503)


@router.get("/v1/info")
async def info(app: App, caller: Known) -> dict[str, Any]:
    return {
        "version": trimtab.__version__,
        "model": app.profile.name,
        "profile": {
            "tools": app.profile.tools,
            "grounding": app.profile.grounding,
            "context_tokens": app.profile.context_tokens,
        },
        "limits": {"prompt_chars": app.settings.max_prompt_chars, "upload_mb": app.settings.max_upload_mb},
        "best_of": {"default": app.settings.best_of, **await app.rewards.about()},
        "parts": await check(app),
    }


@router.get("/metrics")
async def metrics(app: App, caller: Known) -> PlainTextResponse:
    """Prometheus' text format."""
    rows = [
        ("trimtab_uptime_seconds", "gauge", time.time() - _STARTED, ""),
        ("trimtab_turns_running", "gauge", app.runner.running, ""),
        ("trimtab_events_total", "counter", await app.database.read(turns.latest_seq), ""),
    ]
    if app.served is not None and (engine := app.served.engine_status()):
        rows.append(("trimtab_engine_restarts_total", "counter", engine["restarts"], ""))
        rows.append(("trimtab_engine_up", "gauge", int(engine["ok"]), ""))
    for status in app.toolbox.connectors:
        label = f'{{connector="{status.name}"}}'
        rows.append(("trimtab_connector_calls_total", "counter", status.calls, label))
        rows.append(("trimtab_connector_failures_total", "counter", status.failures, label))
    lines, typed = [], set()
    for name, kind, value, label in sorted(rows, key=lambda row: row[0]):
        if name not in typed:
            typed.add(name)
            lines.append(f"# TYPE {name} {kind}")
        lines.append(f"{name}{label} {value:g}")
    return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")


async def check(app: Trimtab) -> dict[str, dict[str, Any]]:
    """Each part with ``ok`` and what it says of itself."""
    parts: dict[str, dict[str, Any]] = {"database": await asyncio.to_thread(app.database.ping)}
    if app.served is not None and (engine := app.served.engine_status()):
        parts["engine"] = engine
    if app.versions.adaptable:
        parts["version"] = {"ok": not app.versions.fault, "fault": app.versions.fault}
    if app.library is not None:
        parts["documents"] = {"ok": app.library.is_open}
    parts["connectors"] = {"ok": True, "loaded": app.toolbox.loaded, "broken": app.toolbox.faults}
    return parts
