"""The questions that a measurement asks: made up, from a file, or from conversations that were held here."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.domain.errors import InvalidInput

ROLES = ("system", "user", "assistant")
MOST_TOKENS = 48
"""Of an answer, where nobody says otherwise. A longer one tells no more about speed."""
_SEAS = "Baltic Caspian Red Black North Yellow Dead Coral Arabian Tasman Ross Sargasso".split()
_MOST_BYTES = 50_000_000


@dataclass(frozen=True)
class Request:
    """One question, with what was said before it."""

    messages: tuple[tuple[str, str], ...]
    """``(role, text)``, oldest first; the last is the person's."""
    max_tokens: int = MOST_TOKENS


@dataclass(frozen=True)
class Workload:
    """Questions in the order in which they are asked."""

    name: str
    """As `trimtab measure` takes it, so that a row can be measured again."""
    requests: tuple[Request, ...] = field(repr=False)

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr(self.requests).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def part(self, first: int, count: int) -> list[Request]:
        """`count` requests from number `first` on; from the beginning again when there are not enough."""
        return [self.requests[i % len(self.requests)] for i in range(first, first + count)]


def synthetic(count: int = 64, tokens: int = 200, max_tokens: int = MOST_TOKENS) -> Workload:
    """Questions of about so many tokens that share no beginning, so that none is answered from a cache."""
    found = []
    for number in range(count):
        dice = random.Random(number)  # noqa: S311  (the same questions each time)
        lines = [_line(dice) for _ in range(max(1, tokens // 21))]
        found.append(Request((("user", " ".join(lines) + " What did the keeper do?"),), max_tokens))
    return Workload("synthetic", tuple(found))


def _line(dice: random.Random) -> str:
    year, sea, ships = dice.randint(1700, 1990), dice.choice(_SEAS), dice.randint(2, 900)
    return f"In {year} the keeper on the {sea} Sea counted {ships} ships."


def from_file(path: Path) -> Workload:
    """A text file with a question a line, or JSON lines with ``messages`` (as OpenAI writes them) and ``max_tokens``.

    Raises:
        InvalidInput: it cannot be read, holds no question, or a line of it is wrong.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InvalidInput(f"{path} is larger than {_MOST_BYTES // 1_000_000} MB. Give a part of it.")
        lines = [line for line in path.read_text("utf-8").split("\n") if line.strip()]
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read ({error.strerror}). Check the path.") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is no text in UTF-8. Write a question a line, or JSON lines.") from error
    if not lines:
        raise InvalidInput(f"{path} holds no question. Write one a line, or JSON lines with `messages`.")
    return Workload(f"file:{path}", tuple(_request(line, f"{path}, line {n}") for n, line in enumerate(lines, 1)))


def _request(line: str, where: str) -> Request:
    if not line.lstrip().startswith("{"):
        return Request((("user", line.strip()),))
    try:
        values: dict[str, Any] = json.loads(line)
        said = tuple((str(m["role"]), str(m["content"])) for m in values["messages"])
        most = int(values.get("max_tokens", MOST_TOKENS))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{where} is no request ({error}). It needs `messages` with role and content.") from error
    if not said or any(role not in ROLES for role, _ in said) or not 1 <= most <= 8192:
        raise InvalidInput(f"{where}: roles are {', '.join(ROLES)}, and max_tokens is 1 to 8192.")
    return Request(said, most)


def replayed(prompts: Sequence[Sequence[tuple[str, str]]], name: str) -> Workload:
    """Prompts as a model was given them, latest conversation first.

    Raises:
        InvalidInput: there is none.
    """
    found = [Request(tuple(prompt)) for prompt in prompts if prompt and prompt[-1][1]]
    if not found:
        raise InvalidInput("No conversation was held here yet. Measure with the synthetic questions, or with a file.")
    return Workload(name, tuple(found))
