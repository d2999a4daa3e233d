"""Old and new on what training did not see: the evidence that the gate decides by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from trimtab.align import bundled
from trimtab.align.adapter import Adapter, read_adapter
from trimtab.align.evaluation import Prompt
from trimtab.align.gate import Evidence
from trimtab.align.reward_model import RewardModel
from trimtab.domain.judgement import Kind
from trimtab.llm.lora import adapter_gguf
from trimtab.llm.served import ServingOptions
from trimtab.llm.tensors import open_tensors

from . import parity
from .material import Material, place
from .reward_models import tested
from .run import Run

CONTEXT = 2048
"""Tokens a conversation may have when the served model is asked what it says."""


def examine(run: Run, material: Material, reward: RewardModel, judge: RewardModel) -> tuple[Evidence, dict[str, Any]]:
    """The evidence, and what people are shown beside it: samples, and how both reward models did."""
    run.report.tell("examination", text="Old and new answer prompts that training did not see")
    new, _ = read_adapter(run.work / "policy" / "adapter")
    old = _serving_adapter(run)
    prompts = sorted(material.prompts["test"], key=place)[: run.recipe.gate.test_prompts]
    compared = run.examiner.compare(prompts, old, new)
    found = tested(run, "reward", reward, material)
    run.moved("examination", 1, 3)
    probes = bundled.probes()
    evidence = Evidence(
        rows=len([r for r in material.train if r.kind is not Kind.DEMONSTRATION]),
        tested=found.get("rows", 0),
        right=round(found.get("accuracy", 0.0) * found.get("rows", 0)),
        wins=compared.wins(judge.scores),
        longer_by=compared.longer_by(),
        gains=compared.gains(reward.scores),
        lengths=compared.lengths(),
        kl=compared.kl,
        perplexity=(
            run.examiner.perplexity(probes.plain_text, old),
            run.examiner.perplexity(probes.plain_text, new),
        ),
        distinct=compared.distinct(),
        sets=run.examiner.sets(probes, old, new) if run.recipe.gate.probes else {},
        length_bias=found.get("length_correlation"),
    )
    run.moved("examination", 2, 3)
    evidence = _served(run, evidence, prompts, new)
    extras = {"samples": compared.samples(), "reward": found, "judge": tested(run, "judge", judge, material)}
    return evidence, extras


def _serving_adapter(run: Run) -> Adapter | None:
    if not run.resolved.serving:
        return None
    folder = run.registry.verified(run.resolved.serving).adapter
    return read_adapter(folder)[0] if folder else None


def _served(run: Run, evidence: Evidence, prompts: Sequence[Prompt], new: Adapter) -> Evidence:
    """With what the engine that serves makes of the adapter."""
    peft = run.work / "policy" / "adapter"
    gguf = run.work / "adapter.gguf"
    if not gguf.exists():
        adapter_gguf(peft, gguf, open_tensors(Path(run.resolved.weights)).architecture)
    options = ServingOptions(
        models_dir=Path(run.resolved.models_dir),
        model=run.resolved.weights,
        engine=run.resolved.engine,  # type: ignore[arg-type]
        log_path=run.work / "engine.log",
        context=CONTEXT,
        tools_mode="none",
        api_key=SecretStr(""),
    )
    few = prompts[: run.recipe.gate.parity_prompts]
    adapters: list[tuple[str, Adapter | None, Path | None, Path | None]] = [
        ("base", None, None, None),
        ("candidate", new, peft, gguf),
    ]
    base, candidate = parity.measure(options, run.network, run.base, few, adapters)
    run.moved("examination", 3, 3)
    return replace(evidence, parity=candidate.alike, parity_drift=candidate.drift, base_drift=base.drift)
