"""What is wrong with a document, and where: an RFC 6901 JSON pointer written as a fragment, ``#/paths/~1pets``."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.domain.errors import InvalidInput


class Fault(InvalidInput):
    """A part of a document that cannot be used. `pointer` is where, `why` what is wrong with it."""

    def __init__(self, pointer: str, why: str) -> None:
        super().__init__(f"{pointer}: {why}", pointer=pointer)
        self.pointer = pointer
        self.why = why


@dataclass(frozen=True)
class Remark:
    """Something of a document that was left out or read differently than it is written."""

    pointer: str
    why: str
    what: str = ""
    """``GET /pets``, where a whole operation is meant."""

    def __str__(self) -> str:
        return f"{self.what} ({self.pointer}): {self.why}" if self.what else f"{self.pointer}: {self.why}"


def below(pointer: str, *steps: str | int) -> str:
    """The pointer to something inside."""
    return "/".join([pointer, *(str(step).replace("~", "~0").replace("/", "~1")[:200] for step in steps)])
