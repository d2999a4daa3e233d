"""Where a connector's code and cassettes are, and the fingerprint that ties a badge to them."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from ..cassettes import Tape, load
from ..declare import Connector

CASSETTES = "cassettes"
OURS = "trimtab."
"""Code of Trimtab itself (tools imported from OpenAPI or MCP run there) is not the connector's."""


def modules(connector: Connector) -> list[str]:
    """Names of the modules that the connector's tools are written in."""
    names = {declared.function.__module__ for declared in connector.tools.values()}
    return sorted(name for name in names if name != "trimtab" and not name.startswith(OURS))


def files(connector: Connector) -> list[Path]:
    """Every file of the connector: those of the whole package its modules are in, or the single file.

    A module beside it that it imports (a package of several connectors shares some) belongs to it; installed libraries
    do not. Compiled files and cassettes are left out.
    """
    found: set[Path] = set()
    for name in modules(connector):
        module = sys.modules.get(name.partition(".")[0] if "." in name else name)
        origin = Path(getattr(module, "__file__", None) or "")
        if origin.name == "__init__.py":
            inside = (path for path in origin.parent.rglob("*") if path.is_file())
            found.update(path for path in inside if not {"__pycache__", CASSETTES} & set(path.parts))
        elif origin.is_file():
            found.add(origin)
    return sorted(found)


def folder(connector: Connector) -> Path | None:
    """Where the connector's module is; None for one that was made in a running program."""
    for name in modules(connector):
        origin = getattr(sys.modules.get(name), "__file__", None)
        if origin:
            return Path(origin).parent
    return None


def cassette_folder(connector: Connector) -> Path | None:
    """``cassettes/NAME`` beside the connector's module."""
    place = folder(connector)
    return place / CASSETTES / connector.name if place else None


def tapes_of(connector: Connector) -> list[Tape]:
    """The connector's cassettes.

    Raises:
        InvalidInput: a file among them is not one.
    """
    place = cassette_folder(connector)
    return load(place) if place else []


def token_urls(connector: Connector) -> list[str]:
    """Where the connector has its tokens from; declared with its sign-in, not among its hosts."""
    url = getattr(connector.auth, "token_url", "")
    return [url] if url else []


def fingerprint(connector: Connector) -> str:
    """SHA-256 over what the connector declares and every byte of its files."""
    digest = hashlib.sha256(json.dumps(_declared(connector), sort_keys=True, default=str).encode())
    root = folder(connector)
    for path in files(connector):
        name = path.relative_to(root).as_posix() if root and path.is_relative_to(root) else path.name
        content = path.read_bytes()
        digest.update(f"\n{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _declared(connector: Connector) -> list[object]:
    tools = [
        (tool.dotted, tool.description, str(tool.effect), tool.untrusted, tool.timeout, tool.json_schema())
        for _, tool in sorted(connector.tools.items())
    ]
    own = [connector.speaks, sorted(connector.options)] if connector.speaks or connector.options else []
    return [connector.name, connector.version, connector.hosts, connector.plain_http, repr(connector.auth), tools, *own]
