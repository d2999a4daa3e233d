"""A parameter of an operation, read from OpenAPI 3 (`style`, `explode`) or Swagger 2.0 (`collectionFormat`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ..http import OURS
from .document import Document
from .fault import Fault, Remark, below
from .shaping import Schema, Shaper

Place = Literal["path", "query", "header", "cookie"]
PLACES: tuple[Place, ...] = ("path", "query", "header", "cookie")
STYLES: Mapping[str, tuple[str, ...]] = {
    "path": ("simple", "label", "matrix"),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "header": ("simple",),
    "cookie": ("form",),
}
COLLECTIONS = {"csv": "form", "ssv": "spaceDelimited", "tsv": "tabDelimited", "pipes": "pipeDelimited", "multi": "form"}
MAX_PARAMETER = 4_000
"""Characters of one parameter's schema."""
TOKEN = re.compile(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")
_IGNORED = frozenset({"accept", "content-type", "authorization"})
"""OpenAPI's own rule: these headers are described elsewhere (by media types and security schemes). The HTTP client
itself sets some more."""


@dataclass(frozen=True)
class Parameter:
    """`argument` is what a model calls it, `name` what the service does. `schema` is closed and bounded."""

    name: str
    place: Place
    argument: str
    schema: Schema
    required: bool = False
    style: str = "form"
    explode: bool = True
    reserved: bool = False
    """`allowReserved`: characters such as ``/`` and ``:`` are sent as they are in a query."""
    json: bool = False
    """Sent as JSON text, since the document describes it by a media type."""
    empty: bool = False
    """`allowEmptyValue`."""


@dataclass(frozen=True)
class Raw:
    """A parameter as it is written, with where."""

    node: Mapping[str, Any]
    pointer: str

    @property
    def key(self) -> tuple[str, str]:
        return str(self.node.get("in")), str(self.node.get("name"))


def gathered(document: Document, *lists: tuple[Any, str]) -> list[Raw]:
    """The parameters of a path and of an operation; the later list wins where both name the same.

    Raises:
        Fault: a list is none, an entry is no parameter or a reference leads nowhere.
    """
    found: dict[tuple[str, str], Raw] = {}
    for entries, pointer in lists:
        if entries is None:
            continue
        if not isinstance(entries, list):
            raise Fault(pointer, "is not a list of parameters")
        for number, entry in enumerate(entries):
            node, where = document.follow(entry, below(pointer, number))
            if not isinstance(node, dict) or not isinstance(node.get("name"), str) or not node["name"]:
                raise Fault(where, "is not a parameter: it has no name")
            raw = Raw(node, where)
            found[raw.key] = raw
    return list(found.values())


def read_parameter(raw: Raw, shaper: Shaper, argument: str, remarks: list[Remark]) -> Parameter | None:
    """One parameter; None for one that is not to be given, or is left out (then it is among the remarks).

    Raises:
        Fault: it is required and cannot be used.
    """
    node = raw.node
    required = node.get("required") is True or node["in"] == "path"
    try:
        if node.get("in") == "header" and node["name"].lower() in _IGNORED | OURS:
            return None
        return _read(raw, shaper, argument, required)
    except Fault as fault:
        if required:
            raise
        remarks.append(Remark(fault.pointer, f"parameter {node['name'][:60]!r} left out: {fault.why}"))
        return None


def _read(raw: Raw, shaper: Shaper, argument: str, required: bool) -> Parameter:
    node, pointer, name = raw.node, raw.pointer, str(raw.node["name"])
    place = node.get("in")
    if place not in PLACES:
        raise Fault(below(pointer, "in"), f"{str(place)[:40]!r} is no place for a parameter")
    _check_name(name, place, pointer)
    content = node.get("content")
    as_json = False
    if isinstance(content, dict) and content:
        media, inner = next(iter(content.items()))
        if not isinstance(inner, dict):
            raise Fault(below(pointer, "content", media), "is not a media type's description")
        as_json = "json" in str(media).lower()
        schema, where = inner.get("schema", True), below(pointer, "content", media, "schema")
    elif "schema" in node:
        schema, where = node["schema"], below(pointer, "schema")
    else:
        # Swagger 2.0 writes the schema into the parameter itself.
        schema = {k: v for k, v in node.items() if k not in ("required", "name", "in", "description")}
        where = pointer
    shaped = shaper.shape(schema, where, name=name, most=MAX_PARAMETER)
    described = shaper.described(shaped, node, name)
    style, explode = _style(node, place, pointer)
    return Parameter(
        name=name,
        place=place,
        argument=argument,
        schema=described,
        required=required,
        style=style,
        explode=explode,
        reserved=node.get("allowReserved") is True,
        json=as_json,
        empty=node.get("allowEmptyValue") is True,
    )


def _style(node: Mapping[str, Any], place: Place, pointer: str) -> tuple[str, bool]:
    default = STYLES[place][0]
    collection = node.get("collectionFormat")
    if collection is not None:
        if collection not in COLLECTIONS:
            raise Fault(below(pointer, "collectionFormat"), f"{str(collection)[:40]!r} is no collection format")
        return (COLLECTIONS[collection] if place == "query" else default), collection == "multi"
    if "schema" not in node and "content" not in node and "type" in node:
        return default, False  # Swagger 2.0: csv
    style = node.get("style", default)
    if style not in STYLES[place]:
        raise Fault(below(pointer, "style"), f"{str(style)[:40]!r} is not a style for a {place} parameter")
    explode = node.get("explode")
    return style, explode if isinstance(explode, bool) else style in ("form", "deepObject")


def _check_name(name: str, place: Place, pointer: str) -> None:
    if not name.isprintable() or len(name) > 100:
        raise Fault(below(pointer, "name"), "holds control characters or is longer than 100 characters")
    if place in ("header", "cookie") and not TOKEN.match(name):
        raise Fault(below(pointer, "name"), f"{name!r} cannot name a {place}")
