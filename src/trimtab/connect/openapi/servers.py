"""Where an API is: the `servers` of OpenAPI 3 with their variables, `host` and `basePath` of Swagger 2.0."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from trimtab.domain.errors import InvalidInput

from .document import Document
from .fault import Fault, below

_VARIABLE = re.compile(r"\{([^{}]{1,60})\}")
_HOST = re.compile(r"^[a-z0-9-]+(\.[a-z0-9-]+)*$")


@dataclass(frozen=True)
class Server:
    """A checked base URL without a slash at its end."""

    url: str

    @property
    def host(self) -> str:
        """The host as a connector declares it, with its port where that is not the scheme's own."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)

    @property
    def plain(self) -> bool:
        return self.url.startswith("http://")


def server_at(url: str) -> Server:
    """A base URL that a person gave, or a document.

    Raises:
        InvalidInput: it is not a plain http or https address.
    """
    if any(ord(char) <= 32 or ord(char) >= 127 or char in "\\{}<>\"'" for char in url) or len(url) > 1000:
        raise InvalidInput(f"{url[:100]!r} is not an address: it holds characters that an address cannot.")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidInput(f"{url[:100]!r} is not an address: {error}") from None
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise InvalidInput(f"{url[:100]!r} is not an http or https address. Give --base-url https://...")
    if parts.username is not None or parts.query or parts.fragment:
        raise InvalidInput(f"{url[:100]!r} carries a user name, a query or a fragment. Give a plain address.")
    host, scheme = parts.hostname.lower(), parts.scheme.lower()
    if not _HOST.match(host) or len(host) > 253:
        raise InvalidInput(f"{host[:100]!r} is not a host name this can reach. Give --base-url https://...")
    shown = "" if port is None or port == {"http": 80, "https": 443}[scheme] else f":{port}"
    return Server(f"{scheme}://{host}{shown}{parts.path.rstrip('/')}")


def servers_of(document: Document, node: Mapping[str, Any], pointer: str, source: str) -> list[Server]:
    """The servers a node names, https before http, each with its variables' defaults; empty when it names none.

    `source` is the address the document was read from; relative servers begin there.

    Raises:
        Fault: there are some, and none can be used.
    """
    given = node.get("servers")
    if not given:
        return []
    if not isinstance(given, list):
        raise Fault(below(pointer, "servers"), "is not a list")
    found: list[Server] = []
    fault: Fault | None = None
    for number, entry in enumerate(given[:100]):
        where = below(pointer, "servers", number)
        try:
            found.append(_server(entry, where, source))
        except Fault as problem:
            fault = fault or problem
    if not found and fault:
        raise fault
    return sorted(found, key=lambda server: server.plain)


def swagger_servers(document: Document, source: str) -> list[Server]:
    """Swagger 2.0's one server. Raises `Fault` when it cannot be used."""
    root = document.root
    host, base = root.get("host"), root.get("basePath") or ""
    schemes = root.get("schemes")
    named = [s for s in schemes if s in ("https", "http")] if isinstance(schemes, list) else []
    if not isinstance(host, str) or not host:
        if not source:
            raise Fault("#/host", "is missing, so nothing says where the API is. Give --base-url https://...")
        host, named = urlsplit(source).netloc, named or [urlsplit(source).scheme]
    scheme = "http" if named == ["http"] else "https"
    host = _filled(host.partition("://")[2] or host, {}, "#/host")
    return [_checked(f"{scheme}://{host.strip().strip('/')}/{str(base).strip('/')}", "#/host")]


def _server(entry: Any, pointer: str, source: str) -> Server:
    if not isinstance(entry, dict) or not isinstance(entry.get("url"), str):
        raise Fault(pointer, "is not a server: it has no url")
    variables = entry.get("variables")
    url = _filled(entry["url"].strip(), variables if isinstance(variables, dict) else {}, pointer)
    if "://" not in url:
        if url.startswith("//"):
            url = f"https:{url}"
        elif source:
            url = urljoin(source, url)
        else:
            raise Fault(
                below(pointer, "url"),
                f"{url[:100]!r} does not say which host the API is on. Give --base-url https://...",
            )
    return _checked(url.partition("?")[0].partition("#")[0], below(pointer, "url"))


def _filled(url: str, variables: Mapping[str, Any], pointer: str) -> str:
    def default(found: re.Match[str]) -> str:
        told = variables.get(found[1])
        value = told.get("default") if isinstance(told, dict) else None
        options = told.get("enum") if isinstance(told, dict) else None
        if value is None and isinstance(options, list) and options:
            value = options[0]
        if value is None or isinstance(value, dict | list):
            raise Fault(pointer, f"the server's variable {found[1]!r} has no default. Give --base-url https://...")
        return str(value)

    return _VARIABLE.sub(default, url)


def _checked(url: str, pointer: str) -> Server:
    try:
        return server_at(url)
    except InvalidInput as problem:
        raise Fault(pointer, problem.message) from None


def is_private(server: Server) -> bool:
    """Whether it is written as a loopback or private address, which an operator has to allow."""
    host = urlsplit(server.url).hostname or ""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal")) or "." not in host
