"""What a run learns from and what it is tried on, and the orders in which a part of it is taken."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.align import bundled, dataset
from trimtab.align.evaluation import Prompt
from trimtab.align.recipe import Data
from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Judgement, Kind, Said

from .run import Run


@dataclass(frozen=True)
class Material:
    train: list[Judgement]
    test: list[Judgement]
    prompts: Mapping[str, list[Prompt]]
    """By split. Test prompts are those of no training row."""
    datasets: Mapping[str, str]
    """Name to content hash."""
    feedback_ids: list[str]


def gather(run: Run) -> Material:
    """People's judgements, from the bundled data and from here.

    Raises:
        InvalidInput: there is too little.
    """
    data = run.recipe.data
    splits: dict[str, list[Judgement]] = {"train": [], "validation": [], "test": []}
    prompts: dict[str, list[Prompt]] = {"train": [], "validation": [], "test": []}
    datasets, feedback_ids = {}, []
    if data.bundled:
        datasets["bundled"] = bundled.content_hash()
        for name in splits:
            splits[name] += bundled.load_bundled(name)
            prompts[name] += [p.prompt for p in bundled.prompts(name)]
    if run.resolved.dataset:
        found = dataset.load(Path(run.resolved.dataset))
        datasets["feedback"], feedback_ids = found.id, found.feedback_ids()
        for name in splits:
            splits[name] += found.rows(name)
            prompts[name] += [row.prompt for row in found.rows(name)]
    for name, rows in splits.items():
        splits[name] = _wanted(data, rows)
    seen = set(prompts["train"]) | set(prompts["validation"])
    prompts["test"] = [p for p in dict.fromkeys(prompts["test"]) if p not in seen]
    prompts = {name: list(dict.fromkeys(few)) for name, few in prompts.items()}
    if data.prompts:
        prompts["train"] = sorted(prompts["train"], key=place)[: data.prompts]
    if not splits["train"] or not prompts["train"] or not prompts["test"]:
        raise InvalidInput(
            f"There is too little to learn from: {len(splits['train'])} judgements to train on and "
            f"{len(prompts['test'])} prompts to test on. Rate some answers, or set data.bundled = true."
        )
    material = Material(splits["train"], splits["test"], prompts, datasets, feedback_ids)
    # With no weight of their own people's judgements train nothing: they say which judges are worth listening to.
    use = "train" if data.human_weight or not data.constitution else "to measure the judges by"
    tell(run, material, {use: judged(material.train), "validation": judged(splits["validation"])})
    return material


def tell(run: Run, material: Material, rows: Mapping[str, Sequence[Judgement]]) -> None:
    """Report how many judgements are used for what, and how many demonstrations there are."""
    counts = {name: len(few) for name, few in rows.items()} | {"test": len(judged(material.test))}
    shown = sum(row.kind is Kind.DEMONSTRATION for row in material.train)
    run.report.tell("data", rows=counts, demonstrations=shown, datasets=material.datasets)


def judged(rows: Iterable[Judgement]) -> list[Judgement]:
    """The labels and preferences among them: what a reward model learns from."""
    return [row for row in rows if row.kind is not Kind.DEMONSTRATION]


def _wanted(data: Data, rows: Iterable[Judgement]) -> list[Judgement]:
    if data.labels_only:
        return [row for row in rows if row.kind is Kind.LABEL]
    return [row for row in rows if row.kind in (Kind.LABEL, Kind.PREFERENCE, Kind.DEMONSTRATION)]


def place(prompt: Sequence[Said]) -> int:
    """A number that a prompt keeps: an order that has nothing to do with the order of the file."""
    return zlib.crc32(repr([(s.role, s.content) for s in prompt]).encode())


def row_place(row: Judgement) -> int:
    """The same of a judgement."""
    return zlib.crc32(row.id.encode())


def apart(rows: Sequence[Judgement]) -> tuple[list[Judgement], list[Judgement]]:
    """Two thirds of the prompts for the reward model, one third for the judge of the result."""
    policy = [row for row in rows if place(row.prompt) % 3]
    judge = [row for row in rows if not place(row.prompt) % 3]
    return (policy, judge) if policy and judge else (list(rows), list(rows))
