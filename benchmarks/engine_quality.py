"""Do the engines say the same? `python -m benchmarks.engine_quality`: as served, on the same 8-bit weights.

- perplexity: of one long English text (our documentation), teacher-forced, by each engine's own log probabilities; the
  ratio is to the first row. Its second half is given apart: there a place is past the six hundredth;
- passages: 75 questions over one short passage each (15 of `weights` and 60 of `data/passages.jsonl`, three a
  passage, written before any was asked) and 32 over four passages (about 600 tokens), right when the expected word or
  number is in the answer;
- arguments: the single-call questions of `tool_calling`'s test split, the tool and the names of its values given, the
  values decoded by the model under the schema in the words that guided calls use; right to the last value. (Guided
  calls, as served, take the values of these questions by rule and ask no model.)

Everything is greedy, each question the same on every engine, so the comparison is by pairs: how many questions only one
of two rows answers rightly, and the difference of their shares with the interval of Agresti and Min (95 %). A row is an
engine, or an engine and how precisely it keeps keys and values: `--rows llamacpp,openvino,openvino:f16`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import httpx

from trimtab.domain.model import Sampling
from trimtab.llm.decoding import decode_open
from trimtab.llm.engine import EngineOptions
from trimtab.llm.gguf_header import read_header
from trimtab.llm.openvino_weights import prepare_openvino
from trimtab.llm.plan import Plan, Step
from trimtab.llm.router import Routing
from trimtab.llm.slots import slots_of
from trimtab.llm.tokens import VocabularyCounter

from .answering import page
from .engine_sides import MODELS, NAMES, REPOSITORY, Kind, Running, running, weights
from .tool_calling import TODAY, Outcome, Score, judge, questions, tool_sets
from .weights import QUESTIONS

FIRST = 8
"""Tokens given before the first prediction is scored."""
AT_ONCE = 4
LAYOUT = "{}\n\nUsing the text above, answer: {}"
SETS = ("one passage", "four passages", "arguments")
T = TypeVar("T")


@dataclass(frozen=True)
class Quality:
    early: float
    """Mean nats a token of the text's first half."""
    late: float
    right: dict[str, list[bool]]
    """For each question of each set."""
    wrong_calls: int


def prose(characters: int) -> str:
    """Paragraphs of our own documentation."""
    found: list[str] = []
    for file in sorted((REPOSITORY / "docs").glob("*.md")):
        for paragraph in file.read_text("utf-8").split("\n\n"):
            if sum(map(len, found)) < characters and len(paragraph) > 200 and paragraph[0].isalpha():
                found.append(paragraph)
    return "\n\n".join(found)


def openvino_logprobs(ids: list[int], kv_cache: str) -> list[float]:
    """Of each token after its predecessors, by the pipeline the engine serves with."""
    import numpy as np
    import openvino
    import openvino_genai as genai

    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks, scheduler.max_num_batched_tokens = 100, 1 << 20
    folder = prepare_openvino(weights("openvino"), MODELS / "prepared")
    properties: dict[str, Any] = {"KV_CACHE_PRECISION": kv_cache} if kv_cache else {}
    pipe = genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", properties)
    config = genai.GenerationConfig(max_new_tokens=1, echo=True, logprobs=1)
    handle = pipe.add_request(0, openvino.Tensor(np.array([ids])), config)
    found: list[float] = []
    while pipe.has_non_finished_requests():
        pipe.step()
    while handle.can_read():
        found += [value for output in handle.read().values() for value in output.generated_log_probs]
    return found[: len(ids)]


async def llama_logprobs(engine: Running, ids: list[int]) -> list[float]:
    """The same by llama.cpp: each token is forced, and its own probability, before that, is asked for."""
    assert engine.chat.api_key is not None
    headers = {"Authorization": f"Bearer {engine.chat.api_key.get_secret_value()}"}
    found = [0.0] * FIRST
    async with httpx.AsyncClient(timeout=120, headers=headers, trust_env=False) as client:
        for at in range(FIRST, len(ids)):
            body: dict[str, Any] = {"prompt": ids[:at], "n_predict": 1, "n_probs": 1, "temperature": 0}
            body |= {"cache_prompt": True, "logit_bias": [[ids[at], 1000.0]]}
            answer = (await client.post(engine.root + "/completion", json=body)).json()
            chosen = answer["completion_probabilities"][0]
            assert chosen["id"] == ids[at], chosen
            found.append(float(chosen["logprob"]))
    return found


def one_passage() -> list[tuple[str, str, list[str]]]:
    """Text, question, and the words of which one must be in the answer."""
    found = [(text, question, [expected]) for text, question, expected in QUESTIONS]
    for line in (Path(__file__).parent / "data" / "passages.jsonl").read_text("utf-8").splitlines():
        raw = json.loads(line)
        found.append((raw["passage"], raw["question"], raw["answers"]))
    return found


def four_passages() -> list[tuple[str, str, list[str]]]:
    """About the last one; every page tells of another place in the same words."""
    found = []
    for n in range(32):
        pages = [page(1000 + 4 * n + i) for i in range(4)]
        found.append(("\n\n".join(p[0] for p in pages), pages[3][1], [pages[3][2]]))
    return found


async def passages(engine: Running, asked: Sequence[tuple[str, str, list[str]]]) -> list[bool]:
    async def one(text: str, question: str, answers: list[str]) -> bool:
        said = (await engine.chat.ainvoke(LAYOUT.format(text, question))).text
        return any(re.search(rf"(?<![\w]){re.escape(a)}", said, re.IGNORECASE) for a in answers)

    return await _few_at_once([lambda q=q: one(*q) for q in asked])


async def arguments(engine: Running) -> Score:
    """Each question's own tool, all of its values left to the model."""
    specs = {spec.name: spec for spec in tool_sets()["many"]}
    asked = [q for q in questions("test") if q.kind == "single" and q.calls[0][0][1]]  # those with values

    async def one(question: Any) -> Outcome:
        tool, wanted = question.calls[0][0]
        spec = specs[tool]
        open_slots = tuple(slot for slot in slots_of(spec) if slot.path[0] in wanted)
        steps = decode_open(Plan(Routing((), 0, 0), (Step(spec, question.text, {}, (), open_slots),)), TODAY.date())
        asking = next(steps)
        reply = await engine.chat.ainvoke(asking.messages, **asking.options)
        try:
            steps.send(reply.text)
        except StopIteration as end:
            step = end.value.steps[0]
        return Outcome([] if step.missing else [(tool, step.arguments)])

    outcomes = await _few_at_once([lambda q=q: one(q) for q in asked])
    score = Score()
    for question, outcome in zip(asked, outcomes, strict=True):
        judge(question, outcome, score)
    return score


async def _few_at_once(asks: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(ask: Callable[[], Awaitable[T]]) -> T:
        async with gate:
            return await ask()

    return list(await asyncio.gather(*(one(ask) for ask in asks)))


async def quality(kind: Kind, kv_cache: str, tokens: int) -> Quality:
    ids = VocabularyCounter(read_header(weights("llamacpp"))).ids(prose(tokens * 5))[:tokens]
    options = EngineOptions(slots=AT_ONCE, slot_context=2048, kv_cache=kv_cache)
    async with running(kind, options, Sampling(temperature=0.0, max_tokens=40, seed=1)) as engine:
        right = {"one passage": await passages(engine, one_passage())}
        right["four passages"] = await passages(engine, four_passages())
        score = await arguments(engine)
        right["arguments"] = score.arguments
        values = openvino_logprobs(ids, kv_cache) if kind == "openvino" else await llama_logprobs(engine, ids)
    half = tokens // 2
    early, late = values[FIRST:half], values[half:]
    return Quality(-sum(early) / len(early), -sum(late) / len(late), right, score.wrong)


def compared(base: Sequence[bool], other: Sequence[bool]) -> str:
    """What only one of them answers rightly, and the difference of their shares with its interval."""
    n = len(base)
    lost = sum(b and not o for b, o in zip(base, other, strict=True))
    won = sum(o and not b for b, o in zip(base, other, strict=True))
    difference = (won - lost) / (n + 2)  # half a question added to each of the four kinds of pair
    spread = 1.96 * math.sqrt((won + lost + 1) - (won - lost) ** 2 / (n + 2)) / (n + 2)
    return f"{won} won, {lost} lost: {(won - lost) / n:+.0%} [{difference - spread:+.0%}, {difference + spread:+.0%}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1200, help="of the text")
    parser.add_argument("--rows", default="llamacpp,openvino", help="engine, or engine:precision of keys and values")
    options = parser.parse_args()
    print(f"| engine | perplexity, first half | second half | whole, to the first row | {' | '.join(SETS)} |")
    print("|---|---:|---:|---:|---|---|---|")
    base, first, pairs = 0.0, None, []
    for row in options.rows.split(","):
        kind, _, kv_cache = row.partition(":")
        q = asyncio.run(quality(kind, kv_cache, options.tokens))
        half = options.tokens // 2
        whole = (q.early * (half - FIRST) + q.late * (options.tokens - half)) / (options.tokens - FIRST)
        base, first = base or whole, first or q
        counts = [f"{sum(q.right[name])} of {len(q.right[name])}" for name in SETS]
        name = NAMES[kind] + (f", keys and values {kv_cache}" if kv_cache else "")  # type: ignore[index]
        print(
            f"| {name} | {math.exp(q.early):.2f} | {math.exp(q.late):.2f} | {math.exp(whole - base) - 1:+.2%} | "
            f"{' | '.join(counts)}, {q.wrong_calls} wrong |",
            flush=True,
        )
        if q is not first:
            everything = [[good for name in SETS for good in r.right[name]] for r in (first, q)]
            cells = [compared(first.right[name], q.right[name]) for name in SETS] + [compared(*everything)]
            pairs.append(f"| {name} | {' | '.join(cells)} |")
    print(f"\n| to the first row | {' | '.join(SETS)} | all together |\n|---|---|---|---|---|", *pairs, sep="\n")


if __name__ == "__main__":
    main()
