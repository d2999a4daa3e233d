"""The two reward models of a run: one to practise against, one that judges the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from trimtab.align import reward_training
from trimtab.align.reward_model import RewardModel, rows_of
from trimtab.align.reward_report import RewardReport
from trimtab.align.reward_report import report as reward_report
from trimtab.align.reward_training import RewardConfig
from trimtab.domain.judgement import Judgement, Kind

from .material import Material, place, row_place
from .run import Run


def trained(run: Run, name: str, rows: Sequence[Judgement], material: Material) -> RewardModel:
    """``reward`` or ``judge``: the one that was trained before, or trained now."""
    folder = run.work / name
    if (folder / "reward.json").exists():
        model = RewardModel.load(run.network, run.base, folder)
        model.trunks = run.trunks
        return model
    # The judge reads at another layer, so that what fools the one is less likely to fool the other.
    model = RewardModel(run.network, run.base, reads="trunk" if name == "reward" else "top")
    config = RewardConfig(batch=run.recipe.reward.batch, seed=run.recipe.seed)
    most = run.recipe.reward.rows or len(rows)
    chosen = rows_of(run.base, sorted(rows, key=row_place)[:most])
    for step in reward_training.train(model, chosen, config, folder=run.work / f"{name}-run"):
        run.report.tell(name, **asdict(step))
        run.moved(name, step.step, step.steps)
    # What is judged from here on both reward models read.
    model.trunks = run.trunks
    asked = sorted(material.prompts["train"], key=place)[:64]
    model.normalise(run.examiner.answers(asked, None, max_tokens=run.recipe.policy.max_tokens))
    found = tested(run, name, model, material)
    if found:
        run.report.tell(f"{name} report", **found)
    part = run.work / f".{name}"
    model.save(part)
    part.rename(folder)
    return model


def tested(run: Run, name: str, model: RewardModel, material: Material) -> dict[str, Any]:
    """How a reward model does on held-out judgements, measured once; empty when there are none."""

    def measured() -> dict[str, Any]:
        judged = [row for row in material.test if row.kind is not Kind.DEMONSTRATION]
        rows = rows_of(run.base, sorted(judged, key=row_place)[: run.recipe.gate.test_rows])
        return _short(reward_report(model, rows)) if rows else {}

    found: dict[str, Any] = run.kept(f"{name}-report", measured)
    return found


def _short(found: RewardReport) -> dict[str, Any]:
    """A report without what only a programme reads, for progress and evidence."""
    told = asdict(found)
    told["mistakes"] = [
        {"prompt": m.judgement.prompt[-1].content, "better": m.judgement.completion, "worse": m.judgement.rejected,
         "margin": m.margin} for m in found.mistakes
    ]  # fmt: skip
    return told
