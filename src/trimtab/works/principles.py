"""The constitution's say: which principles have a judge worth listening to, and what it prefers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trimtab.align.adapter import Adapter
from trimtab.align.agreement import choose_forms
from trimtab.align.ai_preferences import Responses, mix, preferences_from
from trimtab.align.constitution import Constitution, Principle
from trimtab.align.judge import Judge
from trimtab.align.scorer import NetworkScorer
from trimtab.align.writer import Writer
from trimtab.domain.durable import replace_file
from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Judgement, Kind, Source

from .material import Material, judged, place, tell
from .run import Run
from .stronger import stronger_writer


@dataclass(frozen=True)
class Bench:
    """Who judges, and by what."""

    constitution: Constitution
    principles: Sequence[Principle]
    """Those that the recipe names."""
    judge: Judge
    forms: Mapping[str, str]
    """The form that agreed with people, of each principle that has one."""
    stronger: Writer | None


def bench(run: Run, material: Material) -> Bench:
    """Measure the judge of each principle against people, once.

    Raises:
        InvalidInput: no principle has a judge that agrees with people.
        Unavailable: the stronger model does not answer.
    """
    path = run.resolved.constitution
    constitution = Constitution.load(Path(path)) if path else Constitution.load()
    named = run.recipe.data.principles
    principles = [constitution[name] for name in named] if named else list(constitution.principles)
    stronger = stronger_writer(run.recipe.stronger)
    judge = Judge(NetworkScorer(run.base, run.network), external=stronger)
    found = _agreement(run, principles, material, judge)
    forms = {str(one["principle"]): str(one["form"]) for one in found if one["usable"]}
    if not forms:
        raise InvalidInput(
            "No principle of the constitution has a judge that agrees with people better than chance. Name a "
            "stronger model (`stronger` in the recipe), or leave data.constitution out."
        )
    return Bench(constitution, principles, judge, forms, stronger)


def _agreement(run: Run, principles: Sequence[Principle], material: Material, judge: Judge) -> list[dict[str, Any]]:
    """Of each principle. It takes a while, so each is kept as soon as it is known."""
    path = run.work / "judges.json"
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.exists() else []
    pairs = run.recipe.data.judge_pairs
    while len(found) < len(principles):
        one = choose_forms([principles[len(found)]], material.train, judge, most=pairs, least=min(10, pairs // 4))
        found.append(one[0].to_json())
        if len(found) == len(principles):
            run.report.tell("judges", agreement=found)
        replace_file(path, json.dumps(found))
        run.moved("judges", len(found), len(principles))
    return found


def with_preferences(
    run: Run, material: Material, judges: Bench, revised: Sequence[Judgement], speaker: Adapter | None
) -> Material:
    """Two answers to each prompt by the model as `speaker` makes it, the better one preferred under each principle:
    beside people's judgements or instead of them, and `revised` beside people's demonstrations.

    Raises:
        InvalidInput: nothing was preferred to anything.
        Unavailable: the stronger model does not answer.
    """
    data = run.recipe.data
    made = run.kept_rows("constitution-train", lambda: _preferences(run, judges, material, speaker))
    if not made:
        raise InvalidInput(
            "Under no principle was any answer better than another. Give more prompts (data.prompts), or judge by "
            "more principles."
        )
    # Only the principles' say shapes the model when people's weight is zero; people's test rows still test it.
    people = material.train if data.human_weight else []
    weights = {"human_weight": data.human_weight, "ai_weight": data.ai_weight}
    shown = [row for row in people if row.kind is Kind.DEMONSTRATION]
    train = [*mix(judged(people), made, **weights), *mix(shown, revised, **weights)]
    datasets = {**material.datasets, "constitution": judges.constitution.version}
    mixed = replace(material, train=[row for row in train if row.weight > 0], datasets=datasets)
    by = {True: "by the constitution", False: "by people"}
    rows = {
        name: [r for r in judged(mixed.train) if (r.source is Source.CONSTITUTION) == ai] for ai, name in by.items()
    }
    tell(run, mixed, rows)
    return mixed


def _preferences(run: Run, judges: Bench, material: Material, speaker: Adapter | None) -> list[Judgement]:
    prompts = sorted(material.prompts["train"], key=place)[: run.recipe.gate.test_prompts * 2]
    texts = []
    for seed in (7, 8):
        examiner = run.examiner_of(run.recipe.seed + seed)
        texts.append(examiner.texts(examiner.answers(prompts, speaker, max_tokens=run.recipe.policy.max_tokens)))
    # Words of the model between two versions are nobody's version.
    version = run.resolved.parent if speaker is None else ""
    responses = [Responses(prompt, tuple(said), version) for prompt, *said in zip(prompts, *texts, strict=True)]
    rows: list[Judgement] = []
    for number, (name, form) in enumerate(judges.forms.items(), 1):
        under, hash_ = judges.constitution[name], judges.constitution.version
        some = preferences_from(responses, under, judges.judge, form, constitution=hash_)
        rows += some
        run.report.tell("constitution", principle=name, form=form, split="train", rows=len(some))
        run.moved("constitution", number, len(judges.forms))
    return rows
