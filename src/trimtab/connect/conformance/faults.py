"""The faults, and a server on loopback that commits them.

A fault is a behaviour: what the server does with a request that it could have answered properly. Every byte is written
by hand, for no well-behaved server does these things. The connector keeps its declared hosts; `Routed` takes what the
guard let through and connects to this server instead, so that the guard is tested with the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from ..cassettes import Exchange
from ..cassettes.playing import OLD_TOKEN, asked_url, asks_for_token, fits, sent_body, token_answer
from .certificates import Certificates

MAX_BODY = 10_000_000_000
MAX_HEAD = 100_000
TOKEN = Exchange("POST", "", 200, {"content-type": "application/json"}, token_answer())
"""What a token endpoint answers."""


@dataclass
class Asked:
    """A request as it arrived."""

    head: bytes
    body: bytes
    url: str
    method: str
    key: str
    """Its idempotency key."""
    exchange: Exchange | None
    extra: bytes = b""
    """Bytes that came after the request on the same connection."""


@dataclass
class Site:
    """The server's side of one case: what it knows, what it was asked, how much it sent."""

    exchanges: Sequence[Exchange]
    ask: list[Asked] = field(default_factory=list)
    sent: int = 0
    port: int = 0
    key_header: str = "idempotency-key"
    any_answer: bool = False
    """Answer what fits no exchange with the likeliest one: arguments are being fuzzed."""

    def find(self, method: str, url: str, sent: Any) -> Exchange | None:
        if asks_for_token(method, sent):
            return TOKEN
        fitting = [exchange for exchange in self.exchanges if fits(exchange, method, url, sent)]
        if not fitting and self.any_answer:
            host = url.partition("://")[2].partition("/")[0]
            near = [e for e in self.exchanges if e.url.partition("://")[2].partition("/")[0] == host]
            fitting = [e for e in near if e.method == method] or near or list(self.exchanges)
        if not fitting:
            return None
        seen = sum(1 for asked in self.ask if asked.exchange in fitting)
        return fitting[min(seen, len(fitting) - 1)]


class Wire:
    """The connection, seen from a fault."""

    def __init__(self, writer: asyncio.StreamWriter, site: Site) -> None:
        self.writer = writer
        self.site = site

    async def send(self, data: bytes) -> None:
        if self.writer.is_closing():
            raise ConnectionResetError("the client hung up")
        self.writer.write(data)
        await self.writer.drain()
        self.site.sent += len(data)

    def reset(self) -> None:
        """RST instead of an orderly end."""
        if (sock := self.writer.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Behave = Callable[[Wire, Asked, bytes], Awaitable[None]]
"""What to do with a request whose proper answer would be these bytes."""


def answer(status: int, headers: Sequence[tuple[str, str]], body: bytes, *, length: int | None = None) -> bytes:
    """A whole response. `length` is what it claims to have, when that is a lie."""
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body) if length is None else length}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers if name not in ("content-length", "connection")]
    return "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n" + body


def proper(exchange: Exchange | None) -> bytes:
    """What the service would answer."""
    if exchange is None:
        return answer(404, [("content-type", "text/plain")], b"not recorded")
    return answer(exchange.status, list(exchange.headers.items()), exchange.body)


async def honest(wire: Wire, asked: Asked, good: bytes) -> None:
    await wire.send(good)


# ---------------------------------------------------------------------- connections


def reset_at(offset: float) -> Behave:
    """Cut after so much of the answer: 0 before it begins, 1 just before its last byte."""

    async def behave(wire: Wire, asked: Asked, good: bytes) -> None:
        await wire.send(good[: min(int(len(good) * offset), len(good) - 1)])
        wire.reset()

    return behave


async def half_close(wire: Wire, asked: Asked, good: bytes) -> None:
    """An orderly end in the middle of the head."""
    await wire.send(good[:20])


async def blackhole(wire: Wire, asked: Asked, good: bytes) -> None:
    await asyncio.sleep(3600)


async def drip(wire: Wire, asked: Asked, good: bytes) -> None:
    for byte in good * 100:
        await wire.send(bytes([byte]))
        await asyncio.sleep(0.05)


async def drip_body(wire: Wire, asked: Asked, good: bytes) -> None:
    head, _, body = good.partition(b"\r\n\r\n")
    await wire.send(head + b"\r\n\r\n")
    for byte in body[:-1] or b"":
        await wire.send(bytes([byte]))
        await asyncio.sleep(0.05)
    await asyncio.sleep(3600)


def late(seconds: float) -> Behave:
    async def behave(wire: Wire, asked: Asked, good: bytes) -> None:
        await asyncio.sleep(seconds)
        await wire.send(good)

    return behave


# ---------------------------------------------------------------------- statuses


def status(code: int, *headers: tuple[str, str], body: bytes = b"{}") -> Behave:
    async def behave(wire: Wire, asked: Asked, good: bytes) -> None:
        await wire.send(answer(code, [("content-type", "application/json"), *headers], body))

    return behave


async def stale_token(wire: Wire, asked: Asked, good: bytes) -> None:
    """401 for the token that was kept, the proper answer for a renewed one."""
    if OLD_TOKEN.encode() in asked.head:
        await wire.send(answer(401, [("www-authenticate", 'Bearer error="invalid_token"')], b""))
    else:
        await wire.send(good)


def first(count: int, code: int, *headers: tuple[str, str]) -> Behave:
    """So many of these for each exchange, then the proper answer."""

    async def behave(wire: Wire, asked: Asked, good: bytes) -> None:
        before = sum(1 for other in wire.site.ask if other.exchange == asked.exchange)
        await wire.send(answer(code, headers, b"") if before <= count else good)

    return behave


def redirect(location: str, code: int = 302) -> Behave:
    return status(code, ("location", location), body=b"")


async def loop(wire: Wire, asked: Asked, good: bytes) -> None:
    """To the same host, for ever."""
    mark = "&" if "?" in asked.url else "?"
    await wire.send(answer(302, [("location", f"{asked.url.partition('#')[0]}{mark}again={len(wire.site.ask)}")], b""))


# ---------------------------------------------------------------------- bodies


def parts(good: bytes) -> tuple[list[tuple[str, str]], bytes]:
    head, _, body = good.partition(b"\r\n\r\n")
    pairs = [line.partition(":")[::2] for line in head.decode("latin-1").split("\r\n")[1:]]
    return [(name, value.strip()) for name, value in pairs], body


def changed(
    change: Callable[[bytes], bytes], content_type: str = "", length: Callable[[int], int] | None = None
) -> Behave:
    """The proper answer with another body."""

    async def behave(wire: Wire, asked: Asked, good: bytes) -> None:
        headers, body = parts(good)
        new = change(body)
        kept = [(n, content_type if n == "content-type" and content_type else v) for n, v in headers]
        if content_type and not any(name == "content-type" for name, _ in kept):
            kept.append(("content-type", content_type))
        await wire.send(answer(200, kept, new, length=length(len(new)) if length else None))

    return behave


async def endless_body(wire: Wire, asked: Asked, good: bytes) -> None:
    """Ten gigabytes, of blanks: JSON may begin with any number of them."""
    headers, _ = parts(good)
    await wire.send(answer(200, headers, b"", length=MAX_BODY))
    block = b" " * 65536
    for _ in range(MAX_BODY // len(block)):
        await wire.send(block)


async def gzip_bomb(wire: Wire, asked: Asked, good: bytes) -> None:
    """Ten gigabytes of blanks in about ten megabytes."""
    headers, _ = parts(good)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = b" " * 1_000_000
    lines = [f"{name}: {value}" for name, value in headers if name not in ("content-length", "connection")]
    head = ["HTTP/1.1 200 X", "content-encoding: gzip", "transfer-encoding: chunked", "connection: close", *lines]
    await wire.send("\r\n".join(head).encode() + b"\r\n\r\n")
    for _ in range(MAX_BODY // len(block)):
        if piece := packer.compress(block):
            await wire.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        await asyncio.sleep(0)


async def endless_events(wire: Wire, asked: Asked, good: bytes) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
    for number in range(1_000_000):
        await wire.send(f"data: {number}\n\n".encode())
        await asyncio.sleep(0.02)


async def no_http(wire: Wire, asked: Asked, good: bytes) -> None:
    await wire.send(b"SSH-2.0-OpenSSH_9.6\r\n")


async def huge_head(wire: Wire, asked: Asked, good: bytes) -> None:
    await wire.send(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        await wire.send(f"x-{number}: {'y' * 1000}\r\n".encode())


def truncated(body: bytes) -> bytes:
    return body[: max(1, len(body) // 2)]


def renamed(body: bytes) -> bytes:
    """Every member of every object under another name: a new major version of the service."""
    return _mapped(body, lambda value: {f"new_{k}": v for k, v in value.items()} if isinstance(value, dict) else value)


def retyped(body: bytes) -> bytes:
    """Numbers as texts of words, texts as numbers, lists as objects."""

    def change(value: Any) -> Any:
        if isinstance(value, bool) or value is None:
            return {"value": value}
        if isinstance(value, int | float):
            return "about " + "some"
        if isinstance(value, str):
            return 7
        return {"items": {"first": value}} if isinstance(value, list) else value

    return _mapped(body, change)


def problem_document(body: bytes) -> bytes:
    """An error with status 200, as some gateways send it."""
    return json.dumps({"error": {"code": 1042, "message": "Endpoint retired"}}).encode()


def _mapped(body: bytes, change: Callable[[Any], Any]) -> bytes:
    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return change({name: walk(inner) for name, inner in value.items()})
        if isinstance(value, list):
            return change([walk(inner) for inner in value])
        return change(value)

    return json.dumps(walk(json.loads(body))).encode()


async def echo(wire: Wire, asked: Asked, good: bytes) -> None:
    """What was sent, as the answer."""
    headers, _ = parts(good)
    await wire.send(answer(200, headers, json.dumps({"you_sent": asked.head.decode("latin-1")}).encode()))


async def echo_status(wire: Wire, asked: Asked, good: bytes) -> None:
    """What was sent, as an error, in the reason and in the body."""
    await wire.send(answer(400, [("content-type", "text/plain")], asked.head))


# ---------------------------------------------------------------------- the server


@asynccontextmanager
async def serving(site: Site, behave: Behave, context: ssl.SSLContext | None) -> AsyncIterator[Site]:
    """Answer each connection's one request as `behave` does; without a context in plain HTTP."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
                asked = await _read(reader, site, "https" if context else "http")
                site.ask.append(asked)
                await behave(Wire(writer, site), asked, proper(asked.exchange))
                if site.any_answer:
                    asked.extra = await reader.read(MAX_HEAD)
        except asyncio.CancelledError:
            pass
        finally:
            tasks.discard(task)
            writer.transport.abort() if task.cancelling() else writer.close()

    # A handshake that fails is part of the test; nobody needs to hear of it.
    asyncio.get_running_loop().set_exception_handler(lambda loop, about: None)
    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context, limit=MAX_HEAD)
    site.port = server.sockets[0].getsockname()[1]
    try:
        yield site
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(reader: asyncio.StreamReader, site: Site, scheme: str) -> Asked:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *rest = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (item.partition(":") for item in rest)}
    body = await reader.readexactly(int(headers.get("content-length") or 0))
    method, target, _ = (*line.split(" "), "", "")[:3]
    url = f"https://{headers.get('host', '')}{target}"
    found = site.find(method, url, sent_body(body)) or site.find(
        method, url.replace("https", "http", 1), sent_body(body)
    )
    return Asked(head, body, url, method, headers.get(site.key_header, ""), found)


@asynccontextmanager
async def refusing(site: Site) -> AsyncIterator[Site]:
    """A port where nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        site.port = held.getsockname()[1]
        yield site


class Routed(httpx.AsyncBaseTransport):
    """Connects to the check's own server whatever address the guard let through, and writes down which it was.

    `plain` is where requests in plain HTTP go; without it they are refused, as a server that only speaks TLS does.
    """

    def __init__(self, site: Site, certificates: Certificates, *, tls: bool = True, plain: int = 0) -> None:
        self._site = site
        self._tls = tls
        self._plain = plain
        self._inner = httpx.AsyncHTTPTransport(verify=certificates.client, trust_env=False, retries=0)
        self.dialed: list[tuple[str, str, str]] = []
        """Address, scheme and the address (URL) as the connector asked for it."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.dialed.append((request.url.host, request.url.scheme, asked_url(request)))
        url = request.url.copy_with(host="127.0.0.1", port=self._site.port)
        if request.url.scheme == "http" or not self._tls:
            url = url.copy_with(scheme="http", port=self._site.port if not self._tls else self._plain or 1)
        routed = httpx.Request(
            request.method, url, headers=request.headers, stream=request.stream, extensions=request.extensions
        )
        return await self._inner.handle_async_request(routed)

    async def aclose(self) -> None:
        await self._inner.aclose()
