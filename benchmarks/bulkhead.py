"""One connector's service hangs: what do calls of another connector notice of it?

    python -m benchmarks.bulkhead [--calls 500]

A service that answers at once and one that accepts and is silent, in a process of their own; two connectors in one
toolbox. Ten callers keep the silent one's ten places taken (each call gives up after a second, and its caller asks
again after a twentieth; its breaker, which would end this, is left out), while the calls of the other are timed one
after another. Blocks of 50 with and without the ten alternate, in the order a b b a, so that what else the machine does
meets both sides. The goal is a 95th percentile of at most 1.2 times. CPU time is that of this process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from trimtab.connect import Breaker, ConnectOptions, Connector, Effect, Http, Limits, Override, Toolbox, ToolError

BLOCK = 50
CALLERS = 10
PAUSE = 0.05
SERVER = """
import asyncio

async def answer(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    head = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: 13\\r\\n\\r\\n"
    writer.write(head + b'{"high": 6.4}')
    await writer.drain()
    writer.close()

async def silent(reader, writer):
    await reader.read()
    writer.close()

async def main():
    servers = [await asyncio.start_server(one, "127.0.0.1", 0, backlog=512) for one in (answer, silent)]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@dataclass
class Side:
    """Seconds of each call, and what the process computed meanwhile."""

    seconds: list[float] = field(default_factory=list)
    cpu: float = 0.0

    def at(self, share: float) -> float:
        return statistics.quantiles(self.seconds, n=1000, method="inclusive")[round(share * 1000) - 1]


@contextlib.contextmanager
def servers() -> Iterator[tuple[int, int]]:
    """Ports of the one that answers and of the one that is silent."""
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        good, bad = process.stdout.readline().split()
        yield int(good), int(bad)
    finally:
        process.kill()
        process.wait()


def connector(name: str) -> Connector:
    made = Connector(
        name=name,
        version="1.0.0",
        description="Tells the tide.",
        hosts=(f"{name}.example",),
        limits=Limits(total=1.0),
        breaker=Breaker(failures=1_000_000),
    )

    @made.tool(effect=Effect.READ)
    async def tide(http: Http) -> str:
        """Say how high the tide is."""
        return str((await http.get("/v1/tide")).json()["high"])

    return made


async def compare(calls: int) -> tuple[Side, Side]:
    """Without the ten, and beside them."""
    alone, beside = Side(), Side()
    with servers() as (good, bad):
        places = {"steady": good, "silent": bad}
        here = {n: Override(base_url=f"http://127.0.0.1:{p}", allow_private=True) for n, p in places.items()}
        toolbox = Toolbox(ConnectOptions(overrides=here))
        for name in places:
            toolbox.add(connector(name))
        await timed(toolbox, Side())  # warm
        for number in range(-(-calls // BLOCK) * 2):
            if number % 4 in (1, 2):
                async with hanging(toolbox):
                    await timed(toolbox, beside)
            else:
                await timed(toolbox, alone)
        await toolbox.aclose()
    return alone, beside


async def timed(toolbox: Toolbox, side: Side) -> None:
    before = time.process_time()
    for _ in range(BLOCK):
        began = time.perf_counter()
        await toolbox.call("steady.tide", {})
        side.seconds.append(time.perf_counter() - began)
    side.cpu += time.process_time() - before


@contextlib.asynccontextmanager
async def hanging(toolbox: Toolbox) -> AsyncIterator[None]:
    """Ten that ask the silent one again and again, all of them waiting for it when this begins."""

    async def ask() -> None:
        while True:
            with contextlib.suppress(ToolError):
                await toolbox.call("silent.tide", {})
            await asyncio.sleep(PAUSE)

    callers = [asyncio.create_task(ask()) for _ in range(CALLERS)]
    while toolbox.connector("silent").health.running < CALLERS:
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=500, help="calls a side")
    alone, beside = asyncio.run(compare(parser.parse_args().calls))
    print("| | calls | median | 95th percentile | CPU a call |\n|---|---|---|---|---|")
    for name, side in (("alone", alone), ("beside ten that hang", beside)):
        print(f"| {name} | {len(side.seconds)} | {side.at(0.5) * 1e3:.2f} ms | {side.at(0.95) * 1e3:.2f} ms "
              f"| {side.cpu / len(side.seconds) * 1e3:.2f} ms |")  # fmt: skip
    print(f"\n95th percentile: {beside.at(0.95) / alone.at(0.95):.2f} times; median: "
          f"{beside.at(0.5) / alone.at(0.5):.2f} times")  # fmt: skip


if __name__ == "__main__":
    main()
