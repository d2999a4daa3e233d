"""Documents and their chunks: the truth that every search index is rebuilt from.

A document and its chunks are written in one transaction, so a process that dies leaves a document wholly there or
wholly absent. Chunk ids are never used twice, so comparing ids is enough to bring an index up to date.

Every method that a face may reach takes the owner. The few that do not (`chunk_ids`, `chunks_by_id`) are for
rebuilding indexes and say so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
    cast,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from trimtab.domain.document import Chunk, Document, DocumentStatus
from trimtab.domain.errors import Conflict, Unavailable

from .database import reason_of, typed
from .encoding import no_nul
from .schema import metadata

documents = Table(
    "documents",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("owner_id", String(64), nullable=False),
    Column("collection", String(128), nullable=False),
    Column("name", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("content_hash", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("mime", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("error", Text, nullable=False),
    Column("characters", BigInteger, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("created_at", Float(53), nullable=False),
    Column("updated_at", Float(53), nullable=False),
    UniqueConstraint("owner_id", "collection", "source"),
    Index(None, "owner_id", "content_hash"),
)

texts = Table(
    "document_texts",
    metadata,
    # Apart from `documents`, so that listing a thousand documents does not read a thousand texts.
    Column("document_id", String(40), ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True),
    Column("text", Text, nullable=False),
)

chunks = Table(
    "chunks",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("document_id", String(40), ForeignKey("documents.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("ordinal", Integer, nullable=False),
    Column("start", BigInteger, nullable=False),
    Column("end", BigInteger, nullable=False),
    Column("heading", Text, nullable=False),
    Column("context", Text, nullable=False),
    Column("embedding", LargeBinary, nullable=False),
    Column("embedder", String(64), nullable=False),
)

_BATCH = 400
"""Ids in one IN (...): below every database's limit of parameters."""


# substr counts from 1, in characters, on SQLite and PostgreSQL alike; PostgreSQL's takes no bigint.
_PIECE = func.substr(
    texts.c.text, cast(chunks.c.start + 1, Integer), cast(chunks.c.end - chunks.c.start, Integer)
).label("piece")


class SqlDocumentStore:
    """Documents over any SQLAlchemy engine (SQLite, PostgreSQL). Safe to call from several threads.

    Args:
        engine: writes go here.
        reader: reads go here; the same engine when None. For SQLite, one that does not begin with a write lock.
    """

    def __init__(self, engine: Engine, reader: Engine | None = None) -> None:
        self._engine = engine
        self._reader = reader or engine

    # Writing

    def put(self, items: Sequence[tuple[Document, str, Sequence[Chunk]]]) -> list[str]:
        """Keep documents with their texts and chunks, all of them or none; replaces those with the same id.

        Returns the ids of the chunks that are gone.

        Raises:
            Conflict: another document of this owner and collection has the same source.
            Unavailable: the database is locked or out of reach; nothing was kept.
        """
        now = time.time()
        gone: list[str] = []
        try:
            with self._engine.begin() as db:
                for document, given, pieces in items:
                    text = no_nul(given)
                    gone += db.scalars(select(chunks.c.id).where(chunks.c.document_id == document.id)).all()
                    db.execute(delete(chunks).where(chunks.c.document_id == document.id))
                    db.execute(delete(texts).where(texts.c.document_id == document.id))
                    values = _document_values(document, text, pieces, now)
                    if db.execute(update(documents).where(documents.c.id == document.id).values(values)).rowcount == 0:
                        created = document.created_at or now
                        db.execute(insert(documents).values({**values, "id": document.id, "created_at": created}))
                    db.execute(insert(texts).values(document_id=document.id, text=text))
                    if pieces:
                        db.execute(insert(chunks), [_chunk_values(chunk) for chunk in pieces])
        except IntegrityError as error:
            raise Conflict(
                "Another upload of the same document finished first. List the documents, then retry."
            ) from error
        except DBAPIError as error:
            raise Unavailable(
                f"The document was not kept: the database refused the write ({reason_of(error)}). Retry."
            ) from error
        return gone

    def touch(self, document_id: str, size: int, mtime_ns: int) -> None:
        """Remember a file's new size and time where its content is what we have."""
        with typed(), self._engine.begin() as db:
            where = documents.c.id == document_id
            db.execute(update(documents).where(where).values(size=size, mtime_ns=mtime_ns))

    def remove(self, owner_id: str, document_ids: Sequence[str]) -> list[str]:
        """Delete documents of this owner; others' are passed over. Returns the ids of the chunks that are gone."""
        gone: list[str] = []
        with typed(), self._engine.begin() as db:
            for batch in _batches(document_ids):
                mine = select(documents.c.id).where(documents.c.owner_id == owner_id, documents.c.id.in_(batch))
                ids = db.scalars(mine).all()
                gone += db.scalars(select(chunks.c.id).where(chunks.c.document_id.in_(ids))).all()
                # Not left to ON DELETE CASCADE, which SQLite only honours when a pragma was set on the connection.
                db.execute(delete(chunks).where(chunks.c.document_id.in_(ids)))
                db.execute(delete(texts).where(texts.c.document_id.in_(ids)))
                db.execute(delete(documents).where(documents.c.id.in_(ids)))
        return gone

    def set_embeddings(self, embedder: str, vectors: Mapping[str, bytes]) -> None:
        """Replace the vectors of chunks, by id, after the embedding model changed."""
        with typed(), self._engine.begin() as db:
            for chunk_id, blob in vectors.items():
                where = chunks.c.id == chunk_id
                db.execute(update(chunks).where(where).values(embedding=blob, embedder=embedder))

    # Reading, for an owner

    def documents(self, owner_id: str, collection: str | None = None) -> list[Document]:
        """Newest change first."""
        query = select(documents).where(documents.c.owner_id == owner_id)
        if collection is not None:
            query = query.where(documents.c.collection == collection)
        with typed(), self._reader.connect() as db:
            return [_document(row) for row in db.execute(query.order_by(documents.c.updated_at.desc()))]

    def document(self, owner_id: str, document_id: str) -> Document | None:
        query = select(documents).where(documents.c.owner_id == owner_id, documents.c.id == document_id)
        with typed(), self._reader.connect() as db:
            row = db.execute(query).first()
            return _document(row) if row else None

    def text(self, owner_id: str, document_id: str) -> str | None:
        query = (
            select(texts.c.text).join(documents).where(documents.c.owner_id == owner_id, documents.c.id == document_id)
        )
        with typed(), self._reader.connect() as db:
            return db.scalar(query)

    def found(self, owner_id: str, chunk_ids: Sequence[str]) -> dict[str, tuple[Chunk, Document, str]]:
        """Chunks of this owner by id, with their document and their text. Ids that are not theirs are missing."""
        columns = [c.label("c_" + c.name) for c in chunks.c if c.name != "embedding"]
        out: dict[str, tuple[Chunk, Document, str]] = {}
        with typed(), self._reader.connect() as db:
            for batch in _batches(chunk_ids):
                query = (
                    select(documents, *columns, _PIECE)
                    .join(chunks, chunks.c.document_id == documents.c.id)
                    .join(texts, texts.c.document_id == documents.c.id)
                    .where(documents.c.owner_id == owner_id, chunks.c.id.in_(batch))
                )
                for row in db.execute(query):
                    chunk = _chunk(row._mapping, "c_")
                    out[chunk.id] = (chunk, _document(row), row._mapping["piece"])
        return out

    def vectors(
        self, owner_id: str, embedder: str, *, chunk_ids: Sequence[str] = (), document_ids: Sequence[str] = ()
    ) -> list[tuple[str, bytes]]:
        """(chunk id, float32 blob) of the given chunks, or of all chunks of the given documents."""
        column, ids = (chunks.c.id, chunk_ids) if chunk_ids else (chunks.c.document_id, document_ids)
        out: list[tuple[str, bytes]] = []
        with typed(), self._reader.connect() as db:
            for batch in _batches(ids):
                query = (
                    select(chunks.c.id, chunks.c.embedding)
                    .join(documents)
                    .where(documents.c.owner_id == owner_id, chunks.c.embedder == embedder, column.in_(batch))
                )
                out += [(row[0], row[1]) for row in db.execute(query)]
        return out

    # Reading everything, to rebuild an index

    def chunk_ids(self, embedder: str | None = None) -> dict[str, str]:
        """Every chunk's id with its owner, of everyone. With `embedder`, only those whose vector that model made."""
        query = select(chunks.c.id, documents.c.owner_id).join(documents)
        if embedder is not None:
            query = query.where(chunks.c.embedder == embedder)
        with typed(), self._reader.connect() as db:
            return {row[0]: row[1] for row in db.execute(query)}

    def chunks_by_id(self, chunk_ids: Sequence[str]) -> Iterator[tuple[str, Chunk, str]]:
        """(owner, chunk with its vector, text), of everyone, in no order."""
        for batch in _batches(chunk_ids):
            query = (
                select(documents.c.owner_id, *[c.label("c_" + c.name) for c in chunks.c], _PIECE)
                .join(chunks, chunks.c.document_id == documents.c.id)
                .join(texts, texts.c.document_id == documents.c.id)
                .where(chunks.c.id.in_(batch))
            )
            with typed(), self._reader.connect() as db:
                rows = db.execute(query).all()
            for row in rows:
                yield row._mapping["owner_id"], _chunk(row._mapping, "c_"), row._mapping["piece"]


def _document_values(document: Document, text: str, pieces: Sequence[Chunk], now: float) -> dict[str, Any]:
    counted = replace(document, characters=len(text), chunks=len(pieces), updated_at=now)
    values = {c.name: getattr(counted, c.name) for c in documents.c if c.name not in ("id", "created_at")}
    texts_of = {name: no_nul(value) for name, value in values.items() if isinstance(value, str)}
    return {**values, **texts_of, "status": document.status.value}


def _chunk_values(chunk: Chunk) -> dict[str, Any]:
    values = {c.name: getattr(chunk, c.name) for c in chunks.c}
    return {**values, "context": no_nul(chunk.context), "heading": json.dumps(chunk.heading, ensure_ascii=False)}


def _document(row: Row[Any]) -> Document:
    values = {c.name: row._mapping[c] for c in documents.c}
    return Document(**{**values, "status": DocumentStatus(values["status"])})


def _chunk(row: Mapping[Any, Any], prefix: str) -> Chunk:
    values = {c.name: row[prefix + c.name] for c in chunks.c if prefix + c.name in row}
    return Chunk(**{**values, "heading": tuple(json.loads(values["heading"]))})


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), _BATCH):
        yield ids[start : start + _BATCH]
