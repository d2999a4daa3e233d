"""From compressed chunks to at most so many bytes at a time.

Ours, not httpx's: that one decodes a whole chunk at once, and 64 kB of gzip may hold 64 MB.
"""

from __future__ import annotations

import zlib
from typing import Any

from trimtab.domain.errors import ToolError


class Decoder:
    """For one body. `encoding` is its Content-Encoding: gzip, deflate in both of its forms, or none.

    Raises:
        ToolError: another encoding, or a body that is damaged.
    """

    def __init__(self, encoding: str, host: str) -> None:
        self._host = host
        self._name = encoding.strip().lower()
        self._begun = False
        self._zlib: Any = None
        if self._name in ("gzip", "x-gzip", "deflate"):
            self._zlib = zlib.decompressobj(47)  # 47: gzip or zlib, told apart by the header
        elif self._name not in ("", "identity"):
            raise ToolError(
                f"{host} sent its answer in an encoding that was not asked for ({self._name[:40]}).",
                reason="malformed",
            )

    def decode(self, chunk: bytes, room: int) -> bytes:
        if self._zlib is None:
            return chunk[:room]
        if self._name == "deflate" and not self._begun and chunk:
            self._begun = True
            if chunk[0] & 0x0F != 8:  # raw deflate without zlib's header, as some servers send it
                self._zlib = zlib.decompressobj(-15)
        try:
            return bytes(self._zlib.decompress(chunk, room))
        except zlib.error as error:
            raise self._damaged() from error

    def finish(self) -> None:
        """A compressed body that stops in the middle is damaged, even where no byte of it is wrong."""
        if self._zlib is not None and not self._zlib.eof:
            raise self._damaged()

    def _damaged(self) -> ToolError:
        return ToolError(f"{self._host} sent a compressed answer that is damaged.", reason="malformed")
