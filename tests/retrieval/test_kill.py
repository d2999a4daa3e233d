"""kill -9 at any time: after the next start a document is wholly there or wholly absent, and the indexes agree."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import create_engine, func, select

from trimtab.retrieval.embedding import MiniLmEmbeddings
from trimtab.retrieval.library import Library
from trimtab.store.documents import SqlDocumentStore, chunks, documents
from trimtab.store.schema import metadata

pytestmark = pytest.mark.model

WRITER = """
import sys
from pathlib import Path
from sqlalchemy import create_engine
from trimtab.retrieval.embedding import MiniLmEmbeddings
from trimtab.retrieval.library import Library
from trimtab.retrieval.ingest import IngestOptions
from trimtab.retrieval.library import LibraryOptions
from trimtab.store.documents import SqlDocumentStore

home, model = map(Path, sys.argv[1:])
embedder = MiniLmEmbeddings(model)
store = SqlDocumentStore(create_engine(f"sqlite:///{home / 'trimtab.db'}"))
library = Library(store, embedder, home / "index", LibraryOptions(ingest=IngestOptions(batch_chunks=6)))
print("open", flush=True)
for event in library.ingest([home / "docs"], "ann", sync=True):
    print(event.status.value, event.name, event.chunks, flush=True)
"""


def rewrite(folder: Path, turn: int) -> None:
    folder.mkdir(exist_ok=True)
    for i in range(40):
        parts = "\n\n".join(f"# Part {p}\n\nNote {i} of turn {turn} says {p * i + turn}." for p in range(3))
        (folder / f"{i}.md").write_text(parts)


def test_a_killed_ingest_leaves_whole_documents_and_the_next_start_mends_the_indexes(
    tmp_path: Path, model_folder: Path, embedder: MiniLmEmbeddings
) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'trimtab.db'}")
    metadata.create_all(engine)
    engine.dispose()
    chance = random.Random(7)
    for turn in range(6):
        rewrite(tmp_path / "docs", turn)
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(model_folder)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        time.sleep(chance.uniform(0.02, 0.7))
        writer.send_signal(signal.SIGKILL)
        acknowledged = [line.split() for line in writer.stdout.read().splitlines() if line.count(" ") == 2]
        writer.wait()
        writer.stdout.close()

        store = SqlDocumentStore(engine)
        with engine.connect() as db:
            stored = {r.name: (r.id, r.chunks) for r in db.execute(select(documents))}
            counted = dict(db.execute(select(chunks.c.document_id, func.count()).group_by(chunks.c.document_id)).all())
        for _, name, pieces in acknowledged:
            assert stored[name][1] == int(pieces) == 3
            assert f"of turn {turn} " in (store.text("ann", stored[name][0]) or "")
        assert all(counted.get(document_id, 0) == count for document_id, count in stored.values())
        with Library(store, embedder, tmp_path / "index") as library:
            check = library.check()
            assert check.healthy
            assert check.chunks == sum(count for _, count in stored.values())
    engine.dispose()
