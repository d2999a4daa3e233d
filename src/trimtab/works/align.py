"""From judgements to a version with evidence: revisions, reward model, policy, examination, gate.

The recipe comes with what the server resolved (`Resolved`): paths, and which version answers now. Each stage is a
module beside this one and leaves its result in the job's folder, so a job that was killed or paused goes on in the
stage it was in.

Two reward models are trained, on prompts that have nothing in common: the policy is trained against one, and the other
judges whether it got better. Neither saw the test prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trimtab.align.gate import Rules, decide
from trimtab.align.jobs import Job
from trimtab.align.recipe import checked
from trimtab.align.worker import Report

from . import reward_models
from .examination import examine
from .making import make
from .material import apart, gather
from .practice import practise
from .principles import bench, with_preferences
from .resolved import Resolved as Resolved
from .revising import Revised, revise
from .run import Run, revises


def work(job: Job, report: Report) -> Mapping[str, Any]:
    """What a job of the kind `align` does. Returns the version, the verdict and the feedback that shaped it."""
    run = Run(checked(job.recipe["recipe"]), Resolved(**job.recipe["resolved"]), job, report)
    material = gather(run)
    revised = Revised()
    if run.recipe.data.constitution:
        judges = bench(run, material)
        if revises(run.recipe):
            revised = revise(run, material, judges)
        material = with_preferences(run, material, judges, revised.rows, revised.adapter)
    for_policy, for_judge = apart(material.train)
    reward = reward_models.trained(run, "reward", for_policy, material)
    judge = reward_models.trained(run, "judge", for_judge, material)
    practise(run, material, reward, start=revised.adapter)
    evidence, extras = examine(run, material, reward, judge)
    if revised.told:
        extras["revision"] = revised.told
    verdict = decide(evidence, Rules(kl=run.recipe.policy.kl_cap * 2))
    return make(run, material, evidence, verdict, extras)
