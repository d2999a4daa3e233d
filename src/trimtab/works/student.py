"""The job that makes a smaller model: what the teacher makes of texts, which layers go, training, and its files.

Each stage leaves its result in the job's folder, so a job that was killed or paused goes on in the stage it was in.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trimtab.align import bundled, depth
from trimtab.align.adapter import read_adapter
from trimtab.align.base import Base, load_base
from trimtab.align.evaluation import Prompt
from trimtab.align.jobs import Job
from trimtab.align.network import Network
from trimtab.align.plain import OPENINGS
from trimtab.align.rollouts import Draw, TorchSampler
from trimtab.align.student import Student, StudentConfig, distance, merged, save, train
from trimtab.align.student_recipe import StudentRecipe, checked
from trimtab.align.worker import Report
from trimtab.domain.durable import replace_file
from trimtab.domain.errors import ModelFileError
from trimtab.domain.judgement import Said
from trimtab.llm.engine import physical_cores
from trimtab.llm.repacked import gguf_of
from trimtab.registry.manifest import Lineage, Manifest
from trimtab.registry.registry import Registry
from trimtab.students import GGUF, Students, content_of

from .resolved import Resolved

STAGES = {"texts": 20, "importance": 5, "training": 65, "writing": 10}
"""In their order, and how long each takes beside the others, roughly."""
CALIBRATION, HELD_OUT = 48, 24
"""Texts for importance, and for how far the student is from its teacher."""
LONGEST = 256
"""Tokens of a text."""

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Texts:
    train: list[Ids]
    held_out: list[Ids]
    digest: str


def work(job: Job, report: Report) -> Mapping[str, Any]:
    """What a job of the kind `student` does. Returns the student's name and how far it is from its teacher."""
    recipe, resolved = checked(job.recipe["recipe"]), Resolved(**job.recipe["resolved"])
    run = _Run(recipe, resolved, job, report)
    texts = run.texts()
    importance = run.importance(texts)
    network = run.network
    count = recipe.dropped(len(network.layers))
    dropped = depth.least(importance, count) if recipe.method == "prune" else depth.spread(len(importance), count)
    student = Student(network, dropped)
    before = run.kept("before", lambda: distance(student, texts.held_out))
    report.tell("student", dropped=list(dropped), layers=len(student.kept), kl=before[0], same=before[1])
    config = StudentConfig(
        epochs=_epochs(texts.train, recipe.budget), learning_rate=recipe.learning_rate, seed=recipe.seed
    )
    for step in train(student, texts.train, config, folder=job.work / "training"):
        report.tell("training", **asdict(step))
        run.moved("training", step.step, step.steps)
    after = run.kept("after", lambda: distance(student, texts.held_out))
    metrics = {
        "layers": len(student.kept), "dropped": list(dropped), "importance": [round(one, 4) for one in importance],
        "KL to the teacher, before training": before[0], "KL to the teacher": after[0],
        "same likeliest token, before training": before[1], "same likeliest token": after[1],
    }  # fmt: skip
    name = run.write(student, texts, metrics)
    report.tell("made", student=name, kl=after[0], same=after[1])
    run.moved("writing", 1, 1)
    return {"student": name, "metrics": metrics}


def _epochs(texts: list[Ids], budget: int) -> int:
    return max(1, round(budget / max(1, sum(map(len, texts)))))


class _Run:
    def __init__(self, recipe: StudentRecipe, resolved: Resolved, job: Job, report: Report) -> None:
        self.recipe, self.resolved, self.job, self.report = recipe, resolved, job, report
        self.base: Base = resolved.base(threads=physical_cores())
        adapter = self._adapter()
        if adapter is not None:  # the student begins with the teacher's matrices, its adapter inside
            folder = job.work / "teacher"
            if not (folder / "model.safetensors").exists():
                part = job.work / ".teacher"
                shutil.rmtree(part, ignore_errors=True)
                merged(self.base, read_adapter(adapter)[0], part).rename(folder)
            self.base = load_base(folder, threads=physical_cores())
        self.network = Network(self.base, trunk_layers=0, bf16=False)

    def _adapter(self) -> Path | None:
        if not self.resolved.serving:
            return None
        return Registry(Path(self.resolved.versions_dir)).verified(self.resolved.serving).adapter

    def moved(self, stage: str, step: int, steps: int) -> None:
        """How far the whole job is. Raises Paused or Cancelled, as somebody wished."""
        names = list(STAGES)
        before = sum(STAGES[name] for name in names[: names.index(stage)])
        done = before + STAGES[stage] * min(1.0, step / max(1, steps))
        self.report.moved(stage, round(1000 * done / sum(STAGES.values())), 1000)
        self.report.checkpointed()

    def kept(self, name: str, make: Any) -> Any:
        """Plain values that were found before, or are found now and kept."""
        path = self.job.work / f"{name}.json"
        if not path.exists():
            replace_file(path, json.dumps(make()))
        return json.loads(path.read_text("utf-8"))

    # ------------------------------------------------------------------ what it learns on

    def texts(self) -> Texts:
        """Bundled texts and held conversations as they stand, and what the teacher writes, up to the budget."""
        written = [tuple(ids) for ids in self.kept("written", self._written)]
        self.moved("texts", 1, 1)
        said = self._conversations()
        given = [self._ids(tuple(line[:-1]), line[-1].content) for line in said if len(line) > 1]
        if self.recipe.bundled:
            rows = bundled.load_bundled("train")
            given += [self._ids(row.prompt, row.completion) for row in rows]
        shuffle = random.Random(self.recipe.seed)  # noqa: S311 (an order, not a secret)
        given = list(dict.fromkeys(ids for ids in given if len(ids) > 1))
        shuffle.shuffle(given)
        held_out, given = given[:HELD_OUT], given[HELD_OUT:]
        chosen, tokens = [ids for ids in written if len(ids) > 1], sum(map(len, written))
        for ids in given:
            if tokens >= self.recipe.budget:
                break
            chosen.append(ids)
            tokens += len(ids)
        return Texts(chosen, held_out or chosen[:HELD_OUT], content_of(chosen))

    def _ids(self, prompt: Prompt, answer: str) -> Ids:
        return (self.base.prompt_ids(prompt) + self.base.completion_ids(answer))[:LONGEST]

    def _written(self) -> list[Ids]:
        """Half answers to own prompts, half plain text from openings, by the teacher at temperature 1."""
        prompts = [self.base.prompt_ids(line[:-1]) for line in self._conversations() if len(line) > 1]
        if self.recipe.bundled:
            prompts += [self.base.prompt_ids(one.prompt) for one in bundled.prompts("train")]
        count = self.recipe.written
        shuffle = random.Random(self.recipe.seed)  # noqa: S311
        shuffle.shuffle(prompts)
        asked = [ids for ids in prompts if len(ids) <= LONGEST][: count // 2]
        asked += [self.base.text_ids(OPENINGS[i % len(OPENINGS)]) for i in range(count - len(asked))]
        sampler, found = TorchSampler(self.network, self.base.end_ids), []
        for start in range(0, len(asked), 32):
            drawn = sampler(asked[start : start + 32], None, Draw(1.0, self.recipe.length), self.recipe.seed + start)
            found += [one.prompt_ids + one.ids for one in drawn]
            self.moved("texts", len(found), len(asked))
        self.report.tell("texts", written=len(found), tokens=sum(map(len, found)))
        return found

    def _conversations(self) -> list[list[Said]]:
        """Held here, each up to an answer. The file goes when the student is made."""
        if not self.resolved.dataset:
            return []
        try:
            lines = Path(self.resolved.dataset).read_text("utf-8").splitlines()
            return [[Said(role, text) for role, text in json.loads(line)] for line in lines]
        except (OSError, ValueError) as error:
            raise ModelFileError(
                f"{self.resolved.dataset} cannot be read ({error}). Order the student again."
            ) from error

    def importance(self, texts: Texts) -> list[float]:
        found: list[float] = self.kept("importance", lambda: depth.influence(self.network, texts.train[:CALIBRATION]))
        self.report.tell("importance", layers=[round(one, 3) for one in found])
        self.moved("importance", 1, 1)
        return found

    # ------------------------------------------------------------------ what it makes

    def write(self, student: Student, texts: Texts, metrics: Mapping[str, Any]) -> str:
        """The student's files and its manifest, into the folder of students; its name."""
        recipe, part = self.recipe, self.job.work / "student"
        shutil.rmtree(part, ignore_errors=True)
        name = recipe.name or f"{'pruned' if recipe.method == 'prune' else 'distilled'}-{len(student.kept)}"
        try:
            save(student, self.base, part)
            gguf_of(part, Path(self.resolved.weights), part / GGUF, f"{self.resolved.base_name} {name}")
        except OSError as error:
            raise ModelFileError(
                f"{part} cannot be written ({error.strerror}). Free some space, then resume."
            ) from error
        lineage = Lineage(
            method=recipe.method,
            parent=self.resolved.serving or self.resolved.parent,
            datasets={"texts": texts.digest} | ({"bundled": bundled.content_hash()} if recipe.bundled else {}),
            rows=len(texts.train),
            recipe=recipe.model_dump(),
            seed=recipe.seed,
            code=version("trimtab"),
            job=self.job.id,
        )
        manifest = Manifest(
            name, self.resolved.base_name, self.resolved.base_sha256, {}, lineage=lineage, metrics=dict(metrics),
            created_at=self.job.created_at,
        )  # fmt: skip
        made = Students(Path(self.resolved.home)).add(part, manifest)
        for leftover in (part, self.job.work / "training", self.job.work / "teacher"):
            shutil.rmtree(leftover, ignore_errors=True)
        if self.resolved.dataset:
            Path(self.resolved.dataset).unlink(missing_ok=True)
        return made.name
