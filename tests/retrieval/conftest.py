"""A library on disk, with the default embedding model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from trimtab.retrieval.embedding import MiniLmEmbeddings
from trimtab.retrieval.library import Library, LibraryOptions
from trimtab.store.documents import SqlDocumentStore
from trimtab.store.schema import metadata

Open = Callable[..., Library]


@pytest.fixture(scope="session")
def model_folder(embedding_files: dict[str, Path]) -> Path:
    return embedding_files["model.safetensors"].parent


@pytest.fixture(scope="session")
def embedder(model_folder: Path) -> Iterator[MiniLmEmbeddings]:
    opened = MiniLmEmbeddings(model_folder)
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlDocumentStore]:
    engine = create_engine(f"sqlite:///{tmp_path / 'trimtab.db'}")
    metadata.create_all(engine)
    yield SqlDocumentStore(engine)
    engine.dispose()


@pytest.fixture
def open_library(store: SqlDocumentStore, embedder: MiniLmEmbeddings, tmp_path: Path) -> Iterator[Open]:
    """Opens the library of this test; called again after `close`, it is the next start."""
    opened: list[Library] = []

    def open_it(**options: object) -> Library:
        library = Library(store, embedder, tmp_path / "index", LibraryOptions(**options))  # type: ignore[arg-type]
        opened.append(library)
        return library

    yield open_it
    for library in opened:
        library.close()


@pytest.fixture
def library(open_library: Open) -> Library:
    return open_library()
