"""From a trained adapter and its evidence to a version in the registry."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from trimtab.align.gate import Evidence, Verdict
from trimtab.registry.manifest import Lineage, Manifest

from .material import Material
from .run import Run


def make(
    run: Run, material: Material, evidence: Evidence, verdict: Verdict, extras: Mapping[str, Any]
) -> dict[str, Any]:
    """The job's result: the version, the evidence, and whose feedback shaped it."""
    source = run.work / "version"
    (source / "adapter").mkdir(parents=True, exist_ok=True)
    for file in (run.work / "policy" / "adapter").iterdir():
        (source / "adapter" / file.name).write_bytes(file.read_bytes())
    (source / "adapter.gguf").write_bytes((run.work / "adapter.gguf").read_bytes())
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (run.base.folder / name).exists():
            (source / name).write_bytes((run.base.folder / name).read_bytes())
    metrics = _metrics(evidence)
    lineage = Lineage(
        method=run.recipe.method,
        parent=run.resolved.parent,
        datasets=dict(material.datasets),
        rows=evidence.rows,
        recipe=run.recipe.model_dump(),
        seed=run.recipe.seed,
        code=version("trimtab"),
        job=run.job.id,
    )
    manifest = Manifest(
        run.recipe.name,
        run.resolved.base_name,
        run.resolved.base_sha256,
        {},
        lineage=lineage,
        metrics=metrics,
        created_at=run.job.created_at,  # a job that was cut off here makes the same version again
    )
    made = run.registry.add(source, manifest)
    told = verdict.to_json() | metrics | dict(extras)
    run.report.tell("verdict", verdict=verdict.outcome.value, reason=verdict.reason, version=made.id)
    return {"version": made.id, "evidence": told, "feedback_ids": material.feedback_ids}


def _metrics(evidence: Evidence) -> dict[str, Any]:
    n = max(1, len(evidence.wins))
    return {
        "win rate": sum(evidence.wins) / n,
        "reward gain": sum(evidence.gains) / n,
        "KL a completion": evidence.kl,
        "reward model accuracy": evidence.right / evidence.tested if evidence.tested else None,
        "tokens before": evidence.lengths[0],
        "tokens after": evidence.lengths[1],
        "perplexity before": evidence.perplexity[0] if evidence.perplexity else None,
        "perplexity after": evidence.perplexity[1] if evidence.perplexity else None,
        "served as trained": evidence.parity,
    }
