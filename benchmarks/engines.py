"""Both engines side by side, and a compiled llama.cpp where there is one: `python -m benchmarks.engines`.

The default model in 8 bits on each, sixteen slots of 1,024 tokens, every request through the adapter that Trimtab
itself uses. In each round every engine is started anew, measured and stopped, in another order than in the round
before; a figure is the median over the rounds, a ratio the median of ratios within a round.

- prompt: a prompt of about 600 tokens that shares nothing with those before it, and one token of answer;
- together: that many different requests for a story at once, tokens of all divided by the time until the last is done;
- repeated: the first token of a prompt that was asked before;
- load: from the order to start to readiness, the weights converted before.

The second table counts the engine's processor time instead of the clock's, which other work on the machine disturbs
less; with two threads a quiet machine does up to twice as much a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from trimtab.domain.model import Sampling
from trimtab.llm.engine import EngineOptions
from trimtab.llm.openai_chat import OpenAIChat

from .engine_sides import NAMES, Kind, Running, kinds, running

AT_ONCE = (1, 4, 8, 16)
OPTIONS = EngineOptions(slots=max(AT_ONCE), slot_context=1024)
PLACES = "Baltic Caspian Red Black North Yellow Dead Coral Arabian Tasman Ross Sargasso".split()


@dataclass(frozen=True)
class Figures:
    """One engine in one round. Rates in tokens a second."""

    prompt: float
    prompt_cpu: float
    """For each second of processor time instead."""
    first_ms: float
    repeated_ms: float
    together: dict[int, float]
    together_cpu: dict[int, float]
    resident_mb: float
    load_seconds: float
    prompt_tokens: int


@dataclass(frozen=True)
class Reply:
    seconds: float
    prompt_tokens: int
    read_tokens: int
    """Of the prompt, those that were not in the cache."""
    answer_tokens: int


async def ask(chat: OpenAIChat, prompt: str, most: int, seed: int) -> Reply:
    began = time.perf_counter()
    answer = await chat.ainvoke(prompt, max_tokens=most, seed=seed)
    usage = answer.usage_metadata
    assert usage is not None
    cached = usage["input_token_details"].get("cache_read", 0)
    seconds = time.perf_counter() - began
    return Reply(seconds, usage["input_tokens"], usage["input_tokens"] - cached, usage["output_tokens"])


def long_prompt(number: int) -> str:
    """About 600 tokens, other ones for each number from the first sentence on."""
    dice = random.Random(number)
    lines = []
    for _ in range(29):
        year, sea, ships = dice.randint(1700, 1990), dice.choice(PLACES), dice.randint(2, 900)
        lines.append(f"In {year} the keeper on the {sea} Sea counted {ships} ships.")
    return " ".join(lines) + " What did the keeper do?"


def story(number: int) -> str:
    return f"Tell story number {number} about a sailor on the {PLACES[number % 12]} Sea."


async def measure(engine: Running, number: int, tokens: int) -> Figures:
    """All figures of one started engine; `number` makes its prompts new."""
    chat = engine.chat
    await ask(chat, "Say hello.", 8, 0)
    cold: list[Reply] = []
    again: list[Reply] = []
    prompts, cpu = [long_prompt(1000 * number + i) for i in range(3)], engine.cpu_seconds
    for prompt in prompts:
        cold.append(await ask(chat, prompt, 1, 0))
    prompt_cpu = sum(r.read_tokens for r in cold) / (engine.cpu_seconds - cpu)
    for prompt in prompts:
        again.append(await ask(chat, prompt, 1, 0))
    together, together_cpu = {}, {}
    for clients in AT_ONCE:
        began, cpu = time.perf_counter(), engine.cpu_seconds
        stories = [ask(chat, story(number * 100 + clients + i), tokens, i) for i in range(clients)]
        written = sum(reply.answer_tokens for reply in await asyncio.gather(*stories))
        together[clients] = written / (time.perf_counter() - began)
        together_cpu[clients] = written / (engine.cpu_seconds - cpu)
    return Figures(
        prompt=statistics.median(r.read_tokens / r.seconds for r in cold),
        prompt_cpu=prompt_cpu,
        first_ms=statistics.median(r.seconds for r in cold) * 1000,
        repeated_ms=statistics.median(r.seconds for r in again) * 1000,
        together=together,
        together_cpu=together_cpu,
        resident_mb=engine.resident_mb,
        load_seconds=engine.load_seconds,
        prompt_tokens=cold[0].prompt_tokens,
    )


async def rounds_of(rounds: int, tokens: int, wanted: list[Kind]) -> dict[Kind, list[Figures]]:
    found: dict[Kind, list[Figures]] = {kind: [] for kind in wanted}
    sampling = Sampling(temperature=0.8, max_tokens=tokens)
    for number in range(rounds):
        for kind in wanted if number % 2 else wanted[::-1]:
            load = os.getloadavg()[0]
            async with running(kind, OPTIONS, sampling) as engine:
                figures = await measure(engine, number + 1, tokens)
            found[kind].append(figures)
            print(f"round {number + 1}, {kind}, load average before it {load:.1f}: {_brief(figures)}", flush=True)
    return found


def _brief(f: Figures) -> str:
    speeds = " ".join(f"{n}:{speed:.0f}" for n, speed in f.together.items())
    return f"prompt {f.prompt:.0f}, together {speeds}, again {f.repeated_ms:.0f} ms, load {f.load_seconds:.1f} s"


def median(rows: list[Figures]) -> Figures:
    """Figure by figure."""
    together = {n: statistics.median(row.together[n] for row in rows) for n in AT_ONCE}
    cpu = {n: statistics.median(row.together_cpu[n] for row in rows) for n in AT_ONCE}
    names = ("prompt", "prompt_cpu", "first_ms", "repeated_ms", "resident_mb", "load_seconds")
    middle = {name: statistics.median(getattr(row, name) for row in rows) for name in names}
    return Figures(**middle, together=together, together_cpu=cpu, prompt_tokens=rows[0].prompt_tokens)


def ratio(rows: list[Figures], base: list[Figures], of: Callable[[Figures], list[float]]) -> str:
    """The columns of `rows` to those of `base`, each the median over the rounds."""
    rounds = [
        [a / b for a, b in zip(of(mine), of(theirs), strict=True)] for mine, theirs in zip(rows, base, strict=True)
    ]
    return " | ".join(f"x {statistics.median(column):.1f}" for column in zip(*rounds, strict=True))


def wall(f: Figures) -> list[float]:
    return [f.prompt, *(f.together[n] for n in AT_ONCE)]


def cpu(f: Figures) -> list[float]:
    return [f.prompt_cpu, *(f.together_cpu[n] for n in AT_ONCE)]


def table(found: dict[Kind, list[Figures]]) -> str:
    """As Markdown: by the clock, then by processor time."""
    size = next(iter(found.values()))[0].prompt_tokens
    lines = [
        f"| tokens a second | prompt of {size} | 1 request | 4 | 8 | 16 | first token, ms | repeated | MB | load, s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    others = list(found)[1:]
    for kind, rows in found.items():
        f = median(rows)
        rest = f"{f.first_ms:.0f} | {f.repeated_ms:.0f} | {f.resident_mb:.0f} | {f.load_seconds:.1f}"
        lines.append(f"| {NAMES[kind]} | {' | '.join(f'{v:.0f}' for v in wall(f))} | {rest} |")
    for kind in others:
        lines.append(f"| openvino to {kind} | {ratio(found['openvino'], found[kind], wall)} | | | | |")
    lines += [
        "",
        f"| tokens a CPU-second | prompt of {size} | 1 request | 4 | 8 | 16 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for kind, rows in found.items():
        lines.append(f"| {NAMES[kind]} | {' | '.join(f'{v:.0f}' for v in cpu(median(rows)))} |")
    for kind in others:
        lines.append(f"| openvino to {kind} | {ratio(found['openvino'], found[kind], cpu)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64, help="of each story")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    print(f"load average at the start: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores", flush=True)
    found = asyncio.run(rounds_of(options.rounds, options.tokens, kinds()))
    print(f"load average at the end: {os.getloadavg()[0]:.2f} (these engines' own work included)\n")
    if options.json:
        print(json.dumps({kind: [asdict(row) for row in rows] for kind, rows in found.items()}, indent=2))
        return
    print(table(found))


if __name__ == "__main__":
    main()
