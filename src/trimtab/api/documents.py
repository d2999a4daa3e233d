"""`/v1/documents` and `/v1/search`: what the assistant may look things up in."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Query, Request, UploadFile
from pydantic import Field
from starlette.responses import Response

from trimtab.app import Trimtab
from trimtab.domain.errors import InvalidInput, TooManyRequests, Unavailable
from trimtab.retrieval import Filters, Library

from .access import App, Known, public
from .threads import Body

router = APIRouter(prefix="/v1", tags=["documents"])

MOST_FILES = 200
"""In one upload."""
READERS = 2
MOST_WAITING = 32


class Intake:
    """Takes uploads in on threads of its own, so that searches, turns and health checks never wait behind files."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="trimtab-intake")
        self._uploads = 0
        self._closed = False

    @contextmanager
    def place(self) -> Iterator[Callable[..., Awaitable[Any]]]:
        """A place for one upload while the block runs; gives what runs a function on a thread of the intake.

        An upload has one file at a time in the queue, so that a large one does not keep a small one waiting.

        Raises:
            TooManyRequests: as many uploads as may wait are waiting.
            Unavailable: the server is stopping.
        """
        if self._closed:
            raise Unavailable("Trimtab is shutting down. Upload again when it is back.")
        if self._uploads >= READERS + MOST_WAITING:
            raise TooManyRequests(f"{self._uploads} uploads are being taken in already. Try again soon.", retry_after=5)
        self._uploads += 1
        try:
            yield functools.partial(asyncio.get_running_loop().run_in_executor, self._threads)
        finally:
            self._uploads -= 1

    def close(self) -> None:
        """Take nothing more; the file that is being read is let be."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)


def _intake_of(request: Request) -> Intake:
    intake: Intake = request.app.state.intake
    return intake


class Which(Body):
    """Which documents a search may look into; empty means all."""

    name: str = Field("", max_length=500, description="With * and ? as wildcards.")
    collection: str = Field("", max_length=128)
    mime: str = Field("", max_length=128, description="A type, or its beginning such as text/.")


class Question(Body):
    question: str = Field(min_length=1, max_length=8000)
    k: int = Field(5, ge=1, le=50)
    filters: Which = Which()


@router.get("/documents")
async def listed(app: App, caller: Known) -> dict[str, Any]:
    rows = await asyncio.to_thread(_library(app).documents, caller.id)
    return {"documents": [_public(row) for row in rows]}


@router.post("/documents", status_code=201)
async def upload(
    app: App,
    caller: Known,
    intake: Annotated[Intake, Depends(_intake_of)],
    file: Annotated[list[UploadFile], File(max_length=MOST_FILES)],
    collection: Annotated[str, Form(max_length=128)] = "default",
    source: Annotated[list[str] | None, Form(max_length=MOST_FILES)] = None,
) -> dict[str, Any]:
    """Take in files one after another. Each has its own result; one that fails does not stop the others.

    `source` says, file by file, where they came from; a file from the same source replaces the one before.
    """
    library = _library(app)
    sources = source or [""] * len(file)
    if len(sources) != len(file):
        raise InvalidInput(f"{len(file)} files came with {len(sources)} sources. Give each its own, or none.")
    results = []
    with intake.place() as run:
        for one, origin in zip(file, sources, strict=True):
            name = one.filename or "unnamed"
            results.append(await run(_take, library, caller.id, name, await one.read(), collection, origin))
    return {"documents": results}


@router.get("/documents/{document_id}")
async def read(app: App, caller: Known, document_id: str) -> dict[str, Any]:
    return _public(await asyncio.to_thread(_library(app).document, caller.id, document_id))


@router.get("/documents/{document_id}/text")
async def text(
    app: App,
    caller: Known,
    document_id: str,
    start: Annotated[int, Query(ge=0)] = 0,
    end: Annotated[int | None, Query(ge=0)] = None,
) -> dict[str, Any]:
    whole = await asyncio.to_thread(_library(app).text_of, caller.id, document_id)
    stop = len(whole) if end is None else min(end, len(whole))
    return {"text": whole[start:stop], "start": min(start, stop), "end": stop, "length": len(whole)}


@router.delete("/documents/{document_id}", status_code=204)
async def remove(app: App, caller: Known, document_id: str) -> Response:
    await asyncio.to_thread(_library(app).delete, caller.id, document_id)
    return Response(status_code=204)


@router.post("/search")
async def search(app: App, caller: Known, body: Question) -> dict[str, Any]:
    """The best passages, also those under the floor: a person who searches decides what is near enough."""
    filters = Filters(body.filters.name, body.filters.collection, mime=body.filters.mime)
    found = await asyncio.to_thread(_library(app).search, body.question, caller.id, body.k, filters, -1.0)
    return {"passages": [asdict(p) for p in found], "floor": app.settings.passage_floor}


def _take(library: Library, owner: str, name: str, content: bytes, collection: str, source: str) -> dict[str, Any]:
    event = library.ingest_bytes(owner, name, content, collection, source=source)
    return {
        "name": event.name,
        "status": event.status.value,
        "document_id": event.document_id,
        "chunks": event.chunks,
        "error": event.error,
    }


def _library(app: Trimtab) -> Library:
    if app.library is None:
        raise Unavailable("Documents are switched off in this installation.")
    return app.library


def _public(document: Any) -> dict[str, Any]:
    return public(asdict(document), "mtime_ns")
