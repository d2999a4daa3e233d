"""An authorization server and an API that takes its tokens, on loopback, and the browser of a person who signs in."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

ISSUER = "https://auth.example.org"


@dataclass
class World:
    """An authorization server and an API that takes its tokens. Refresh tokens are good for one use."""

    url: str = ""
    challenge: str = ""
    redirect: str = ""
    access: str = ""
    refresh: str = ""
    lasts: int = 3600
    refuses: str = ""
    """Say no with this code."""
    broken: bool = False
    rejects_all: bool = False
    """The API takes no token at all."""
    forms: list[dict[str, str]] = field(default_factory=list)
    basics: list[str] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)

    def answer(self, head: bytes, body: bytes) -> tuple[int, Any]:
        if head.startswith(b"POST /token"):
            return self.token(head, {name: values[0] for name, values in parse_qs(body.decode()).items()})
        self.heads.append(head)
        if f"authorization: bearer {self.access}".lower().encode() not in head.lower() or self.rejects_all:
            return 401, {"error": "invalid_token"}
        return 200, {"you sent": self.access, "quoted": f"Bearer%20{self.access}"}

    def token(self, head: bytes, form: dict[str, str]) -> tuple[int, Any]:
        self.forms.append(form)
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"authorization: basic "):
                self.basics.append(base64.b64decode(line[21:]).decode())
        if self.broken:
            return 500, {}
        if self.refuses:
            return 400, {"error": self.refuses}
        if form["grant_type"] == "authorization_code":
            digest = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest())
            fits = digest.decode().rstrip("=") == self.challenge and form["redirect_uri"] == self.redirect
            if form["code"] != "the-code" or not fits:
                return 400, {"error": "invalid_grant"}
        elif form["grant_type"] == "refresh_token" and form["refresh_token"] != self.refresh:
            return 400, {"error": "invalid_grant"}
        number = len(self.forms)
        self.access, self.refresh = f"access-token-{number}", f"refresh-token-{number}"
        made = {"access_token": self.access, "token_type": "Bearer", "expires_in": self.lasts}
        if form["grant_type"] != "client_credentials":
            made["refresh_token"] = self.refresh
        return 200, made

    def browser(self, url: str, **changes: str | None) -> str:
        """Where the person's browser is sent once they agreed."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        self.challenge, self.redirect = asked["code_challenge"], asked["redirect_uri"]
        said = {"code": "the-code", "state": asked["state"], "iss": ISSUER, **changes}
        return str(httpx.URL(self.redirect, params={k: v for k, v in said.items() if v is not None}))


@asynccontextmanager
async def signing_in() -> AsyncIterator[World]:
    world = World()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next((int(x[15:]) for x in head.lower().split(b"\r\n") if x.startswith(b"content-length:")), 0)
        status, said = world.answer(head, await reader.readexactly(length))
        body = json.dumps(said).encode()
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    world.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield world
    finally:
        server.close()
