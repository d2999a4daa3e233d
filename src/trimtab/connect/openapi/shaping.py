"""From a document's schema to one a model may be shown: closed, described, of bounded size, without references.

What is written out is JSON Schema 2020-12. An object takes the properties it names and no others; a free-form one takes
plain values two levels deep. Where a schema contains itself, or goes deeper than the `Detail` allows, an optional
property is left out, and a required one takes a free-form object. `oneOf` becomes `anyOf`. What only the service can
judge (`not`, `if`, `dependentSchemas`, look-around in patterns) is dropped.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .document import Document
from .fault import Fault, Remark, below
from .merging import Endless, Flat, Joined, flatten
from .patterns import compiled
from .words import sentence, words

Schema = dict[str, Any]

SCALARS = ("string", "integer", "number", "boolean")
MAX_STRING = 20_000
MAX_ITEMS = 100
MAX_ENUM = 500
MAX_BRANCHES = 12
MAX_STEPS = 3000
"""Schemas looked at for one argument, however they are nested."""
MAX_EFFORT = 20_000_000
"""Parts of schemas looked at for one document."""


@dataclass(frozen=True)
class Detail:
    """How much is written out: levels of nesting, characters of a description, optional properties of one object."""

    depth: int
    description: int
    properties: int


DETAILS = (Detail(6, 160, 60), Detail(4, 80, 40), Detail(3, 40, 25), Detail(2, 0, 12), Detail(1, 0, 6))
"""Tried in turn until the schema fits."""


@dataclass
class Effort:
    """What has been spent on a document: a small one may be written so that it takes forever."""

    spent: int = 0

    def spend(self, much: int, pointer: str) -> None:
        self.spent += much
        if self.spent > MAX_EFFORT:
            raise Fault(pointer, "was not looked at: the schemas before it are too entangled")


class Shaper:
    """Shapes schemas of one document. `remark` is told of the parts that were left out."""

    def __init__(self, document: Document, remark: Callable[[Remark], None], effort: Effort) -> None:
        self._document = document
        self._remark = remark
        self._effort = effort
        self._detail = DETAILS[0]
        self._steps = 0

    def shape(self, node: Any, pointer: str, *, name: str, most: int) -> Schema:
        """`node` as at most about `most` characters of JSON; `name` describes it where the document does not.

        Raises:
            Fault: it cannot be understood, or not be made small enough.
        """
        seen: list[Remark] = []
        size = 0
        for detail in DETAILS:
            self._detail, self._steps = detail, 0
            seen.clear()
            try:
                shaped = self._shape(node, pointer, name, detail.depth, frozenset(), seen)
            except Endless:
                shaped = _described(free(), self._about({}, name))
            size = len(json.dumps(shown(shaped), ensure_ascii=False))
            if size <= most:
                for remark in seen:
                    self._remark(remark)
                return shaped
        raise Fault(pointer, f"takes {size:,} characters when written out for a model, which is more than {most:,}")

    def described(self, shaped: Schema, node: Mapping[str, Any], name: str) -> Schema:
        """`shaped` with what the place that uses it says about it, which is nearer than what the schema says."""
        about = sentence(node.get("description"), DETAILS[0].description)
        return _described(shaped, about or shaped.get("description", "") or words(name) or "value")

    def _shape(
        self, node: Any, pointer: str, name: str, depth: int, inside: frozenset[str], seen: list[Remark]
    ) -> Schema:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise Endless
        flat = flatten(self._document, node, pointer, inside)
        self._effort.spend(flat.cost, pointer)
        schema = flat.schema
        nullable = schema.get("nullable") is True
        if branches := _branches(schema):
            if depth < -2:
                raise Endless
            shaped = self._any_of(flat, branches, name, depth, seen)
        else:
            kinds, null = _kinds(schema, pointer)
            if depth < 0 and not {*kinds} <= {*SCALARS}:
                raise Endless  # scalars are written out however deep they are
            nullable = nullable or null
            made = [self._of_kind(kind, flat, name, depth, seen) for kind in kinds]
            shaped = made[0] if len(made) == 1 else {"anyOf": made}
        return _described(_nullable(shaped) if nullable else shaped, self._about(schema, name))

    def _any_of(self, flat: Flat, branches: list[tuple[Any, str]], name: str, depth: int, seen: list[Remark]) -> Schema:
        """One of several shapes; each is closed by itself, so what stands beside the choice goes into each."""
        beside = {key: value for key, value in flat.schema.items() if key not in ("anyOf", "oneOf", "discriminator")}
        told = _discriminator(flat.schema)
        made: list[Schema] = []
        fault: Fault | None = None
        null = False
        for branch, where in branches[:MAX_BRANCHES]:
            if isinstance(branch, dict) and branch.get("type") == "null":
                null = True
                continue
            own = {"description": branch.get("description", "") if isinstance(branch, dict) else ""}
            pointer = flat.pointer + where
            try:
                one = self._branch(
                    ((beside, flat.pointer), (branch, pointer), (own, pointer)), told(branch), depth, flat, seen
                )
            except Endless:
                continue
            except Fault as problem:
                fault = problem
                continue
            if one not in made:
                made.append(one)
        if not made:
            if fault:
                raise fault
            if null:
                return {"type": "null"}
            raise Endless
        shaped = made[0] if len(made) == 1 else {"anyOf": made}
        return _nullable(shaped) if null else shaped

    def _branch(
        self, parts: tuple[tuple[Any, str], ...], told: Schema, depth: int, flat: Flat, seen: list[Remark]
    ) -> Schema:
        """One of several shapes. What the discriminator says is left away where the shape itself says otherwise."""
        pointer = parts[1][1]
        if told:
            try:
                return self._shape(Joined(*parts, (told, pointer)), pointer, "", depth - 1, flat.inside, seen)
            except Fault:
                pass
        return self._shape(Joined(*parts), pointer, "", depth - 1, flat.inside, seen)

    def _of_kind(self, kind: str, flat: Flat, name: str, depth: int, seen: list[Remark]) -> Schema:
        if kind == "object":
            return self._object(flat, depth, seen)
        if kind == "array":
            return self._array(flat, name, depth, seen)
        if kind == "any":
            return free()
        return _scalar(kind, flat.schema)

    def _object(self, flat: Flat, depth: int, seen: list[Remark]) -> Schema:
        schema = flat.schema
        properties = schema.get("properties") or {}
        if not isinstance(properties, dict):
            raise Fault(below(flat.pointer, "properties"), "is not a mapping")
        wanted = schema.get("required")
        required = [n for n in wanted if isinstance(n, str)] if isinstance(wanted, list) else []
        extra = self._extra(flat, depth, bool(properties), seen)
        made: Schema = {}
        optional = 0
        for name, node in sorted(properties.items(), key=lambda item: item[0] not in required):
            if optional >= self._detail.properties and name not in required:
                break
            place = flat.places.get(name, below(flat.pointer, "properties", name))
            one = self._property(name, node, place, name in required, depth, flat.inside, seen)
            if one is not None:
                made[name] = one
                optional += name not in required
        shaped: Schema = {"type": "object", "properties": made}
        if kept := [name for name in dict.fromkeys(required) if name in made]:
            shaped["required"] = kept
        if not properties and extra is not False:
            shaped.pop("properties")
            shaped["maxProperties"] = _size(schema.get("maxProperties"), MAX_ITEMS)
        if count := _whole(schema.get("minProperties")):
            shaped["minProperties"] = count
        shaped["additionalProperties"] = extra
        return shaped | _required_choices(schema, made)

    def _property(
        self,
        name: str,
        node: Any,
        pointer: str,
        required: bool,
        depth: int,
        inside: frozenset[str],
        seen: list[Remark],
    ) -> Schema | None:
        if not _printable(name):
            if required:
                raise Fault(pointer, "its name holds control characters or is too long")
            seen.append(Remark(pointer, "left out: its name holds control characters or is too long"))
            return None
        if isinstance(node, dict) and node.get("readOnly") is True:
            return None
        try:
            return self._shape(node, pointer, name, depth - 1, inside, seen)
        except Endless:
            return _described(self._unfolded(node, pointer), self._about({}, name)) if required else None
        except Fault as fault:
            if required:
                raise
            seen.append(Remark(fault.pointer, f"left out: {fault.why}"))
            return None

    def _unfolded(self, node: Any, pointer: str) -> Schema:
        """What is too deep to be written out, of the right type at least."""
        try:
            flat = flatten(self._document, node, pointer, frozenset())
            kinds, _ = _kinds(flat.schema, pointer)
        except (Endless, Fault):
            return free()
        return {"type": "array", "items": value(1), "maxItems": MAX_ITEMS} if kinds == ["array"] else free()

    def _extra(self, flat: Flat, depth: int, named: bool, seen: list[Remark]) -> Schema | bool:
        """`additionalProperties`: closed where properties are named, unless the document itself gives a schema."""
        given = flat.schema.get("additionalProperties")
        if given is False or (named and not (isinstance(given, dict) and given)):
            return False
        patterns = flat.schema.get("patternProperties")
        pointer = below(flat.pointer, "additionalProperties")
        if not isinstance(given, dict) and isinstance(patterns, dict) and patterns:
            given, pointer = {"anyOf": list(patterns.values())}, below(flat.pointer, "patternProperties")
        if not isinstance(given, dict) or not given:
            return value(1)
        try:
            return self._shape(given, pointer, "value", depth - 1, flat.inside, seen)
        except Endless:
            return value(1)

    def _array(self, flat: Flat, name: str, depth: int, seen: list[Remark]) -> Schema:
        schema = flat.schema
        pointer = below(flat.pointer, "items")
        items = schema.get("items", True)
        several = schema.get("prefixItems") or (items if isinstance(items, list) else None)
        if isinstance(several, list) and several:
            items = {"anyOf": several}
        if items is True or items in ({}, []):
            inner = value(1)
        else:
            inner = self._shape(items, pointer, name, depth - 1, flat.inside, seen)
        shaped: Schema = {"type": "array", "items": inner, "maxItems": _size(schema.get("maxItems"), MAX_ITEMS)}
        if least := _whole(schema.get("minItems")):
            shaped["minItems"] = min(least, shaped["maxItems"])
        if schema.get("uniqueItems") is True:
            shaped["uniqueItems"] = True
        return shaped

    def _about(self, schema: Mapping[str, Any], name: str) -> str:
        said = sentence(schema.get("description") or schema.get("title"), self._detail.description)
        example = schema.get("example", (_list(schema.get("examples")) or [None])[0])
        if self._detail.description and isinstance(example, str | int | float) and len(str(example)) <= 60:
            said = f"{said} (e.g. {sentence(str(example), 60)})".lstrip()
        return said or words(name)


def shown(schema: Any) -> Any:
    """What a model is given of a shaped schema: no patterns and no bare choices of required names, short enums.

    Grammars and other checkers read what a model is given; a pattern of a stranger's could keep those busy for years.
    """
    if isinstance(schema, list):
        return [shown(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made: Schema = {}
    for key, inner in schema.items():
        if key == "properties":
            made[key] = {name: shown(one) for name, one in inner.items()}
        elif key == "pattern" or (key in ("anyOf", "oneOf") and "type" in schema):
            continue
        elif (key, inner) in (("maxLength", MAX_STRING), ("maxItems", MAX_ITEMS), ("maxProperties", MAX_ITEMS)):
            continue  # our own bounds, which are held all the same: saying them at each place costs tokens
        elif key in ("enum", "required", "default"):
            made[key] = inner
        else:
            made[key] = shown(inner) if isinstance(inner, dict | list) else inner
    if len(values := made.get("enum", ())) > 60 or len(json.dumps(values)) > 1500:
        made["description"] = f"{made.get('description', '')} (one of {len(values)} values)".lstrip()
        first = _fitting(values)
        made["description"] += f", such as {', '.join(map(str, first))}" if first else ""
        del made["enum"]
    return made


def value(levels: int) -> Schema:
    """Any plain value; lists and mappings of such, as many levels deep."""
    scalars: list[Schema] = [
        {"type": "string", "maxLength": MAX_STRING},
        {"type": "number"},
        {"type": "boolean"},
        {"type": "null"},
    ]
    if not levels:
        return {"anyOf": scalars}
    inner = value(levels - 1)
    listed = {"type": "array", "items": inner, "maxItems": MAX_ITEMS}
    return {"anyOf": [*scalars, listed, free(levels - 1)]}


def free(levels: int = 1) -> Schema:
    """An object of any names, where the document says no more."""
    return {"type": "object", "maxProperties": MAX_ITEMS, "additionalProperties": value(levels)}


def _scalar(kind: str, schema: Mapping[str, Any]) -> Schema:
    shaped: Schema = {"type": kind}
    options = schema["enum"] if isinstance(schema.get("enum"), list) else [schema["const"]] if "const" in schema else []
    if found := _options(kind, options):
        shaped["enum"] = found
    elif kind == "string":
        shaped |= _text(schema)
    elif kind != "boolean":
        shaped |= _bounds(schema, kind)
    default = schema.get("default")
    if isinstance(default, str | int | float) and _is(kind, default) and len(str(default)) <= 60:
        shaped["default"] = default
    return shaped


def _text(schema: Mapping[str, Any]) -> Schema:
    shaped: Schema = {"maxLength": _size(schema.get("maxLength"), MAX_STRING)}
    if least := _whole(schema.get("minLength")):
        shaped["minLength"] = min(least, shaped["maxLength"])
    pattern = schema.get("pattern")
    if isinstance(pattern, str) and compiled(pattern):
        shaped["pattern"] = pattern
    name = schema.get("format")
    if isinstance(name, str) and 0 < len(name) <= 30 and name.replace("-", "").isalnum():
        shaped["format"] = name
    return shaped


def _bounds(schema: Mapping[str, Any], kind: str) -> Schema:
    shaped: Schema = {}
    for key, strict in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        limit, beyond = schema.get(key), schema.get(strict)
        if _finite(limit):
            shaped[strict if beyond is True else key] = limit  # 3.0 and 2.0 say `exclusiveMinimum: true` beside it
        if _finite(beyond):
            shaped[strict] = beyond
    step = schema.get("multipleOf")
    # A step such as 0.01 finds 0.07 wrong in floating point: the service knows better.
    if isinstance(step, int) and not isinstance(step, bool) and step > 1:
        shaped["multipleOf"] = step
    low, high = shaped.get("minimum"), shaped.get("maximum")
    return shaped if low is None or high is None or low <= high else {}


def _options(kind: str, options: list[Any]) -> list[Any]:
    """The permitted values as values of that kind: documents write numbers as text and text as numbers."""
    made: list[Any] = []
    for option in options[:MAX_ENUM]:
        if kind == "string" and isinstance(option, bool | int | float):
            option = str(option).lower() if isinstance(option, bool) else str(option)
        elif kind in ("integer", "number") and isinstance(option, str):
            try:
                option = int(option) if kind == "integer" else float(option)
            except ValueError:
                continue
        if _is(kind, option) and option not in made and len(str(option)) <= 300:
            made.append(option)
    return made if len(options) <= MAX_ENUM else []


def _kinds(schema: Mapping[str, Any], pointer: str) -> tuple[list[str], bool]:
    """The types a schema permits, and whether null is one of them."""
    given = schema.get("type")
    named = given if isinstance(given, list) else [given] if given is not None else []
    null = "null" in named
    kinds = ["string" if kind == "file" else kind for kind in named if kind != "null"]
    for kind in kinds:
        if kind not in (*SCALARS, "object", "array"):
            raise Fault(below(pointer, "type"), f"{str(kind)[:60]!r} is not a type")
    if kinds or null:
        return (kinds or ["any"]), null
    return [_guessed(schema)], False


def _guessed(schema: Mapping[str, Any]) -> str:
    """The type of a schema that names none."""
    if {"properties", "additionalProperties", "patternProperties", "required", "minProperties"} & schema.keys():
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    options = schema.get("enum") if isinstance(schema.get("enum"), list) else None
    options = [schema["const"]] if options is None and "const" in schema else options
    if options:
        kinds = [kind for kind in ("boolean", "integer", "number") if all(_is(kind, one) for one in options)]
        return kinds[0] if kinds else "string"
    if {"minimum", "maximum", "multipleOf"} & schema.keys():
        return "number"
    return "string" if {"pattern", "format", "maxLength", "minLength"} & schema.keys() else "any"


def _branches(schema: Mapping[str, Any]) -> list[tuple[Any, str]]:
    """The choices of ``oneOf`` or ``anyOf``, unless they only choose which names are required."""
    for key in ("oneOf", "anyOf"):
        given = schema.get(key)
        if isinstance(given, list) and given and not all(_only_requires(one) for one in given):
            return [(one, below("", key, number)) for number, one in enumerate(given)]
    return []


def _only_requires(branch: Any) -> bool:
    return isinstance(branch, dict) and not branch.keys() - {"required", "description", "title"}


def _required_choices(schema: Mapping[str, Any], made: Mapping[str, Any]) -> Schema:
    """``anyOf`` or ``oneOf`` that only says which names are required together."""
    for key in ("anyOf", "oneOf"):
        given = schema.get(key)
        if isinstance(given, list) and 0 < len(given) <= MAX_BRANCHES and all(_only_requires(one) for one in given):
            names = [[n for n in _list(one.get("required")) if isinstance(n, str)] for one in given]
            if possible := [choice for choice in names if all(name in made for name in choice)]:
                return {key: [{"required": choice} for choice in possible]}
    return {}


def _discriminator(schema: Mapping[str, Any]) -> Callable[[Any], Schema]:
    """For a branch that is a reference: the property that tells it apart, with the value that means this branch."""
    given = schema.get("discriminator")
    name = given.get("propertyName") if isinstance(given, dict) else None
    mapping = given.get("mapping") if isinstance(given, dict) and isinstance(given.get("mapping"), dict) else {}
    meant = {str(target).rpartition("/")[2]: label for label, target in (mapping or {}).items()}

    def told(branch: Any) -> Schema:
        target = branch.get("$ref") if isinstance(branch, dict) else None
        if not isinstance(name, str) or not isinstance(target, str) or not target.startswith("#/"):
            return {}
        label = meant.get(target.rpartition("/")[2], target.rpartition("/")[2])
        return {"properties": {name: {"type": "string", "enum": [label]}}, "required": [name]}

    return told


def _nullable(shaped: Schema) -> Schema:
    if "anyOf" in shaped and "type" not in shaped:
        if {"type": "null"} in shaped["anyOf"]:
            return shaped
        return {**shaped, "anyOf": [*shaped["anyOf"], {"type": "null"}]}
    if shaped.get("type") == "null" or isinstance(shaped["type"], list):
        return shaped
    made = {**shaped, "type": [shaped["type"], "null"]}
    if "enum" in made:
        made["enum"] = [*made["enum"], None]
    return made


def _described(shaped: Schema, about: str) -> Schema:
    return {**shaped, "description": about} if about else shaped


def _printable(name: Any) -> bool:
    return isinstance(name, str) and 0 < len(name) <= 100 and name.isprintable()


def _is(kind: str, option: Any) -> bool:
    if isinstance(option, bool):
        return kind == "boolean"
    if kind == "integer":
        return isinstance(option, int) and abs(option) < 2**63
    return isinstance(option, str) if kind == "string" else kind == "number" and _finite(option)


def _finite(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)


def _whole(number: Any) -> int:
    return number if isinstance(number, int) and not isinstance(number, bool) and 0 < number < 2**31 else 0


def _size(given: Any, most: int) -> int:
    found = _whole(given)
    return min(found, most) if found else most


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _fitting(values: Any) -> list[Any]:
    return [one for one in values[:8] if len(str(one)) <= 40]
