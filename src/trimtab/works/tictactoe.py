"""The job that trains a player of Tic-Tac-Toe. It takes seconds, so one that was cut off begins again: the same seed
plays the same games."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from trimtab.align.classroom import curve
from trimtab.align.classroom.extra import needed
from trimtab.align.classroom.recipe import Recipe
from trimtab.align.jobs import Job
from trimtab.align.worker import Report

if TYPE_CHECKING:
    from trimtab.align.classroom.training import Step

BEGIN, POINT = "begin", "point"
"""Stages told. What was told before the last `BEGIN` is of an attempt that was cut off."""


def work(job: Job, report: Report) -> dict[str, Any]:
    """Train by the job's recipe, keep each checkpoint in ``job.work``, and return the last exam's report.

    Raises:
        InvalidInput: the recipe is wrong.
        MissingExtra: the `align` extra is not installed.
    """
    recipe = Recipe.read(job.recipe)
    report.tell(BEGIN, **recipe.to_json())
    last: Step | None = None
    with needed():
        for step in curve.kept(_steps(recipe), job.work):
            last = step
            report.tell(POINT, **curve.figures(asdict(step.point)))
            report.moved("playing", step.point.games, recipe.games)
            report.checkpointed()
    assert last is not None  # every training ends with a point
    exam = last.point.report
    return {
        "proved": exam.passed,
        "never_loses": exam.never_loses,
        "checkpoint": f"{last.point.update:06d}",
        "games": last.point.games,
        "report": asdict(exam),
    }


def _steps(recipe: Recipe) -> Iterator[Step]:
    from trimtab.align.classroom import qlearning, training

    if recipe.algorithm == "q":
        return qlearning.train(qlearning.QConfig(seed=recipe.seed, games=recipe.games))
    opponent: Any = recipe.opponent
    return training.train(training.TrainingConfig(seed=recipe.seed, games=recipe.games, opponent=opponent))
