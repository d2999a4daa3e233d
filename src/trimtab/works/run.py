"""One run of a recipe: what every stage of it holds, what it keeps for a resume, and how it tells where it stands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from trimtab.align.base import Base
from trimtab.align.epochs import Trunks
from trimtab.align.evaluation import Examiner
from trimtab.align.jobs import Job
from trimtab.align.network import Network
from trimtab.align.recipe import Recipe
from trimtab.align.rollouts import TorchSampler
from trimtab.align.rows import from_line, line_of
from trimtab.align.worker import Report
from trimtab.domain.durable import replace_file
from trimtab.domain.judgement import Judgement
from trimtab.llm.engine import physical_cores
from trimtab.registry.registry import Registry

from .base_answers import Remembering
from .resolved import Resolved


def shares(recipe: Recipe) -> dict[str, float]:
    """The stages in their order, and how long each takes beside the others, roughly (measured with `align demo`)."""
    found = {"reward": 25.0, "judge": 10.0, "policy": 55.0, "examination": 15.0}
    if recipe.data.constitution:
        judged = len(recipe.data.principles) or 10
        before = {"judges": judged * recipe.data.judge_pairs * 0.3, "constitution": 15.0}
        if revises(recipe):
            before["revision"] = recipe.revision.prompts * 0.3
        found = {name: before[name] for name in ("judges", "revision", "constitution") if name in before} | found
    return found


def revises(recipe: Recipe) -> bool:
    """Whether the policy learns revisions first. TRL's methods begin with the base model."""
    return recipe.data.constitution and recipe.revision.prompts > 0 and recipe.method in ("ppo", "sft")


class Run:
    """The network is loaded once and lent to every stage."""

    def __init__(self, recipe: Recipe, resolved: Resolved, job: Job, report: Report) -> None:
        self.recipe, self.resolved, self.job, self.report = recipe, resolved, job, report
        self.work: Path = job.work
        report.tell("base", text="Unpacking the base model")
        self.base: Base = resolved.base(threads=physical_cores())
        self.network = Network(self.base, trunk_layers=recipe.policy.trunk_layers)
        said = Path(resolved.models_dir) / "prepared" / f"{self.base.folder.name}.said"
        self.sampler = Remembering(TorchSampler(self.network, self.base.end_ids), self.network, said)
        self.trunks = Trunks(self.network)
        """Of texts that more than one part of the run reads."""
        self.examiner = self.examiner_of(recipe.seed + 7)
        self.registry = Registry(Path(resolved.versions_dir))
        self.shares = shares(recipe)

    def moved(self, stage: str, step: int, steps: int) -> None:
        """How far the whole job is, in thousandths, and whether somebody wants it to rest.

        Raises:
            Paused, Cancelled: as somebody wished.
        """
        names = list(self.shares)
        before = sum(self.shares[name] for name in names[: names.index(stage)])
        done = before + self.shares[stage] * min(1.0, step / max(1, steps))
        self.report.moved(stage, round(1000 * done / sum(self.shares.values())), 1000)
        self.report.checkpointed()

    def examiner_of(self, seed: int) -> Examiner:
        return Examiner(self.network, self.base, seed=seed, sampler=self.sampler)

    def kept_rows(self, name: str, make: Callable[[], Iterable[Judgement]]) -> list[Judgement]:
        """Rows that were made before, or are made now and kept."""
        path = self.work / f"{name}.jsonl"
        if not path.exists():
            replace_file(path, "".join(line_of(row) + "\n" for row in make()))
        return [from_line(line) for line in path.read_text("utf-8").splitlines()]

    def kept(self, name: str, make: Callable[[], Any]) -> Any:
        """Plain values that were found before, or are found now and kept."""
        path = self.work / f"{name}.json"
        if not path.exists():
            replace_file(path, json.dumps(make()))
        return json.loads(path.read_text("utf-8"))
