"""What a training has reported so far, folded into what a page draws.

A training that was killed or paused reports the steps after its last checkpoint again; the later report counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

STAGES = {
    "base": "Unpacking the base model",
    "data": "Gathering what there is to learn from",
    "judges": "Measuring the constitution's judge against people",
    "revision": "Answers are criticised and written again",
    "revised": "Learning the revisions",
    "revised report": "Measuring how far the revisions moved the model",
    "constitution": "The model judges answers by the constitution",
    "reward": "Training the reward model",
    "reward report": "Trying the reward model on held-out judgements",
    "judge": "Training the judge of the result",
    "judge report": "Trying the judge on held-out judgements",
    "policy": "Training the policy",
    "examination": "Old and new answer prompts that training did not see",
    "verdict": "The gate has decided",
}
CURVES = ("reward", "judge", "policy")


@dataclass
class Seen:
    job: str
    next: int = 0
    stage: str = ""
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in CURVES})
    """Steps of each training, in order."""
    said: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The last report of every other stage."""
    judged: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """Preferences that the constitution made, by principle and split."""

    def take(self, lines: Iterable[Mapping[str, Any]], after: int) -> None:
        self.next = after
        for line in lines:
            self._take(dict(line))

    def _take(self, line: dict[str, Any]) -> None:
        stage = self.stage = str(line.get("stage", ""))
        if stage in self.curves and "step" in line:
            before = [one for one in self.curves[stage] if one["step"] < line["step"]]
            self.curves[stage] = [*before, line]
        elif stage == "constitution":
            self.judged[str(line.get("principle")), str(line.get("split"))] = line
        else:
            self.said[stage] = line

    @property
    def doing(self) -> str:
        return STAGES.get(self.stage, self.stage)
