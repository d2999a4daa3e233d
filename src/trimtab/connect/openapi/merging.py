"""One plain schema from a schema with references and ``allOf``.

What is merged says what all of its parts say: properties and required names together, the tighter of two bounds, the
types and values that both permit. A schema that contains itself cannot be written out and is `Endless`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .document import Document
from .fault import Fault, below

MAX_PARTS = 200
_TIGHTER_IS_LARGER = frozenset({"minimum", "minLength", "minItems", "minProperties"})
_TIGHTER_IS_SMALLER = frozenset({"maximum", "maxLength", "maxItems", "maxProperties"})
_TEXT = frozenset({"title", "description", "default", "example", "examples", "format", "pattern", "$comment"})


class Endless(Exception):
    """A schema that contains itself, or is too large to be written out."""


class Joined(dict[str, Any]):
    """Schemas of different places that must all hold: an ``allOf`` of our own, whose parts know where they are."""

    def __init__(self, *parts: tuple[Any, str]) -> None:
        super().__init__(joined=len(parts))
        self.parts = parts


@dataclass(frozen=True)
class Flat:
    """A schema without ``$ref`` and ``allOf`` at its top. `inside` are the references it was reached through."""

    schema: Mapping[str, Any]
    pointer: str
    inside: frozenset[str]
    places: Mapping[str, str] = field(default_factory=dict)
    """Where each property is written."""
    cost: int = 1
    """How many parts and properties went into it."""


def flatten(document: Document, node: Any, pointer: str, inside: frozenset[str]) -> Flat:
    """Merge what `node` refers to and its ``allOf`` into one schema.

    Raises:
        Fault: a part is not a schema, or a reference leads nowhere.
        Endless: it contains itself.
    """
    merged: dict[str, Any] = {}
    places: dict[str, str] = {}
    budget = [MAX_PARTS]
    reached = _gather(document, node, pointer, inside, merged, places, budget)
    return Flat(merged, pointer, reached, places, MAX_PARTS - budget[0] + len(places))


def _gather(
    document: Document,
    node: Any,
    pointer: str,
    inside: frozenset[str],
    merged: dict[str, Any],
    places: dict[str, str],
    budget: list[int],
) -> frozenset[str]:
    budget[0] -= 1
    if budget[0] < 0 or len(inside) > MAX_PARTS:
        raise Endless
    if node is True:
        return inside
    if isinstance(node, Joined):
        reached = inside
        for part, where in node.parts:
            reached |= _gather(document, part, where, inside, merged, places, budget)
        return reached
    if not isinstance(node, dict):
        raise Fault(pointer, f"is no schema but {_kind(node)}")
    reached = inside
    if isinstance(target := node.get("$ref"), str):
        if target in inside:
            raise Endless
        found, _ = document.find(target, pointer)
        reached |= _gather(document, found, target, inside | {target}, merged, places, budget)
    parts = node.get("allOf")
    if parts is not None and not isinstance(parts, list):
        raise Fault(below(pointer, "allOf"), "is not a list")
    for number, part in enumerate(parts or ()):
        reached |= _gather(document, part, below(pointer, "allOf", number), inside, merged, places, budget)
    own = {key: value for key, value in node.items() if key not in ("$ref", "allOf")}
    _merge(merged, own, pointer, places)
    return reached


def _merge(into: dict[str, Any], part: Mapping[str, Any], pointer: str, places: dict[str, str]) -> None:
    for key, value in part.items():
        if key == "properties":
            _merge_properties(into, value, pointer, places)
        elif key not in into:
            into[key] = value
        elif key == "required":
            into[key] = [*_list(into[key]), *(name for name in _list(value) if name not in _list(into[key]))]
        elif key in _TIGHTER_IS_LARGER:
            into[key] = max((n for n in (into[key], value) if _number(n)), default=None)
        elif key in _TIGHTER_IS_SMALLER:
            into[key] = min((n for n in (into[key], value) if _number(n)), default=None)
        elif key in ("type", "enum"):
            into[key] = _common(into[key], value, pointer, key)
        elif key in ("anyOf", "oneOf"):
            # Both must hold; the first is kept, the second is what the service checks.
            continue
        elif key == "nullable":
            into[key] = into[key] is True and value is True
        elif key in _TEXT or key != "additionalProperties":
            into[key] = value
        elif value is not True:
            into[key] = value if into[key] is not False else False


def _merge_properties(into: dict[str, Any], value: Any, pointer: str, places: dict[str, str]) -> None:
    if not isinstance(value, dict):
        raise Fault(below(pointer, "properties"), f"is not a mapping but {_kind(value)}")
    known = into["properties"] = dict(into.get("properties") or {})
    for name, schema in value.items():
        place = below(pointer, "properties", name)
        twice = name in known and known[name] != schema
        known[name] = Joined((known[name], places[name]), (schema, place)) if twice else schema
        places[name] = place


def _common(left: Any, right: Any, pointer: str, key: str) -> Any:
    ours, theirs = _many(left), _many(right)
    both = [item for item in ours if item in theirs]
    if key == "type" and not both and {"integer", "number"} <= {*map(str, ours), *map(str, theirs)}:
        both = ["integer"]
    if not both:
        raise Fault(below(pointer, key), "contradicts another part of the same allOf")
    return both if isinstance(left, list) or isinstance(right, list) else both[0]


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return names.get(type(value), "a mapping")
