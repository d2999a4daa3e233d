"""Request bodies: which media type is sent, its schema, and its bytes."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from trimtab.domain.errors import InvalidInput

from .document import Document
from .fault import Fault, below
from .parameters import COLLECTIONS, Raw
from .shaping import Schema, Shaper
from .styles import Pair, compact, deep, joined, quoted, text

Kind = Literal["json", "form", "multipart", "raw"]
MAX_BODY = 12_000
"""Characters of a body's schema."""
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"


@dataclass(frozen=True)
class Body:
    """`styles` say how properties of a form are written, `types` are the media types of its parts."""

    kind: Kind
    media_type: str
    schema: Schema
    required: bool = False
    styles: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    files: frozenset[str] = frozenset()
    """Properties that are files: text, or bytes as base64 where the document says so."""
    base64: bool = False
    """A raw body that is given as base64."""


def read_body(document: Document, given: Any, pointer: str, shaper: Shaper) -> Body | None:
    """The `requestBody` of OpenAPI 3.

    Raises:
        Fault: it is required, and none of its media types can be sent.
    """
    if given is None:
        return None
    node, pointer = document.follow(given, pointer)
    content = node.get("content") if isinstance(node, dict) else None
    if not isinstance(content, dict):
        raise Fault(pointer, "is not a request body: it has no content")
    fault: Fault | None = None
    for media in sorted(content, key=_preference):
        inner, where = document.follow(content[media], below(pointer, "content", media))
        try:
            return _body(document, str(media), inner or {}, where, shaper, node)
        except Fault as problem:
            fault = fault or problem
    if fault:
        raise fault
    return None


def read_form(document: Document, raws: list[Raw], consumes: list[str], shaper: Shaper, pointer: str) -> Body | None:
    """The `body` or `formData` parameters of Swagger 2.0."""
    whole = next((raw for raw in raws if raw.node.get("in") == "body"), None)
    fields = [raw for raw in raws if raw.node.get("in") == "formData"]
    if whole is not None:
        media = min(consumes or ["application/json"], key=_preference)
        media = "application/json" if _kind(media) in ("form", "multipart") else media
        inner = {"schema": whole.node.get("schema", True)}
        return _body(document, media, inner, whole.pointer, shaper, whole.node)
    if not fields:
        return None
    files = any(raw.node.get("type") == "file" for raw in fields)
    media = MULTIPART if files or (consumes and FORM not in consumes and MULTIPART in consumes) else FORM
    properties = {raw.node["name"]: {k: v for k, v in raw.node.items() if k != "required"} for raw in fields}
    required = [raw.node["name"] for raw in fields if raw.node.get("required") is True]
    schema = {"type": "object", "properties": properties, "required": required}
    styles = {
        raw.node["name"]: (COLLECTIONS.get(found, "form"), found == "multi")
        for raw in fields
        if raw.node.get("type") == "array" and (found := str(raw.node.get("collectionFormat", "csv")))
    }
    shaped = shaper.shape(schema, pointer, name="form", most=MAX_BODY)
    return Body(_kind(media), media, shaped, bool(required), styles, files=_files(document, schema, pointer))


def _body(document: Document, media: str, inner: Any, pointer: str, shaper: Shaper, node: Mapping[str, Any]) -> Body:
    kind = _kind(media)
    if not media.isascii() or not media.isprintable() or len(media) > 200:
        raise Fault(pointer, "its media type holds characters that a header cannot carry")
    if not isinstance(inner, dict):
        raise Fault(pointer, "is not a media type's description")
    required = node.get("required") is True
    where = below(pointer, "schema")
    if kind == "raw":
        schema: Schema = {"type": "string", "maxLength": 100_000, "description": f"The body as {media} text"}
        binary = not media.startswith("text/") and "xml" not in media and "yaml" not in media
        if binary:
            schema["description"] = f"The body ({media}) as base64"
        return Body("raw", "text/plain" if "*" in media and not binary else media, schema, required, base64=binary)
    schema = shaper.shape(inner.get("schema", True), where, name="body", most=MAX_BODY)
    schema = shaper.described(schema, node, "body")
    if kind == "json":
        return Body("json", "application/json" if "*" in media else media, schema, required)
    styles: dict[str, tuple[str, bool]] = {}
    types: dict[str, str] = {}
    encoding = inner.get("encoding")
    for name, told in (encoding if isinstance(encoding, dict) else {}).items():
        if isinstance(told, dict):
            if isinstance(told.get("style"), str):
                explode = told.get("explode")
                styles[name] = told["style"], explode if isinstance(explode, bool) else told["style"] == "form"
            if isinstance(told.get("contentType"), str):
                types[name] = _first_type(told["contentType"])
    return Body(
        kind, media.partition(";")[0], schema, required, styles, types, _files(document, inner.get("schema"), where)
    )


def encoded(body: Body, given: Any) -> tuple[str, bytes]:
    """The content type and the bytes of a body.

    Raises:
        InvalidInput: a raw body was not given as the base64 it is described as.
    """
    if body.kind == "json":
        return body.media_type, json.dumps(given, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    if body.kind == "form":
        return body.media_type, joined(_form(body, given)).encode("ascii")
    if body.kind == "multipart":
        boundary = secrets.token_hex(16)
        return f"{MULTIPART}; boundary={boundary}", _multipart(body, given, boundary)
    if body.base64:
        try:
            return body.media_type, base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError):
            raise InvalidInput("body is not base64. Send the bytes of the body as base64 text.") from None
    return f"{body.media_type}; charset=utf-8", str(given).encode("utf-8", "replace")


def _form(body: Body, given: Mapping[str, Any]) -> Iterable[Pair]:
    for name, value in given.items():
        style, explode = body.styles.get(name, ("form", True))
        if style == "deepObject" and isinstance(value, dict | list):
            yield from deep(quoted(name), value)
        elif isinstance(value, list):
            items = [text(item) for item in value]
            delimiter = {"spaceDelimited": " ", "pipeDelimited": "|", "tabDelimited": "\t"}.get(style, ",")
            parts = items if explode else [delimiter.join(items)]
            yield from ((quoted(name), quoted(item)) for item in parts)
        elif value is not None:
            yield quoted(name), quoted(compact(value) if isinstance(value, dict) else text(value))


def _multipart(body: Body, given: Mapping[str, Any], boundary: str) -> bytes:
    made = bytearray()
    for name, value in given.items():
        label = _part_name(name)
        for item in value if isinstance(value, list) else [value]:
            if item is None:
                continue
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{label}"'
            kind = body.types.get(name, "")
            if name in body.files:
                head += f'; filename="{label}"'
                kind = kind or "application/octet-stream"
            elif isinstance(item, dict):
                kind = kind or "application/json"
            head += f"\r\nContent-Type: {kind}" if kind else ""
            made += head.encode("utf-8", "replace") + b"\r\n\r\n" + text(item).encode("utf-8", "replace") + b"\r\n"
    return bytes(made) + f"--{boundary}--\r\n".encode("ascii")


def _part_name(name: str) -> str:
    """HTML's rule for names in a form: quotes and line breaks percent-encoded."""
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _files(document: Document, schema: Any, pointer: str) -> frozenset[str]:
    try:
        node, _ = document.follow(schema, pointer)
    except Fault:
        return frozenset()
    properties = node.get("properties") if isinstance(node, dict) else None
    found = set()
    for name, one in (properties or {}).items() if isinstance(properties, dict) else ():
        one = one.get("items", one) if isinstance(one, dict) and isinstance(one.get("items", one), dict) else one
        if isinstance(one, dict) and (one.get("format") == "binary" or one.get("type") == "file"):
            found.add(name)
    return frozenset(found)


def _kind(media: Any) -> Kind:
    plain = str(media).lower().partition(";")[0].strip()
    if plain in ("application/json", "*/*", "application/*", "text/json") or plain.endswith("+json"):
        return "json"
    return "form" if plain == FORM else "multipart" if plain in (MULTIPART, "multipart/mixed") else "raw"


def _preference(media: Any) -> tuple[int, str]:
    plain = str(media).lower()
    if plain.startswith("application/json"):
        return 0, plain
    order = {"json": 1, "form": 2, "multipart": 3, "raw": 4 if plain.startswith("text/") else 5}
    return order[_kind(media)], plain


def _first_type(listed: str) -> str:
    first = listed.partition(",")[0].strip()
    return first if first.isascii() and first.isprintable() and "*" not in first and len(first) <= 100 else ""
