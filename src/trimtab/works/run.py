"""One run of a recipe: what every stage of it holds, what it keeps for a resume, and how it tells where it stands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from trimtab.align.base import Base
from trimtab.align.evaluation import Examiner
from trimtab.align.jobs import Job
from trimtab.align.network import Network
from trimtab.align.recipe import Recipe
from trimtab.align.rows import from_line, line_of
from trimtab.align.worker import Report
from trimtab.domain.durable import replace_file
from trimtab.domain.judgement import Judgement
from trimtab.llm.engine import physical_cores
from trimtab.registry.registry import Registry

from .resolved import Resolved

_SHARES = {"reward": 25.0, "judge": 10.0, "policy": 55.0, "examination": 10.0}
"""How long the stages take beside one another, roughly."""


class Run:
    """The network is loaded once and lent to every stage."""

    def __init__(self, recipe: Recipe, resolved: Resolved, job: Job, report: Report) -> None:
        self.recipe, self.resolved, self.job, self.report = recipe, resolved, job, report
        self.work: Path = job.work
        report.tell("base", text="Unpacking the base model")
        self.base: Base = resolved.base(threads=physical_cores())
        self.network = Network(self.base, trunk_layers=recipe.policy.trunk_layers)
        self.examiner = Examiner(self.network, self.base, seed=recipe.seed + 7)
        self.registry = Registry(Path(resolved.versions_dir))

    def moved(self, stage: str, step: int, steps: int) -> None:
        """How far the whole job is, in thousandths, and whether somebody wants it to rest.

        Raises:
            Paused, Cancelled: as somebody wished.
        """
        whole, before = sum(_SHARES.values()), 0.0
        for name, share in _SHARES.items():
            if name == stage:
                before += share * min(1.0, step / max(1, steps))
                break
            before += share
        self.report.moved(stage, round(1000 * before / whole), 1000)
        self.report.checkpointed()

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
