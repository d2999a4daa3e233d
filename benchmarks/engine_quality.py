"""Do the engines say the same? `python -m benchmarks.engine_quality`: as served, on the same 8-bit weights.

- perplexity: of one long English text (our documentation), teacher-forced, by each engine's own log probabilities; the
  ratio is to the first row. Its second half is given apart: there a place is past the six hundredth;
- passages: 15 questions over one passage each and 16 over four passages (about 600 tokens), greedy, right when the
  expected word or number is in the answer;
- arguments: tool and arguments decoded by the model under one schema, questions of `tool_calling`; right to the last
  value. (Guided calls, as served, ask no model on this question set, so no engine can differ there.)
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import httpx

from trimtab.domain.model import Sampling
from trimtab.llm.engine import EngineOptions
from trimtab.llm.gguf_header import read_header
from trimtab.llm.openvino_weights import prepare_openvino
from trimtab.llm.tokens import VocabularyCounter

from .answering import page
from .engine_sides import MODELS, NAMES, REPOSITORY, Kind, Running, kinds, running, weights
from .tool_calling import by_schema, questions, run, tool_sets
from .weights import QUESTIONS

FIRST = 8
"""Tokens given before the first prediction is scored."""


@dataclass(frozen=True)
class Quality:
    early: float
    """Mean nats a token of the text's first half."""
    late: float
    one_passage: int
    four_passages: int
    arguments: str


def prose(characters: int) -> str:
    """Paragraphs of our own documentation."""
    found: list[str] = []
    for file in sorted((REPOSITORY / "docs").glob("*.md")):
        for paragraph in file.read_text("utf-8").split("\n\n"):
            if sum(map(len, found)) < characters and len(paragraph) > 200 and paragraph[0].isalpha():
                found.append(paragraph)
    return "\n\n".join(found)


def openvino_logprobs(ids: list[int]) -> list[float]:
    """Of each token after its predecessors, by the pipeline the engine serves with."""
    import numpy as np
    import openvino
    import openvino_genai as genai

    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks, scheduler.max_num_batched_tokens = 100, 1 << 20
    folder = prepare_openvino(weights("openvino"), MODELS / "prepared")
    pipe = genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", {})
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


async def passages(engine: Running) -> tuple[int, int]:
    layout = "{}\n\nUsing the text above, answer: {}"
    one = [(passage, question, expected) for passage, question, expected in QUESTIONS]
    four = []
    for n in range(16):
        pages = [page(1000 + 4 * n + i) for i in range(4)]
        four.append(("\n\n".join(p[0] for p in pages), *pages[3][1:]))
    right = []
    for asked in (one, four):
        answers = [await engine.chat.ainvoke(layout.format(text, question)) for text, question, _ in asked]
        right.append(sum(a.text.lower().count(e.lower()) > 0 for a, (_, _, e) in zip(answers, asked, strict=True)))
    return right[0], right[1]


async def quality(kind: Kind, tokens: int, every: int) -> Quality:
    ids = VocabularyCounter(read_header(weights("llamacpp"))).ids(prose(tokens * 5))[:tokens]
    options, sampling = EngineOptions(slots=2, slot_context=2048), Sampling(temperature=0.0, max_tokens=40, seed=1)
    async with running(kind, options, sampling) as engine:
        one, four = await passages(engine)
        score = await run(by_schema(engine.chat), questions("test")[::every], tool_sets())
        arguments = f"{sum(score.arguments)} of {len(score.arguments)}, {score.wrong} wrong"
        values = openvino_logprobs(ids) if kind == "openvino" else await llama_logprobs(engine, ids)
    half = tokens // 2
    early, late = values[FIRST:half], values[half:]
    return Quality(-sum(early) / len(early), -sum(late) / len(late), one, four, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=1200, help="of the text")
    parser.add_argument("--every", type=int, default=5, help="of the tool questions, every Nth")
    options = parser.parse_args()
    print(
        "| engine | perplexity, first half | second half | whole, to the first row | one passage | four | arguments |"
    )
    print("|---|---:|---:|---:|---|---|---|")
    base = 0.0
    for kind in kinds()[::-1]:
        q = asyncio.run(quality(kind, options.tokens, options.every))
        whole = (q.early * (options.tokens // 2 - FIRST) + q.late * (options.tokens - options.tokens // 2)) / (
            options.tokens - FIRST
        )
        base = base or whole
        print(
            f"| {NAMES[kind]} | {math.exp(q.early):.2f} | {math.exp(q.late):.2f} | {math.exp(whole - base) - 1:+.2%} | "
            f"{q.one_passage} of {len(QUESTIONS)} | {q.four_passages} of 16 | {q.arguments} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
