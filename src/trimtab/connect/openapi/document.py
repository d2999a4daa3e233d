"""An OpenAPI or Swagger document as plain values, and following what it refers to.

The text is untrusted: its size, depth and number of values are bounded before anything is made of it, and only
references inside the document are followed. A reference to another file or address is refused, not fetched: bundle
such a document first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson

from trimtab.domain.errors import TooLarge

from .fault import Fault
from .yamltext import read_yaml

MAX_BYTES = 60_000_000
MAX_DEPTH = 200
MAX_NODES = 3_000_000
MAX_CHAIN = 30
"""References that lead to references."""


@dataclass(frozen=True)
class Document:
    """`root` as JSON values; `digest` the SHA-256 of the bytes it was read from."""

    root: Mapping[str, Any]
    digest: str
    version: str
    """As written: ``"2.0"``, ``"3.0.3"``, ``"3.1.0"``."""

    @property
    def swagger(self) -> bool:
        return self.version == "2.0"

    def follow(self, node: Any, pointer: str) -> tuple[Any, str]:
        """What `node` stands for: itself, or what its ``$ref`` leads to, with the pointer to that.

        Raises:
            Fault: the reference leads nowhere, out of the document, or in a circle.
        """
        seen: set[str] = set()
        while isinstance(node, dict) and isinstance(node.get("$ref"), str):
            target = node["$ref"]
            if target in seen or len(seen) >= MAX_CHAIN:
                raise Fault(pointer, f"the reference {target[:200]!r} leads back to itself")
            seen.add(target)
            node, pointer = self.find(target, pointer)
        return node, pointer

    def find(self, target: str, pointer: str) -> tuple[Any, str]:
        """The value at a reference such as ``#/components/schemas/Pet``; `pointer` is where it is referred to."""
        if not target.startswith("#"):
            raise Fault(pointer, f"refers to {target[:200]!r} outside of the document. Bundle it into one file first")
        if target != "#" and not target.startswith("#/"):
            raise Fault(pointer, f"refers to {target[:200]!r}, which is not a JSON pointer")
        node: Any = self.root
        steps = target[2:].split("/") if len(target) > 1 else []
        for step in steps:
            key = unquote(step).replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict) and key in node:
                node = node[key]
            elif isinstance(node, list) and key.isascii() and key.isdigit() and len(key) < 7 and int(key) < len(node):
                node = node[int(key)]
            else:
                raise Fault(pointer, f"refers to {target[:200]!r}, which is not in the document")
        return node, target


def read_document(content: bytes) -> Document:
    """JSON or YAML bytes as a document.

    Raises:
        TooLarge: more bytes than are read.
        Fault: it is neither, too deep, too large, or not an OpenAPI 3 or Swagger 2.0 document.
    """
    if len(content) > MAX_BYTES:
        raise TooLarge(f"The document has {len(content):,} bytes; at most {MAX_BYTES:,} are read.")
    root = _values(content)
    if not isinstance(root, dict):
        raise Fault("#", "is not an OpenAPI document: it holds no named values")
    return Document(root, hashlib.sha256(content).hexdigest(), _version(root))


def _values(content: bytes) -> Any:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Fault("#", "is not UTF-8 text") from None
    try:
        # orjson itself refuses what is nested deeper than 1,024.
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if text.lstrip()[:1] in ("{", "["):
            try:  # YAML in flow style begins alike
                return read_yaml(text, max_depth=MAX_DEPTH, max_nodes=MAX_NODES)
            except Fault:
                raise Fault("#", f"is not JSON (line {error.lineno}): {error.msg}") from None
        return read_yaml(text, max_depth=MAX_DEPTH, max_nodes=MAX_NODES)
    _measure(value)
    return value


def _measure(value: Any) -> None:
    level, depth, nodes = [value], 0, 0
    while level:
        depth += 1
        nodes += len(level)
        if depth > MAX_DEPTH:
            raise Fault("#", f"is nested deeper than {MAX_DEPTH} levels")
        if nodes > MAX_NODES:
            raise Fault("#", f"holds more than {MAX_NODES:,} values")
        below: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                below += node.values()
            elif isinstance(node, list):
                below += node
        level = below


def _version(root: Mapping[str, Any]) -> str:
    if "swagger" in root:
        if str(root["swagger"]) not in ("2.0", "2"):
            raise Fault("#/swagger", f"version {str(root['swagger'])[:20]!r} is not read; 2.0 is")
        return "2.0"
    version = str(root.get("openapi", ""))
    if not version:
        raise Fault("#", "is not an OpenAPI document: neither 'openapi' nor 'swagger' says its version")
    if not version.startswith("3."):
        raise Fault("#/openapi", f"version {version[:20]!r} is not read; 3.0 and 3.1 are")
    return version
