"""Stage one of RLAIF in a run: answers are criticised and written again, and the policy learns the revisions.

Harmful requests and a share of other prompts are answered by the base model, and each answer is revised under one of
the principles that are meant for such a prompt. Where an answer to an ordinary question needs no revision, it is
learned up to its last whole sentence: declining, learned alone, would be said to everybody (Bai et al. 2022 mix answers
of their helpful model in for that reason).

What is learned is where the policy starts from. The KL penalty's reference stays the base model: the policy that
maximises E[reward] - beta KL(policy || base) is the same wherever one starts, the gate measures the divergence from the
base, too, and what this stage moved is so paid for and not given away. Hence it may move the model no further than the
recipe's KL target; if it did, the adapter is made smaller until it has not (interpolating between the base and the
fine-tuned weights: Wortsman et al. 2022, arXiv:2109.01903).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trimtab.align import bundled, rlhf, sft
from trimtab.align.adapter import Adapter, LoraConfig, read_adapter
from trimtab.align.evaluation import GREEDY, Prompt
from trimtab.align.policy import Policy, kl_of_drawn
from trimtab.align.reviser import Reviser, Verdict
from trimtab.align.revision import Draft, Revision, kept_answer, red_team_prompts, sampled
from trimtab.align.rows import from_line, line_of
from trimtab.align.writer import Writer
from trimtab.domain.judgement import Judgement, Said

from .material import Material, place
from .principles import Bench
from .run import Run

AT_ONCE = 24
"""Answers that are revised between two checkpoints."""
WORDS = 64
"""Tokens of the model's own critique, and of its revision."""
LONGEST = 512
"""Tokens of a prompt; longer conversations are left out here."""
KL_PROMPTS = 16
ROUNDS = 6
SAMPLES = 8


@dataclass(frozen=True)
class Revised:
    rows: Sequence[Judgement] = ()
    """Demonstrations."""
    adapter: Adapter | None = None
    """What was learned; None when there was nothing to learn."""
    told: Mapping[str, Any] = field(default_factory=dict)
    """For the evidence: how many were revised, by whom, and some of them."""


def revise(run: Run, material: Material, judges: Bench) -> Revised:
    """Revise answers and learn the revisions, unless that was done before.

    Raises:
        Unavailable: the stronger model does not answer.
    """
    wanted = _prompts(run, material)
    batches = [wanted[start : start + AT_ONCE] for start in range(0, len(wanted), AT_ONCE)]
    made: list[dict[str, Any]] = []
    for number, few in enumerate(batches):
        name = f"revisions-{number:03d}"
        fresh = not (run.work / f"{name}.json").exists()
        own = run.recipe.revision.own - sum(one["tried"] for one in made)
        made += run.kept(name, partial(_revised, run, judges, few, own))
        if fresh:
            run.moved("revision", number + 1, len(batches) * 2)
    told = _told(made)
    rows = [from_line(one["row"]) for one in made if one["row"]]
    if not rows:
        run.report.tell("revision", **told)
        return Revised([], None, told)
    adapter, kl = _learned(run, material, rows, told)
    return Revised(rows, adapter, told | {"kl": kl})


# --- what is revised


def _prompts(run: Run, material: Material) -> list[tuple[Prompt, str]]:
    """Prompts, and what a good answer does: ``answer``, ``decline`` or ``redirect``."""
    settings = run.recipe.revision
    held_out = {prompt for name in ("validation", "test") for prompt in material.prompts[name]}
    known = {one.prompt: one.expected for one in bundled.prompts("train")}
    harmful = [prompt for prompt in sorted(red_team_prompts(), key=place) if prompt not in held_out]
    harmful = harmful[: round(settings.prompts * settings.harmful)]
    others = [
        prompt
        for prompt in sorted(material.prompts["train"], key=place)
        if known.get(prompt) != "decline" and len(run.base.prompt_ids(prompt)) <= LONGEST
    ][: settings.prompts - len(harmful)]
    mixed = sorted([*harmful, *others], key=place)
    return [(prompt, known.get(prompt, "answer")) for prompt in mixed]


def _revised(run: Run, judges: Bench, wanted: Sequence[tuple[Prompt, str]], own: int) -> list[dict[str, Any]]:
    prompts = [prompt for prompt, _ in wanted]
    answers = run.examiner.texts(run.examiner.answers(prompts, None, max_tokens=run.recipe.policy.max_tokens))
    constitution = judges.constitution
    few = replace(constitution, principles=tuple(judges.principles))
    drafts = {
        i: Draft(prompt, answers[i], principle, place(prompt))
        for i, (prompt, expected) in enumerate(wanted)
        if (principle := sampled(few, expected, seed=run.recipe.seed + place(prompt))) is not None
    }
    verdicts = {name: Verdict(judges.judge, form) for name, form in judges.forms.items()}
    found: dict[int, Revision | None] = {}
    tried = [i for i in drafts if drafts[i].principle.id in verdicts][:own]
    for chat, some in ((_speaker(run), tried), (None, [i for i in drafts if i not in tried])):
        reviser = Reviser(
            verdicts, chat=chat, stronger=judges.stronger, constitution=constitution.version, model=run.resolved.parent
        )
        found |= dict(zip(some, reviser([drafts[i] for i in some]), strict=True))
    rows = []
    for i, (prompt, expected) in enumerate(wanted):
        revision = found.get(i)
        row = revision.demonstration() if revision else None
        if row is None and expected == "answer":
            row = kept_answer(prompt, answers[i], constitution.version, run.resolved.parent)
        rows.append({
            "prompt": prompt[-1].content,
            "answer": answers[i],
            "revised": revision.text if revision else "",
            "principle": revision.principle if revision else "",
            "by": revision.by if revision else "kept" if row else "",
            "tried": i in tried,
            "row": line_of(row) if row else "",
        })  # fmt: skip
    return rows


def _speaker(run: Run) -> Writer:
    """The policy as a writer: what it says greedily, many at once."""

    def write(asked: Sequence[Sequence[Said]]) -> list[str]:
        prompts = [tuple(said) for said in asked]
        return list(run.examiner.texts(run.examiner.answers(prompts, None, temperature=GREEDY, max_tokens=WORDS)))

    return write


def _told(made: Iterable[dict[str, Any]]) -> dict[str, Any]:
    all_of = list(made)
    by = Counter(one["by"] for one in all_of)
    changed = [one for one in all_of if one["revised"]]
    shown = sorted(changed, key=lambda one: one["by"] == "template")[:SAMPLES]
    return {
        "answers": len(all_of),
        "revised": len(changed),
        "by": {name: by[name] for name in ("model", "stronger", "template")},
        "tried_by_the_model": sum(one["tried"] for one in all_of),
        "kept": by["kept"],
        "left_out": by[""],
        "samples": [{key: one[key] for key in ("prompt", "answer", "revised", "principle", "by")} for one in shown],
    }


# --- learning it


def _learned(run: Run, material: Material, rows: Sequence[Judgement], told: dict[str, Any]) -> tuple[Adapter, float]:
    folder = run.work / "revised" / "adapter"
    if (folder / "adapter_model.safetensors").exists():
        return read_adapter(folder)[0], float(run.kept("revised-kl", float))
    run.report.tell("revision", **told)
    settings = run.recipe.revision
    policy = Policy.fresh(run.network, LoraConfig(rank=run.recipe.policy.rank), run.recipe.seed)
    config = sft.SftConfig(epochs=settings.epochs, batch=8, learning_rate=settings.learning_rate, seed=run.recipe.seed)
    demonstrations = sft.demonstrations_of(run.base, rows)
    for step in sft.train(policy, demonstrations, config, folder=run.work / "revised-run"):
        run.report.tell("revised", **asdict(step))
        run.moved("revision", step.steps + step.step, step.steps * 2)
    kl = _within_reach(run, material, policy.adapter)
    run.kept("revised-kl", lambda: kl)
    _write(policy.adapter, folder)
    return read_adapter(folder)[0], kl


def _within_reach(run: Run, material: Material, adapter: Adapter) -> float:
    """Nats a completion from the base, after the adapter was made small enough."""
    prompts = sorted(material.prompts["train"], key=place)[:KL_PROMPTS]
    most = min(run.recipe.policy.kl_target, run.recipe.policy.kl_cap / 2)
    kl = 0.0
    for _ in range(ROUNDS):
        drawn = run.examiner.answers(prompts, adapter, max_tokens=run.recipe.policy.max_tokens)
        kl = kl_of_drawn(run.network, drawn, temperature=1.0)
        run.report.tell("revised report", kl=kl, most=most)
        if kl <= most:
            return kl
        # Near the base the divergence grows with the square of the way.
        shorter = min(0.9, 0.95 * (most / kl) ** 0.5)
        with torch.no_grad():
            for side in adapter.b.values():
                side.mul_(shorter)
    return kl


def _write(adapter: Adapter, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    rlhf.write_adapter(adapter, folder)
