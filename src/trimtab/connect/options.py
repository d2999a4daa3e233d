"""What can be turned about connectors, as plain arguments."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx
from pydantic import SecretStr

from .declare import Connector
from .discovery import GROUP
from .health import CallRecord
from .result import estimate
from .standing import Standing
from .transport import Resolver, system_resolver
from .vault import Keeper, Memory


@dataclass(frozen=True)
class Override:
    """What a person changed about one connector."""

    base_url: str = ""
    """Asked instead of each host the connector declares: a mirror, a server of one's own, a test."""
    allow_private: bool = False
    """Loopback and private networks, any port, plain http."""
    user_agent: str = ""
    """Some services ask for a way to contact you here."""
    token_url: str = ""
    """Asked for tokens instead of the declared one. The sign-in page stays the declared one."""
    options: Mapping[str, str] = field(default_factory=dict)
    """Values of the options that the connector declares."""


def from_environment(name: str) -> SecretStr | None:
    value = os.environ.get(name, "")
    return SecretStr(value) if value else None


def not_written(record: CallRecord) -> None:
    """Calls are remembered in memory alone."""


@dataclass(frozen=True)
class ConnectOptions:
    """`enabled` None means all but `disabled`; otherwise only those named."""

    enabled: frozenset[str] | None = None
    disabled: frozenset[str] = frozenset()
    overrides: Mapping[str, Override] = field(default_factory=dict)
    secret: Callable[[str], SecretStr | None] = from_environment
    """Where keys are looked up by name: see `vault`."""
    keeper: Keeper = field(default_factory=Memory)
    """Where the tokens of sign-ins are kept."""
    ca_file: str = ""
    """Certificate authorities to trust instead of the built-in list, as a PEM file."""
    resolver: Resolver = system_resolver
    below: Callable[[], httpx.AsyncBaseTransport] | None = None
    """What opens the sockets, under the guard: recordings, a faulty server. None is the network."""
    standing: Callable[[Connector], Standing] | None = None
    """Who vouches for a connector. One without a badge runs read-only. None: the caller vouches for all."""
    group: str = GROUP
    log: Callable[[CallRecord], None] = not_written
    """Told of each finished call."""
    count: Callable[[str], int] = estimate
    """Tokens of a text, for results that must fit a budget."""
