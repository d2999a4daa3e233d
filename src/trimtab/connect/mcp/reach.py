"""How a server is reached: a command line, or an address. Values that say no secret, only where to look one up."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from trimtab.domain.errors import InvalidInput

Secrets = Callable[[str], SecretStr | None]
"""The value of a name, from wherever secrets are kept; None when there is none."""

INHERITED = ("HOME", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "LOGNAME", "PATH", "SYSTEMROOT", "TEMP", "TMPDIR", "TZ",
             "USER")  # fmt: skip
"""All that a server's process knows of our environment, besides what its entry names."""
OURS = "TRIMTAB_"
VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")
HEADER = re.compile(r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")
TAKEN_HEADERS = frozenset({"host", "content-length", "content-type", "accept", "accept-encoding", "connection",
                           "transfer-encoding", "mcp-session-id", "mcp-protocol-version"})  # fmt: skip


@dataclass(frozen=True)
class Command:
    """A server on this machine that speaks over its standard input and output.

    `argv` is run exactly as it is, without a shell. `env` holds plain values; `secrets` are names of variables whose
    values are looked up when the server starts and are nowhere written down.

    Raises:
        InvalidInput: there is no program, or a name is not one.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    cwd: str = ""

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0].strip():
            raise InvalidInput("An MCP server needs a command. Write it after `--`, e.g. -- npx -y some-server /data")
        if any("\0" in part for part in (*self.argv, *self.env.values(), self.cwd)):
            raise InvalidInput("A command and its environment cannot hold NUL characters.")
        for name in (*self.env, *self.secrets):
            if not VARIABLE.match(name):
                raise InvalidInput(f"{name[:100]!r} cannot name an environment variable.")
            if name.upper().startswith(OURS):
                raise InvalidInput(f"{name} is Trimtab's own and is not handed to an MCP server.")

    @property
    def shown(self) -> str:
        """For a person: what is run, with each argument that needs it in quotes."""
        return " ".join(part if re.fullmatch(r"[\w@%+=:,./-]+", part) else repr(part) for part in self.argv)

    def environment(self, ours: Mapping[str, str], secret: Secrets) -> dict[str, str]:
        """The whole environment of the process.

        Raises:
            InvalidInput: a secret is not set.
        """
        kept = {name: ours[name] for name in INHERITED if name in ours}
        return {**kept, **self.env, **{name: _looked_up(name, secret) for name in self.secrets}}

    def wire(self) -> dict[str, Any]:
        return {"argv": list(self.argv), "env": dict(self.env), "secrets": list(self.secrets), "cwd": self.cwd}


@dataclass(frozen=True)
class Endpoint:
    """A server that is reached over streamable HTTP.

    `headers` maps a header to the name of the secret it carries; the header ``Authorization`` is sent as a bearer
    token. `local` allows this machine and its own networks, and plain http there; otherwise only https to addresses on
    the public internet.

    Raises:
        InvalidInput: the address is not one that may be asked, or a header is not one that may be set.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    local: bool = False

    def __post_init__(self) -> None:
        if any(ord(char) <= 32 or char == "\\" or ord(char) == 127 for char in self.url) or len(self.url) > 2000:
            raise InvalidInput("That is not a web address: it has spaces, control characters or backslashes.")
        try:
            parts = urlsplit(self.url)
            fits = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
        except ValueError:
            fits = False
        if not fits or parts.username is not None or parts.fragment:
            raise InvalidInput(f"{self.url[:200]!r} is not the address of an MCP server. Write https://host/mcp")
        if parts.scheme == "http" and not self.local:
            raise InvalidInput(f"{self.url[:200]} is not encrypted. Use https, or --local for one on your own network.")
        for header, name in self.headers.items():
            if not HEADER.match(header) or header.lower() in TAKEN_HEADERS:
                raise InvalidInput(f"The header {header[:100]!r} cannot be set for an MCP server.")
            if not VARIABLE.match(name) or name.upper().startswith(OURS):
                raise InvalidInput(f"{name[:100]!r} cannot name a secret. Give the name of a variable, not its value.")

    @property
    def shown(self) -> str:
        return self.url

    def sent_headers(self, secret: Secrets) -> dict[str, str]:
        """Headers with their secrets.

        Raises:
            InvalidInput: one is not set, or cannot be sent.
        """
        found = {header: _looked_up(name, secret) for header, name in self.headers.items()}
        for header, value in found.items():
            if any(ord(char) < 32 or ord(char) > 126 for char in value):
                raise InvalidInput(f"The secret {self.headers[header]} has characters that no header can carry.")
        return {h: f"Bearer {value}" if h.lower() == "authorization" else value for h, value in found.items()}

    def wire(self) -> dict[str, Any]:
        return {"url": self.url, "headers": dict(self.headers), "local": self.local}


def _looked_up(name: str, secret: Secrets) -> str:
    found = secret(name)
    if found is None:
        raise InvalidInput(f"The secret {name} is not set. Set it where Trimtab runs, then try again.")
    return found.get_secret_value()


def from_wire(data: Mapping[str, Any]) -> Command | Endpoint:
    """Inverse of `wire`. Raises `InvalidInput`."""
    try:
        if "url" in data:
            return Endpoint(str(data["url"]), dict(data.get("headers") or {}), bool(data.get("local")))
        env = {str(name): str(value) for name, value in dict(data.get("env") or {}).items()}
        argv, secrets = tuple(map(str, data["argv"])), tuple(map(str, data.get("secrets") or ()))
        return Command(argv, env, secrets, str(data.get("cwd") or ""))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput("An MCP server needs either a command (`argv`) or an address (`url`).") from error
