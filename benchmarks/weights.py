"""Which weights should the default model be served with? Prints the table that `trimtab.llm.weights` quotes.

    python benchmarks/weights.py [--model FILE.gguf]

Every kind is written from the same shipped Q4_1 file and compared with F16 written from it, which loses nothing:

- perplexity and KL divergence (nats a token, over the reference's 500 likeliest tokens and one bin for the rest),
  teacher-forced on the plain text below;
- answers: questions over invented passages, right when the expected words are in the answer, greedy;
- prompt tokens a second on about 680 tokens, and generated tokens a second for one and for four requests at once.
"""

# ruff: noqa: E501  (a table of questions reads better in whole lines)

from __future__ import annotations

import argparse
import asyncio
import math
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from trimtab.domain.model import Sampling
from trimtab.llm.engine import EngineOptions
from trimtab.llm.gguf_header import read_header
from trimtab.llm.llamacpp import LlamaCppEngine
from trimtab.llm.openai_chat import OpenAIChat
from trimtab.llm.shelf import resolve_model
from trimtab.llm.tokens import VocabularyCounter
from trimtab.llm.weights import rewrite

TEXTS = (
    "The harbour of Vellmouth was built in 1842 to shelter herring boats from the northern gales. Its two stone arms "
    "reach out four hundred metres and almost touch, leaving a gap just wide enough for a single ship. Every evening a "
    "keeper rowed across with a lamp, because the owners would not pay for a second tower until a coal ship was lost.",
    "To change a bicycle tyre you need two levers and a pump. Let the air out, push one side of the tyre over the rim "
    "with the levers, and pull the tube out. Run your fingers along the inside of the tyre to find what made the hole; "
    "if you leave it there, the new tube will last only a few minutes. Put the tube back, then the tyre, and pump.",
    "Water boils at a lower temperature on a mountain because the air presses on it less. At three thousand metres it "
    "boils at about ninety degrees, so eggs and potatoes take longer to cook. A pressure cooker does the opposite: it "
    "keeps the steam in, the pressure rises, and the water gets hotter than one hundred degrees before it boils.",
    "Dear Ms Okafor, thank you for your order of 12 March. Two of the five chairs are on their way and should reach you "
    "on Thursday. The other three are delayed because the oak did not pass our inspection. We are sorry for the wait, "
    "and we will refund the delivery fee. If you would rather cancel the rest, please reply before the end of the week.",
)

QUESTIONS = (
    ("The Brindle bridge was opened in 1907 and is 312 metres long.", "How long is the Brindle bridge?", "312"),
    ("Mara Quill founded the Tern Museum after she sold her farm.", "Who founded the Tern Museum?", "Quill"),
    ("The library closes at 6 pm on weekdays and at noon on Saturdays.", "When does the library close on Saturdays?", "noon"),
    ("A Kessel engine burns 14 litres of oil an hour at full speed.", "How much oil does a Kessel engine burn an hour?", "14"),
    ("The capital of Ostrava Minor is Pell, a town of 9,000 people.", "What is the capital of Ostrava Minor?", "Pell"),
    ("Staff may carry over five days of leave to the next year.", "How many days of leave may staff carry over?", "five"),
    ("The red wire goes to pin 4 and the black wire to pin 7.", "Which pin does the black wire go to?", "7"),
    ("Lake Imber is 88 metres deep at its northern end.", "How deep is Lake Imber at its northern end?", "88"),
    ("The ferry to Skarn leaves from pier B every morning.", "Which pier does the ferry to Skarn leave from?", "B"),
    ("Refunds are paid within ten days of the parcel's return.", "Within how many days are refunds paid?", "ten"),
    ("The Arden prize was won by Tomas Vell for his map of the moors.", "Who won the Arden prize?", "Vell"),
    ("Paint dries in four hours, or two when the room is heated.", "How long does paint take to dry in a heated room?", "two"),
    ("The orchard grows quinces and medlars but no apples.", "What does the orchard grow?", "quinces"),
    ("Room 21 is booked for the choir on Tuesday evenings.", "Who is room 21 booked for on Tuesday evenings?", "choir"),
    ("Old Hask, the clock tower, was moved stone by stone to Fenwick.", "Where was the clock tower moved to?", "Fenwick"),
)  # fmt: skip

KINDS = ("F16", "Q4_1 as shipped", "Q8_0", "Q4_0")
_TOP = 500
_CONTEXT = 8
"""Tokens given before the first prediction is scored."""

Distribution = dict[int, float]
"""Token id to log probability."""


@dataclass(frozen=True)
class Row:
    kind: str
    megabytes: float
    perplexity: float
    divergence: float
    """KL(F16 || this), mean nats a token."""
    agreement: float
    """Share of positions where the likeliest token is the reference's."""
    answers: int
    rates: Speed


@dataclass(frozen=True)
class Quality:
    positions: list[tuple[int, Distribution]]
    """The token that came, and what was predicted."""
    answers: int


@dataclass(frozen=True)
class Speed:
    """Tokens a second."""

    prompt: float = 0.0
    single: float = 0.0
    four: float = 0.0

    def best(self, other: Speed) -> Speed:
        return Speed(max(self.prompt, other.prompt), max(self.single, other.single), max(self.four, other.four))


@asynccontextmanager
async def serving(file: Path) -> AsyncIterator[tuple[LlamaCppEngine, OpenAIChat]]:
    engine = LlamaCppEngine(file, EngineOptions(slots=4, slot_context=2048))
    await engine.start()
    sampling = Sampling(temperature=0.0, max_tokens=40, seed=1)
    try:
        yield engine, OpenAIChat(base_url=engine.base_url, api_key=engine.key, model=engine.name, sampling=sampling)
    finally:
        await engine.stop()


async def quality(file: Path) -> Quality:
    async with serving(file) as (engine, model):
        positions = [p for text in await asyncio.gather(*(_positions(engine, t) for t in TEXTS)) for p in text]
        return Quality(positions, sum([await _answer(model, *question) for question in QUESTIONS]))


async def speed(file: Path) -> Speed:
    async with serving(file) as (_, model):
        prompt, single = await _alone(model)
        return Speed(prompt, single, await _together(model))


async def _positions(engine: LlamaCppEngine, text: str) -> list[tuple[int, Distribution]]:
    ids = VocabularyCounter(read_header(engine.model_path)).ids(text)
    url = engine.base_url.removesuffix("/v1") + "/completion"
    headers = {"Authorization": f"Bearer {engine.key.get_secret_value()}"}
    found = []
    async with httpx.AsyncClient(timeout=120, headers=headers) as client:
        for at in range(_CONTEXT, len(ids)):
            body = {"prompt": ids[:at], "n_predict": 1, "n_probs": _TOP, "temperature": 0, "cache_prompt": True}
            answer = (await client.post(url, json=body)).json()
            tops = answer["completion_probabilities"][0]["top_logprobs"]
            found.append((ids[at], {t["id"]: t["logprob"] for t in tops}))
    return found


async def _answer(model: OpenAIChat, passage: str, question: str, expected: str) -> bool:
    answer = await model.ainvoke(f"{passage}\n\nUsing the text above, answer: {question}")
    return expected.lower() in answer.text.lower()


async def _alone(model: OpenAIChat) -> tuple[float, float]:
    """By llama.cpp's own clock."""
    prompt = "The keeper wrote down everything that happened on the island in 1823. " * 38 + "Tell me more."
    answer = await model.ainvoke(prompt, extra_body={"cache_prompt": False, "ignore_eos": True}, max_tokens=48)
    timings: dict[str, Any] = answer.response_metadata["timings"]
    return timings["prompt_per_second"], timings["predicted_per_second"]


async def _together(model: OpenAIChat) -> float:
    start = time.perf_counter()
    asked = (model.ainvoke(f"Story {n}", extra_body={"ignore_eos": True}, max_tokens=64) for n in range(4))
    await asyncio.gather(*asked)
    return 4 * 64 / (time.perf_counter() - start)


def compare(kind: str, size: int, mine: Quality, reference: Quality, rates: Speed) -> Row:
    nats = divergence = agreed = 0.0
    for (token, here), (_, there) in zip(mine.positions, reference.positions, strict=True):
        nats -= here.get(token, min(here.values()))
        divergence += _kl(there, here)
        agreed += max(here, key=here.__getitem__) == max(there, key=there.__getitem__)
    n = len(mine.positions)
    return Row(kind, size / 1e6, math.exp(nats / n), divergence / n, agreed / n, mine.answers, rates)


def _kl(reference: Distribution, other: Distribution) -> float:
    floor = min(other.values())
    total, rest_p, rest_q = 0.0, 1.0, 1.0
    for token, logp in reference.items():
        logq = other.get(token, floor)
        total += math.exp(logp) * (logp - logq)
        rest_p -= math.exp(logp)
        rest_q -= math.exp(logq)
    rest_p, rest_q = max(rest_p, 1e-9), max(rest_q, 1e-9)
    return total + rest_p * math.log(rest_p / rest_q)


def table(source: Path, rounds: int = 3) -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        files = {kind: source if "shipped" in kind else Path(scratch) / f"{kind}.gguf" for kind in KINDS}
        for kind, file in files.items():
            if file != source:
                rewrite(source, file, kind)
        judged = {kind: asyncio.run(quality(file)) for kind, file in files.items()}
        # Taking turns, and the best of each: other work on the machine only ever slows one down.
        rates = dict.fromkeys(KINDS, Speed())
        for _ in range(rounds):
            rates = {kind: rates[kind].best(asyncio.run(speed(file))) for kind, file in files.items()}
        return [compare(k, f.stat().st_size, judged[k], judged[KINDS[0]], rates[k]) for k, f in files.items()]


def main() -> None:
    home = Path(os.environ.get("TRIMTAB_TEST_MODELS", ".trimtab/models"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a Q4_1 GGUF file")
    rows = table(resolve_model(parser.parse_args().model, home))
    print(
        "| weights | MB | perplexity | KL to F16 | same top token | answers | prompt tok/s | 1 request tok/s | 4 requests |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for r in rows:
        print(
            f"| {r.kind} | {r.megabytes:.0f} | {r.perplexity:.2f} | {r.divergence:.4f} | {r.agreement:.1%} | "
            f"{r.answers}/{len(QUESTIONS)} | {r.rates.prompt:.0f} | {r.rates.single:.0f} | {r.rates.four:.0f} |"
        )


if __name__ == "__main__":
    main()
