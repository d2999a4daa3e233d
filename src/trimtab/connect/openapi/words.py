"""Text and names from a document, made fit to be shown to a model and to name things."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from ..result import clean
from ..schema import RESERVED

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_MARKUP = re.compile(r"<[^<>]{0,200}>|\[([^\[\]]{1,200})\]\([^()\s]{1,500}\)")
TOOL_CHARS = 31
ARGUMENT_CHARS = 60


def sentence(text: Any, most: int) -> str:
    """One line of at most `most` characters: no markup, nothing that a terminal would obey, cut at a word."""
    if not isinstance(text, str) or most <= 0:
        return ""
    plain = _MARKUP.sub(lambda found: found[1] or "", text[: most * 6 + 600])
    line = " ".join(clean(plain)[0].split())
    if len(line) <= most:
        return line
    head = line[: most - 3]
    return head[: max(head.rfind(" "), most // 2)].rstrip() + "..."


def snake(text: str) -> str:
    """Lower-case ASCII words joined by ``_``; empty when nothing is left."""
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return "_".join(re.findall(r"[a-z0-9]+", _CAMEL.sub("_", ascii_only).lower()))


def words(text: str) -> str:
    return snake(text).replace("_", " ")


def tool_name(wanted: str, taken: Iterable[str]) -> str:
    """A name of at most 31 characters that is not taken; what was cut is told apart by a hash of the whole."""
    name = snake(wanted) or "operation"
    name = name if name[0].isalpha() else f"op_{name}"
    if len(name) > TOOL_CHARS:
        name = _marked(name, wanted, TOOL_CHARS)
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name[: TOOL_CHARS - 4]}_{number}"
    return unique


def argument_name(wanted: str, place: str, taken: Iterable[str]) -> str:
    """The name a model calls a parameter by: the service's own where it can be an argument's name."""
    name = re.sub(r"\W", "_", unicodedata.normalize("NFKD", wanted).encode("ascii", "ignore").decode()).strip("_")
    name = name or "value"
    name = name if name[0].isalpha() else f"n_{name}"
    if len(name) > ARGUMENT_CHARS:
        name = _marked(name, wanted, ARGUMENT_CHARS)
    if name in RESERVED or hasattr(BaseModel, name):
        name = f"{name}_"
    if name in taken:
        name = f"{name.rstrip('_')}_{place}"
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    return unique


def _marked(name: str, whole: str, most: int) -> str:
    digest = hashlib.sha256(whole.encode("utf-8", "replace")).hexdigest()[:5]
    return f"{name[: most - 6].rstrip('_')}_{digest}"
