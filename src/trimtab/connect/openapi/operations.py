"""The operations of a document: what each is called, where it goes, what it takes, what it does to the world.

One operation that cannot be used is left out, with the JSON pointer that is at fault; those around it load.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote

from trimtab.domain.tool import Effect

from .bodies import Body, read_body, read_form
from .document import Document
from .fault import Fault, Remark, below
from .parameters import Parameter, Raw, gathered, read_parameter
from .security import Ways, ways
from .servers import Server, servers_of, swagger_servers
from .shaping import Effort, Schema, Shaper, shown
from .styles import quoted
from .words import argument_name, sentence, words

EFFECTS: Mapping[str, Effect] = {
    "get": Effect.READ,
    "head": Effect.READ,
    "options": Effect.READ,
    "post": Effect.WRITE,
    "put": Effect.WRITE,
    "patch": Effect.WRITE,
    "delete": Effect.IRREVERSIBLE,
}
UNSENT = ("trace", "query")
"""TRACE asks a proxy to show the request's own headers; QUERY (OpenAPI 3.2) is not sent."""
MAX_OPERATIONS = 20_000
MAX_PATH = 1000
MAX_ARGUMENTS = 60
MAX_SCHEMA = 20_000
"""Characters of everything that one operation takes, as a model is shown it."""
BODY = "body"
IDEMPOTENCY = "idempotency-key"
"""A header that is made up for each call: no model has to invent one."""
_NAMED = re.compile(r"\{([^{}/]{1,100})\}")
_PATH_SAFE = "/:@!$&'()*+,;=-._~%"


@dataclass(frozen=True)
class Operation:
    """One request that can be made. `schema` is what a model may send: closed, described, without references."""

    id: str
    """As the document calls it, or ``get /pets/{id}``."""
    pointer: str
    method: str
    path: str
    """With ``{name}`` where path parameters go; the rest is quoted already."""
    fixed: tuple[tuple[str, str], ...]
    """Query pairs that the path itself holds."""
    summary: str
    description: str
    tags: tuple[str, ...]
    effect: Effect
    parameters: tuple[Parameter, ...]
    body: Body | None
    fields: Mapping[str, str]
    """Arguments that are properties of the body, by argument; empty when the body is one argument, ``body``."""
    servers: tuple[Server, ...]
    """Its own; empty when it goes where all do."""
    security: Ways
    accepts: str
    """The Accept header: what the document says it answers with."""
    keyed: bool = False
    """Wants an Idempotency-Key header."""
    deprecated: bool = False
    schema: Schema = field(default_factory=dict)

    @property
    def nulls(self) -> frozenset[str]:
        """Arguments that may be null and mean it. For the others null says that they are not given."""
        return frozenset(name for name, one in self.schema["properties"].items() if _takes_null(one))

    @property
    def line(self) -> str:
        return f"{self.method.upper()} {self.path}"


@dataclass
class Reading:
    """What came of a document: its operations, those left out, and what was read differently than it is written."""

    operations: list[Operation] = field(default_factory=list)
    left_out: list[Remark] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    effort: Effort = field(default_factory=Effort)


def chosen(include: Iterable[str], name: str, tags: Iterable[str]) -> bool:
    """Whether an operation is asked for: by a tag, or by its id with ``*`` for any part. Nothing named means all."""
    patterns = list(include)
    return not patterns or any(fnmatch.fnmatchcase(one, pattern) for pattern in patterns for one in (name, *tags))


def read_operations(document: Document, include: Iterable[str] = (), source: str = "") -> Reading:
    """Read every operation that is asked for.

    Raises:
        Fault: the document has no paths at all.
    """
    reading = Reading()
    paths, wanted = document.root.get("paths"), tuple(include)
    if not isinstance(paths, dict):
        raise Fault("#/paths", "is missing or no mapping, so there is nothing to call")
    taken: set[str] = set()
    for path, item, pointer in _items(document, paths, reading):
        for method, node, where in _methods(document, item, pointer, reading):
            try:
                tags = _tags(node)
                name = _id(node, method, path)
                if not chosen(wanted, name, tags):
                    continue
                if len(reading.operations) >= MAX_OPERATIONS:
                    raise Fault(
                        where, f"the document has more than {MAX_OPERATIONS:,} operations. Choose with --include"
                    )
                if name in taken:
                    reading.remarks.append(Remark(below(where, "operationId"), f"{name!r} is there twice: renamed"))
                    name = f"{method} {path}"
                operation = _Reader(document, reading, source).read(
                    name, method, path, item, pointer, node, where, tags
                )
            except Fault as fault:
                reading.left_out.append(Remark(fault.pointer, fault.why, f"{method.upper()} {sentence(path, 200)}"))
            else:
                taken.add(name)
                reading.operations.append(operation)
    return reading


def _items(
    document: Document, paths: Mapping[str, Any], reading: Reading
) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    for path, given in paths.items():
        pointer = below("#/paths", path)
        if path.startswith("x-"):
            continue
        try:
            item, where = document.follow(given, pointer)
            if not isinstance(item, dict):
                raise Fault(where, "is not a path's description")
            if not path.startswith("/") or len(path) > MAX_PATH or not path.isprintable():
                raise Fault(pointer, "does not begin with /, holds control characters, or is too long to be a path")
        except Fault as fault:
            reading.left_out.append(Remark(fault.pointer, fault.why, sentence(path, 200)))
        else:
            yield path, item, where


def _methods(
    document: Document, item: Mapping[str, Any], pointer: str, reading: Reading
) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    for method in (*EFFECTS, *UNSENT):
        if method not in item:
            continue
        where, node = below(pointer, method), item[method]
        if isinstance(node, dict) and method in EFFECTS:
            yield method, node, where
        else:
            why = f"{method.upper()} requests are not sent" if method in UNSENT else "is not an operation's description"
            reading.left_out.append(Remark(where, why, method.upper()))


class _Reader:
    """Reads one operation."""

    def __init__(self, document: Document, reading: Reading, source: str) -> None:
        self._document = document
        self._remarks: list[Remark] = []
        self._reading = reading
        self._source = source
        self._shaper = Shaper(document, self._remarks.append, reading.effort)

    def read(
        self,
        name: str,
        method: str,
        path: str,
        item: Mapping[str, Any],
        item_pointer: str,
        node: Mapping[str, Any],
        pointer: str,
        tags: tuple[str, ...],
    ) -> Operation:
        shared = (item.get("parameters"), below(item_pointer, "parameters"))
        raws = gathered(self._document, shared, (node.get("parameters"), below(pointer, "parameters")))
        if "{" in path.partition("#")[2]:
            raise Fault(item_pointer, "goes on after a #, which is never sent")
        route, fixed = _route(path)
        body = self._body(raws, node, pointer)
        parameters = self._parameters(raws, route, pointer)
        parameters += self._undeclared(route, parameters, pointer)
        fields = _spread(body, parameters)
        schema = self._bounded(parameters, body, fields, pointer)
        self._reading.remarks += self._remarks
        fallback = ways(self._document.root, ())
        return Operation(
            id=name,
            pointer=pointer,
            method=method,
            path=route,
            fixed=fixed,
            summary=sentence(node.get("summary"), 160) or words(name),
            description=sentence(node.get("description"), 400),
            tags=tags,
            effect=EFFECTS[method],
            parameters=tuple(parameters),
            body=body,
            fields=fields,
            servers=self._servers(item, item_pointer, node, pointer),
            security=ways(node, fallback),
            accepts=_accepts(self._document, node),
            keyed=any(raw.key[0] == "header" and raw.key[1].lower() == IDEMPOTENCY for raw in raws),
            deprecated=node.get("deprecated") is True,
            schema=schema,
        )

    def _body(self, raws: list[Raw], node: Mapping[str, Any], pointer: str) -> Body | None:
        if not self._document.swagger:
            where = below(pointer, "requestBody")
            try:
                return read_body(self._document, node.get("requestBody"), where, self._shaper)
            except Fault as fault:
                given = node.get("requestBody")
                if isinstance(given, dict) and (given.get("required") is True or "$ref" in given):
                    raise
                self._remarks.append(Remark(fault.pointer, f"the request's body is left out: {fault.why}"))
                return None
        consumes = node.get("consumes", self._document.root.get("consumes"))
        medias = [str(one) for one in consumes] if isinstance(consumes, list) else []
        return read_form(self._document, raws, medias, self._shaper, below(pointer, "parameters"))

    def _parameters(self, raws: list[Raw], route: str, pointer: str) -> list[Parameter]:
        names = set(_NAMED.findall(route))
        found: list[Parameter] = []
        for raw in raws:
            place, name = raw.key
            if self._document.swagger and place in ("body", "formData"):
                continue
            if place == "header" and name.lower() == IDEMPOTENCY:
                continue
            if place == "path" and name not in names:
                self._remarks.append(Remark(raw.pointer, f"{name[:60]!r} is not in the path {route[:100]!r}: ignored"))
                continue
            argument = argument_name(name, place, {one.argument for one in found})
            one = read_parameter(raw, self._shaper, argument, self._remarks)
            if one is not None:
                found.append(one)
        return found

    def _bounded(
        self, parameters: list[Parameter], body: Body | None, fields: Mapping[str, str], pointer: str
    ) -> Schema:
        """The arguments' schema; optional parameters are left out from the end until it is not too large."""
        schema = _schema(parameters, body, fields)
        left: list[str] = []
        while len(schema["properties"]) > MAX_ARGUMENTS or len(json.dumps(schema, ensure_ascii=False)) > MAX_SCHEMA:
            last = next((one for one in reversed(parameters) if not one.required), None)
            if last is None:
                break
            parameters.remove(last)
            left.append(last.name)
            schema = _schema(parameters, body, fields)
        if left:
            self._remarks.append(Remark(pointer, f"{len(left)} optional parameters left out, for there are too many"))
        return schema

    def _undeclared(self, route: str, known: list[Parameter], pointer: str) -> list[Parameter]:
        """Names in a path that no parameter describes are taken as text."""
        made: list[Parameter] = []
        for name in dict.fromkeys(_NAMED.findall(route)):
            if any(one.place == "path" and one.name == name for one in known):
                continue
            self._remarks.append(Remark(pointer, f"{{{name}}} of the path is not described: taken as text"))
            schema: Schema = {"type": "string", "maxLength": 1000, "description": words(name) or name}
            taken = {one.argument for one in [*known, *made]}
            made.append(Parameter(name, "path", argument_name(name, "path", taken), schema, True, "simple", False))
        return made

    def _servers(
        self, item: Mapping[str, Any], item_pointer: str, node: Mapping[str, Any], pointer: str
    ) -> tuple[Server, ...]:
        if self._document.swagger:
            return ()
        own = servers_of(self._document, node, pointer, self._source)
        return tuple(own or servers_of(self._document, item, item_pointer, self._source))


def main_servers(document: Document, source: str) -> list[Server]:
    """Where operations go that name no server of their own.

    Raises:
        Fault: the document names none that can be used.
    """
    if document.swagger:
        return swagger_servers(document, source)
    found = servers_of(document, document.root, "#", source)
    if found:
        return found
    if source:
        return servers_of(document, {"servers": [{"url": "/"}]}, "#", source)
    raise Fault("#/servers", "is missing, so nothing says where the API is. Give --base-url https://...")


def _takes_null(schema: Schema) -> bool:
    kind = schema.get("type")
    return "null" in kind if isinstance(kind, list) else {"type": "null"} in schema.get("anyOf", ())


def _route(path: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The path to ask for and the query pairs it holds; what follows a # only tells operations of one path apart."""
    bare, _, query = path.partition("#")[0].partition("?")
    parts = _NAMED.split(bare)
    route = "".join(f"{{{part}}}" if at % 2 else quote(part, safe=_PATH_SAFE) for at, part in enumerate(parts))
    return route or "/", tuple((quoted(k), quoted(v)) for k, v in parse_qsl(query, True))


def _id(node: Mapping[str, Any], method: str, path: str) -> str:
    given = node.get("operationId")
    if isinstance(given, str) and given.strip() and given.isprintable() and len(given) <= 200:
        return given.strip()
    return f"{method} {path}"


def _tags(node: Mapping[str, Any]) -> tuple[str, ...]:
    given = node.get("tags")
    return tuple(sentence(tag, 60) for tag in given[:10] if isinstance(tag, str)) if isinstance(given, list) else ()


def _spread(body: Body | None, parameters: list[Parameter]) -> dict[str, str]:
    """The body's properties as arguments of their own, when it is a plain object and no name is taken."""
    if body is None or body.kind == "raw":
        return {}
    schema = body.schema
    properties = schema.get("properties")
    if schema.get("type") != "object" or not properties or schema.get("additionalProperties") is not False:
        return {}
    if len(properties) + len(parameters) > MAX_ARGUMENTS or (schema.get("required") and not body.required):
        return {}
    taken = {one.argument for one in parameters}
    fields: dict[str, str] = {}
    for name in properties:
        argument = argument_name(name, BODY, taken | fields.keys())
        if argument != name:
            return {}
        fields[argument] = name
    return fields


def _schema(parameters: list[Parameter], body: Body | None, fields: Mapping[str, str]) -> Schema:
    properties: Schema = {one.argument: shown(one.schema) for one in parameters}
    required = [one.argument for one in parameters if one.required]
    if body is not None and fields:
        inner = shown(body.schema)
        properties |= {argument: inner["properties"][name] for argument, name in fields.items()}
        required += [argument for argument, name in fields.items() if name in inner.get("required", ())]
    elif body is not None:
        properties[body_argument(parameters)] = shown(body.schema)
        required += [body_argument(parameters)] if body.required else []
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def body_argument(parameters: Iterable[Parameter]) -> str:
    return "request_body" if any(one.argument == BODY for one in parameters) else BODY


def _accepts(document: Document, node: Mapping[str, Any]) -> str:
    """JSON first, then whatever else the document says it answers with, then anything."""
    medias: list[str] = []
    if document.swagger:
        given = node.get("produces", document.root.get("produces"))
        medias = [str(one) for one in given] if isinstance(given, list) else []
    else:
        responses = node.get("responses")
        for status, response in responses.items() if isinstance(responses, dict) else ():
            if str(status)[:1] != "2" and status != "default":
                continue
            try:
                found, _ = document.follow(response, "#")
            except Fault:
                continue
            content = found.get("content") if isinstance(found, dict) else None
            medias += list(content) if isinstance(content, dict) else []
    usable = [one for one in dict.fromkeys(medias) if re.fullmatch(r"[\w.+-]+/[\w.+*-]+", one, re.A) and "*" not in one]
    best = sorted(usable, key=lambda one: "json" not in one)[:3]
    return ", ".join([*best, "*/*;q=0.1"]) if best else "application/json, */*;q=0.1"
