"""Tokens: fetched, kept, renewed. OAuth 2.1 (authorization code with PKCE, refresh) and client credentials.

The token endpoint is asked through the same guarded client as everything else: checked addresses, a deadline, a cap on
bytes. It is asked once, never again after a failure: a refresh token may be good for one use only.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import quote_plus, urlsplit

import httpx

from trimtab.domain.errors import ToolError

from .auth import ClientCredentials, OAuth
from .http import Http
from .reach import Reach
from .reply import Limits
from .retry import Retry

EARLY = 30.0
"""Seconds before its end at which a token is renewed."""
TOKEN_LIMITS = Limits(connect=3.0, read=8.0, total=10.0, max_bytes=100_000, redirects=0)
Lookup = Callable[[str], str]
"""The secret of a name. Raises `ToolError` when there is none."""


class Refused(Exception):
    """The authorization server said no. `code` is one of RFC 6749's."""

    def __init__(self, code: str, host: str) -> None:
        super().__init__(code)
        self.code = code
        self.host = host


@dataclass(frozen=True)
class Tokens:
    """What a sign-in gave. `account` tells one sign-in from another and says nothing else."""

    access: str = field(repr=False)
    refresh: str = field(default="", repr=False)
    until: float = 0.0
    """Unix seconds; 0 where the server did not say."""
    scope: str = ""
    account: str = field(default_factory=lambda: uuid.uuid4().hex)
    reconnect: bool = False
    """The server refused to renew it: only the person can, by signing in again."""

    def due(self, now: float) -> bool:
        return bool(self.until) and now >= self.until - EARLY

    def text(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def of(cls, text: str) -> Tokens | None:
        """From `text`; None when it is not what we wrote."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True)
class Endpoint:
    """A token endpoint and the way to it."""

    url: str
    transport: Callable[[], httpx.AsyncBaseTransport]
    allow_private: bool = False

    async def ask(self, form: Mapping[str, str], basic: tuple[str, str] | None = None) -> Tokens:
        """Ask for tokens.

        Raises:
            Refused: the server said no, in the way the standard describes.
            ToolError: it could not be asked, or answered in no such way.
        """
        parts = urlsplit(self.url)
        host = parts.netloc.lower()
        transport = self.transport()
        reach = Reach((host,), allow_private=self.allow_private)
        http = Http(reach, limits=TOKEN_LIMITS, retry=Retry(attempts=1), transport=transport)
        headers = {"accept": "application/json", "content-type": "application/x-www-form-urlencoded"}
        if basic:
            pair = ":".join(map(quote_plus, basic))  # RFC 6749, 2.3.1: each part is form-encoded first
            headers["authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        body = str(httpx.QueryParams(dict(form))).encode()
        try:
            reply = await http.send("POST", self.url, headers=headers, content=body, ok=(400, 401, 403))
        finally:
            await transport.aclose()
        said = reply.json()
        if not isinstance(said, dict):
            raise _strange(host)
        if reply.status != 200:
            raise Refused(str(said.get("error", "unknown"))[:60], host)
        return _tokens(said, host)


def _tokens(said: dict[str, Any], host: str) -> Tokens:
    access, refresh = said.get("access_token"), said.get("refresh_token") or ""
    kind = str(said.get("token_type", "bearer")).lower()
    if not isinstance(access, str) or not access or not isinstance(refresh, str) or kind != "bearer":
        raise _strange(host)
    try:
        lasts = float(said.get("expires_in") or 0)
    except (TypeError, ValueError):
        raise _strange(host) from None
    return Tokens(access, refresh, time.time() + lasts if lasts > 0 else 0.0, str(said.get("scope", ""))[:1000])


def _strange(host: str) -> ToolError:
    return ToolError(f"{host} answered a request for a token in no known way. Sign-in failed.", reason="auth")


def code_form(auth: OAuth, client_id: str, *, code: str, verifier: str, redirect: str) -> dict[str, str]:
    return _with_resource(
        auth.resource,
        {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect,
            "client_id": client_id,
            "code_verifier": verifier,
        },
    )


def refresh_form(auth: OAuth, client_id: str, refresh: str) -> dict[str, str]:
    form = {"grant_type": "refresh_token", "refresh_token": refresh, "client_id": client_id}
    return _with_resource(auth.resource, form)


def credentials_form(auth: ClientCredentials) -> dict[str, str]:
    form = {"grant_type": "client_credentials"}
    if auth.scopes:
        form["scope"] = " ".join(auth.scopes)
    return _with_resource(auth.resource, form)


def _with_resource(resource: str, form: dict[str, str]) -> dict[str, str]:
    return {**form, "resource": resource} if resource else form


async def off_loop(work: Callable[[], Any]) -> Any:
    """A keyring may ask the person for a password, and a lock may be held: neither holds up the event loop."""
    return await asyncio.to_thread(work)
