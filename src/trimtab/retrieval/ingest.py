"""Files into documents: what changed is read, cut, embedded and kept; what did not is left alone.

A file is unchanged when its size and time are; failing that, when its bytes hash to what we have. Chunks of several
files are embedded together, because sorting by length pays only over many. Each file is one event; a file that cannot
be read is an event too and stops nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePath

from trimtab.domain import ids
from trimtab.domain.document import Chunk, Document, DocumentStatus
from trimtab.domain.errors import DeadlineExceeded, InvalidInput, TooLarge, TrimtabError, Unavailable

from .chunking import ChunkOptions, Piece, chunk
from .contracts import DocumentStore, Encoder
from .extracted import Extracted
from .loading import Loader
from .walking import Found, WalkOptions, walk

Keep = Callable[[str, Sequence[tuple[Document, str, Sequence[Chunk]]]], None]
"""Keeps documents of an owner in the store and every index."""
Forget = Callable[[str, Sequence[str]], None]


class IngestStatus(StrEnum):
    ADDED = "added"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    DUPLICATE = "duplicate"
    """The same bytes are there under another name; nothing was stored."""
    REMOVED = "removed"
    FAILED = "failed"


@dataclass(frozen=True)
class IngestEvent:
    """What became of one file. `done` of `total` files are behind us; `total` is known from the first event on."""

    status: IngestStatus
    name: str
    source: str
    document_id: str = ""
    chunks: int = 0
    characters: int = 0
    code: str = ""
    """Of the error, when `status` is ``failed``."""
    error: str = ""
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class IngestOptions:
    chunks: ChunkOptions = ChunkOptions()
    walk: WalkOptions = WalkOptions()
    batch_chunks: int = 256
    """Embedded and committed together. More is a little faster; a crash loses at most this much work."""
    max_chunks: int = 100_000
    """Of one document."""


@dataclass
class _Pending:
    document: Document
    text: str
    pieces: list[Piece]
    event: IngestEvent


@dataclass
class _Run:
    """One call's state: who for, and what is known already."""

    owner_id: str
    collection: str
    by_source: dict[str, Document]
    by_hash: dict[str, Document]
    total: int = 0
    done: int = 0
    pending: list[_Pending] = field(default_factory=list)


class Ingestor:
    """Reads documents into a store. Use it through `Library`, which keeps the indexes in step."""

    def __init__(
        self, store: DocumentStore, encoder: Encoder, loader: Loader, keep: Keep, forget: Forget, options: IngestOptions
    ) -> None:
        self._store, self._encoder, self._loader = store, encoder, loader
        self._keep, self._forget, self.options = keep, forget, options

    def ingest(
        self, paths: Iterable[Path | str], owner_id: str, collection: str = "default", *, sync: bool = False
    ) -> Iterator[IngestEvent]:
        """One event a file, in the order in which they are settled; what an event reports is committed.

        With `sync`, documents that came from these folders and are no longer there are removed first.

        Raises:
            InvalidInput: a path does not exist; nothing was read or removed.
            Unavailable: the database or an index refused; files reported so far are kept.
        """
        roots = [Path(os.path.realpath(Path(path).expanduser())) for path in paths]
        # All folders are listed before anything is removed: a path that cannot be read must not look like an empty one.
        found = {file.path: file for root in roots for file in walk(root, self.options.walk)}
        run = self._begin(owner_id, collection)
        gone = self._gone(run, roots, set(found)) if sync else []
        run.total = len(found) + len(gone)
        yield from self._remove(run, gone)
        for file in found.values():
            yield from self._file(run, file)
            if sum(len(p.pieces) for p in run.pending) >= self.options.batch_chunks:
                yield from self._flush(run)
        yield from self._flush(run)

    def ingest_bytes(
        self, owner_id: str, name: str, data: bytes, collection: str = "default", *, source: str = "", mtime_ns: int = 0
    ) -> IngestEvent:
        """An uploaded file. The same source again replaces it; without one, the same name.

        `source` and `mtime_ns` say where a client had it from. They are labels: nothing is read from there.
        """
        name = safe_name(name)
        run = self._begin(owner_id, collection)
        run.total = 1
        source = _BAD_IN_NAME.sub("", source)[:4096] or f"upload:{name}"
        events = [*self._content(run, name, source, data, mtime_ns), *self._flush(run)]
        return events[-1]

    def _begin(self, owner_id: str, collection: str) -> _Run:
        if not re.fullmatch(r"[\w .@:/-]{1,128}", collection):
            raise InvalidInput("A collection's name has 1 to 128 letters, digits, spaces or . @ : / - _ characters.")
        known = self._store.documents(owner_id, collection)
        ready = {d.content_hash: d for d in known if d.status is DocumentStatus.READY}
        return _Run(owner_id, collection, {d.source: d for d in known}, ready)

    def _gone(self, run: _Run, roots: Sequence[Path], found: set[Path]) -> list[Document]:
        folders = tuple(str(root) + os.sep for root in roots if root.is_dir())
        present = {str(path) for path in found}
        return (
            [d for d in run.by_source.values() if d.source.startswith(folders) and d.source not in present]
            if folders
            else []
        )

    def _remove(self, run: _Run, gone: Sequence[Document]) -> Iterator[IngestEvent]:
        self._forget(run.owner_id, [document.id for document in gone])
        for document in gone:
            run.by_source.pop(document.source)
            if run.by_hash.get(document.content_hash) == document:
                run.by_hash.pop(document.content_hash)
            yield self._settled(run, IngestEvent(IngestStatus.REMOVED, document.name, document.source, document.id))

    def _file(self, run: _Run, file: Found) -> Iterator[IngestEvent]:
        source = str(file.path)
        known = run.by_source.get(source)
        if known and known.content_hash and (known.size, known.mtime_ns) == (file.size, file.mtime_ns):
            yield self._settled(run, _as_known(known, file.name))
            return
        try:
            if file.size > self._loader.limits.file:
                # Before it is in memory; `load` would say the same.
                raise TooLarge(
                    f"{file.name} has {file.size // 2**20} MB; at most {self._loader.limits.file // 2**20} are read."
                )
            data = _read(file.path, self._loader.limits.file)
        except (OSError, TrimtabError) as error:
            failure = (
                error if isinstance(error, TrimtabError) else Unavailable(f"{file.name} cannot be read ({error}).")
            )
            yield self._failed(run, _document(run, file.name, source, known, file.size), failure)
            return
        yield from self._content(run, file.name, source, data, file.mtime_ns)

    def _content(self, run: _Run, name: str, source: str, data: bytes, mtime_ns: int) -> Iterator[IngestEvent]:
        known = run.by_source.get(source)
        content_hash = hashlib.sha256(data).hexdigest()
        if known and known.content_hash == content_hash:
            if mtime_ns:
                self._store.touch(known.id, len(data), mtime_ns)
            yield self._settled(run, _as_known(known, name))
            return
        same = run.by_hash.get(content_hash)
        if same is not None:
            if known is not None:
                self._forget(run.owner_id, [known.id])
                run.by_source.pop(source)
            error = f"The same content is stored as {same.name}."
            yield self._settled(run, IngestEvent(IngestStatus.DUPLICATE, name, source, same.id, error=error))
            return
        document = _document(run, name, source, known, len(data), content_hash, mtime_ns)
        try:
            extracted = self._loader.load(name, data)
            pieces = chunk(extracted, self._encoder.tokenizer, self.options.chunks)
            if len(pieces) > self.options.max_chunks:
                raise TooLarge(f"{name} is cut into more than {self.options.max_chunks:,} pieces. Split it.")
        except TrimtabError as error:
            yield self._failed(run, document, error)
            return
        self._queue(run, document, extracted, pieces, replaced=known is not None)

    def _queue(
        self, run: _Run, document: Document, extracted: Extracted, pieces: list[Piece], *, replaced: bool
    ) -> None:
        status = IngestStatus.REPLACED if replaced else IngestStatus.ADDED
        event = IngestEvent(status, document.name, document.source, document.id, len(pieces), len(extracted.text))
        document = Document(**{**vars(document), "mime": extracted.mime})
        run.by_source[document.source] = run.by_hash[document.content_hash] = document
        run.pending.append(_Pending(document, extracted.text, pieces, event))

    def _flush(self, run: _Run) -> Iterator[IngestEvent]:
        pending, run.pending = run.pending, []
        if not pending:
            return
        texts = [embedded_text(p.context, item.text[p.start : p.end]) for item in pending for p in item.pieces]
        vectors = iter(self._encoder.encode(texts))
        items = []
        for item in pending:
            chunks = [
                Chunk(
                    ids.new("chk"), item.document.id, number, p.start, p.end, p.heading, p.context,
                    next(vectors).astype("<f4").tobytes(), self._encoder.fingerprint,
                )
                for number, p in enumerate(item.pieces)
            ]  # fmt: skip
            items.append((item.document, item.text, chunks))
        self._keep(run.owner_id, items)
        for item in pending:
            yield self._settled(run, item.event)

    def _failed(self, run: _Run, document: Document, error: TrimtabError) -> IngestEvent:
        # What may go better next time is tried again; a damaged file is not, until it changes.
        content_hash = "" if isinstance(error, DeadlineExceeded | Unavailable) else document.content_hash
        changes = {"status": DocumentStatus.FAILED, "error": error.message, "content_hash": content_hash}
        failed = Document(**{**vars(document), **changes})
        self._keep(run.owner_id, [(failed, "", [])])
        run.by_source[failed.source] = failed
        event = IngestEvent(
            IngestStatus.FAILED, failed.name, failed.source, failed.id, code=error.code, error=error.message
        )
        return self._settled(run, event)

    def _settled(self, run: _Run, event: IngestEvent) -> IngestEvent:
        run.done += 1
        return IngestEvent(**{**vars(event), "done": run.done, "total": run.total})


def embedded_text(context: str, text: str) -> str:
    """What is embedded and indexed for a chunk: its title path or table header, then its text."""
    return f"{context}\n{text}" if context else text


_BAD_IN_NAME = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def safe_name(name: str) -> str:
    """An uploaded file's name (or path inside a folder) without what no name should have. Only ever a label.

    Raises:
        InvalidInput: nothing is left of it.
    """
    parts = [_BAD_IN_NAME.sub("", part).strip(". ") for part in name.replace("\\", "/").split("/")]
    clean = "/".join(part for part in parts if part)
    if not clean:
        raise InvalidInput("The uploaded file has no usable name. Name it, with its ending, such as notes.md.")
    if len(clean) > 300:
        clean = clean[:270] + PurePath(clean).suffix[:20]
    return clean


def _document(
    run: _Run, name: str, source: str, known: Document | None, size: int, content_hash: str = "", mtime_ns: int = 0
) -> Document:
    """The record to write. It keeps the id of what it replaces, so links to the document go on working."""
    return Document(
        id=known.id if known else ids.new("doc"),
        owner_id=run.owner_id,
        name=name,
        source=source,
        collection=run.collection,
        content_hash=content_hash,
        size=size,
        mtime_ns=mtime_ns,
        created_at=known.created_at if known else 0.0,
    )


def _as_known(known: Document, name: str) -> IngestEvent:
    status = IngestStatus.FAILED if known.status is DocumentStatus.FAILED else IngestStatus.UNCHANGED
    code = "unreadable" if known.status is DocumentStatus.FAILED else ""
    return IngestEvent(status, name, known.source, known.id, known.chunks, known.characters, code, known.error)


def _read(path: Path, limit: int) -> bytes:
    """The file's bytes, at most `limit`; never through a link, never from a pipe or device put there meanwhile."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise InvalidInput(f"{path} is not a regular file.")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise TooLarge(f"{path.name} grew beyond {limit // 2**20} MB while it was read.")
    return data
