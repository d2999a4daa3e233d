"""Trainings of this installation: what people order becomes a job, and what a job made becomes a version.

The worker's process knows nothing of the database: before a job begins the feedback it is to learn from is written
into a data set, and when it is done its version is made known here, together with the feedback that shaped it.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import logging
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from trimtab.align.amendments import Amendments
from trimtab.align.classroom import extra
from trimtab.align.classroom.recipe import Recipe as Lesson
from trimtab.align.dataset import Dataset
from trimtab.align.foreman import Foreman
from trimtab.align.jobs import Job, Jobs, Status
from trimtab.align.recipe import Recipe, checked
from trimtab.align.student_recipe import StudentRecipe
from trimtab.align.student_recipe import checked as checked_student
from trimtab.domain.durable import replace_file
from trimtab.domain.errors import InvalidInput, MissingExtra, TrimtabError
from trimtab.gathering import curated_by, datasets_dir, make_dataset
from trimtab.llm.catalogue import DEFAULT_CHAT
from trimtab.llm.served import is_hosted
from trimtab.llm.shelf import resolve_model, sha256_of
from trimtab.planning import Planning
from trimtab.registry.registry import Registry
from trimtab.settings import Settings
from trimtab.store import versions
from trimtab.store.database import Database
from trimtab.store.schema import threads
from trimtab.store.threads import history
from trimtab.works import KINDS

_log = logging.getLogger(__name__)

COLLECT_SECONDS = 1.0

NEEDS_MIB = 3000
"""Memory that aligning the default model takes, the engine beside it included."""

KNOWN = "known"
"""A file in a job's folder: its result is in the database."""


class Trainings:
    """One for an installation. Jobs go on from where they were when it is opened again."""

    def __init__(self, settings: Settings, database: Database, registry: Registry) -> None:
        self.settings = settings
        self.database = database
        self.registry = registry
        self.jobs = Jobs(settings.jobs_dir)
        self.planning = Planning(settings)
        self._foreman = Foreman(self.jobs, [sys.executable, "-m", "trimtab.works"])

    @contextmanager
    def working(self) -> Iterator[None]:
        """While this is open jobs are worked on, one at a time."""
        self._foreman.start()
        try:
            yield
        finally:
            self._foreman.stop()

    @asynccontextmanager
    async def going(self) -> AsyncIterator[None]:
        """While this is open jobs are worked on, one at a time, and what they made is made known."""
        self._foreman.start()
        collector = asyncio.create_task(self._collect_on(), name="collect trained versions")
        try:
            yield
        finally:
            collector.cancel()
            await asyncio.gather(collector, return_exceptions=True)
            await asyncio.to_thread(self._foreman.stop)

    async def _collect_on(self) -> None:
        while True:
            try:
                await self.collect()
            except Exception:
                _log.exception("could not look after the jobs; trying again")
            await asyncio.sleep(COLLECT_SECONDS)

    async def submit(self, kind: str, recipe: Mapping[str, Any], *, by: str) -> Job:
        """Queue a job.

        Raises:
            InvalidInput: no such kind, or the recipe is wrong; says where.
            MissingExtra: the `align` extra is not installed.
            ImpossibleBudget: what is to be measured has no room on this machine.
        """
        if kind not in KINDS:
            raise InvalidInput(f"No kind of job is named {kind!r}. There are: {', '.join(KINDS)}.")
        if kind == "tictactoe":
            extra.ensure()
            recipe = Lesson.read(recipe).to_json()
        if kind == "student":
            student = checked_student(recipe)
            resolved = await asyncio.to_thread(self._resolved_student, student)
            order = {"recipe": student.model_dump(), "resolved": resolved}
            return await asyncio.to_thread(self.jobs.submit, kind, order, by=by, needs_mib=NEEDS_MIB)
        if kind == "measure":
            order, needs_mib = await asyncio.to_thread(self.planning.order, recipe)
            return await asyncio.to_thread(self.jobs.submit, kind, order, by=by, needs_mib=needs_mib)
        if kind != "align":
            return await asyncio.to_thread(self.jobs.submit, kind, recipe, by=by)
        wanted = checked(recipe)
        resolved = await asyncio.to_thread(self._resolved, wanted)
        order = {"recipe": wanted.model_dump(), "resolved": resolved}
        return await asyncio.to_thread(self.jobs.submit, kind, order, by=by, needs_mib=NEEDS_MIB)

    async def again(self, version: Mapping[str, Any], *, by: str) -> Job:
        """Train by a version's recipe once more, on what is there now: without what was deleted since.

        Raises:
            InvalidInput: it is the base, or came without a recipe.
        """
        return await self.submit("align", recipe_of(version), by=by)

    def _resolved(self, recipe: Recipe) -> dict[str, Any]:
        """What the worker cannot look up itself: the weights, who answers now, people's feedback as a data set."""
        settings = self.settings
        known = self._resolved_model()
        own = Amendments(settings.constitution_dir).file() if recipe.data.constitution else None
        found = self._feedback(recipe) if recipe.data.feedback else None
        return known | {
            "dataset": str(found.folder.resolve()) if found else "",
            "constitution": str(own.resolve()) if own else "",
        }

    def _feedback(self, recipe: Recipe) -> Dataset | None:
        """What people said here, by the rules that `trimtab feedback curate` shows; None when nothing of it trains and
        there is the bundled data to learn from."""
        kept = curated_by(self.settings, self.database)
        if kept.rows:
            return make_dataset(kept, datasets_dir(self.settings))
        if recipe.data.bundled:
            return None
        raise InvalidInput(
            "Nothing that people said here trains yet (`trimtab feedback curate` says what was left out, and why). "
            "Rate some answers, or learn from the data that comes with Trimtab, too: --bundled."
        )

    def _resolved_student(self, recipe: StudentRecipe) -> dict[str, Any]:
        """The same for a student: its teacher, and conversations that were held here."""
        known = self._resolved_model()
        if recipe.teacher:
            teacher = self.database.read_sync(versions.get, recipe.teacher)
            if teacher["manifest"].get("base_sha256") != known["base_sha256"]:
                raise InvalidInput(f"{teacher['name']} is a version of another model than {known['base_name']}.")
            known["serving"] = "" if teacher["id"].startswith("base_") else teacher["id"]
        file = conversations_file(self.settings, self.database, recipe.conversations)
        return known | {"home": str(self.settings.home.resolve()), "dataset": str(file.resolve()) if file else ""}

    def _resolved_model(self) -> dict[str, Any]:
        """The weights, and who answers now."""
        _check_extra()
        settings = self.settings
        if settings.base_url or is_hosted(settings.model):
            raise InvalidInput(
                "This model is served elsewhere. Aligning needs its weights here: set `model` to a file."
            )
        weights = resolve_model(DEFAULT_CHAT if settings.model == "default" else settings.model, settings.models_dir)
        sha256 = sha256_of(weights)
        parent = f"base_{sha256[:24]}"
        serving = self.database.read_sync(versions.serving_or_none)
        answers = serving["version_id"] if serving else parent
        return {
            "base_name": weights.stem,
            "base_sha256": sha256,
            "weights": str(weights.resolve()),
            "models_dir": str(settings.models_dir.resolve()),
            "versions_dir": str(settings.versions_dir.resolve()),
            "engine": settings.engine,
            "parent": parent,
            "serving": "" if answers.startswith("base_") else answers,
        }

    async def collect(self) -> None:
        """Make the versions of finished jobs known. Safe to repeat, and to be cut off."""
        for job in await asyncio.to_thread(self.jobs.listed):
            mark = job.folder / KNOWN
            if mark.exists() or self.jobs.state(job).status is not Status.DONE:
                continue
            try:
                await self._make_known(job)
            except TrimtabError as error:
                _log.error("the version of job %s is not taken over: %s", job.id, error.message)
            mark.touch()

    async def _make_known(self, job: Job) -> None:
        result = self.jobs.state(job).result
        if not result.get("version"):
            return
        version = await asyncio.to_thread(self.registry.verified, str(result["version"]))
        manifest, evidence = version.manifest, dict(result.get("evidence", {}))
        status = versions.READY if evidence.get("verdict") == "promote" else versions.HELD
        shaped_by = [str(row) for row in result.get("feedback_ids", [])]

        def known(connection: Any) -> None:
            versions.add(
                connection,
                version.id,
                manifest.name,
                manifest.to_json(),
                digest=manifest.digest,
                parent=manifest.lineage.parent or None,
                shaped_by=shaped_by,
            )
            versions.judge(connection, version.id, status, evidence)

        await self.database.write(known)


def last_conversations(database: Database, count: int) -> list[list[tuple[str, str]]]:
    """The last conversations held here, as ``(role, text)``, each up to its last answer.

    Raises:
        InvalidInput: none was held.
    """

    def lines(connection: Any) -> list[list[tuple[str, str]]]:
        rows = connection.execute(
            select(threads.c.id, threads.c.head_id).order_by(threads.c.updated_at.desc()).limit(count)
        )
        return [history(connection, row.id, row.head_id) for row in rows]

    found = [line for one in database.read_sync(lines) if (line := _to_last_answer(one))]
    if count and not found:
        raise InvalidInput("No conversation was held here yet. Use the bundled texts alone.")
    return found


def conversations_file(settings: Settings, database: Database, count: int) -> Path | None:
    """`last_conversations` as a file that a student learns from; None for none."""
    if not count:
        return None
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in last_conversations(database, count))
    folder = datasets_dir(settings)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"conversations-{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"
    replace_file(file, text)
    return file


def _to_last_answer(line: list[tuple[str, str]]) -> list[tuple[str, str]]:
    answers = [i for i, (role, text) in enumerate(line) if role == "assistant" and text]
    return line[: answers[-1] + 1] if answers else []


def recipe_of(version: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe that made a version, from its row.

    Raises:
        InvalidInput: there is none.
    """
    recipe = version["manifest"].get("lineage", {}).get("recipe") or {}
    if not recipe:
        raise InvalidInput(
            f"{version['name']} has no recipe to train it by again. Order a training: trimtab align rlhf"
        )
    return dict(recipe)


def _check_extra() -> None:
    if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "trl")):
        raise MissingExtra("Aligning a model", "align")
