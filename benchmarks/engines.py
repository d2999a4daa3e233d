"""Both engines side by side, and a compiled llama.cpp where there is one: `python -m benchmarks.engines`.

The default model in 8 bits on each, sixteen slots of 1,024 tokens, every request through the adapter that Trimtab
itself uses. In each round every engine is started anew, measured and stopped, in another order than in the round
before; a figure is the median over the rounds, a ratio the median of ratios within a round.

- prompt: a prompt of about 600 tokens that shares nothing with those before it, and one token of answer;
- together: that many different requests for a story at once, tokens of all divided by the time until the last is done;
- repeated: the first token of a prompt that was asked before;
- load: from the order to start to readiness, the weights converted before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import time
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
    first_ms: float
    repeated_ms: float
    together: dict[int, float]
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
    for i in range(3):
        prompt = long_prompt(1000 * number + i)
        cold.append(await ask(chat, prompt, 1, 0))
        again.append(await ask(chat, prompt, 1, 0))
    together = {}
    for clients in AT_ONCE:
        began = time.perf_counter()
        stories = [ask(chat, story(number * 100 + clients + i), tokens, i) for i in range(clients)]
        written = sum(reply.answer_tokens for reply in await asyncio.gather(*stories))
        together[clients] = written / (time.perf_counter() - began)
    return Figures(
        prompt=statistics.median(r.read_tokens / r.seconds for r in cold),
        first_ms=statistics.median(r.seconds for r in cold) * 1000,
        repeated_ms=statistics.median(r.seconds for r in again) * 1000,
        together=together,
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
    names = ("prompt", "first_ms", "repeated_ms", "resident_mb", "load_seconds")
    middle = {name: statistics.median(getattr(row, name) for row in rows) for name in names}
    return Figures(**middle, together=together, prompt_tokens=rows[0].prompt_tokens)


def ratio(rows: list[Figures], base: list[Figures]) -> list[str]:
    """Of the columns where more is better, `rows` to `base`, round by round."""
    pairs = list(zip(rows, base, strict=True))
    prompt = statistics.median(a.prompt / b.prompt for a, b in pairs)
    several = [statistics.median(a.together[n] / b.together[n] for a, b in pairs) for n in AT_ONCE]
    return [f"x {value:.2f}" for value in (prompt, *several)]


def table(found: dict[Kind, list[Figures]]) -> str:
    """As Markdown."""
    size = next(iter(found.values()))[0].prompt_tokens
    lines = [
        f"| engine | prompt of {size} tokens, tok/s | 1 request, tok/s | 4 | 8 | 16 | first token, ms | repeated, ms "
        "| MB | load, s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, rows in found.items():
        f = median(rows)
        speeds = " | ".join(f"{f.together[n]:.0f}" for n in AT_ONCE)
        rest = f"{f.first_ms:.0f} | {f.repeated_ms:.0f} | {f.resident_mb:.0f} | {f.load_seconds:.1f}"
        lines.append(f"| {NAMES[kind]} | {f.prompt:.0f} | {speeds} | {rest} |")
    for kind in list(found)[1:]:
        lines.append(f"| openvino to {kind} | {' | '.join(ratio(found['openvino'], found[kind]))} | | | | |")
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
