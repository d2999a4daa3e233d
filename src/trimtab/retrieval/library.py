"""The library: documents go in, passages come out. The one door of this package.

The store (our database) is the truth. The vector and keyword indexes are derived from it, live in one folder that one
process owns, and are compared with it by ids when the library opens. The order of writing follows: the database
commits a document with all its chunks first, then the indexes learn of it. A process that dies in between leaves a
document that is wholly in the database, and the next start completes the indexes; one that dies before leaves nothing.
A search shows only chunks the database knows, so a stale entry of an index is never seen.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.domain.document import Chunk, Document
from trimtab.domain.errors import InvalidInput, NotFound, Unavailable
from trimtab.domain.ownership import FolderLock
from trimtab.domain.passage import Passage, Span

from .contracts import DocumentStore, Encoder, Matrix
from .ingest import IngestEvent, IngestOptions, Ingestor, embedded_text
from .keywords import KeywordIndex
from .loading import Loader
from .search import Filters, Quote, best_sentences, cosines, fuse, nearest_exactly
from .vectors import VectorIndex


@dataclass(frozen=True)
class LibraryOptions:
    floor: float = 0.30
    """Cosine of question and passage under which nothing counts as found. Measured; see `benchmarks/retrieval.py`."""
    candidates: int = 50
    """Taken from each side before fusion."""
    exact_up_to: int = 5_000
    """A filter that leaves at most this many chunks is searched exactly instead of through the index."""
    ingest: IngestOptions = field(default_factory=IngestOptions)


@dataclass(frozen=True)
class Check:
    """How the indexes differ from the database, in chunks. All zero is healthy."""

    chunks: int = 0
    stale: int = 0
    """Embedded by another model."""
    missing_vectors: int = 0
    extra_vectors: int = 0
    missing_keywords: int = 0
    extra_keywords: int = 0

    @property
    def healthy(self) -> bool:
        return not (
            self.stale or self.missing_vectors or self.extra_vectors or self.missing_keywords or self.extra_keywords
        )


class Library:
    """Safe to call from several threads; from asyncio through `asyncio.to_thread`.

    Args:
        store: where documents live.
        embedder: makes the vectors.
        index_dir: owned by this library; everything in it can be deleted while it is closed.
        progress: told what a repair at opening is doing and how much of it is done, 0..1.

    Raises:
        Unavailable: another process has `index_dir` open, or it cannot be used.
    """

    def __init__(
        self,
        store: DocumentStore,
        embedder: Encoder,
        index_dir: Path,
        options: LibraryOptions = LibraryOptions(),
        loader: Loader | None = None,
        progress: Callable[[str, float], None] | None = None,
    ) -> None:
        self.options = options
        self._store, self._encoder = store, embedder
        self._loader = loader or Loader()
        self._writing = threading.RLock()
        self._closed = False
        self._lock = FolderLock(index_dir, "The search index")
        try:
            self._vectors = VectorIndex(index_dir / "chroma", embedder.fingerprint)
            self._keywords = KeywordIndex(index_dir / "keywords.db")
            self._ingestor = Ingestor(store, embedder, self._loader, self._keep, self._forget, options.ingest)
            self.repair(progress)
        except BaseException:
            self._lock.release()
            raise

    @property
    def is_open(self) -> bool:
        return not self._closed

    # In

    def ingest(
        self, paths: Iterable[Path | str], owner: str, collection: str = "default", *, sync: bool = False
    ) -> Iterator[IngestEvent]:
        """Read files and folders; see `Ingestor.ingest`. Nothing happens until the events are read."""
        self._open()
        return self._ingestor.ingest(paths, owner, collection, sync=sync)

    def ingest_bytes(
        self, owner: str, name: str, data: bytes, collection: str = "default", *, source: str = "", mtime_ns: int = 0
    ) -> IngestEvent:
        """Keep one uploaded file. A file that cannot be read is an event with ``failed``, not an exception.

        The same `source` (without one, the same name) again replaces it.
        """
        self._open()
        return self._ingestor.ingest_bytes(owner, name, data, collection, source=source, mtime_ns=mtime_ns)

    def delete(self, owner: str, document_id: str) -> None:
        """Remove a document with its chunks, vectors and keywords.

        Raises:
            NotFound: this owner has no such document.
        """
        self._open()
        self.document(owner, document_id)
        self._forget(owner, [document_id])

    # Out

    def search(
        self, question: str, owner: str, k: int = 8, filters: Filters = Filters(), floor: float | None = None
    ) -> list[Passage]:
        """At most `k` passages, best first by fused rank. Empty when no passage reaches the floor.

        `floor` is the options' when None; -1 shows everything.
        """
        self._open()
        question = question.strip()[:4000]
        if not question or k <= 0:
            return []
        vector = self._encoder.encode([question])[0]
        wanted = max(k, self.options.candidates)
        by_vector, by_keyword = self._both_sides(question, vector, owner, wanted, filters)
        passages = self._passages(owner, vector, by_vector, by_keyword, k)
        floor = self.options.floor if floor is None else floor
        return passages if any(p.score >= floor for p in passages) else []

    def best_sentences(self, question: str, passages: Sequence[Passage], n: int = 3) -> list[Quote]:
        """The sentences of these passages nearest to the question, best first, with their place in the document."""
        self._open()
        return best_sentences(self._encoder, question, passages, n)

    def documents(self, owner: str, collection: str | None = None) -> list[Document]:
        """This owner's documents, newest change first."""
        return self._store.documents(owner, collection)

    def document(self, owner: str, document_id: str) -> Document:
        """
        Raises:
            NotFound: this owner has no such document.
        """
        found = self._store.document(owner, document_id)
        if found is None:
            raise NotFound(f"There is no document {document_id}. List the documents to see which there are.")
        return found

    def text_of(self, owner: str, document_id: str) -> str:
        """The extracted text that every span of this document counts in.

        Raises:
            NotFound: this owner has no such document.
        """
        text = self._store.text(owner, document_id)
        if text is None:
            raise NotFound(f"There is no document {document_id}. List the documents to see which there are.")
        return text

    # Upkeep

    def check(self) -> Check:
        """Compare the indexes with the database. Reads every id; changes nothing."""
        with self._writing:
            owners = self._store.chunk_ids()
            current = self._store.chunk_ids(self._encoder.fingerprint)
            missing, extra = self._vector_difference(current)
            words = self._keywords.ids()
        return Check(
            chunks=len(owners),
            stale=len(owners) - len(current),
            missing_vectors=sum(map(len, missing.values())),
            extra_vectors=sum(map(len, extra.values())),
            missing_keywords=len(owners.keys() - words),
            extra_keywords=len(words - owners.keys()),
        )

    def repair(self, progress: Callable[[str, float], None] | None = None) -> Check:
        """Make the indexes equal to the database; re-embed what another model embedded. Returns what was wrong."""
        say = progress or (lambda what, part: None)
        with self._writing:
            before = self.check()
            if before.healthy:
                return before
            self._re_embed(say)
            self._repair_vectors(say)
            self._repair_keywords(say)
        return before

    def status(self) -> dict[str, Any]:
        """`check` as JSON: ``{"ok", "chunks", ...}``."""
        self._open()
        found = self.check()
        return {"ok": found.healthy, "embedder": self._encoder.fingerprint, **asdict(found)}

    def close(self) -> None:
        """Let go of the index folder. The store and the embedder are the caller's to close."""
        with self._writing:
            if self._closed:
                return
            self._closed = True
            self._keywords.close()
            self._vectors.close()
            self._loader.close()
            self._lock.release()

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # Inside

    def _open(self) -> None:
        if self._closed:
            raise Unavailable("The library is closed: the server is stopping. Retry when it runs again.")

    def _keep(self, owner: str, items: Sequence[tuple[Document, str, Sequence[Chunk]]]) -> None:
        with self._writing:
            self._open()
            gone = self._store.put(items)
            self._index(
                [(owner, chunk, text[chunk.start : chunk.end]) for _, text, chunks in items for chunk in chunks]
            )
            self._unindex(owner, gone)

    def _forget(self, owner: str, document_ids: Sequence[str]) -> None:
        if not document_ids:
            return
        with self._writing:
            self._open()
            self._unindex(owner, self._store.remove(owner, document_ids))

    def _index(self, rows: Sequence[tuple[str, Chunk, str]]) -> None:
        for owner in {owner for owner, _, _ in rows}:
            mine = [(chunk, text) for o, chunk, text in rows if o == owner]
            self._keywords.add(owner, [(c.id, c.document_id, embedded_text(c.context, text)) for c, text in mine])
            self._vectors.add(owner, [c.id for c, _ in mine], _matrix([c.embedding for c, _ in mine]))

    def _unindex(self, owner: str, chunk_ids: Sequence[str]) -> None:
        if chunk_ids:
            self._keywords.remove(chunk_ids)
            self._vectors.remove(owner, chunk_ids)

    def _both_sides(
        self, question: str, vector: Matrix, owner: str, wanted: int, filters: Filters
    ) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
        if not filters:
            return self._vectors.nearest(owner, vector, wanted), self._keywords.best(owner, question, wanted)
        documents = [d for d in self._store.documents(owner) if filters.accept(d)]
        allowed = [d.id for d in documents]
        by_keyword = self._keywords.best(owner, question, wanted, allowed)
        if sum(d.chunks for d in documents) <= self.options.exact_up_to:
            rows = self._store.vectors(owner, self._encoder.fingerprint, document_ids=allowed)
            return nearest_exactly(vector, rows, wanted), by_keyword
        return self._nearest_of(owner, vector, wanted, set(allowed)), by_keyword

    def _nearest_of(self, owner: str, vector: Matrix, wanted: int, allowed: set[str]) -> list[tuple[str, float]]:
        """Plain queries that grow until enough pass the filter; a filter that passes few was searched exactly."""
        size, reach = self._vectors.size(owner), wanted * 4
        while True:
            near = self._vectors.nearest(owner, vector, reach)
            known = self._store.found(owner, [chunk_id for chunk_id, _ in near])
            kept = [(i, s) for i, s in near if i in known and known[i][1].id in allowed]
            if len(kept) >= wanted or reach >= min(size, 10_000):
                return kept[:wanted]
            reach *= 4

    def _passages(
        self,
        owner: str,
        vector: Matrix,
        by_vector: Sequence[tuple[str, float]],
        by_keyword: Sequence[tuple[str, float]],
        k: int,
    ) -> list[Passage]:
        fused = fuse([i for i, _ in by_vector], [i for i, _ in by_keyword])
        # A few more than asked for: an index may still name chunks that were just removed.
        known = self._store.found(owner, [f.id for f in fused[: k + 20]])
        best = [f for f in fused if f.id in known][:k]
        scores = dict(by_vector)
        only_words = [f.id for f in best if f.id not in scores]
        if only_words:
            scores.update(cosines(vector, self._store.vectors(owner, self._encoder.fingerprint, chunk_ids=only_words)))
        words = dict(by_keyword)
        passages = []
        for f in best:
            chunk, document, text = known[f.id]
            passages.append(
                Passage(
                    id=f.id,
                    document_id=document.id,
                    name=document.name,
                    text=text,
                    span=Span(chunk.start, chunk.end),
                    heading=chunk.heading,
                    score=scores.get(f.id, 0.0),
                    fused=f.score,
                    vector_rank=f.vector_rank,
                    keyword_rank=f.keyword_rank,
                    keyword_score=words.get(f.id),
                    metadata={
                        "mime": document.mime,
                        "collection": document.collection,
                        "source": document.source,
                        "ordinal": chunk.ordinal,
                        "context": chunk.context,
                    },
                )
            )
        return passages

    def _vector_difference(self, current: dict[str, str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """(owner to ids the index lacks, collection name to ids the database lacks)."""
        wanted: dict[str, list[str]] = {}
        for chunk_id, owner in current.items():
            wanted.setdefault(owner, []).append(chunk_id)
        there = self._vectors.ids()
        names = {owner: self._vectors.collection_name(owner) for owner in wanted}
        missing = {o: [i for i in ids if i not in there.get(names[o], set())] for o, ids in wanted.items()}
        expected = {names[owner]: set(ids) for owner, ids in wanted.items()}
        extra = {name: sorted(ids - expected.get(name, set())) for name, ids in there.items()}
        return missing, extra

    def _repair_vectors(self, say: Callable[[str, float], None]) -> None:
        missing, extra = self._vector_difference(self._store.chunk_ids(self._encoder.fingerprint))
        for name, ids in extra.items():
            if ids:
                self._vectors.remove_from(name, ids)
        for owner, ids in missing.items():
            for start in range(0, len(ids), 1000):
                say("rebuilding the vector index", start / len(ids))
                rows = self._store.vectors(owner, self._encoder.fingerprint, chunk_ids=ids[start : start + 1000])
                if rows:
                    self._vectors.add(owner, [i for i, _ in rows], _matrix([blob for _, blob in rows]))

    def _repair_keywords(self, say: Callable[[str, float], None]) -> None:
        owners, there = self._store.chunk_ids(), self._keywords.ids()
        self._keywords.remove(sorted(there - owners.keys()))
        missing = sorted(owners.keys() - there)
        for start in range(0, len(missing), 1000):
            say("rebuilding the keyword index", start / len(missing))
            for owner, chunk, text in self._store.chunks_by_id(missing[start : start + 1000]):
                self._keywords.add(owner, [(chunk.id, chunk.document_id, embedded_text(chunk.context, text))])

    def _re_embed(self, say: Callable[[str, float], None]) -> None:
        fingerprint = self._encoder.fingerprint
        stale = sorted(self._store.chunk_ids().keys() - self._store.chunk_ids(fingerprint).keys())
        for start in range(0, len(stale), 256):
            say("embedding with the new model", start / len(stale))
            rows = [
                (c.id, embedded_text(c.context, text))
                for _, c, text in self._store.chunks_by_id(stale[start : start + 256])
            ]
            vectors = self._encoder.encode([text for _, text in rows])
            blobs = {i: v.astype("<f4").tobytes() for (i, _), v in zip(rows, vectors, strict=True)}
            self._store.set_embeddings(fingerprint, blobs)


def _matrix(blobs: Sequence[bytes]) -> Matrix:
    """Stored vectors as rows.

    Raises:
        InvalidInput: they do not all have one length.
    """
    if len({len(blob) for blob in blobs}) > 1:
        raise InvalidInput("Stored vectors differ in length, though one model made them. Ingest the documents again.")
    return np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(blobs), -1)


class Within:
    """A library for turns, of which only some collections are searched."""

    def __init__(self, library: Library, collections: Iterable[str]) -> None:
        self._library = library
        self._filters = Filters(collections=tuple(collections))

    def search(self, question: str, owner: str, k: int = 8) -> list[Passage]:
        return self._library.search(question, owner, k, self._filters)

    def best_sentences(self, question: str, passages: Sequence[Passage], n: int = 3) -> list[Quote]:
        return self._library.best_sentences(question, passages, n)
