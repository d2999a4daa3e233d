"""The servers a person has added, with the definitions they approved, in one file of the data folder.

The file is readable by its owner alone: it holds command lines and plain environment values, and what is in it is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.domain.durable import replace_file
from trimtab.domain.errors import InvalidInput, NotFound
from trimtab.domain.tool import Effect

from ..declare import NAME
from . import reach
from .definition import Definition
from .reach import Command, Endpoint


@dataclass(frozen=True)
class Approved:
    """A tool as a person approved it: what it is called here, and what it may do."""

    definition: Definition
    called: str
    """Its name in our namespace: ``files.<called>``."""
    effect: Effect


@dataclass(frozen=True)
class Server:
    """One added server. A wrong name raises `InvalidInput`."""

    name: str
    reached: Command | Endpoint
    tools: tuple[Approved, ...] = ()
    resources: Effect | None = None
    """What reading a resource counts as; None: it has none, or they are not wanted."""
    timeout: float = 60.0
    """Seconds for a call, starting the server included."""
    says: str = ""
    """How it introduced itself: name and version."""
    approved_at: str = ""

    def __post_init__(self) -> None:
        if not NAME.match(self.name):
            raise InvalidInput(f"{self.name!r} cannot name a server: use a-z, 0-9 and _, at most 31, a letter first.")
        if not 1 <= self.timeout <= 3600:
            raise InvalidInput("A server's timeout is between 1 and 3600 seconds.")

    def pin(self, tool: str) -> Approved | None:
        """What was approved of a tool, by the server's own name for it."""
        return next((known for known in self.tools if known.definition.name == tool), None)

    def wire(self) -> dict[str, Any]:
        return {
            **self.reached.wire(),
            "timeout": self.timeout,
            "says": self.says,
            "approved_at": self.approved_at,
            "resources": self.resources,
            "tools": [
                {**t.definition.wire(), "called": t.called, "effect": t.effect, "sha256": t.definition.sha256}
                for t in self.tools
            ],
        }

    @classmethod
    def from_wire(cls, name: str, data: Mapping[str, Any]) -> Server:
        tools = []
        for tool in data.get("tools") or ():
            definition = Definition.from_wire(tool)
            if definition.sha256 != tool["sha256"]:
                raise InvalidInput(f"the definition of {definition.name!r} is not the one that was approved")
            tools.append(Approved(definition, str(tool["called"]), Effect(tool["effect"])))
        return cls(
            name,
            reach.from_wire(data),
            tuple(tools),
            Effect(data["resources"]) if data.get("resources") else None,
            float(data.get("timeout", 60.0)),
            str(data.get("says", "")),
            str(data.get("approved_at", "")),
        )


@dataclass
class Book:
    """The file with the servers. Each change is on disk when its call returns."""

    path: Path
    servers: dict[str, Server] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        try:
            data = json.loads(self.path.read_text("utf-8"))
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise InvalidInput(
                f"{self.path} cannot be read: {error}. Mend it, or delete it and add the servers."
            ) from None
        try:
            self.servers = {name: Server.from_wire(name, entry) for name, entry in data["servers"].items()}
        except (KeyError, TypeError, ValueError, InvalidInput) as error:
            raise InvalidInput(
                f"{self.path} is not what Trimtab wrote: {error}. Delete it and add the servers."
            ) from None

    def get(self, name: str) -> Server:
        """One server. Raises `NotFound`."""
        if name not in self.servers:
            raise NotFound(
                f"There is no MCP server {name[:100]!r}. Added: {', '.join(sorted(self.servers)) or 'none'}."
            )
        return self.servers[name]

    def put(self, server: Server) -> None:
        self._write({**self.servers, server.name: server})

    def drop(self, name: str) -> None:
        """Forget one. Raises `NotFound`."""
        self.get(name)
        self._write({known: server for known, server in self.servers.items() if known != name})

    def _write(self, servers: dict[str, Server]) -> None:
        text = json.dumps({"version": 1, "servers": {n: s.wire() for n, s in sorted(servers.items())}}, indent=1)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(self.path, text)  # mode 0600
        self.servers = servers
