"""Embeddings of texts that stay the same from start to start, kept in a file.

What tools say of themselves and their example questions are some hundreds of texts, and embedding them took most of the
time that a start takes. A text is known by its hash, so a tool that says something else is embedded anew. What people
write never comes here.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..domain.durable import replace_file
from ..domain.model import Embedder

MOST = 8192
"""Vectors that a file holds; the newest stay."""

Rows = dict[bytes, npt.NDArray[np.float32]]


class KeptVectors:
    """An embedder that looks into `file` first. `save` writes what was not there.

    The file belongs to one embedding model, which its name should say. One that is damaged or cannot be written costs
    time and nothing else.
    """

    def __init__(self, embedder: Embedder, file: Path) -> None:
        self._embedder, self._file = embedder, file
        self._rows = _read(file)
        self._grown = False

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        missing = [i for i, key in enumerate(keys) if key not in self._rows]
        if missing:
            made = self._embedder.embed_documents([texts[i] for i in missing])
            self._rows |= {keys[i]: np.asarray(row, np.float32) for i, row in zip(missing, made, strict=True)}
            self._grown = True
        return [self._rows[key].tolist() for key in keys]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    def save(self) -> None:
        if not self._grown:
            return
        newest, out = dict(list(self._rows.items())[-MOST:]), io.BytesIO()
        np.savez(out, keys=np.frombuffer(b"".join(newest), np.uint8), rows=np.stack(list(newest.values())))
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self._file, out.getvalue())
        self._grown = False


def _read(file: Path) -> Rows:
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as held:
            keys, rows = held["keys"], held["rows"]
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile):
        return {}
    sound = keys.dtype == np.uint8 and rows.dtype == np.float32 and rows.ndim == 2 and keys.size == 32 * len(rows)
    if not sound or not np.isfinite(rows).all():
        return {}
    return {keys[32 * i : 32 * (i + 1)].tobytes(): row for i, row in enumerate(rows)}
