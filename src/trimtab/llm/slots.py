"""The values a tool asks for, one by one: what kind of thing each is and which words announce it in a message."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .toolspec import ToolSpec
from .wording import content_stems, spaced, stem


class Kind(StrEnum):
    """What a value is, as far as looking for it in a message goes."""

    URL = "url"
    EMAIL = "email"
    DATE = "date"
    TIME = "time"
    NUMBER = "number"
    BOOLEAN = "boolean"
    CHOICE = "choice"
    EXPRESSION = "expression"
    QUERY = "query"
    """Words to look for: everything the message says besides asking."""
    TEXT = "text"
    """Somebody's words, taken as they are."""
    NAME = "name"
    """A thing: a place, a person, a title, a code."""
    FREE = "free"
    """No rule of ours fits (alternatives, lists of objects): decoded by the model, then checked."""


@dataclass(frozen=True)
class Slot:
    """One value of a call. `path` leads to it through nested objects."""

    path: tuple[str, ...]
    schema: Mapping[str, Any]
    kind: Kind
    required: bool
    many: bool = False
    """A list of values of this kind."""

    @property
    def name(self) -> str:
        return self.path[-1]

    @property
    def text(self) -> str:
        """The name and description in plain words."""
        about = str(self.schema.get("description") or self.schema.get("title") or "")
        return f"{spaced(self.name)}: {about}" if about else spaced(self.name)

    @property
    def words(self) -> set[str]:
        return content_stems(self.text) | {stem(w) for w in spaced(self.name).split()}

    @property
    def anchors(self) -> tuple[str, ...]:
        """Words that announce the value ("in" a place, "about" a subject), the most telling first."""
        named = spaced(self.name).split()
        for words in (named, str(self.schema.get("description") or "").lower().replace(".", " ").split()):
            for keys, anchors in _ANCHORS:
                if any(w in keys for w in words):
                    return anchors
        return ("for", "about", "of", "in", "at", "on", "to", "called", "named")


_ANCHORS: tuple[tuple[frozenset[str], tuple[str, ...]], ...] = (
    (frozenset({"from", "source", "origin", "departure", "start", "leave"}), ("from",)),
    (frozenset({"language", "lang"}), ("into", "to", "in")),
    (
        frozenset({"to", "target", "destination", "arrival", "arrive", "into", "recipient", "end"}),
        ("to", "into", "in", "for", "until", "till"),
    ),
    (frozenset({"restaurant", "venue", "hotel", "shop", "store"}), ("at", "in", "from")),
    (
        frozenset(
            {
                "place",
                "city",
                "location",
                "town",
                "country",
                "region",
                "timezone",
                "zone",
                "room",
                "area",
                "address",
                "station",
                "port",
            }
        ),
        ("in", "at", "for", "near", "around", "to", "of", "from"),
    ),
    (frozenset({"author", "artist", "singer", "writer", "director"}), ("by", "from")),
    (frozenset({"person", "who", "contact"}), ("with", "to", "for", "named", "called")),
    (
        frozenset({"subject", "topic", "title", "article", "page", "regarding", "keyword", "keywords", "term"}),
        ("about", "on", "for", "of", "regarding", "titled", "called"),
    ),
    (
        frozenset({"number", "id", "code", "reference", "symbol", "ticker"}),
        ("is", "number", "of", "for", "package", "order"),
    ),
    (frozenset({"dish", "meal", "food", "recipe"}), ("for", "of", "cook", "make")),
)

_QUERY = frozenset({"query", "q", "search", "keywords", "keyword", "question", "terms", "term", "prompt"})
_TEXT = frozenset({"text", "message", "body", "content", "note", "comment", "sentence", "task"})
_EXPRESSION = frozenset({"expression", "formula", "calculation", "equation", "sum"})


def slots_of(spec: ToolSpec) -> list[Slot]:
    """Every value of the tool's arguments, required ones first."""
    return sorted(_walk(spec.parameters, (), True), key=lambda s: not s.required)


def _walk(schema: Mapping[str, Any], path: tuple[str, ...], needed: bool) -> Iterator[Slot]:
    properties = schema.get("properties")
    required = schema.get("required")
    names = set(required) if isinstance(required, list) else set()
    for name, node in properties.items() if isinstance(properties, Mapping) else ():
        node = _without_null(node) if isinstance(node, Mapping) else {}
        here = (*path, name)
        if node.get("type") == "object" and isinstance(node.get("properties"), Mapping) and len(here) < 8:
            yield from _walk(node, here, needed and name in names)
            continue
        yield slot_of(here, node, needed and name in names)


def slot_of(path: tuple[str, ...], node: Mapping[str, Any], required: bool) -> Slot:
    """The slot for one property."""
    items = node.get("items")
    if node.get("type") == "array" and isinstance(items, Mapping):
        inner = _kind(path[-1], {**items, "description": node.get("description", "")})
        kind = inner if inner in (Kind.NAME, Kind.NUMBER, Kind.URL, Kind.EMAIL, Kind.CHOICE, Kind.DATE) else Kind.FREE
        kind = Kind.NAME if inner in (Kind.TEXT, Kind.QUERY) else kind
        return Slot(path, node, kind, required, many=kind is not Kind.FREE)
    return Slot(path, node, _kind(path[-1], node), required)


def _without_null(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """`Optional[X]` as X: null is never said, it is left out."""
    for key in ("anyOf", "oneOf"):
        options = node.get(key)
        if isinstance(options, list):
            real = [o for o in options if isinstance(o, Mapping) and o.get("type") != "null"]
            if len(real) == 1:
                return {**{k: v for k, v in node.items() if k != key}, **real[0]}
    kinds = node.get("type")
    if isinstance(kinds, list):
        real_kinds = [k for k in kinds if k != "null"]
        if len(real_kinds) == 1:
            return {**node, "type": real_kinds[0]}
    return node


def _kind(name: str, node: Mapping[str, Any]) -> Kind:
    if isinstance(node.get("enum"), list) or "const" in node:
        return Kind.CHOICE
    declared = node.get("type")
    if declared in ("integer", "number"):
        return Kind.NUMBER
    if declared == "boolean":
        return Kind.BOOLEAN
    if declared != "string":
        return Kind.FREE
    return _string_kind(name, node)


def _string_kind(name: str, node: Mapping[str, Any]) -> Kind:
    words = set(spaced(name).split())
    form = node.get("format")
    formats = {"uri": Kind.URL, "url": Kind.URL, "email": Kind.EMAIL, "date": Kind.DATE, "time": Kind.TIME}
    if isinstance(form, str) and form in formats:
        return formats[form]
    for keys, kind in (
        ({"url", "uri", "link", "href"}, Kind.URL),
        ({"email", "mail"}, Kind.EMAIL),
        ({"date", "day", "when"}, Kind.DATE),
        ({"time", "hour"}, Kind.TIME),
        (_EXPRESSION, Kind.EXPRESSION),
        (_QUERY, Kind.QUERY),
        (_TEXT, Kind.TEXT),
    ):
        if words & keys and not words & {"zone", "id", "name", "format"}:
            return kind
    if re.match(r"(?:a|the|an iso)\s+(?:date|day)\b", str(node.get("description") or ""), re.IGNORECASE):
        return Kind.DATE
    return Kind.NAME
