"""The keyword index: BM25 by SQLite's FTS5, in a file of its own beside the vectors.

Weighed against bm25s on 15,900 chunks (12 MB): FTS5 builds in 0.4 CPU-seconds, replaces a hundred chunks in 3 ms,
opens at once and answers in 7 ms; bm25s answers in 2 ms but cannot change: every change and every start is 1.2
CPU-seconds and a copy in memory. A file of its own, not a table of the main database, so that it is the same index
whether the documents live in SQLite or PostgreSQL. It holds nothing that cannot be rebuilt; `Library` compares ids at
start. Searches are scoped by owner; how rare a word is (BM25's idf) is counted over all owners.
"""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trimtab.domain.errors import Unavailable

_SCHEMA = """
create table if not exists entries (
    number integer primary key, id text not null unique, owner text not null, document text not null
);
create virtual table if not exists body using fts5 (text, tokenize = "porter unicode61 remove_diacritics 2");
"""

_STOP = frozenset(
    (
        "a about an and any are as at be been but by can could did do does doing for from had has have how i if in "
        "into is it its me my no not of on or our should so some such than that the their them then there these "
        "they this those to was we were what when where which who whom why will with would you your"
    ).split()
)
_MAX_TERMS = 48


class KeywordIndex:
    """Chunks by their words. Safe to call from several threads.

    Raises:
        Unavailable: the file is damaged or the disk is full.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = threading.Lock()
        with self._errors():
            self._db = sqlite3.connect(path, check_same_thread=False, timeout=5)
            # Losing the last writes to a power cut is harmless here: ids are compared with the database at start.
            self._db.execute("pragma journal_mode = wal")
            self._db.execute("pragma synchronous = normal")
            self._db.executescript(_SCHEMA)

    def add(self, owner_id: str, entries: Iterable[tuple[str, str, str]]) -> None:
        """(chunk id, document id, text) each. Ids that are there already are kept as they are."""
        with self._lock, self._errors(), self._db:
            for chunk_id, document_id, text in entries:
                values = (chunk_id, owner_id, document_id)
                new = self._db.execute("insert or ignore into entries (id, owner, document) values (?, ?, ?)", values)
                if new.rowcount:
                    self._db.execute("insert into body (rowid, text) values (?, ?)", (new.lastrowid, text))

    def remove(self, ids: Sequence[str]) -> None:
        with self._lock, self._errors(), self._db:
            for chunk_id in ids:
                row = self._db.execute("delete from entries where id = ? returning number", (chunk_id,)).fetchone()
                if row:
                    self._db.execute("delete from body where rowid = ?", row)

    def best(
        self, owner_id: str, question: str, k: int, documents: Sequence[str] | None = None
    ) -> list[tuple[str, float]]:
        """(chunk id, BM25 score) best first, at most `k`; with `documents`, only of those."""
        match = _query(question)
        if not match or k <= 0:
            return []
        sql = (
            "select entries.id, -bm25(body) from body join entries on entries.number = body.rowid "
            "where body match ? and entries.owner = ?"
        )
        values: list[object] = [match, owner_id]
        if documents is not None:
            sql += " and entries.document in (select value from json_each(?))"
            values.append(json.dumps(list(documents)))
        with self._lock, self._errors():
            rows = self._db.execute(sql + " order by rank limit ?", [*values, k]).fetchall()
        return [(row[0], float(row[1])) for row in rows]

    def ids(self) -> set[str]:
        with self._lock, self._errors():
            return {row[0] for row in self._db.execute("select id from entries")}

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise Unavailable(
                f"The keyword index {self._path} could not be used ({error}). If the disk is not full, delete "
                "the file: it is rebuilt from the database."
            ) from error


def _query(question: str) -> str:
    """Any of the question's words. Quoted, so that nothing a person types is FTS5 syntax."""
    words = list(dict.fromkeys(re.findall(r"\w+", question.lower())))
    telling = [word for word in words if word not in _STOP] or words
    return " OR ".join(f'"{word}"' for word in telling[:_MAX_TERMS])
