"""Deployment of this installation: the plan, the variants, the measurements and this machine, brought together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from trimtab.deploy import workload
from trimtab.deploy.answers import USUAL
from trimtab.deploy.campaign import Orders
from trimtab.deploy.choose import Choice, choose
from trimtab.deploy.estimate import Fit, estimate, fit, refuse_impossible
from trimtab.deploy.machine import Machine, this_machine
from trimtab.deploy.plan import Deployment
from trimtab.deploy.results import Measured, Results
from trimtab.deploy.variant import STANDARD, Candidate, Knobs, Variant, of_student
from trimtab.deploy.workload import Workload
from trimtab.domain.errors import InvalidInput
from trimtab.gathering import Reading
from trimtab.given import Given, given
from trimtab.llm.engine import physical_cores
from trimtab.llm.shelf import OnProgress
from trimtab.settings import Settings
from trimtab.store import judgements, threads
from trimtab.store.database import Database
from trimtab.variants import Variants

LAST = "last:"
FILE = "file:"


class Deploying:
    """One plan on this machine.

    Raises:
        ModelFileError: the plan's model is missing or damaged.
        InvalidInput: it runs elsewhere.
    """

    def __init__(
        self,
        settings: Settings,
        plan: Deployment,
        on_progress: OnProgress | None = None,
        *,
        variants: Variants | None = None,
    ) -> None:
        if plan.remote.base_url:
            raise InvalidInput(
                f"This plan's model is served at {plan.remote.base_url}, so there is no variant to choose here. Run "
                "it: trimtab up --plan. Measure it: trimtab measure --base-url"
            )
        self.settings, self.plan = settings, plan
        self.variants = variants or Variants(plan.model, settings.models_dir, settings.home / "variants", on_progress)
        self.results = Results(settings.home / "measurements")
        self.machine: Machine = this_machine(settings.home)

    @property
    def knobs(self) -> Knobs:
        """How the plan would have an engine set."""
        cores = min(self.plan.budget.cores or physical_cores(), self.machine.cores)
        return Knobs(slots=self.plan.targets.users, context=self.plan.targets.context, threads=cores)

    def orders(self, asked: Workload, **changes: object) -> Orders:
        """What measuring for this plan is; `changes` are fields of `Orders`."""
        machine, users = self.machine.fingerprint, self.plan.targets.users
        plain = Orders(self.known_variants, self.knobs, asked, machine, users, sizes=USUAL)
        return replace(plain, **changes)  # type: ignore[arg-type]

    @property
    def known_variants(self) -> tuple[Variant, ...]:
        """The model's own forms, and those of the students that were made of it here."""
        made = self.variants.students.listed(self.variants.facts.sha256)
        return (*STANDARD, *(one for student in made for one in of_student(student.name)))

    def rows(self) -> list[Measured]:
        """What was measured of this model on this machine."""
        kept = self.results.all().values()
        return [
            row
            for row in kept
            if row.model_sha256 == self.variants.facts.sha256 and row.machine == self.machine.fingerprint
        ]

    def fits(self, variants: Sequence[Variant] = ()) -> list[Fit]:
        """Whether each variant is within the budget: by measurement where there is one, else by estimate."""
        measured = {row.candidate: row for row in self.rows()}
        return [self._fit(Candidate(one, self.knobs), measured) for one in variants or self.known_variants]

    def _fit(self, one: Candidate, measured: dict[Candidate, Measured]) -> Fit:
        there = self.variants.disk(one.variant) if self.variants.is_written(one.variant) else 0
        machine = replace(self.machine, disk=self.machine.disk + there)  # what is written needs no more room
        if row := measured.get(one):
            return fit(self.plan, machine, one, row.memory or row.estimated_memory, row.disk, "measured")
        guessed = estimate(self.variants.facts_of(one.variant), one)
        return fit(self.plan, machine, one, guessed.memory, guessed.disk, f"estimated: {guessed.basis}")

    def check(self) -> list[Fit]:
        """`fits`, refusing a plan that cannot be had here.

        Raises:
            ImpossibleBudget: says why.
        """
        fits = self.fits()
        refuse_impossible(self.plan, self.machine, self.variants.facts, fits)
        return fits

    def chosen(self) -> dict[str, object]:
        """The settings that run the plan, after making sure that this machine can: nothing else takes its place.

        Raises:
            InvalidInput: nothing is chosen yet.
            ImpossibleBudget: the machine lacks what the plan demands.
            ModelFileError: the variant is damaged or cannot be written.
        """
        chosen = self.plan.chosen
        if (one := chosen.variant) is None:
            raise InvalidInput("Nothing is chosen in this plan yet. Run: trimtab measure, then trimtab plan choose")
        refuse_impossible(self.plan, self.machine, self.variants.facts, self.fits((one,)))
        self.variants.prepare(one)
        return {
            "model": self.plan.model,
            "variant": one.name,
            "context": self.plan.targets.context,
            "parallel": min(32, chosen.slots or self.plan.targets.users),
            "threads": chosen.threads,
            "batch": chosen.batch or self.knobs.batch,
        }

    def choose(self) -> Choice:
        """Raises UnreachableTarget when nothing was measured for this plan."""
        return choose(self.plan, self.machine, self.rows())


def workload_named(name: str, open_database: Callable[[], tuple[Database, str]], how: Reading = Reading()) -> Workload:
    """``synthetic``, ``file:PATH``, or ``last:N`` for the last N conversations held here: each answer's prompt as the
    model was given it, with the passages and the tools' results that were recorded then. Nothing outside is asked.

    Args:
        how: the model that gave the answers is asked, which decides what it was shown.

    Raises:
        InvalidInput: another name, or the file or the conversations hold no question.
    """
    if name == "synthetic":
        return workload.synthetic()
    if name.startswith(FILE):
        return workload.from_file(Path(name.removeprefix(FILE)).expanduser())
    if name.startswith(LAST) and name.removeprefix(LAST).isdigit():
        return _held(int(name.removeprefix(LAST)), name, open_database, how)
    raise InvalidInput(f"There is no workload {name!r}. Give synthetic, file:PATH or last:N (conversations).")


def _held(count: int, name: str, open_database: Callable[[], tuple[Database, str]], how: Reading) -> Workload:
    database, owner = open_database()
    try:
        held = database.read_sync(threads.find, owner, text="", limit=max(1, min(count, 500)))
        answers = [one for thread in held for one in database.read_sync(judgements.answers_in, thread["id"])]
    finally:
        database.close()
    return workload.replayed([_shown(given(one, how.profile, how.count)) for one in answers], name)


def _shown(one: Given) -> list[tuple[str, str]]:
    return [(said.role, said.content) for said in one.prompt]
