"""`/v1/connectors/openapi`: connectors imported from OpenAPI documents; looking at one first, importing, removing.

What a document names (hosts above all) is reached from here, with the keys kept here, so importing is for whoever runs
this installation. A document is sent as text, or read from a public address through the guarded client.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from fastapi import APIRouter
from pydantic import Field

from trimtab.connect.openapi import Choices, Imported, fetch_document, summary
from trimtab.domain.errors import Conflict, InvalidInput

from .access import App, Known, Operator
from .threads import Body

PATH = "/v1/connectors/openapi"
PREVIEW = f"{PATH}/preview"
router = APIRouter(prefix=PATH, tags=["connectors"])


class Wanted(Body):
    """Either `document` (JSON or YAML text) or `url`."""

    document: str = ""
    url: str = Field("", max_length=2000)
    name: str = Field("", max_length=31, description="Empty takes one from the document's title.")
    include: list[str] = Field([], max_length=1000, description="Tags, or ids of operations with * for any part.")
    base_url: str = Field("", max_length=1000, description="Asked instead of the document's servers.")
    security: str = Field("", max_length=200, description="The security scheme to use; 'none' for none.")
    offer: Literal["auto", "each", "search"] = "auto"
    source: str = Field("", max_length=2000, description="Where `document` is from: an address, or a file's name.")


class Import(Wanted):
    replace: bool = False
    seen: str = Field("", max_length=64, description="The `document` of the preview: nothing else is imported.")


@router.get("")
async def listed(app: App, caller: Known) -> dict[str, Any]:
    return {"imports": [app.imports.describe(name) for name in app.imports.names()]}


@router.post("/preview")
async def preview(app: App, caller: Operator, body: Wanted) -> dict[str, Any]:
    """What an import would make, and what it would leave out. Nothing is kept."""
    return _shown((await _previewed(app, body))[0])


@router.post("", status_code=201)
async def imported(app: App, caller: Operator, body: Import) -> dict[str, Any]:
    made, content = await _previewed(app, body)
    if body.seen and body.seen != made.document.digest:
        raise Conflict("The document has changed since it was previewed. Look at it again.", now=made.document.digest)
    return _shown(app.imports.take(made, content, replace=body.replace))


@router.delete("/{name}", status_code=204)
async def removed(app: App, caller: Operator, name: str) -> None:
    app.imports.remove(name)


async def _previewed(app: App, body: Wanted) -> tuple[Imported, bytes]:
    if bool(body.document) == bool(body.url):
        raise InvalidInput("Send either a document's text (`document`) or its address (`url`).")
    content, source = body.document.encode("utf-8", "replace"), body.source
    if body.url:
        override = app.settings.connectors.get(body.name)
        content, source = await fetch_document(body.url, allow_private=bool(override and override.allow_private))
    choices = Choices(tuple(body.include), body.base_url, body.security, body.offer, source)
    return await asyncio.to_thread(app.imports.preview, content, body.name, choices), content


def _shown(made: Imported) -> dict[str, Any]:
    return {"name": made.connector.name, "document": made.document.digest, **summary(made)}
