"""What a loader makes of a file: plain text, and where its titles are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

PROSE, MARKDOWN, CODE, TABLE = "prose", "markdown", "code", "table"

# Characters that no text has and that databases refuse (NUL) or cannot encode (lone surrogates).
_BAD = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True)
class Title:
    """A heading that begins at character `start`; `level` 1 is outermost."""

    start: int
    level: int
    text: str


@dataclass(frozen=True)
class Extracted:
    """`kind` says how to cut it: ``prose``, ``markdown``, ``code`` or ``table``."""

    text: str
    kind: str = PROSE
    mime: str = "text/plain"
    titles: tuple[Title, ...] = ()

    def to_wire(self) -> dict[str, Any]:
        titles = [[t.start, t.level, t.text] for t in self.titles]
        return {"text": self.text, "kind": self.kind, "mime": self.mime, "titles": titles}

    @classmethod
    def from_wire(cls, raw: dict[str, Any]) -> Extracted:
        """From a parser process, which is not trusted: everything is checked.

        Raises:
            ValueError, TypeError, KeyError: it is not what `to_wire` makes.
        """
        text = raw["text"]
        if not isinstance(text, str) or raw["kind"] not in (PROSE, MARKDOWN, CODE, TABLE):
            raise ValueError("not an extracted text")
        titles = tuple(Title(int(a), int(b), str(c)[:300]) for a, b, c in raw["titles"])
        if any(not 0 <= t.start <= len(text) for t in titles):
            raise ValueError("a title lies outside the text")
        return cls(text, raw["kind"], str(raw["mime"])[:128], titles)


def clean(text: str) -> str:
    """One newline form, and none of the characters that no database keeps. Never changes what a person can see."""
    return _BAD.sub("�", text.replace("\r\n", "\n").replace("\r", "\n"))
