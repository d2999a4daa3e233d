"""What connections to servers need from outside. Apart, so that naming it does not import the SDK."""

from __future__ import annotations

from dataclasses import dataclass

from ..transport import Resolver, system_resolver
from .reach import Secrets


@dataclass(frozen=True)
class Ways:
    """Where secrets are looked up, how names are resolved, whom to trust, and how long a start may take."""

    secret: Secrets
    resolver: Resolver = system_resolver
    ca_file: str = ""
    start_seconds: float = 60.0
    """For a server to start and introduce itself."""
