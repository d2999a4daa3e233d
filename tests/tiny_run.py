"""A run on a small random model, so that a stage takes seconds; its stages are the real ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from trimtab.align.base import Base, load_base
from trimtab.align.jobs import Jobs
from trimtab.align.recipe import checked
from trimtab.align.worker import Report
from trimtab.works.resolved import Resolved
from trimtab.works.run import Run


class Tiny(Resolved):
    """Its weights are no GGUF file: they were never packed."""

    def base(self, *, threads: int | None = None) -> Base:
        torch.set_num_threads(1)
        return load_base(Path(self.weights))


@dataclass(frozen=True)
class Making:
    """Makes runs of one job: called again it is the same job, taken up by another process."""

    model: Path
    home: Path
    made: list[Run] = field(default_factory=list)

    def __call__(self, **recipe: Any) -> Run:
        small = {"trunk_layers": 1, "max_tokens": 12, "rank": 4}
        wanted = checked(recipe | {"policy": small | recipe.get("policy", {})})
        jobs = Jobs(self.home / "jobs")
        job = next(iter(jobs.listed()), None) or jobs.submit("align", {"recipe": wanted.model_dump()})
        models, versions = str(self.home / "models"), str(self.home / "versions")
        resolved = Tiny("tiny", "0" * 64, str(self.model), models, versions, "auto", "base_tiny")
        self.made.append(Run(wanted, resolved, job, Report(jobs, job)))
        return self.made[-1]

    def close(self) -> None:
        for run in self.made:
            run.report.close()
