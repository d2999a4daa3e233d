"""JSON schemas as rules. The JSON is written compactly (``{"a": 1, "b": [2]}``): where any white space is allowed, a
small model loses itself in it.

Properties come in the order of the schema. What cannot be built is refused (``not``, ``if``, ``patternProperties``...),
with three exceptions that a validator must check afterwards: limits of numbers, ``uniqueItems``, and `maxLength` beyond
128 or `minLength` beyond 32, whose compilation would hold everybody up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any as Anything

from . import regex
from .grammar import EMPTY, All, Any, Chars, Literal, Node, Ref, Repeat, Rules, optional
from .refusal import Refusal

_DEEP = 40
_MOST_RULES = 2_000
_REFUSED = (
    "not if then else patternProperties propertyNames dependentRequired dependentSchemas dependencies contains "
    "unevaluatedProperties unevaluatedItems $dynamicRef minProperties maxProperties"
).split()
_LENGTHS = (32, 128)
_HEX = Chars(((0x30, 0x39), (0x41, 0x46), (0x61, 0x66)))
_DIGITS = Chars(((0x30, 0x39),))
_CHAR = Any(
    (
        Chars(((0x22, 0x22), (0x5C, 0x5C), (0x00, 0x1F)), negated=True),
        All(
            (
                Literal("\\"),
                Any((Chars(tuple((ord(c), ord(c)) for c in '"\\/bfnrt')), All((Literal("u"), *[_HEX] * 4)))),
            )
        ),
    )
)
_BASE: dict[str, Node] = {
    "char": _CHAR,
    "string": All((Literal('"'), Repeat(Ref("char"), 0, None), Literal('"'))),
    "integer": All(
        (optional(Literal("-")), Any((Literal("0"), All((Chars(((0x31, 0x39),)), Repeat(_DIGITS, 0, 15))))))
    ),
    "number": All(
        (
            Ref("integer"),
            optional(All((Literal("."), Repeat(_DIGITS, 1, 16)))),
            optional(
                All(
                    (
                        Chars(((0x45, 0x45), (0x65, 0x65))),
                        optional(Chars(((0x2B, 0x2B), (0x2D, 0x2D)))),
                        Repeat(_DIGITS, 1, 3),
                    )
                )
            ),
        )
    ),
    "boolean": Any((Literal("true"), Literal("false"))),
    "null": Literal("null"),
    "value": Any(tuple(Ref(n) for n in ("object", "array", "string", "number", "boolean", "null"))),
    "member": All((Ref("string"), Literal(": "), Ref("value"))),
    "object": All(
        (
            Literal("{"),
            optional(All((Ref("member"), Repeat(All((Literal(", "), Ref("member"))), 0, None)))),
            Literal("}"),
        )
    ),
    "array": All(
        (Literal("["), optional(All((Ref("value"), Repeat(All((Literal(", "), Ref("value"))), 0, None)))), Literal("]"))
    ),
}
_TYPES = ("string", "integer", "number", "boolean", "null", "object", "array")
_FORMATS = {
    "date": r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])",
    "time": r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?(Z|[+-][0-2][0-9]:[0-5][0-9])?",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
}
_FORMATS["date-time"] = _FORMATS["date"] + "T" + _FORMATS["time"]


def read(schema: Anything) -> Rules:
    """The rules of a schema.

    Raises:
        Refusal: the schema is wrong, too big, or has a part that cannot be built.
    """
    builder = _Builder(schema)
    builder.rules.rules.update(_BASE)
    builder.rules.rules["root"] = builder.node(schema, 0)
    return builder.rules


class _Builder:
    def __init__(self, schema: Anything) -> None:
        self._whole = schema
        self.rules = Rules()
        self._refs: dict[str, str] = {}

    def node(self, schema: Anything, depth: int) -> Node:
        if depth > _DEEP or len(self._refs) > _MOST_RULES:
            raise Refusal(400, "the schema is nested too deeply")
        if schema is True or schema == {}:
            return Ref("value")
        if not isinstance(schema, Mapping):
            raise Refusal(400, "each part of a JSON schema must be an object")
        for name in _REFUSED:
            if name in schema:
                raise Refusal(
                    400, f"this engine cannot keep to `{name}` in a schema; leave it out and check the answer"
                )
        if "$ref" in schema:
            return self._ref(schema["$ref"], depth)
        if "const" in schema:
            return Literal(_compact(schema["const"]))
        if "enum" in schema:
            return self._enum(schema["enum"])
        for name in ("anyOf", "oneOf"):
            if name in schema:
                return self._any(schema, name, depth)
        if "allOf" in schema:
            return self.node(self._merged(schema, depth), depth + 1)
        return self._typed(schema, depth)

    def _typed(self, schema: Mapping[str, Anything], depth: int) -> Node:
        kind = schema.get("type")
        if isinstance(kind, list):
            if not kind or not all(k in _TYPES for k in kind):
                raise Refusal(400, "a schema's `type` must be one of JSON's types")
            return Any(tuple(self._typed({**schema, "type": k}, depth + 1) for k in kind))
        if kind is None:
            inferred = "object" if "properties" in schema else "array" if "items" in schema else None
            inferred = "string" if inferred is None and ("pattern" in schema or "maxLength" in schema) else inferred
            return Ref("value") if inferred is None else self._typed({**schema, "type": inferred}, depth)
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, depth)
        if kind == "string":
            return self._string(schema)
        if kind not in _TYPES:
            raise Refusal(400, "a schema's `type` must be one of JSON's types")
        return Ref(str(kind))

    def _ref(self, pointer: Anything, depth: int) -> Node:
        if not isinstance(pointer, str) or not pointer.startswith("#"):
            raise Refusal(400, "a schema's `$ref` must point into the schema itself (#/...)")
        if pointer not in self._refs:
            self._refs[pointer] = name = f"ref{len(self._refs)}"
            self.rules.rules[name] = self.node(self._find(pointer), depth + 1)
        return Ref(self._refs[pointer])

    def _find(self, pointer: str) -> Anything:
        found = self._whole
        for part in pointer.removeprefix("#").split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            found = found.get(key) if isinstance(found, Mapping) else None
            if found is None:
                raise Refusal(400, "a schema's `$ref` points to nothing")
        return found

    def _enum(self, values: Anything) -> Node:
        if not isinstance(values, list) or not values:
            raise Refusal(400, "a schema's `enum` must be a list of values")
        return Any(tuple(Literal(_compact(v)) for v in values))

    def _any(self, schema: Mapping[str, Anything], name: str, depth: int) -> Node:
        rest = {k: v for k, v in schema.items() if k != name and k in ("properties", "required", "type", "items")}
        options = schema[name]
        if not isinstance(options, list) or not options:
            raise Refusal(400, f"a schema's `{name}` must be a list of schemas")
        return Any(
            tuple(self.node({**rest, **o} if rest and isinstance(o, Mapping) else o, depth + 1) for o in options)
        )

    def _merged(self, schema: Mapping[str, Anything], depth: int) -> dict[str, Anything]:
        """`allOf` as one schema, where its parts say different things."""
        merged: dict[str, Anything] = {k: v for k, v in schema.items() if k != "allOf"}
        parts = schema["allOf"]
        for part in parts if isinstance(parts, list) else [None]:
            found = (
                self._find(part["$ref"]) if isinstance(part, Mapping) and isinstance(part.get("$ref"), str) else part
            )
            if not isinstance(found, Mapping):
                raise Refusal(400, "a schema's `allOf` must be a list of schemas")
            for key, value in found.items():
                if key == "properties" and isinstance(value, Mapping):
                    merged[key] = {**merged.get(key, {}), **value}
                elif key == "required" and isinstance(value, list):
                    merged[key] = [*merged.get(key, []), *value]
                elif merged.setdefault(key, value) != value and key not in ("title", "description", "$defs"):
                    raise Refusal(400, f"the parts of a schema's `allOf` say different things of `{key[:40]}`")
        return merged

    def _object(self, schema: Mapping[str, Anything], depth: int) -> Node:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        if not isinstance(properties, Mapping) or not isinstance(required, list):
            raise Refusal(400, "a schema's `properties` must be an object and `required` a list")
        more = schema.get("additionalProperties", not properties)
        members = [(n, self._member(n, s, depth), n in required) for n, s in properties.items()]
        members += [
            (n, self._member(n, True, depth), True) for n in required if isinstance(n, str) and n not in properties
        ]
        extra = None
        if more is not False and (more is not True or not properties):
            extra = All((Ref("string"), Literal(": "), self.node(more, depth + 1)))
        return All((Literal("{"), self._members(members, extra), Literal("}")))

    def _member(self, name: str, schema: Anything, depth: int) -> Node:
        return All((Literal(_compact(name) + ": "), self.node(schema, depth + 1)))

    def _members(self, members: list[tuple[str, Node, bool]], extra: Node | None) -> Node:
        """Members in order; optional ones may be missing. Each rule is the rest after a member that was written."""
        tail: Node = Repeat(All((Literal(", "), extra)), 0, None) if extra else EMPTY
        first: Node = optional(All((extra, tail))) if extra else EMPTY
        for _, member, needed in reversed(members):
            name = f"rest{len(self.rules.rules)}"
            self.rules.rules[name] = tail
            written = All((member, Ref(name)))
            after = All((Literal(", "), written))
            first, tail = (written, after) if needed else (Any((written, first)), Any((after, Ref(name))))
        return first

    def _array(self, schema: Mapping[str, Anything], depth: int) -> Node:
        fixed = schema.get("prefixItems", [])
        low, high = _limits(schema, "minItems", "maxItems")
        if isinstance(fixed, list) and fixed:
            parts: list[Node] = []
            for item in fixed:
                parts += [*([Literal(", ")] if parts else []), self.node(item, depth + 1)]
            return All((Literal("["), *parts, Literal("]")))
        if high == 0:
            return Literal("[]")
        name = f"item{len(self.rules.rules)}"
        self.rules.rules[name] = EMPTY
        self.rules.rules[name] = self.node(schema.get("items", True), depth + 1)
        more = Repeat(All((Literal(", "), Ref(name))), max(0, low - 1), None if high is None else high - 1)
        inner = All((Ref(name), more))
        return All((Literal("["), inner if low else optional(inner), Literal("]")))

    def _string(self, schema: Mapping[str, Anything]) -> Node:
        low, high = _limits(schema, "minLength", "maxLength")
        form = schema.get("format")
        inner: Node = Repeat(
            Ref("char"), min(low, _LENGTHS[0]), high if high is not None and high <= _LENGTHS[1] else None
        )
        if isinstance(pattern := schema.get("pattern"), str):
            inner = _quoted(regex.read(pattern, Ref("char")))
        elif form in _FORMATS:
            inner = regex.read(_FORMATS[str(form)])
        return All((Literal('"'), inner, Literal('"')))


def _quoted(node: Node) -> Node:
    """What a pattern matches, as it stands inside a JSON string."""
    if isinstance(node, Literal):
        return Literal(json.dumps(node.text, ensure_ascii=False)[1:-1])
    if isinstance(node, Chars):
        return _quoted_chars(node)
    if isinstance(node, All):
        return All(tuple(map(_quoted, node.parts)))
    if isinstance(node, Any):
        return Any(tuple(map(_quoted, node.choices)))
    return Repeat(_quoted(node.part), node.low, node.high) if isinstance(node, Repeat) else node


def _quoted_chars(node: Chars) -> Node:
    awkward = ((0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C))
    if node.negated:
        return Chars((*node.ranges, *awkward), negated=True)
    plain: list[tuple[int, int]] = []
    for low, high in node.ranges:
        at = max(low, 0x20)
        for bad in (0x22, 0x5C):
            if at <= bad <= high:
                plain += [(at, bad - 1)] if bad > at else []
                at = bad + 1
        plain += [(at, high)] if at <= high else []
    escaped = [Literal("\\" + c) for c in '"\\' if any(a <= ord(c) <= b for a, b in node.ranges)]
    return Any((*([Chars(tuple(plain))] if plain else []), *escaped)) if plain or escaped else Literal(" ")


def _limits(schema: Mapping[str, Anything], least: str, most: str) -> tuple[int, int | None]:
    low, high = schema.get(least, 0), schema.get(most)
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in (low, 0 if high is None else high))
    if not whole or (high is not None and high < low):
        raise Refusal(400, f"a schema's `{least}` and `{most}` must be whole numbers, the first not above the second")
    return low, high


def _compact(value: Anything) -> str:
    return json.dumps(value, ensure_ascii=False)
