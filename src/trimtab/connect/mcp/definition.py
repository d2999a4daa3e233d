"""What a server says a tool is, and whether a model may be shown that.

A definition is pinned by the sha256 of its name, title, description and schemas. Its text comes from a stranger: it is
cleaned and shortened before anyone reads it. Its schema is checked before anything is validated with it: a schema can
fetch an address (a `$ref`), never end (one that refers to itself) or take hours (a regular expression).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing.exceptions import Unresolvable

from trimtab.domain.errors import InvalidInput

from ..result import clean, shorten

MAX_DESCRIPTION = 2000
MAX_SCHEMA = 40_000
"""Characters of JSON."""
MAX_DEPTH = 24
MAX_NAME = 128
UNRUNNABLE = frozenset({"pattern", "patternProperties", "format", "$dynamicRef", "$recursiveRef", "$id", "$schema",
                        "$anchor", "$dynamicAnchor"})  # fmt: skip
"""Not taken over. The server checks its own patterns."""
TEXTS = frozenset({"description", "title", "$comment"})
NAMES_INSIDE = frozenset({"properties", "$defs", "definitions", "dependentSchemas"})
LITERAL = frozenset({"const", "enum", "default", "examples", "required", "dependentRequired"})


@dataclass(frozen=True)
class Definition:
    """A tool as its server describes it. `only_reads` and `destroys` are the server's own word for it: hints."""

    name: str
    title: str
    description: str
    schema: Mapping[str, Any]
    result: Mapping[str, Any] | None = None
    """Schema of the structured result."""
    only_reads: bool = False
    destroys: bool = False

    @property
    def sha256(self) -> str:
        pinned = [self.name, self.title, self.description, self.schema, self.result]
        return hashlib.sha256(json.dumps(pinned, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @property
    def told(self) -> str:
        """The description as a model reads it."""
        text = " ".join(clean(self.description or self.title or self.name)[0].split())
        return shorten(text, MAX_DESCRIPTION)[0]

    def usable(self) -> dict[str, Any]:
        """The schema as we validate with it and show it.

        Raises:
            InvalidInput: it is no schema, or one that is not safe to use.
        """
        if not 0 < len(self.name) <= MAX_NAME:
            raise InvalidInput("A tool's name is empty or too long.")
        if len(json.dumps(self.schema)) > MAX_SCHEMA:
            raise InvalidInput(f"The schema of {self.name!r} is larger than {MAX_SCHEMA} characters.")
        schema = _kept(self.schema, self.name, 0)
        if not isinstance(schema, dict) or schema.get("type", "object") != "object":
            raise InvalidInput(f"The arguments of {self.name!r} are not an object.")
        usable = {"type": "object", "properties": {}, **schema}
        _insist_on_ending(usable, self.name)
        return usable

    def wire(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "title": self.title,
            "description": self.description,
            "schema": dict(self.schema),
            "result": None if self.result is None else dict(self.result),
            "only_reads": self.only_reads,
            "destroys": self.destroys,
        }

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Definition:
        return cls(**{name: data[name] for name in cls.__dataclass_fields__})


def _kept(value: Any, tool: str, depth: int, *, names: bool = False) -> Any:
    if depth > MAX_DEPTH:
        raise InvalidInput(f"The schema of {tool!r} is nested more than {MAX_DEPTH} deep.")
    if isinstance(value, list):
        return [_kept(item, tool, depth + 1) for item in value]
    if not isinstance(value, Mapping):
        return value
    kept: dict[str, Any] = {}
    for name, inner in value.items():
        if names:
            kept[name] = _kept(inner, tool, depth + 1)
        elif name == "$ref":
            if not (isinstance(inner, str) and re.fullmatch(r"#(/[^#]*)?", inner)):
                raise InvalidInput(f"The schema of {tool!r} refers to something outside itself.")
            kept[name] = inner
        elif name in TEXTS:
            kept[name] = shorten(clean(str(inner))[0], MAX_DESCRIPTION)[0]
        elif name in LITERAL:
            kept[name] = inner
        elif name not in UNRUNNABLE:
            kept[name] = _kept(inner, tool, depth + 1, names=name in NAMES_INSIDE)
    return kept


def _insist_on_ending(schema: Mapping[str, Any], tool: str) -> None:
    """A schema that refers to itself without consuming anything would never be done with a value."""
    try:
        Draft202012Validator.check_schema(schema)
    except (SchemaError, RecursionError) as error:
        said = error.message if isinstance(error, SchemaError) else "it has no end"
        raise InvalidInput(f"The schema of {tool!r} is not a JSON schema: {said[:200]}") from error
    _no_loop(schema, schema, tool, ())
    _resolved(schema, schema, tool)


def _no_loop(schema: Any, root: Mapping[str, Any], tool: str, seen: tuple[str, ...]) -> None:
    """Follow what is applied to the very same value: references and the combining words."""
    if not isinstance(schema, Mapping):
        return
    reference = schema.get("$ref")
    if isinstance(reference, str):
        if reference in seen or len(seen) > 50:
            raise InvalidInput(f"The schema of {tool!r} refers to itself without end.")
        _no_loop(_target(root, reference, tool), root, tool, (*seen, reference))
    for word in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(word) or ():
            _no_loop(part, root, tool, seen)
    for word in ("not", "if", "then", "else"):
        _no_loop(schema.get(word), root, tool, seen)


def _resolved(schema: Any, root: Mapping[str, Any], tool: str) -> None:
    """Each reference leads somewhere, and to nothing that loops."""
    if isinstance(schema, list):
        for item in schema:
            _resolved(item, root, tool)
    if isinstance(schema, Mapping):
        if isinstance(schema.get("$ref"), str):
            _no_loop(schema, root, tool, ())
        for inner in schema.values():
            _resolved(inner, root, tool)


def _target(root: Mapping[str, Any], reference: str, tool: str) -> Any:
    found: Any = root
    for step in reference[2:].split("/") if reference != "#" else ():
        step = step.replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(step)] if isinstance(found, list) else found[step]
        except (KeyError, IndexError, ValueError, TypeError, Unresolvable):
            raise InvalidInput(
                f"The schema of {tool!r} refers to {reference[:100]!r}, which it does not have."
            ) from None
    return found
