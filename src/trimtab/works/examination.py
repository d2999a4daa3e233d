"""Old and new on what training did not see: the evidence that the gate decides by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trimtab.align import bundled
from trimtab.align.adapter import Adapter, read_adapter
from trimtab.align.gate import Evidence
from trimtab.align.reward_model import RewardModel

from .material import Material, judged, place
from .reward_models import tested
from .run import Run
from .serving import try_served


def examine(run: Run, material: Material, reward: RewardModel, judge: RewardModel) -> tuple[Evidence, dict[str, Any]]:
    """The evidence, and what people are shown beside it: samples, and how both reward models did."""
    run.report.tell("examination", text="Old and new answer prompts that training did not see")
    gate = run.recipe.gate
    new, _ = read_adapter(run.work / "policy" / "adapter")
    old = _serving_adapter(run)
    prompts = sorted(material.prompts["test"], key=place)[: gate.test_prompts]
    compared = run.examiner.compare(prompts, old, new)
    found = tested(run, "reward", reward, material)
    run.moved("examination", 1, 3)
    probes = bundled.probes()
    evidence = Evidence(
        rows=len(judged(material.train)),
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
        sets=run.examiner.sets(probes.first(gate.probe_questions), old, new) if gate.probes else {},
        length_bias=found.get("length_correlation"),
    )
    run.moved("examination", 2, 3)
    served = try_served(run, prompts, new)
    evidence = replace(
        evidence,
        parity=served.candidate.alike,
        parity_drift=served.candidate.drift,
        base_drift=served.base.drift,
        sets={**evidence.sets, **served.sets},
    )
    run.moved("examination", 3, 3)
    extras = {"samples": compared.samples(), "reward": found, "judge": tested(run, "judge", judge, material)}
    return evidence, extras


def _serving_adapter(run: Run) -> Adapter | None:
    if not run.resolved.serving:
        return None
    folder = run.registry.verified(run.resolved.serving).adapter
    return read_adapter(folder)[0] if folder else None
