"""From an operation and a model's arguments to one HTTP request, and from the reply to what the model reads."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.validators import extend

from trimtab.domain.errors import InvalidInput
from trimtab.domain.tool import Source

from ..http import Http
from ..reply import Reply
from ..result import Result
from . import styles
from .bodies import encoded
from .operations import IDEMPOTENCY, Operation, body_argument
from .patterns import fits
from .servers import Server

_NAMED = re.compile(r"\{([^{}/]{1,100})\}")
_TEXTUAL = ("text/", "application/xml", "application/yaml", "application/x-yaml", "application/javascript")


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Any:
    from jsonschema.exceptions import ValidationError

    if isinstance(instance, str) and not fits(pattern, instance):
        yield ValidationError(f"{instance[:100]!r} does not have the form {pattern[:200]}")


Checker: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator, {"pattern": _pattern}
)
"""jsonschema's validator with regular expressions that take linear time."""


@dataclass(frozen=True)
class Request:
    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None


def build(operation: Operation, server: Server, arguments: Mapping[str, Any]) -> Request:
    """The request that calls `operation` with these arguments.

    Raises:
        InvalidInput: they do not fit; the message names each that does not.
    """
    given = {name: value for name, value in arguments.items() if value is not None or name in operation.nulls}
    check(operation, given)
    body = _body(operation, given)
    pairs, headers, cookies, route = list(operation.fixed), {"Accept": operation.accepts}, [], {}
    for parameter in operation.parameters:
        if parameter.argument not in given:
            continue
        value = given[parameter.argument]
        if parameter.place == "path":
            route[parameter.name] = styles.path_text(parameter, value)
        elif parameter.place == "query":
            pairs += styles.query_pairs(parameter, value)
        elif parameter.place == "header":
            headers[parameter.name] = styles.header_text(parameter, value)
        else:
            cookies += styles.cookie_pairs(parameter, value)
    if cookies:
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies)
    if operation.keyed:
        headers[IDEMPOTENCY] = str(uuid.uuid4())
    content: bytes | None = None
    if operation.body is not None and body is not None:
        headers["Content-Type"], content = encoded(operation.body, body)
    path = _NAMED.sub(lambda found: route[found[1]], operation.path)
    if any(segment in (".", "..") for segment in path.split("/")):
        raise InvalidInput(f"{operation.id} was not called: its arguments would lead to another address.")
    query = f"?{styles.joined(pairs)}" if pairs else ""
    return Request(operation.method.upper(), f"{server.url}{path}{query}", headers, content)


def check(operation: Operation, arguments: Mapping[str, Any]) -> None:
    """Hold arguments against everything the document says of them.

    Raises:
        InvalidInput: they do not fit.
    """
    properties = {parameter.argument: parameter.schema for parameter in operation.parameters}
    required = list(operation.schema["required"])
    body = operation.body
    if body is not None and operation.fields:
        properties |= {argument: body.schema["properties"][name] for argument, name in operation.fields.items()}
    elif body is not None:
        properties[body_argument(operation.parameters)] = body.schema
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    problems = _problems(schema, arguments)
    if not problems and body is not None and operation.fields:
        whole = _body(operation, arguments)
        problems = _problems(body.schema, whole) if whole is not None else []
    if problems:
        said = "; ".join(f"{where or 'arguments'}: {what}" for where, what in problems)
        fields = [where.partition(".")[0] for where, _ in problems if where]
        raise InvalidInput(f"{operation.id} was not called, its arguments do not fit. {said}.", fields=fields)


def _problems(schema: Any, value: Any) -> list[tuple[str, str]]:
    found = sorted(Checker(schema).iter_errors(value), key=lambda error: [str(step) for step in error.path])[:5]
    return [(".".join(map(str, error.path)), str(error.message)[:300]) for error in found]


def _body(operation: Operation, arguments: Mapping[str, Any]) -> Any:
    """What the body is made of; None when nothing is sent."""
    body = operation.body
    if body is None:
        return None
    if not operation.fields:
        return arguments.get(body_argument(operation.parameters))
    made = {name: arguments[argument] for argument, name in operation.fields.items() if argument in arguments}
    return made if made or body.required else None


async def call(operation: Operation, server: Server, arguments: Mapping[str, Any], http: Http, api: str) -> Result:
    """Call an operation. `api` is the API's title, for the source that an answer cites.

    Raises:
        InvalidInput: the arguments do not fit.
        ToolError: the service could not be reached, or refused.
    """
    request = build(operation, server, arguments)
    reply = await http.send(request.method, request.url, headers=request.headers, content=request.content)
    return result(operation, reply, request.url, api)


def result(operation: Operation, reply: Reply, url: str, api: str) -> Result:
    """The reply as a model reads it. `url` is the one that was asked for, without any key."""
    sources = (Source(f"{api}: {operation.summary}", url),)
    if not reply.content.strip():
        return Result(text=f"Done: the service answered {reply.status} without a text.", sources=sources)
    kind = reply.content_type
    if "json" in kind or (not kind and reply.content.lstrip()[:1] in b"{["):
        return Result(data=reply.json(), sources=sources)
    if not kind or kind.endswith("+xml") or kind.startswith(_TEXTUAL):
        return Result(text=reply.text, sources=sources)
    return Result(text=f"The service sent {len(reply.content):,} bytes of {kind}, which is not text.", sources=sources)
