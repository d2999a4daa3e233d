"""The plan of a running installation: kept in its folder, checked, measured for, and chosen from.

`changeover` serves what was chosen. What a plan names of connectors, MCP servers and documents is looked up here, since
the measuring wing knows none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from trimtab.deploy import plan as plans
from trimtab.deploy.choose import Choice, Judged
from trimtab.deploy.estimate import Fit, refuse_impossible
from trimtab.deploy.interval import Interval
from trimtab.deploy.plan import Deployment
from trimtab.deploy.variant import variant
from trimtab.deployment import Deploying
from trimtab.domain.checking import checked_as
from trimtab.domain.errors import TrimtabError
from trimtab.settings import Settings
from trimtab.variants import Variants

MIB = 1 << 20


class Measuring(BaseModel):
    """What a measurement in the background is asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    plan: Mapping[str, Any] | None = None
    """None: the one that is kept here."""
    variants: tuple[str, ...] = Field((), max_length=40)
    """Empty: all there are."""
    workload: str = Field("synthetic", pattern=r"^(synthetic|last:[1-9][0-9]{0,2})$")
    """``synthetic``, or ``last:N`` for the last N conversations held here."""
    minutes: float = Field(15.0, ge=0.1, le=24 * 60)
    settings: bool = True
    """Try other settings of the best, too."""
    again: bool = False
    """Measure also what was measured before."""


class Planning:
    """One for an installation."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._known: dict[str, tuple[Any, Variants]] = {}

    @property
    def file(self) -> Path:
        return self.settings.home / plans.FILE

    def kept(self) -> Deployment:
        """The plan in the folder, or one of defaults.

        Raises:
            InvalidInput: somebody wrote something wrong into it.
        """
        return plans.read(self.file) if self.file.exists() else Deployment(model=self.settings.model)

    def plan(self, given: Mapping[str, Any] | None) -> Deployment:
        """A plan that was sent, or the one that is kept.

        Raises:
            InvalidInput: names each key that is wrong.
        """
        return self.kept() if given is None else plans.checked(dict(given))

    def keep(self, plan: Deployment) -> None:
        plans.write(plan, self.file)

    def deploying(self, plan: Deployment) -> Deploying:
        """A plan on this machine. The model's file is read once, as long as it stays the same.

        Raises:
            ModelFileError, InvalidInput: the plan's model is not here, or runs elsewhere.
        """
        known = self._known.get(plan.model)
        if known is None or known[0] != _stamp(known[1].source):
            here = Deploying(self.settings, plan)
            self._known[plan.model] = (_stamp(here.variants.source), here.variants)
            return here
        return Deploying(self.settings, plan, variants=known[1])

    def order(self, asked: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """A job that measures, and the MiB of memory that it needs.

        Raises:
            InvalidInput: says what is wrong with it.
            ImpossibleBudget: the plan cannot be had here, so there is nothing to measure for.
        """
        wanted = checked_as(Measuring, dict(asked), "measurement")
        plan = self.plan(wanted.plan)
        some = tuple(variant(name) for name in wanted.variants)
        here = self.deploying(plan)
        fits = here.fits(some)
        refuse_impossible(plan, here.machine, here.variants.facts, fits)
        most = max(one.memory for one in fits)
        order = wanted.model_dump() | {"plan": plan.model_dump(mode="json"), "home": str(self.settings.home.resolve())}
        return order, most // MIB


def _stamp(path: Path) -> Any:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


# ---------------------------------------------------------------------- in plain values, for those who are told


def machine_told(here: Deploying) -> dict[str, Any]:
    machine = here.machine
    return {
        "name": machine.fingerprint,
        "cores": machine.cores,
        "memory": machine.memory,
        "disk": machine.disk,
        "accelerators": list(machine.accelerators),
        "model": here.variants.facts.name,
        "context": here.variants.facts.context,
    }


def fit_told(one: Fit) -> dict[str, Any]:
    return {
        "variant": one.candidate.variant.name,
        "memory": one.memory,
        "disk": one.disk,
        "basis": one.basis,
        "obstacles": list(one.obstacles),
    }


def choice_told(found: Choice) -> dict[str, Any]:
    """What was chosen, what comes nearest where nothing was, and of each the figures and why not."""
    chosen = found.chosen.key if found.chosen else None
    return {
        "chosen": chosen,
        "nearest": found.nearest.row.key if found.nearest else None,
        "rows": [row_told(one) | {"chosen": one.row.key == chosen} for one in found.judged],
    }


def row_told(one: Judged) -> dict[str, Any]:
    row, knobs = one.row, one.row.candidate.knobs
    quality, answers = (_plainly(part) for part in (row.quality, row.answers))
    return {
        "key": row.key,
        "variant": row.candidate.variant.name,
        **asdict(knobs),
        "users": row.together.users,
        "memory": row.memory or row.estimated_memory,
        "disk": row.disk,
        "estimated_memory": row.estimated_memory,
        "estimated_disk": row.estimated_disk,
        "first_p50": row.together.first_p50,
        "first_p95": row.together.first_p95,
        "gap_p95": row.together.gap_p95,
        "tokens_per_second": row.together.rate.value,
        "alone": row.alone.rate.value,
        "total": row.together.total,
        "start_seconds": row.start_seconds,
        "quality": quality,
        "answers": answers,
        "busy": row.load_before > 0.5,
        "at": row.at,
        "workload": row.workload,
        "command": row.command,
        "on_front": one.on_front,
        "why_not": one.why_not,
        "misses": [asdict(miss) for miss in one.misses],
    }


def _plainly(part: Any) -> dict[str, Any] | None:
    """A dataclass with intervals, each as its value and its two ends."""
    if part is None:
        return None
    return {name: [v.value, v.low, v.high] if isinstance(v, Interval) else v for name, v in vars(part).items()}


def refusal_told(error: TrimtabError) -> dict[str, Any]:
    return {"message": error.message, "code": error.code, "detail": error.detail}
