"""The engines as the benchmarks compare them: the same weights in 8 bits, each in its child, asked by one adapter.

Also a llama.cpp compiled on this machine, if `TRIMTAB_LLAMA_SERVER` or the PATH leads to its `llama-server`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import httpx

from trimtab.domain.model import Sampling
from trimtab.llm import catalogue
from trimtab.llm.engine import EngineOptions
from trimtab.llm.llamacpp import LlamaCppEngine
from trimtab.llm.openai_chat import OpenAIChat
from trimtab.llm.openvino import OpenVinoEngine
from trimtab.llm.shelf import resolve_model
from trimtab.llm.weights import prepare

REPOSITORY = Path(__file__).parent.parent
MODELS = Path(os.environ.get("TRIMTAB_TEST_MODELS") or REPOSITORY / ".trimtab" / "models")
Kind = Literal["openvino", "llamacpp", "compiled"]
NAMES: dict[Kind, str] = {
    "openvino": "openvino, 8-bit weights",
    "llamacpp": "llamacpp (prebuilt wheel), Q8_0",
    "compiled": "llama.cpp compiled here, Q8_0",
}


@dataclass(frozen=True)
class Running:
    """An engine that serves."""

    kind: Kind
    chat: OpenAIChat
    load_seconds: float
    """From the order to start it to its readiness; the weights had been converted."""
    _pid: int

    @property
    def root(self) -> str:
        return str(self.chat.base_url).removesuffix("/v1")

    @property
    def resident_mb(self) -> float:
        """Memory of its processes, a page that two of them share counted half for each."""
        total = 0
        for pid in _with_children(self._pid):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total / 1000

    @property
    def cpu_seconds(self) -> float:
        """Processor time of its processes so far. It says what a quiet machine would do while others are working."""
        total = 0
        for pid in _with_children(self._pid):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")


def llama_server() -> Path | None:
    """A compiled llama.cpp, if there is one."""
    named = os.environ.get("TRIMTAB_LLAMA_SERVER") or shutil.which("llama-server")
    return Path(named) if named else None


def kinds() -> list[Kind]:
    return ["openvino", "llamacpp", *(["compiled"] if llama_server() else [])]  # type: ignore[list-item]


def weights(kind: Kind) -> Path:
    """The file an engine is given. The first call converts it."""
    shipped = resolve_model(catalogue.DEFAULT_CHAT, MODELS)
    return shipped if kind == "openvino" else prepare(shipped, MODELS / "prepared")


@asynccontextmanager
async def running(kind: Kind, options: EngineOptions, sampling: Sampling) -> AsyncIterator[Running]:
    """Start an engine of its own, and stop it."""
    file = weights(kind)
    if kind == "compiled":
        async with _compiled(file, options, sampling) as made:
            yield made
        return
    engine: OpenVinoEngine | LlamaCppEngine
    if kind == "openvino":
        engine = OpenVinoEngine(file, options, cache_dir=MODELS / "prepared")
    else:
        engine = LlamaCppEngine(file, options)
    began = time.perf_counter()
    await engine.start()
    seconds = time.perf_counter() - began
    pid = engine.status().pid
    assert pid is not None
    chat = OpenAIChat(base_url=engine.base_url, api_key=engine.key, model=engine.name, sampling=sampling)
    try:
        yield Running(kind, chat, seconds, pid)
    finally:
        await chat.aclose()
        await engine.stop()


@asynccontextmanager
async def _compiled(file: Path, options: EngineOptions, sampling: Sampling) -> AsyncIterator[Running]:
    """`llama-server` with the options that the wheel's server gets from us."""
    key, port = secrets.token_urlsafe(16), _free_port()
    context = options.slots * options.slot_context
    command = [
        str(llama_server()),
        *("-m", str(file), "--host", "127.0.0.1", "--port", str(port), "-np", str(options.slots), "-c", str(context)),
        *("-t", str(options.threads), "-tb", str(options.threads), "-b", str(options.batch), "-ub", str(options.batch)),
        *("--cache-ram", str(options.cache_mib), "--no-webui"),
    ]
    began = time.perf_counter()
    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"LLAMA_API_KEY": key}
    )
    base = f"http://127.0.0.1:{port}/v1"
    chat = OpenAIChat(base_url=base, api_key=key, model=file.stem, sampling=sampling)  # type: ignore[arg-type]
    try:
        await _healthy(child, base.removesuffix("/v1") + "/health", options.start_seconds)
        yield Running("compiled", chat, time.perf_counter() - began, child.pid)
    finally:
        await chat.aclose()
        child.terminate()
        child.wait(30)


async def _healthy(child: subprocess.Popen[bytes], url: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    async with httpx.AsyncClient(trust_env=False) as client:
        while time.monotonic() < deadline and child.poll() is None:
            try:
                if (await client.get(url)).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.05)
    raise SystemExit(f"{llama_server()} does not serve {weights('compiled')}.")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _with_children(pid: int) -> list[int]:
    """A process and all below it (Linux)."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found
