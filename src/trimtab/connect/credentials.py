"""A secret at the moment it is used: what is added to a request, and what must not be seen in anything that returns."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote, quote_plus

REMOVED = "[secret removed]"
_SALT = os.urandom(32)


@dataclass(frozen=True)
class Credential:
    """A key to add to requests to the origin first asked. Never shown by `repr`."""

    header: str = ""
    query: str = ""
    value: str = field(default="", repr=False)


class Account(Protocol):
    """Where the credential of a connector's requests comes from."""

    @property
    def identity(self) -> str:
        """Stands for whose answers these are, in the cache's keys; tells nothing about the secret."""
        ...

    async def credential(self) -> Credential | None:
        """What to add now. Raises `ToolError` when it cannot be had."""
        ...

    async def renewed(self, refused: Credential) -> Credential | None:
        """Another one, after the service answered 401 to that one; None where there is no other."""
        ...


class Fixed:
    """A key that stays what it is."""

    def __init__(self, credential: Credential | None) -> None:
        self._credential = credential
        self.identity = fingerprint(credential.value) if credential else ""

    async def credential(self) -> Credential | None:
        return self._credential

    async def renewed(self, refused: Credential) -> Credential | None:
        return None


NOBODY = Fixed(None)


def fingerprint(secret: str) -> str:
    """The same for the same secret in this process; useless outside it."""
    return hmac.new(_SALT, secret.encode(), hashlib.sha256).hexdigest()


def forms(secret: str) -> set[str]:
    """A secret as it is, and as it may travel: quoted in a URL or a form, escaped in JSON, in base64."""
    if not secret:
        return set()
    coded = base64.b64encode(secret.encode()).decode()
    quoted = {quote(secret, safe=""), quote_plus(secret)}
    return {secret, *quoted, json.dumps(secret)[1:-1], coded, coded.rstrip("=")}


class Secrets:
    """The secrets one call has touched, to be taken out of whatever it returns. A token fetched meanwhile is added."""

    def __init__(self, *values: str) -> None:
        self._needles: set[str] = set()
        for value in values:
            self.add(value)

    def __bool__(self) -> bool:
        return bool(self._needles)

    def __repr__(self) -> str:
        return f"Secrets({len(self._needles)} kept)"

    def add(self, value: str) -> None:
        """Also in the forms in which a service may send it back."""
        self._needles |= forms(value)

    def redact(self, text: str) -> str:
        for needle in sorted(self._needles, key=len, reverse=True):
            text = text.replace(needle, REMOVED)
        return text
