"""A document someone gave us, and the pieces it was cut into."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DocumentStatus(StrEnum):
    READY = "ready"
    FAILED = "failed"
    """It could not be read; `error` says why and what to do. It has no chunks."""


@dataclass(frozen=True)
class Document:
    """Everything about a document but its text. Times are Unix seconds."""

    id: str
    owner_id: str
    name: str
    """As a person knows it: a path inside the ingested folder, or the uploaded file's name."""
    source: str
    """Where it came from: an absolute path, or ``upload:NAME``. Unique within an owner's collection."""
    collection: str = "default"
    content_hash: str = ""
    """SHA-256 of the bytes, hexadecimal."""
    size: int = 0
    """Bytes."""
    mtime_ns: int = 0
    mime: str = "text/plain"
    status: DocumentStatus = DocumentStatus.READY
    error: str = ""
    characters: int = 0
    chunks: int = 0
    created_at: float = 0.0
    updated_at: float = 0.0


@dataclass(frozen=True)
class Chunk:
    """A piece of a document: `text[start:end]` of its extracted text, and that piece's vector."""

    id: str
    document_id: str
    ordinal: int
    start: int
    end: int
    heading: tuple[str, ...] = ()
    context: str = ""
    """What was embedded and indexed in front of the text: its title path, or a table's header."""
    embedding: bytes = b""
    """Little-endian float32, length 1."""
    embedder: str = ""
    """Fingerprint of the model that made `embedding`."""
