"""Which URLs a connector may ask for, and how arguments get into them.

Values go into a template's parts quoted, so that no argument changes the scheme, host, port or path structure. The
result is checked against the declared hosts, then moved to the override's base URL where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from trimtab.domain.errors import ToolError

DEFAULT_PORTS = {"http": 80, "https": 443}
_PART = re.compile(r"\{(\w+)\}")
_LABEL = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
_TEMPLATE = re.compile(r"^(?:(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[^/?#]*))?(?P<path>/[^?#]*)?$")


def refused(message: str) -> ToolError:
    return ToolError(message, reason="not_permitted")


@dataclass(frozen=True)
class Reach:
    """The hosts of a connector and what its override changed."""

    hosts: tuple[str, ...]
    plain_http: bool = False
    base_url: str = ""
    """Asked instead of each declared host; its own path comes first."""
    allow_private: bool = False
    """Loopback and private networks, any port, plain http."""

    def free(self, url: str) -> httpx.URL:
        """A complete URL that came from outside, checked.

        Raises:
            ToolError: it is not a URL, or not one this connector may ask for.
        """
        return self.check(parse(url))

    def build(self, template: str, path: Mapping[str, Any], params: Mapping[str, Any] | None) -> httpx.URL:
        """Fill a template such as ``https://{lang}.example.org/v1/{city}`` and check the result.

        Raises:
            ToolError: a value cannot be part of a URL, or the URL is not one this connector may ask for.
        """
        found = _TEMPLATE.match(template)
        if not found:
            raise refused(f"{template!r} is not a URL template: use a path, or https://host/path, and params=.")
        host = _PART.sub(lambda m: _host_label(m[1], path), found["host"]) if found["host"] else self._only_host()
        scheme = found["scheme"] or "https"
        route = _PART.sub(lambda m: _segment(m[1], path), found["path"] or "/")
        url = parse(f"{scheme}://{host}{route}{_query(params)}")
        # The template's own text decides where a request goes; a value that changed that would be a bug of ours.
        if url.raw_host.decode("ascii") != parse(f"{scheme}://{host}").raw_host.decode("ascii"):
            raise refused(f"An argument would have changed the host of {template!r}. The request was not sent.")
        return self.check(url)

    def check(self, url: httpx.URL) -> httpx.URL:
        """The URL to really ask: `url` itself, or its counterpart under the override's base URL.

        Raises:
            ToolError: another scheme, host or port than declared, or a user name in the URL.
        """
        host = url.raw_host.decode("ascii")
        if url.scheme not in DEFAULT_PORTS:
            raise refused(f"Only web addresses (http, https) can be opened, not {url.scheme or 'a relative'}: ones.")
        if url.userinfo or "%" in host or not host:
            raise refused("A web address with a user name, a password or no host is not opened. Give a plain one.")
        if self.base_url and _origin(url) == _origin(parse(self.base_url)):
            return url
        self._declared(url, host)
        return self._moved(url) if self.base_url else url

    def _declared(self, url: httpx.URL, host: str) -> None:
        fitting = [pattern for pattern in self.hosts if _matches(pattern, host)]
        if not fitting:
            raise refused(f"{host} is not a host this connector has declared. It may reach: {self.named()}.")
        if self.allow_private:
            return
        if url.scheme == "http" and not self.plain_http and not self.base_url:
            raise refused(f"{host} was to be asked without encryption, which this connector does not permit.")
        default = DEFAULT_PORTS[url.scheme]
        if (url.port or default) not in {int(pattern.partition(":")[2] or default) for pattern in fitting}:
            raise refused(f"Port {url.port or default} of {host} is not one this connector may use.")

    def _moved(self, url: httpx.URL) -> httpx.URL:
        base = parse(self.base_url)
        route = base.raw_path.rstrip(b"/") + url.raw_path
        return base.copy_with(raw_path=route)

    def _only_host(self) -> str:
        if len(self.hosts) != 1 or "*" in self.hosts[0]:
            raise refused(f"Give the whole URL: the connector declares more than one host ({self.named()}).")
        return self.hosts[0]

    def named(self) -> str:
        return ", ".join(self.hosts) or "none"


def parse(url: str) -> httpx.URL:
    """Text to URL.

    Raises:
        ToolError: it is not one.
    """
    if any(ord(char) <= 32 or char == "\\" or ord(char) == 127 for char in url) or len(url) > 8000:
        raise refused("That is not a web address: it has spaces, control characters or backslashes, or is too long.")
    try:
        return httpx.URL(url)
    except (httpx.InvalidURL, ValueError) as error:
        raise refused(f"{url[:200]!r} is not a web address.") from error


def _origin(url: httpx.URL) -> tuple[str, bytes, int | None]:
    return url.scheme, url.raw_host, url.port or DEFAULT_PORTS.get(url.scheme)


def same_origin(left: httpx.URL, right: httpx.URL) -> bool:
    return _origin(left) == _origin(right)


def _matches(pattern: str, host: str) -> bool:
    name = pattern.partition(":")[0]
    return name == "*" or name == host or (name.startswith("*.") and host.endswith(name[1:]))


def _value(name: str, values: Mapping[str, Any]) -> str:
    if name not in values:
        raise refused(f"The URL needs a value for {{{name}}}: pass it in path=.")
    return str(values[name])


def _host_label(name: str, values: Mapping[str, Any]) -> str:
    value = _value(name, values).lower()
    if not _LABEL.match(value):
        raise refused(f"{value[:60]!r} cannot be part of a host name.")
    return value


def _segment(name: str, values: Mapping[str, Any]) -> str:
    value = _value(name, values)
    # Dots are not quoted by any rule, and "." or ".." would climb out of the path.
    if value in ("", ".", ".."):
        raise refused(f"{name} must not be {value!r}.")
    return _quoted(value)


def _query(params: Mapping[str, Any] | None) -> str:
    pairs = [f"{_quoted(str(k))}={_quoted(_text(v))}" for k, v in (params or {}).items() if v is not None]
    return "?" + "&".join(pairs) if pairs else ""


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(_text(item) for item in value) if isinstance(value, list | tuple) else str(value)


def _quoted(value: str) -> str:
    return quote(value, safe="", errors="replace")
