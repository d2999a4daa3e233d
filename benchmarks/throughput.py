"""Tokens a second and time to first token through our API, beside the bare engine: `python -m benchmarks.throughput`.

One engine serves both sides, so that they differ only in the way to it: `bare` talks to the engine's own port, `api` to
Trimtab's `/v1/chat/completions` with the model's own name. The server runs in a process of its own, as it does for
people. Rounds alternate between the sides; the first of each is thrown away. Every request streams 96 tokens of a story
after a prompt of its own, so that the prompt cache helps neither.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import httpx

from trimtab.api.serving import run_loop

REPOSITORY = Path(__file__).parent.parent
TOKENS = 96
SEAS = (
    "Baltic",
    "Caspian",
    "Red",
    "Black",
    "North",
    "Yellow",
    "Dead",
    "Coral",
    "Arabian",
    "Tasman",
    "Ross",
    "Sargasso",
)


@dataclass(frozen=True)
class Side:
    name: str
    url: str
    key: str
    model: str


@dataclass(frozen=True)
class Row:
    clients: int
    side: str
    tokens_per_second: float
    first_token_ms: float
    our_cpu_us: float
    """Microseconds of CPU that our server's own process spent for each token; the engine is another process."""
    ratio: float = 1.0
    """Of this side's tokens a second to the bare engine's: the median over rounds of neighbouring pairs."""


def cpu_seconds(pid: int) -> float:
    """User and system time of one process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def serve() -> None:
    """The server, in this process; prints where both sides are and waits until its input ends."""
    from trimtab.api.serving import checked_socket, ensure_key, serving
    from trimtab.app import Trimtab
    from trimtab.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "models").symlink_to(os.environ.get("TRIMTAB_TEST_MODELS") or REPOSITORY / ".trimtab" / "models")
        settings = Settings.load(home=home, port=free_port(), parallel=8, rate_per_minute=100_000, context=1024)
        with checked_socket(settings) as listening:
            async with Trimtab.open(settings) as app, serving(app, listening):
                await ensure_key(app)
                key = settings.key_path.read_text().strip()
                assert app.served is not None
                engine = app.served.engine
                assert engine is not None
                model = app.profile.name
                bare = Side("bare engine", engine.base_url, engine.key.get_secret_value(), model)
                print(
                    json.dumps([asdict(bare), asdict(Side("through our API", settings.url + "/v1", key, model))]),
                    flush=True,
                )
                await asyncio.to_thread(sys.stdin.read)


async def one(client: httpx.AsyncClient, side: Side, number: int) -> tuple[int, float]:
    """Tokens received and seconds to the first of them."""
    body = {
        "model": side.model,
        "messages": [
            {"role": "user", "content": f"Tell story number {number} about a sailor on the {SEAS[number % 12]} Sea."}
        ],
        "max_tokens": TOKENS,
        "temperature": 0.8,
        "seed": number,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began, first, tokens = time.perf_counter(), 0.0, 0
    headers = {"Authorization": f"Bearer {side.key}"}
    async with client.stream("POST", f"{side.url}/chat/completions", json=body, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if '"content":"' in line and not first:
                first = time.perf_counter() - began
            if '"usage"' in line and '"completion_tokens"' in line:
                tokens = json.loads(line[5:])["usage"]["completion_tokens"]
    return tokens, first


async def round_of(side: Side, clients: int, start: int) -> tuple[float, float]:
    """Tokens a second of all clients together, and the median time to first token in ms."""
    async with httpx.AsyncClient(timeout=300, trust_env=False) as client:
        began = time.perf_counter()
        done = await asyncio.gather(*(one(client, side, start + i) for i in range(clients)))
        seconds = time.perf_counter() - began
    return sum(t for t, _ in done) / seconds, statistics.median(f for _, f in done) * 1000


async def measure(rounds: int) -> list[Row]:
    command = [sys.executable, "-m", "benchmarks.throughput", "--server"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY, text=True)
    try:
        assert child.stdout is not None
        sides = [Side(**side) for side in json.loads(child.stdout.readline())]
        rows = []
        for clients in (1, 8):
            found: dict[str, list[tuple[float, float]]] = {side.name: [] for side in sides}
            spent: dict[str, float] = {side.name: 0.0 for side in sides}
            for number in range(rounds + 1):
                # The order changes from round to round: whoever is second finds a warmer machine.
                for side in sides if number % 2 else sides[::-1]:
                    before = cpu_seconds(child.pid)
                    figures = await round_of(side, clients, 1000 * clients + 10 * number)
                    if number:
                        found[side.name].append(figures)
                        spent[side.name] += cpu_seconds(child.pid) - before
            bare = [speed for speed, _ in found[sides[0].name]]
            for side in sides:
                speeds = [speed for speed, _ in found[side.name]]
                ratio = statistics.median(a / b for a, b in zip(speeds, bare, strict=True))
                first = statistics.median(ms for _, ms in found[side.name])
                cpu = spent[side.name] / (rounds * clients * TOKENS) * 1e6
                rows.append(Row(clients, side.name, statistics.median(speeds), first, cpu, ratio))
        return rows
    finally:
        child.communicate(timeout=30)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--server", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.server:
        run_loop(serve())
        return
    rows = asyncio.run(measure(options.rounds))
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    print("clients  side              tokens/s  first token ms  our CPU us/token  of bare")
    for r in rows:
        speeds = f"{r.tokens_per_second:8.1f}  {r.first_token_ms:14.0f}  {r.our_cpu_us:16.0f}"
        print(f"{r.clients:7}  {r.side:16}  {speeds}  {r.ratio:7.1%}")


if __name__ == "__main__":
    main()
