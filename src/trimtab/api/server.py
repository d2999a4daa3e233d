"""The HTTP server: every route, behind one guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

import trimtab
from trimtab.app import Trimtab
from trimtab.domain.errors import TrimtabError
from trimtab.doubts import Doubts
from trimtab.gathering import Outcomes, Reading
from trimtab.labelling import Labelling

from . import (
    align,
    audit,
    connectors,
    connectors_auth,
    connectors_mcp,
    connectors_openapi,
    documents,
    feedback,
    guard,
    health,
    jobs,
    labelling,
    learn,
    mcp,
    openai,
    plans,
    threads,
    turns,
    versions,
)
from .access import Gate

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


def create_app(app: Trimtab) -> FastAPI:
    """The ASGI application for a running installation. Who opened `app` closes it."""
    settings = app.settings
    intake = documents.Intake()
    gate = Gate(app)
    assistants = mcp.Face(app, gate)

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        async with app.trainings.going(), assistants.running():
            yield
        intake.close()

    web = FastAPI(
        title="Trimtab",
        lifespan=running,
        version=trimtab.__version__,
        docs_url=None,  # FastAPI's pages load scripts from another host; /openapi.json is what they show
        redoc_url=None,
        description="Chat with tools and documents, on your own machine.",
        exception_handlers={
            TrimtabError: guard.on_trimtab_error,
            HTTPException: guard.on_http_error,
            RequestValidationError: guard.on_invalid,
            Exception: guard.on_any,
        },
    )
    web.state.trimtab = app
    web.state.gate = gate
    web.state.intake = intake
    web.state.outcomes = Outcomes()
    reading = Reading(app.profile, app.orchestrator.count)
    web.state.labelling = Labelling(reading, settings.label_others, Doubts(app.rewards))
    parts = (
        health,
        *((openai,) if "api" in settings.faces else ()),
        threads,
        turns,
        versions,
        jobs,
        feedback,
        labelling,
        documents,
        connectors_openapi,  # before `connectors`, whose /{name} would take its path
        connectors,
        connectors_auth,
        connectors_mcp,
        learn,
        align,
        plans,
        audit,
    )
    for part in parts:
        web.include_router(part.router)
    if "mcp" in settings.faces:
        web.router.routes.append(assistants.route())
    if settings.allowed_origins:
        web.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"],
        )
    web.add_middleware(
        guard.Guard,
        uploads=frozenset({"/v1/documents", connectors_openapi.PATH, connectors_openapi.PREVIEW}),
        upload_limit=settings.max_upload_mb * 1_000_000,
        hosts=frozenset({"*"}) if settings.expose else LOOPBACK | {settings.host},
    )
    return web
