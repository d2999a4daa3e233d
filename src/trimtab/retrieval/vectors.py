"""The vector index: Chroma, embedded, owned by one process, rebuildable from the database.

What it holds is ids and vectors, nothing else: no text, no metadata, so nothing can leak from it and nothing in it has
to be trusted. Each owner has a collection of their own for each embedding model. That scopes a search by construction,
and it is fast: filtered Chroma queries are 25-80 times slower than plain ones, so other filters are answered elsewhere
(`search`).
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

import chromadb
import numpy as np
import numpy.typing as npt
from chromadb.config import Settings

from trimtab.domain.errors import Unavailable

Matrix = npt.NDArray[np.float32]

_HNSW = {"space": "cosine", "ef_construction": 100, "max_neighbors": 16, "ef_search": 100}
_BATCH = 1000


class VectorIndex:
    """Nearest chunks by cosine, per owner. The caller holds the folder's lock. Safe to call from several threads.

    Raises:
        Unavailable: the folder holds something that is not ours, or Chroma cannot open it.
    """

    def __init__(self, folder: Path, embedder: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(folder)
        self._embedder = embedder
        self._lock = threading.Lock()
        self._collections: dict[str, Any] = {}
        with _chroma("be opened"):
            settings = Settings(anonymized_telemetry=False, allow_reset=False)
            self._client = chromadb.PersistentClient(str(folder), settings=settings)
            for collection in self._client.list_collections():
                # Of an embedding model that is no longer used.
                if not collection.name.endswith("-" + embedder):
                    self._client.delete_collection(collection.name)

    def add(self, owner_id: str, ids: Sequence[str], vectors: Matrix) -> None:
        """Vectors of length 1, [len(ids), dimensions]. Ids that are there already are overwritten."""
        collection = self._collection(owner_id)
        with _chroma("be written"):
            for start in range(0, len(ids), _BATCH):
                part = slice(start, start + _BATCH)
                collection.upsert(ids=list(ids[part]), embeddings=vectors[part])

    def remove(self, owner_id: str, ids: Sequence[str]) -> None:
        collection = self._collection(owner_id)
        with _chroma("be written"):
            for start in range(0, len(ids), _BATCH):
                collection.delete(ids=list(ids[start : start + _BATCH]))

    def nearest(self, owner_id: str, vector: Matrix, k: int) -> list[tuple[str, float]]:
        """(chunk id, cosine) best first, at most `k`."""
        collection = self._collection(owner_id)
        with _chroma("be searched"):
            size = collection.count()
            if not size or k <= 0:
                return []
            found = collection.query(
                query_embeddings=vector.reshape(1, -1), n_results=min(k, size), include=["distances"]
            )
        ids, distances = found["ids"][0], found["distances"][0]
        return [(i, 1.0 - float(d)) for i, d in zip(ids, distances, strict=True)]

    def size(self, owner_id: str) -> int:
        with _chroma("be read"):
            return int(self._collection(owner_id).count())

    def ids(self) -> dict[str, set[str]]:
        """Every id, by collection name; see `collection_name`."""
        with _chroma("be read"):
            return {c.name: set(c.get(include=[])["ids"]) for c in self._every()}

    def remove_from(self, name: str, ids: Sequence[str]) -> None:
        """Remove ids from a collection by its name, for owners who no longer exist."""
        with _chroma("be written"):
            collection = self._client.get_collection(name, embedding_function=None)
            for start in range(0, len(ids), _BATCH):
                collection.delete(ids=list(ids[start : start + _BATCH]))

    def collection_name(self, owner_id: str) -> str:
        """A hash, because Chroma's names allow less than owners' ids do."""
        return f"o{hashlib.sha256(owner_id.encode()).hexdigest()[:32]}-{self._embedder}"

    def close(self) -> None:
        self._collections.clear()
        # On the implementation but not on its interface.
        cast(Any, self._client).close()

    def _every(self) -> list[Any]:
        return [self._client.get_collection(c.name, embedding_function=None) for c in self._client.list_collections()]

    def _collection(self, owner_id: str) -> Any:
        with self._lock:
            if owner_id not in self._collections:
                with _chroma("be opened"):
                    self._collections[owner_id] = self._client.get_or_create_collection(
                        self.collection_name(owner_id),
                        embedding_function=None,
                        configuration=cast(Any, {"hnsw": _HNSW}),
                    )
            return self._collections[owner_id]


@contextmanager
def _chroma(what: str) -> Iterator[None]:
    """Chroma's errors have no common base; each becomes ours."""
    try:
        yield
    except Unavailable:
        raise
    except Exception as error:
        raise Unavailable(
            f"The search index could not {what} ({type(error).__name__}: {error}). Restart; if it stays, delete the "
            "index folder: it is rebuilt from the database."
        ) from error


def _refuse_foreign(folder: Path) -> None:
    """A stored collection can name an embedding function that Chroma would build when it is opened: code by
    configuration. We never write one, so one that is there came from someone else. Looked at before Chroma looks."""
    path = folder / "chroma.sqlite3"
    if not path.exists():
        return
    try:
        # Not read-only: after a kill SQLite must first roll back what was half written.
        with closing(sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=5)) as db:
            made = db.execute("select 1 from sqlite_master where name = 'collections'").fetchone()
            # Without the table, a first start was killed before Chroma made it; Chroma goes on from there.
            rows = db.execute("select * from collections").fetchall() if made else []
    except sqlite3.Error as error:
        raise Unavailable(
            f"The search index {path} is damaged ({error}). Delete the folder {folder}: "
            "it is rebuilt from the database."
        ) from error
    for row in rows:
        if any(_names_function(cell) for cell in row if isinstance(cell, str) and "embedding_function" in cell):
            raise Unavailable(
                f"The search index in {folder} was made by another program: its configuration names an embedding "
                f"function, which is not run. Delete the folder {folder}: it is rebuilt from the database."
            )


def _names_function(cell: str) -> bool:
    try:
        return _find(json.loads(cell))
    except (ValueError, RecursionError):
        return True


def _find(value: Any) -> bool:
    if isinstance(value, Mapping):
        function = value.get("embedding_function")
        harmless = function is None or (
            isinstance(function, Mapping)
            and set(function) <= {"type"}
            and function.get("type") in ("legacy", "unknown")
        )
        return not harmless or any(_find(v) for v in value.values())
    return any(_find(v) for v in value) if isinstance(value, list) else False
