"""The lines about what a connector says of itself: complete, within bounds, and schemas a model can be shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from trimtab.domain.errors import InvalidInput

from ..binding import checked
from ..declare import MODEL_NAME, Declaration
from .bench import Bench
from .requirement import Finding, Requirement, does_not_apply, several, verdict

MIN_EXAMPLES = 4
MAX_TIMEOUT = 120.0
MAX_BYTES = 50_000_000
MAX_ATTEMPTS = 6
VERSION = re.compile(r"^\d+(\.\d+)*([a-z.+-][0-9A-Za-z.+-]*)?$")


def complete(bench: Bench) -> Finding:
    connector, found = bench.connector, []
    if not VERSION.match(connector.version):
        found.append(f"Its version {connector.version!r} is none: write it like 1.0.0.")
    if len(connector.description.split()) < 2:
        found.append("Its description says too little: one sentence, for people.")
    if not connector.tools:
        found.append("It has no tools.")
    for tool in bench.tools():
        if len(tool.description.split()) < 3:
            found.append(f"{tool.dotted}: its docstring says too little for a model to choose it by.")
        if not MODEL_NAME.match(tool.model_name):
            found.append(f"{tool.dotted}: {tool.model_name!r} cannot be a tool's name.")
        if len(set(tool.examples)) < MIN_EXAMPLES:
            found.append(
                f"{tool.dotted} has {len(set(tool.examples))} examples. Small models choose by them: give at least "
                f"{MIN_EXAMPLES}, better six to twelve."
            )
        found += [
            f"{tool.dotted}: the value {value!r} stands in more than one example. A small model takes a word that "
            "recurs for the tool's own: use another value in each."
            for value in _recurring(bench, tool)
        ]
    return verdict(found, f"{several(len(connector.tools), 'tool')}.")


def _recurring(bench: Bench, tool: Declaration) -> list[str]:
    """Values of its cassettes that more than one example question has, but for those that the schema lists."""
    shapes = tool.json_schema().get("properties", {})
    values = {
        value.casefold()
        for tape in bench.tapes_for(tool)
        for name, value in tape.arguments.items()
        if isinstance(value, str) and len(value) > 2 and "enum" not in shapes.get(name, {})
    }
    said = {example.casefold() for example in tool.examples}
    return [v for v in sorted(values) if sum(bool(re.search(rf"(?<!\w){re.escape(v)}(?!\w)", e)) for e in said) > 1]


def bounded(bench: Bench) -> Finding:
    """Deadlines and sizes that a person at a chat can wait for, and that this machine can hold."""
    limits, found = bench.connector.limits, []
    if limits.max_bytes > MAX_BYTES:
        found.append(f"It reads up to {limits.max_bytes:,} bytes of an answer; at most {MAX_BYTES:,}.")
    if limits.total > MAX_TIMEOUT:
        found.append(f"A request may take {limits.total:g} s; at most {MAX_TIMEOUT:g}.")
    if bench.connector.retry.attempts > MAX_ATTEMPTS:
        found.append(f"It asks up to {bench.connector.retry.attempts} times; at most {MAX_ATTEMPTS}.")
    for tool in bench.tools():
        if not 0 < tool.timeout <= MAX_TIMEOUT:
            found.append(f"{tool.dotted} may take {tool.timeout:g} s; at most {MAX_TIMEOUT:g}.")
    longest = max((tool.timeout for tool in bench.tools()), default=0.0)
    return verdict(found, f"Calls at most {longest:g} s, answers at most {limits.max_bytes:,} bytes.")


def trust(bench: Bench) -> Finding:
    """Text from outside is declared untrusted."""
    connector = bench.connector
    if not connector.hosts and not connector.options:
        return does_not_apply("It reaches no host.")
    found = [
        f"{tool.dotted} asks a service and declares its results trusted: leave out untrusted=False."
        for tool in bench.tools()
        if not tool.untrusted and (tool.setup_parameters or any(tape.exchanges for tape in bench.tapes_for(tool)))
    ]
    return verdict(found, "Results from outside are untrusted.")


def valid(bench: Bench) -> Finding:
    found = []
    for tool in bench.tools():
        try:
            Draft202012Validator.check_schema(tool.json_schema())
        except SchemaError as error:
            found.append(f"{tool.dotted}: {error.json_path}: {error.message}")
    return verdict(found, f"{several(len(bench.connector.tools), 'schema')} against JSON Schema 2020-12.")


def closed(bench: Bench) -> Finding:
    found = []
    for tool in bench.tools():
        schema = tool.json_schema()
        if tool.given is not None:  # closed by the client, whatever it says itself
            schema = {**schema, "additionalProperties": False}
        for where, part in objects(schema):
            if part.get("additionalProperties", True) is True:
                found.append(f"{tool.dotted}: {where or 'its arguments'} takes members it does not name.")
        try:
            checked(tool, {**_sample(bench, tool.dotted), "no_such_argument": "x"}, tool.dotted)
            found.append(f"{tool.dotted} takes an argument that it does not name.")
        except InvalidInput:
            pass
    return verdict(found, "Schemas read, an unknown argument sent.")


def described(bench: Bench) -> Finding:
    found = []
    for tool in bench.tools():
        for name, part in tool.json_schema().get("properties", {}).items():
            if len(str(part.get("description", "")).split()) < 1:
                found.append(f"{tool.dotted}: argument {name!r} is not described.")
    return verdict(found, "Each argument has a description.")


def objects(schema: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object schema inside, with its place."""
    if isinstance(schema, list):
        for inner in schema:
            yield from objects(inner, where)
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "object":
        yield where, schema
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            for name, inner in value.items():
                yield from objects(inner, f"{where}.{name}".lstrip("."))
        elif key in ("items", "anyOf", "oneOf", "allOf", "prefixItems", "additionalProperties"):
            yield from objects(value, where)


def _sample(bench: Bench, tool: str) -> dict[str, Any]:
    return next((dict(tape.arguments) for tape in bench.tapes if tape.tool == tool), {})


def requirements() -> list[Requirement]:
    return [
        Requirement("DECL-COMPLETE", "name, version, description, docstrings and example questions", "read", complete),
        Requirement("DECL-BOUNDED", "deadlines and sizes that a person can wait for", "read", bounded),
        Requirement("DECL-TRUST", "what comes from outside is declared untrusted", "read, with the cassettes", trust),
        Requirement("SCHEMA-VALID", "every tool's schema is a JSON schema", "checked against the standard", valid),
        Requirement("SCHEMA-CLOSED", "no tool takes what its schema does not name", "read and tried", closed),
        Requirement("SCHEMA-DESCRIBED", "every argument says what it is", "read", described),
    ]
