"""A connector from a document: a tool for each operation, or for a large API a search and a tool for each effect.

A large API's hundreds of schemas would fill any prompt. Its tools are ``find``, which gives the operations that fit a
question with their arguments, and ``read``, ``write`` and ``remove``, which call one of them: a tool for each effect,
since what needs a person's approval is decided by the tool. Arguments are held against the operation's own schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trimtab.domain.errors import InvalidInput
from trimtab.domain.tool import Effect

from ..declare import Connector
from ..http import Http
from ..result import Result
from ..standing import Standing
from .document import Document
from .fault import Fault, Remark
from .operations import Operation, Reading, main_servers, read_operations
from .requests import call
from .search import Index
from .security import Secured, secured
from .servers import Server, server_at
from .words import sentence, snake, tool_name

MANY = 24
"""More operations than this are searched rather than shown."""
FOUND = 8
FOUND_CHARS = 5500
CALLERS: Mapping[Effect, str] = {Effect.READ: "read", Effect.WRITE: "write", Effect.IRREVERSIBLE: "remove"}
Offer = Literal["auto", "each", "search"]


class OpenApiConnector(Connector):
    """A connector that is data. Trimtab's own code makes its requests: there is no source that a badge could be of."""

    standing = Standing("approved", "A person imported it from an OpenAPI document, and Trimtab makes its requests.")


@dataclass(frozen=True)
class Choices:
    """What a person chose for an import."""

    include: tuple[str, ...] = ()
    """Tags, or ids of operations with ``*`` for any part; none means all."""
    base_url: str = ""
    """Asked instead of the servers that the document names."""
    security: str = ""
    """The security scheme to sign in with; ``none`` for none, empty for what most operations accept."""
    offer: Offer = "auto"
    """A tool for each operation, or a search over them; ``auto`` searches when there are more than 24."""
    source: str = ""
    """Where the document was read from: an address, or a file's name."""


@dataclass(frozen=True)
class Imported:
    """A connector with what is known of where it came from."""

    connector: Connector
    document: Document
    choices: Choices
    title: str
    operations: tuple[Operation, ...]
    searched: bool
    """Offered through a search."""
    left_out: tuple[Remark, ...] = ()
    remarks: tuple[Remark, ...] = ()
    scheme: str = ""
    """The security scheme that is used."""
    servers: Mapping[str, Server] = field(default_factory=dict)
    """Where each operation goes, by id."""


def connector_name(document: Document) -> str:
    """A name for a connector, from the document's title."""
    info = document.root.get("info")
    title = str(info.get("title", "")) if isinstance(info, dict) else ""
    name = snake(title[:200]).removesuffix("_api").removeprefix("the_")[:31].strip("_")
    return name if name and name[0].isalpha() else f"api_{name}"[:31].strip("_")


def make(document: Document, name: str, choices: Choices = Choices()) -> Imported:
    """The connector that a document describes.

    Raises:
        Fault: the document says nowhere where the API is, or has nothing to call.
        InvalidInput: nothing is left to import, or a choice cannot be made.
    """
    source = choices.source if "://" in choices.source else ""
    reading = read_operations(document, choices.include, source)
    if not reading.operations:
        raise _nothing(document, reading, choices)
    servers = _servers(document, reading, choices, source)
    used = {server.url: server for server in servers.values()}.values()
    found = secured(document, name, [one.security for one in reading.operations], reading.remarks, choices.security)
    connector = _declared(document, name, sorted({one.host for one in used}), any(one.plain for one in used), found)
    searched = choices.offer == "search" or (choices.offer == "auto" and len(reading.operations) > MANY)
    imported = Imported(
        connector=connector,
        document=document,
        choices=choices,
        title=_title(document, name),
        operations=tuple(reading.operations),
        searched=searched,
        left_out=tuple(reading.left_out),
        remarks=tuple(reading.remarks),
        scheme=found.scheme,
        servers=servers,
    )
    (_searching if searched else _each)(imported)
    return imported


def _declared(document: Document, name: str, hosts: list[str], plain: bool, found: Secured) -> OpenApiConnector:
    info = document.root.get("info")
    info = info if isinstance(info, dict) else {}
    about = sentence(info.get("summary") or info.get("description"), 200)
    return OpenApiConnector(
        name=name,
        version=sentence(str(info.get("version", "")), 40) or "0",
        description=f"{_title(document, name)}. {about}".strip(". ") + ".",
        hosts=tuple(hosts),
        auth=found.auth,
        plain_http=plain,
    )


def _title(document: Document, name: str) -> str:
    info = document.root.get("info")
    return sentence(info.get("title"), 80) if isinstance(info, dict) and info.get("title") else name


def _servers(document: Document, reading: Reading, choices: Choices, source: str) -> dict[str, Server]:
    if choices.base_url:
        base = server_at(choices.base_url)
        return {one.id: base for one in reading.operations}
    if all(one.servers for one in reading.operations):
        return {one.id: one.servers[0] for one in reading.operations}
    main = main_servers(document, source)[0]
    return {one.id: one.servers[0] if one.servers else main for one in reading.operations}


def _nothing(document: Document, reading: Reading, choices: Choices) -> InvalidInput:
    if reading.left_out:
        first = reading.left_out[0]
        return InvalidInput(
            f"None of the {len(reading.left_out)} operations can be imported. The first: {first}",
            left_out=[str(remark) for remark in reading.left_out[:50]],
        )
    if choices.include:
        every = read_operations(document).operations
        tags = list(dict.fromkeys(tag for one in every for tag in one.tags))[:30]
        asked = ", ".join(choices.include)
        return InvalidInput(f"No operation has a tag or an id like {asked}. Tags: {', '.join(tags) or 'none'}.")
    return Fault("#/paths", "describes no operation")


def _each(imported: Imported) -> None:
    for operation in imported.operations:
        name = tool_name(operation.id, imported.connector.tools)
        about = f"{operation.summary.rstrip('.')}. {operation.description}".strip()
        if operation.deprecated:
            about += " Deprecated."
        imported.connector.declare(
            name,
            _calling(imported, operation),
            operation.schema,
            http_parameters=("http",),
            description=sentence(about, 400),
            effect=operation.effect,
            examples=(operation.summary,),
        )


def _calling(imported: Imported, operation: Operation) -> Any:
    server = imported.servers[operation.id]

    async def calling(arguments: Mapping[str, Any], http: Http) -> Result:
        return await call(operation, server, arguments, http, imported.title)

    return calling


def _searching(imported: Imported) -> None:
    index = Index(imported.operations)
    connector, title = imported.connector, imported.title
    effects = [effect for effect in CALLERS if any(one.effect is effect for one in imported.operations)]

    async def find(arguments: Mapping[str, Any]) -> Result:
        return _found(index, str(arguments["query"]), connector.name)

    wanted = {
        "type": "string",
        "maxLength": 500,
        "description": "What is to be done, in a few words, or an operation's id",
    }
    connector.declare(
        "find",
        find,
        {"type": "object", "properties": {"query": wanted}, "required": ["query"], "additionalProperties": False},
        description=f"Find operations of {title} and the arguments they take. Use it before calling one.",
        effect=Effect.READ,
        examples=(f"What can {title} do?",),
        max_chars=FOUND_CHARS + 500,
    )
    does = {
        Effect.READ: f"Read from {title}: call an operation that changes nothing",
        Effect.WRITE: f"Change something at {title}: call an operation that creates or updates",
        Effect.IRREVERSIBLE: f"Delete something at {title}: call an operation that removes",
    }
    for effect in effects:
        connector.declare(
            CALLERS[effect],
            _searched(imported, index, effect),
            CALL,
            http_parameters=("http",),
            description=f"{does[effect]}, by its id as {connector.name}.find gives it.",
            effect=effect,
            examples=(does[effect],),
        )


CALL: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "operation": {"type": "string", "maxLength": 300, "description": "The operation's id"},
        # Open here alone: what an operation takes is held against its own closed schema, however deep it goes.
        "arguments": {"type": "object", "maxProperties": 100, "description": "Its arguments by name"},
    },
    "required": ["operation"],
    "additionalProperties": False,
}


def _searched(imported: Imported, index: Index, effect: Effect) -> Any:
    async def calling(arguments: Mapping[str, Any], http: Http) -> Result:
        operation = _wanted(index, str(arguments["operation"]), effect, imported.connector.name)
        server = imported.servers[operation.id]
        return await call(operation, server, arguments.get("arguments") or {}, http, imported.title)

    return calling


def _wanted(index: Index, name: str, effect: Effect, connector: str) -> Operation:
    operation = index.operations.get(name.strip())
    if operation is None:
        near = ", ".join(one.id for one in index.find(name, 3)) or "none"
        raise InvalidInput(f"There is no operation {name[:200]!r}. Alike: {near}. {connector}.find finds others.")
    if operation.effect is not effect:
        raise InvalidInput(
            f"{operation.id} is called with {connector}.{CALLERS[operation.effect]}, not with this tool."
        )
    return operation


def _found(index: Index, query: str, connector: str) -> Result:
    """The best fits with their arguments' schemas, as many as there is room for; the rest by name."""
    operations = index.find(query, FOUND)
    if not operations:
        some = ", ".join(dict.fromkeys(tag for one in index.operations.values() for tag in one.tags[:1]))
        return Result(text=f"No operation fits those words. There are operations about: {some[:1500] or 'nothing'}.")
    lines: list[str] = []
    room = FOUND_CHARS
    for operation in operations:
        line = (
            f"{operation.id}: {operation.summary} ({operation.line}; call with {connector}.{CALLERS[operation.effect]})"
        )
        schema = json.dumps(operation.schema["properties"], ensure_ascii=False)
        names = ", ".join(f"{n}*" if n in operation.schema["required"] else n for n in operation.schema["properties"])
        needed = ", ".join(operation.schema["required"]) or "none"
        full = f"{line}\n  required: {needed}\n  arguments: {schema}"
        short = f"{line}\n  arguments (* required; find it by its id for more): {names[:400] or 'none'}"
        text = full if len(full) <= room else short
        if len(text) > room:
            break
        lines.append(text)
        room -= len(text) + 1
    data = [
        {
            "operation": one.id,
            "summary": one.summary,
            "request": one.line,
            "effect": str(one.effect),
            "arguments": one.schema,
        }
        for one in operations
    ]
    return Result(text="\n".join(lines), data=data)
