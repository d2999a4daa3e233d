"""What the engine that serves makes of a version: is it what was trained, and does it still use tools and passages?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from trimtab.align import gate_questions
from trimtab.align.adapter import Adapter
from trimtab.align.evaluation import Prompt
from trimtab.align.gate import Share
from trimtab.align.recipe import Gate
from trimtab.domain.errors import ModelFileError
from trimtab.llm import catalogue, shelf
from trimtab.llm.lora import adapter_gguf
from trimtab.llm.served import Served, ServingOptions, Spoken, serve
from trimtab.llm.tensors import open_tensors
from trimtab.retrieval.embedding import MiniLmEmbeddings

from . import turns
from .parity import Parity, measure
from .run import Run

CONTEXT = 2048
"""Tokens a conversation may have when the served model is asked what it says."""


@dataclass(frozen=True)
class Found:
    base: Parity
    """What serving does to the model as it was installed."""
    candidate: Parity
    sets: dict[str, Share]
    """Tool calls and cited answers; empty when they were not asked for or cannot be asked here."""


def try_served(run: Run, prompts: Sequence[Prompt], new: Adapter) -> Found:
    """Serve base, serving version and candidate, and ask them.

    Raises:
        EngineError, ModelFileError, InvalidInput: the engine cannot serve one of them.
    """
    return asyncio.run(_tried(run, prompts, new))


async def _tried(run: Run, prompts: Sequence[Prompt], new: Adapter) -> Found:
    embedder = _embedder(run)
    options = ServingOptions(
        models_dir=Path(run.resolved.models_dir),
        model=run.resolved.weights,
        engine=run.resolved.engine,  # type: ignore[arg-type]
        log_path=run.work / "engine.log",
        context=CONTEXT,
        tools_mode="auto" if embedder else "none",
        api_key=SecretStr(""),
    )
    served = await serve(options, embedder)
    try:
        base = await served.voice("base", None)
        candidate = await served.voice("candidate", run.work / "policy" / "adapter", _gguf(run))
        few = prompts[: run.recipe.gate.parity_prompts]
        alike = [
            await measure(run.network, run.base, few, adapter, spoken, run.sampler)
            for adapter, spoken in ((None, base), (new, candidate))
        ]
        sets = await _sets(run, served, base, candidate, embedder) if embedder else {}
        return Found(alike[0], alike[1], sets)
    finally:
        await served.aclose()


def _gguf(run: Run) -> Path:
    gguf = run.work / "adapter.gguf"
    if not gguf.exists():
        adapter_gguf(run.work / "policy" / "adapter", gguf, open_tensors(Path(run.resolved.weights)).architecture)
    return gguf


def _embedder(run: Run) -> MiniLmEmbeddings | None:
    """For routing and for passages; None when the sets are not asked for, or there is no embedding model here."""
    gate = run.recipe.gate
    if not gate.probes or not (gate.tool_questions or gate.cited_questions):
        return None
    entry = catalogue.entry(catalogue.DEFAULT_EMBEDDING)
    try:
        return MiniLmEmbeddings(shelf.path(entry, Path(run.resolved.models_dir)))
    except ModelFileError as error:
        run.report.tell("gate sets", left_out=f"Tool calls and cited answers are not measured: {error.message}")
        return None


async def _sets(
    run: Run, served: Served, base: Spoken, candidate: Spoken, embedder: MiniLmEmbeddings
) -> dict[str, Share]:
    old = base
    if run.resolved.serving:
        version = run.registry.verified(run.resolved.serving)
        old = await served.voice(version.id, version.adapter, version.adapter_gguf)
    asked = Asked.of(run.recipe.gate)
    search = turns.FixedPassages(embedder, {one.title: one.passage for one in gate_questions.cited_questions()})
    found = {}
    if asked.tools:
        found["tool calls"] = Share(*[await turns.tool_turns(served, who, asked.tools) for who in (old, candidate)])
    if asked.cited:
        sides = [await turns.cited_turns(served, who, asked.cited, search) for who in (old, candidate)]
        found["cited answers"] = Share(*sides)
    return found


@dataclass(frozen=True)
class Asked:
    tools: Sequence[gate_questions.ToolQuestion]
    cited: Sequence[gate_questions.CitedQuestion]

    @classmethod
    def of(cls, gate: Gate) -> Asked:
        """As many as the recipe wants."""
        tools, cited = gate_questions.tool_questions(), gate_questions.cited_questions()
        return cls(tools[: gate.tool_questions], cited[: gate.cited_questions])
