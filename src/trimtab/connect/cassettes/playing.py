"""Recording and replaying, under the guard: the client above checks hosts, addresses and limits as it always does.

A replayed request fits a recorded one by method, address and body; parameters in another order are the same request.
What was never recorded is an error that says what was asked and what is near, and nothing is ever opened.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

import httpx
from pydantic import SecretStr

from trimtab.domain.errors import ToolError

from ..oauth import Tokens
from ..options import ConnectOptions, Override
from ..transport import tls
from ..vault import Memory
from .scrub import REMOVED, Scrubber
from .tape import KEPT_HEADERS, Exchange, Tape

MAX_RECORDED = 5_000_000
OLD_TOKEN, NEW_TOKEN = "placeholder-for-the-old-token", "placeholder-for-the-new-token"
PUBLIC_ADDRESS = "93.184.215.14"
"""What every name means while nothing is opened: a public address, so that the guard has something to check."""


class NotRecorded(ToolError):
    """A replayed tool asked for something that no cassette has."""

    code: ClassVar[str] = "not_recorded"


def recording(tape: Tape, options: ConnectOptions = ConnectOptions()) -> ConnectOptions:
    """The same options, with everything that is asked and answered written into `tape`."""

    def below() -> httpx.AsyncBaseTransport:
        if options.below:
            return Recorder(tape, options.below())
        return Recorder(tape, httpx.AsyncHTTPTransport(verify=tls(options.ca_file), trust_env=False))

    return replace(options, below=below)


def replaying(tapes: Sequence[Tape], options: ConnectOptions = ConnectOptions()) -> ConnectOptions:
    """Options that open nothing: requests are answered from `tapes`. Keys are placeholders, and what a connector is set
    up with is what its first tape says."""
    player = Player(tapes)
    overrides = dict(options.overrides)
    for tape in reversed(tapes):
        if tape.options:
            name = tape.tool.partition(".")[0]
            overrides[name] = replace(overrides.get(name, Override()), options=tape.setup)
    return replace(
        options,
        below=lambda: player,
        resolver=without_network,
        secret=placeholder,
        keeper=SignedIn(),
        overrides=overrides,
    )


def placeholder(name: str) -> SecretStr:
    """What stands for a key where none is needed."""
    return SecretStr(f"placeholder-for-{name}")


class SignedIn(Memory):
    """Keeps a placeholder for every connector's tokens: whoever replays has signed in nowhere."""

    def __call__(self, name: str) -> SecretStr | None:
        kept = super().__call__(name)
        if kept is None and name.startswith("TRIMTAB_TOKENS_"):
            return SecretStr(Tokens(OLD_TOKEN, "placeholder-for-refresh").text())
        return kept


def asks_for_token(method: str, sent: Any) -> bool:
    """Whether this request goes to a token endpoint. Such are never recorded, and always answered alike."""
    return method == "POST" and isinstance(sent, str) and "grant_type=" in sent


def token_answer(token: str = NEW_TOKEN) -> bytes:
    return json.dumps({"access_token": token, "token_type": "Bearer", "expires_in": 3600}).encode()


def without_network(host: str, port: int) -> list[str]:
    """A resolver that asks nobody: addresses are themselves, every name is one public address."""
    try:
        return [str(ip_address(host))]
    except ValueError:
        return [PUBLIC_ADDRESS]


def asked_url(request: httpx.Request) -> str:
    """The address as the connector asked for it; under the guard the URL holds a number for the name."""
    host = request.headers.get("host") or request.url.netloc.decode("ascii")
    return f"{request.url.scheme}://{host}{request.url.raw_path.decode('ascii')}"


def sent_body(content: bytes) -> Any:
    """A request's body as a tape keeps it."""
    if not content:
        return None
    try:
        return json.loads(content)
    except ValueError:
        return content.decode("utf-8", "replace")


class Recorder(httpx.AsyncBaseTransport):
    """Passes requests on and keeps what came back, whole and unpacked."""

    def __init__(self, tape: Tape, inner: httpx.AsyncBaseTransport) -> None:
        self._tape = tape
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        sent = await request.aread()
        request.headers["accept-encoding"] = "identity"  # a tape is there to be read
        response = await self._inner.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        raw = b""
        try:
            async for chunk in response.stream:
                raw += chunk
                if len(raw) > MAX_RECORDED:
                    raise ToolError(f"{asked_url(request)} sent more than {MAX_RECORDED:,} bytes: not recorded.")
        finally:
            await response.aclose()
        body = httpx.Response(response.status_code, headers=response.headers, content=raw).content
        kept = {name.lower(): value for name, value in response.headers.items() if name.lower() in KEPT_HEADERS}
        if not asks_for_token(request.method, sent_body(sent)):
            self._tape.exchanges.append(
                Exchange(request.method, asked_url(request), response.status_code, kept, body, sent_body(sent))
            )
        return httpx.Response(response.status_code, headers=kept, stream=httpx.ByteStream(body))

    async def aclose(self) -> None:
        await self._inner.aclose()


class Player(httpx.AsyncBaseTransport):
    """Answers from tapes. `played` counts each exchange's uses, `missed` holds what no tape had."""

    def __init__(self, tapes: Iterable[Tape]) -> None:
        self._recorded = [exchange for tape in tapes for exchange in tape.exchanges]
        self._scrubber = Scrubber()
        self.played = [0] * len(self._recorded)
        self.missed: list[str] = []
        self.asked: list[tuple[str, str]] = []
        """Method and address of each request, in order."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url, sent = asked_url(request), sent_body(await request.aread())
        self.asked.append((request.method, url))
        if asks_for_token(request.method, sent):
            return httpx.Response(200, stream=httpx.ByteStream(token_answer()))
        exchange = self._find(request.method, url, sent)
        return httpx.Response(
            exchange.status,
            headers={**exchange.headers, "content-length": str(len(exchange.body))},
            stream=httpx.ByteStream(exchange.body),
        )

    def _find(self, method: str, url: str, sent: Any) -> Exchange:
        """The first fitting exchange that was played least often: the same question may have had several answers."""
        fitting = [i for i, recorded in enumerate(self._recorded) if fits(recorded, method, url, sent)]
        if not fitting:
            self.missed.append(f"{method} {url}")
            raise NotRecorded(self._miss(method, url, sent))
        chosen = min(fitting, key=lambda i: self.played[i])
        self.played[chosen] += 1
        return self._recorded[chosen]

    def _miss(self, method: str, url: str, sent: Any) -> str:
        asked = f"{method} {self._scrubber.url(url)}" + (f" with {json.dumps(sent)[:200]}" if sent is not None else "")
        known = [f"{recorded.method} {recorded.url}" for recorded in self._recorded]
        near = difflib.get_close_matches(asked, known, n=3, cutoff=0.5) or known[:3]
        has = f"Near: {'; '.join(near)}" if near else "The cassettes hold no request at all"
        return f"No cassette has {asked}. {has}. Record it with --record."


def fits(recorded: Exchange, method: str, url: str, sent: Any) -> bool:
    if recorded.method != method or _address(recorded.url, recorded.ignore) != _address(url, recorded.ignore):
        return False
    same: bool = _without(recorded.sent, recorded.ignore) == _without(sent, recorded.ignore)
    return same


def _address(url: str, ignore: Sequence[str]) -> tuple[Any, ...]:
    """What makes two addresses one: parameters in any order, and secrets whatever they are."""
    parts = urlsplit(Scrubber().url(url))
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    kept = sorted((name, _blank(value)) for name, value in pairs if name not in ignore)
    return parts.scheme, parts.netloc, parts.path, kept


def _blank(value: str) -> str:
    return REMOVED if value.startswith(("{{", "placeholder-for-")) else value


def _without(sent: Any, ignore: Sequence[str]) -> Any:
    return {name: value for name, value in sent.items() if name not in ignore} if isinstance(sent, dict) else sent
