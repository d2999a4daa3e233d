"""The contract of a local engine: a child process that serves one model over the OpenAI protocol on loopback.

Whoever holds an engine needs only its address and key; what it can do is declared in `Capabilities`, and one test
suite (tests/llm/test_engine_contract.py) holds every engine to what it declares.

An engine's address and key stay the same over restarts, so an adapter made once keeps working.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from pydantic import SecretStr


@dataclass(frozen=True)
class Capabilities:
    """What an engine does beyond plain chat. False means that asking for it is an error, or is ignored."""

    adapters: bool = False
    """LoRA adapters chosen per request."""
    adapter_scales: bool = False
    """A request may weaken or strengthen its adapters and mix several; else it has one, as it was trained, or none."""
    hot_adapters: bool = False
    """`add_adapter` works while it serves."""
    json_schema: bool = False
    grammar: bool = False
    logprobs: bool = False
    """The log probability of each token of an answer."""
    top_logprobs: bool = False
    """Those of the likeliest other tokens, too."""
    embeddings: bool = False
    cancel: bool = False
    """A client that disconnects frees its slot: within a second while it generates, and while it reads a prompt within
    a second and the rest of a batch."""
    prefix_cache: bool = False
    tokenize: bool = False
    tools: bool = False
    """It reads tool calls out of an answer; else they stay in its text."""
    literal_text: bool = False
    """No text of a request becomes a special token, so none needs to be broken up (see `neutral`)."""
    metrics: bool = False
    """``GET /metrics`` answers in Prometheus' text format."""


class EngineState(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    """It died, or stopped answering; a new child is on its way."""


@dataclass(frozen=True)
class EngineStatus:
    state: EngineState
    pid: int | None = None
    crashes: int = 0
    """Times the child died or hung since `start`, unasked."""
    last_error: str = ""
    model: str = ""
    slots: int = 0
    slot_context: int = 0
    """Tokens of prompt and answer together that one request may have."""


def physical_cores() -> int:
    """Cores this process may use, hyper-threads counted once: more threads than that slow generation down."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    seen = set()
    for cpu in allowed:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            seen.add(siblings.read_text().strip())
        except OSError:
            seen.add(str(cpu))
    return max(1, len(seen))


@dataclass(frozen=True)
class EngineOptions:
    """How to run an engine. Defaults suit a small model on an ordinary machine."""

    slots: int = 4
    """Requests served at once; more wait in the engine's queue."""
    slot_context: int = 4096
    """Tokens each slot may use. The default model needs 23 kB for each in every slot, 380 MB in all."""
    threads: int = field(default_factory=physical_cores)
    batch: int = 256
    """Prompt tokens read in one go. Others' streams and a cancellation wait for at most one such batch."""
    kv_cache: str = ""
    """Precision of the keys and values it remembers, by the engine's own name (llamacpp: f16, q8_0, q4_0; openvino: u8,
    f16, u4); empty is the engine's choice, the first of them."""
    cache_mib: int = 256
    """Memory for prompts of earlier requests, so that a thread's next turn need not be read again."""
    queue: int = 64
    """Requests that may wait for a slot, where the engine lets us say so; further ones are told to come back."""
    adapters: tuple[Path, ...] = ()
    """LoRA files, in the order of their ids. None is active unless a request asks for it."""
    gpu_layers: int = -1
    """Layers kept on a GPU when the engine was built for one; -1 is as many as fit."""
    start_seconds: float = 120.0
    health_seconds: float = 5.0
    """Pause between health checks; three failed ones in a row count as a hang."""
    backoff_seconds: float = 0.25
    """First pause before a restart; it doubles with each crash in a row, up to `backoff_cap`."""
    backoff_cap: float = 10.0


class Engine(Protocol):
    """A supervised engine."""

    @property
    def base_url(self) -> str:
        """Address up to and including ``/v1``."""
        ...

    @property
    def key(self) -> SecretStr: ...

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Texts that must not reach the engine from a person or a document, see `neutral`; none where it takes every
        text literally."""
        ...

    @property
    def kind(self) -> str:
        """`openvino` or `llamacpp`."""
        ...

    @property
    def slot_context(self) -> int:
        """Tokens of prompt and answer together that one request may have."""
        ...

    @property
    def name(self) -> str: ...

    def adapters_body(self, active: Mapping[int, float]) -> dict[str, Any]:
        """Fields a request adds so that these adapters (id to scale) work on it, and no other.

        Raises:
            InvalidInput: there is no adapter of that id.
        """
        ...

    async def add_adapter(self, path: Path) -> int:
        """Read one more adapter while requests go on, and give its id. It is there again after a restart.

        Raises:
            InvalidInput: this engine cannot (`Capabilities.hot_adapters`), or the file is no adapter for this model.
            EngineError: it cannot be reached.
        """
        ...

    async def start(self) -> None:
        """Return once it answers.

        Raises:
            EngineError: it did not come up; says why.
            ModelFileError: it cannot read the model.
        """
        ...

    async def stop(self) -> None: ...

    async def health(self) -> bool:
        """Whether it answers now."""
        ...

    def status(self) -> EngineStatus: ...
