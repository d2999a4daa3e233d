"""Arguments that fit a schema: the fewest, or all it names. What a model that reads well would send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.connect.openapi.patterns import fits

TEXTS = {
    "date-time": "2026-05-01T12:00:00Z",
    "date": "2026-05-01",
    "time": "12:00:00Z",
    "uuid": "6f1d2c1e-7a55-4c0e-9a1b-3f8f3b6a2d10",
    "uri": "https://example.org/a",
    "email": "ada@example.org",
    "ipv4": "192.0.2.7",
}
GUESSES = (
    "refs/heads/main",
    "ssh-rsa AAAA",
    "pkg:npm/a@1",
    "sha256:" + "0" * 64,
    "sha1:" + "0" * 40,
    "pe:abc",
    "i:abc",
    "abc",
    "a1",
    "0" * 40,
    "1.2.3",
    "1234",
    "ABC-1",
    "12:30",
    "#a1b2c3",
    "a/b",
    "https://example.org/a",
    "@abc",
)


def sample(schema: Mapping[str, Any], *, full: bool) -> Any:
    """An instance of a shaped schema."""
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind is None and "anyOf" in schema:
        # Text after a number: what is read from a path or a query is text at first, and fits both.
        return sample(min(schema["anyOf"], key=lambda one: one.get("type") != "string"), full=full)
    if kind == "object":
        return _object(schema, full)
    if kind == "array":
        least = schema.get("minItems", 0)
        count = max(least, 1 if full else 0)
        items = [sample(schema["items"], full=full) for _ in range(count)]
        return _distinct(items) if schema.get("uniqueItems") else items
    if kind == "string":
        return _text(schema)
    if kind in ("integer", "number"):
        return _number(schema)
    return True if kind == "boolean" else None


def _object(schema: Mapping[str, Any], full: bool) -> dict[str, Any]:
    required = list(schema.get("required", ()))
    choices = [choice["required"] for choice in schema.get("oneOf") or schema.get("anyOf", ())]
    if choices and not any(set(choice) <= set(required) for choice in choices):
        required += choices[0]
    # Of names that exclude each other, those of the first choice.
    other = {name for choice in choices for name in choice} - set(required) if "oneOf" in schema else set()
    properties = {name: one for name, one in schema.get("properties", {}).items() if name not in other}
    made = {name: sample(one, full=full) for name, one in properties.items() if full or name in required}
    for name, one in properties.items():
        if len(made) >= schema.get("minProperties", 0):
            break
        made.setdefault(name, sample(one, full=full))
    if not properties and isinstance(schema.get("additionalProperties"), dict):
        count = max(schema.get("minProperties", 0), 1 if full else 0)
        made = {f"name{n}": sample(schema["additionalProperties"], full=full) for n in range(count)}
    return made


def _text(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("minLength", 0), schema.get("maxLength", 10_000)
    pattern = schema.get("pattern")
    texts = [TEXTS.get(schema.get("format", ""), "abc"), *GUESSES]
    texts = [text.ljust(least, "x")[:most] for text in texts]
    return next((text for text in texts if pattern is None or fits(pattern, text)), texts[0])


def _number(schema: Mapping[str, Any]) -> int | float:
    if "minimum" in schema:
        return schema["minimum"] if schema["type"] == "number" else -int(-schema["minimum"] // 1)
    if "exclusiveMinimum" in schema:
        return int(schema["exclusiveMinimum"]) + 1
    high = schema.get("maximum", schema.get("exclusiveMaximum", 9))
    step = schema.get("multipleOf", 1)
    return step if step > 1 else min(1, int(high) if "maximum" in schema else int(high) - 1)


def _distinct(items: list[Any]) -> list[Any]:
    made: list[Any] = []
    for number, item in enumerate(items):
        made.append(f"{item}{number}" if isinstance(item, str) and item in made else item)
    return made


def arguments(operation: Any, *, full: bool) -> dict[str, Any]:
    """Arguments for an operation, by the schemas that it is really held against."""
    required = set(operation.schema["required"])
    made = {p.argument: sample(p.schema, full=full) for p in operation.parameters if full or p.argument in required}
    body = operation.body
    if body is not None and (full or body.required):
        given = "aGk=" if body.base64 else sample(body.schema, full=full)
        if operation.fields:
            names = {name: argument for argument, name in operation.fields.items()}
            made |= {names[name]: value for name, value in given.items()}
        else:
            made[next(n for n in operation.schema["properties"] if n in ("body", "request_body"))] = given
    return made
