"""The constitution's say: which principles have a judge worth listening to, and what it prefers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trimtab.align.agreement import choose_forms
from trimtab.align.ai_preferences import Responses, mix, preferences_from
from trimtab.align.constitution import Constitution
from trimtab.align.evaluation import Examiner
from trimtab.align.judge import Judge
from trimtab.align.scorer import NetworkScorer
from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Judgement

from .material import Material, place
from .run import Run


def with_constitution(run: Run, material: Material) -> Material:
    """The model's own judgement under the principles, beside people's or instead of them.

    Raises:
        InvalidInput: no principle has a judge that agrees with people.
    """
    data = run.recipe.data
    path = run.resolved.constitution
    constitution = Constitution.load(Path(path)) if path else Constitution.load()
    made = run.kept_rows("constitution-train", lambda: _preferences(run, constitution, material))
    if not made:
        raise InvalidInput(
            "No principle of the constitution has a judge that agrees with people better than chance. Name a "
            "stronger judge, or leave data.constitution out."
        )
    # Only the principles' say shapes the model when people's weight is zero; people's test rows still test it.
    people = material.train if data.human_weight else []
    train = mix(people, made, human_weight=data.human_weight, ai_weight=data.ai_weight)
    datasets = {**material.datasets, "constitution": constitution.version}
    return replace(material, train=[row for row in train if row.weight > 0], datasets=datasets)


def _preferences(run: Run, constitution: Constitution, material: Material) -> list[Judgement]:
    judge = Judge(NetworkScorer(run.base, run.network))
    chosen = _forms(run, constitution, material, judge)
    prompts = sorted(material.prompts["train"], key=place)[: run.recipe.gate.test_prompts * 2]
    draws = [run.examiner.answers(prompts, None, max_tokens=run.recipe.policy.max_tokens)]
    other = Examiner(run.network, run.base, seed=run.recipe.seed + 8)
    draws.append(other.answers(prompts, None, max_tokens=run.recipe.policy.max_tokens))
    texts = [run.examiner.texts(draw) for draw in draws]
    responses = [
        Responses(prompt, tuple(said), run.resolved.parent) for prompt, *said in zip(prompts, *texts, strict=True)
    ]
    rows: list[Judgement] = []
    for name, form in chosen.items():
        rows += preferences_from(responses, constitution[name], judge, form, constitution=constitution.version)
        run.report.tell("constitution", principle=name, form=form, split="train", rows=len(rows))
        run.report.checkpointed()
    return rows


def _forms(run: Run, constitution: Constitution, material: Material, judge: Judge) -> dict[str, str]:
    """Which principles are used, and in which form; measured once against people."""

    def measured() -> dict[str, str]:
        named = run.recipe.data.principles
        wanted = [constitution[name] for name in named] if named else list(constitution.principles)
        pairs = run.recipe.data.judge_pairs
        found = choose_forms(wanted, material.train, judge, most=pairs, least=min(10, pairs // 4))
        told = [{"principle": a.principle, "form": a.form, "usable": a.usable, "why": a.why} for a in found]
        run.report.tell("judges", agreement=told)
        return {a.principle: a.form for a in found if a.usable}

    chosen: dict[str, str] = run.kept("forms", measured)
    return chosen
