"""`trimtab ingest PATH...`: documents into the library."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import httpx

    from trimtab.retrieval import Library
    from trimtab.settings import Settings


BATCH_FILES = 50
BATCH_BYTES = 8_000_000


def register(app: typer.Typer) -> None:
    app.command("ingest")(ingest)


def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files or folders: Markdown, text, HTML, PDF, DOCX, CSV, code.")],
    sync: Annotated[
        bool, typer.Option("--sync", help="Remove documents whose file is gone from these folders.")
    ] = False,
    collection: Annotated[str, typer.Option(help="Where to put them; a search can be limited to it.")] = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a file.")] = False,
) -> None:
    """Read documents, so that answers can quote them. Unchanged files are left alone."""
    from trimtab.settings import Settings

    events = _events(Settings.load(), paths, collection, sync=sync)
    if (_print_json(events) if as_json else _draw(events))["failed"]:
        raise typer.Exit(1)


def server_client(settings: Settings) -> httpx.Client | None:
    """A client of the running server, or None when none answers."""
    import httpx

    from trimtab.cli.talk import running_server

    found = running_server(settings)
    if found is None:
        return None
    return httpx.Client(base_url=found.base_url, headers=found.headers, timeout=300, trust_env=False)


@contextmanager
def local_library(settings: Settings) -> Iterator[tuple[Library, str]]:
    """The library opened in this process, and the id of this machine's user."""
    from trimtab.own_database import LOCAL_USER, open_database
    from trimtab.own_models import open_library_on
    from trimtab.store import people

    database = open_database(settings)
    try:
        owner = database.write_sync(people.ensure_user, LOCAL_USER)
        library, embedder = open_library_on(settings, database)
        with closing(embedder), library:
            yield library, owner
    finally:
        database.close()


def _events(settings: Settings, paths: list[Path], collection: str, *, sync: bool) -> Iterator[dict[str, Any]]:
    """Through the running server, which owns the index; else with the library opened here."""
    from dataclasses import asdict

    client = server_client(settings)
    if client is not None:
        with client:
            yield from _upload(client, paths, collection, sync=sync)
        return
    with local_library(settings) as (library, owner):
        for event in library.ingest(paths, owner, collection, sync=sync):
            yield asdict(event)


def _upload(client: httpx.Client, paths: list[Path], collection: str, *, sync: bool) -> Iterator[dict[str, Any]]:
    """Send what is new or changed in the folders, several files a request.

    The server is never told to read a path: it may run as someone who can read more than whoever asks.
    """
    from trimtab.cli.talk import checked
    from trimtab.retrieval.walking import walk

    found = {str(file.path): file.path for path in paths for file in walk(path.expanduser())}
    documents = checked(client.get("/v1/documents"))["documents"]
    known = {d["source"]: d for d in documents if d["collection"] == collection}
    folders = tuple(str(path.expanduser().resolve()) + "/" for path in paths if path.expanduser().is_dir())
    gone = [d for s, d in known.items() if sync and folders and s.startswith(folders) and s not in found]
    total, done = len(found) + len(gone), 0
    for document in gone:
        checked(client.delete(f"/v1/documents/{document['id']}"))
        done += 1
        yield {
            "status": "removed",
            "name": document["name"],
            "document_id": document["id"],
            "done": done,
            "total": total,
        }
    for event in _sent(client, found, known, collection):
        done += 1
        yield {**event, "done": done, "total": total}


def _sent(
    client: httpx.Client, found: Mapping[str, Path], known: Mapping[str, Any], collection: str
) -> Iterator[dict[str, Any]]:
    """One event a file: unchanged ones are recognised by their hash and stay here."""
    batch: list[tuple[str, Path, bytes]] = []
    for source, path in found.items():
        try:
            content = path.read_bytes()
        except OSError as error:
            yield {"status": "failed", "name": path.name, "error": f"{path} cannot be read: {error.strerror}"}
            continue
        there = known.get(source)
        if there and there["status"] == "ready" and there["content_hash"] == hashlib.sha256(content).hexdigest():
            yield {"status": "unchanged", "name": there["name"], "document_id": there["id"], "chunks": there["chunks"]}
            continue
        if batch and (len(batch) >= BATCH_FILES or sum(len(c) for *_, c in batch) + len(content) > BATCH_BYTES):
            yield from _post(client, batch, collection)
            batch = []
        batch.append((source, path, content))
    if batch:
        yield from _post(client, batch, collection)


def _post(client: httpx.Client, batch: list[tuple[str, Path, bytes]], collection: str) -> list[dict[str, Any]]:
    from trimtab.cli.talk import checked

    files = [("file", (path.name, content)) for _, path, content in batch]
    form = {"collection": collection, "source": [source for source, *_ in batch]}
    events: list[dict[str, Any]] = checked(client.post("/v1/documents", files=files, data=form))["documents"]
    return events


def _print_json(events: Iterator[dict[str, Any]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for event in events:
        counts[event["status"]] += 1
        sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    return counts


def _draw(events: Iterator[dict[str, Any]]) -> Counter[str]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from trimtab.cli.show import plain

    console = Console(stderr=True, highlight=False)
    counts: Counter[str] = Counter()
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("reading", total=None)
        for event in events:
            counts[event["status"]] += 1
            name = escape(plain(event["name"]))
            progress.update(task, completed=event["done"], total=event["total"], description=name)
            if event["status"] == "failed":
                console.print(f"[red]failed[/] {name}: {escape(plain(event.get('error', '')))}")
    summary = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    console.print(summary or "Nothing to read there: no document that is not hidden or ignored.")
    return counts
