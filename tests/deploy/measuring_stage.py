"""Stand-ins for measuring without a model: a server on loopback, and a stage whose candidates are all that server."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol

from trimtab.deploy.campaign import Started
from trimtab.deploy.estimate import ModelFacts
from trimtab.deploy.quality import Position
from trimtab.deploy.speed import Endpoint
from trimtab.deploy.variant import Candidate, Variant
from trimtab.domain.errors import ModelFileError

FACTS = ModelFacts("small", "0" * 64, 2, 64, 128, 1, 64, 1000, 2048, 100_000, 64_000, 1000, 10_000)


class HasEndpoint(Protocol):
    endpoint: Endpoint


class Server:
    """A server of OpenAI's protocol on loopback that streams four pieces."""

    def __init__(self) -> None:
        self.asked: list[dict[str, object]] = []
        self.status, self.pieces = 200, ["", "one", " two", " three", " four"]
        asked = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(asked.status)
                self.end_headers()
                for piece in asked.pieces:
                    self._send({"choices": [{"delta": {"content": piece}}]})
                details = {"cached_tokens": 5}
                usage = {"prompt_tokens": 20, "completion_tokens": 4, "prompt_tokens_details": details}
                self._send({"choices": [], "usage": usage})
                self.wfile.write(b"data: [DONE]\n\n")

            def _send(self, values: object) -> None:
                self.wfile.write(b"data: " + json.dumps(values).encode() + b"\n\n")

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.endpoint = Endpoint(f"http://127.0.0.1:{self._server.server_port}/v1", "small", "secret")

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Examined:
    """Answers every question of every set but the reward model's, which is not here; rightly every second time."""

    asked: list[tuple[str, int, int]] = field(default_factory=list)

    async def ask(self, name: str, first: int, count: int) -> list[float]:
        self.asked.append((name, first, count))
        return [] if name == "reward" else [float(n % 2) for n in range(first, first + count)]


@dataclass
class OnLoopback:
    """A stage whose candidates are all the same server; `broken` ones cannot be prepared."""

    server: HasEndpoint
    facts: ModelFacts = FACTS
    broken: tuple[Variant, ...] = ()
    started: list[Candidate] = field(default_factory=list)
    reference: list[Position] | None = None

    def facts_of(self, one: Variant) -> ModelFacts:
        return self.facts

    def prepare(self, one: Variant) -> None:
        if one in self.broken:
            raise ModelFileError(f"The variant {one.name} is damaged: it is not what was written. Delete it.")

    def start(self, candidate: Candidate) -> AbstractAsyncContextManager[Started]:
        return self._start(candidate)

    @asynccontextmanager
    async def _start(self, candidate: Candidate) -> AsyncIterator[Started]:
        self.started.append(candidate)
        yield Serving(self.server.endpoint)

    def kept_reference(self) -> list[Position] | None:
        return self.reference

    def keep_reference(self, positions: Sequence[Position]) -> None:
        self.reference = list(positions)


@dataclass(frozen=True)
class Serving:
    endpoint: Endpoint
    start_seconds: float = 0.5
    disk: int = 1000

    def peak_memory(self) -> int:
        return 2000

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Examined]:
        yield Examined()

    async def positions(self) -> list[Position]:
        return [Position(n, {n: math.log(0.5), n + 1: math.log(0.5)}) for n in range(64)]
