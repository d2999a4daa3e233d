"""Lines of what arrives in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator


async def lines_of(pieces: AsyncIterable[bytes]) -> AsyncIterator[str]:
    """UTF-8 cut at line feeds and nowhere else, without its ends of lines.

    httpx's own lines end at all that Unicode counts as an end (U+2028, U+0085, ...), of which JSON may hold any: an
    answer with one in it would be cut in the middle of an event.
    """
    rest = b""
    async for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")
    if rest:
        yield rest.decode("utf-8", "replace")
