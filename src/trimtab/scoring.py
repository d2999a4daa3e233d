"""The process that holds a reward model and scores with it: `python -m trimtab.scoring JOB-FOLDER`. Started by
`reward.py`, never by a person.

torch and the base's weights take 0.7 GB and some seconds to load. In the server they would be there for good, and a
score would hold up every other answer's bytes; here they are gone some minutes after the last score. One line of JSON
in, one out; when standard input ends, the parent is gone and so is this process.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch

from trimtab.align.jobs import Jobs
from trimtab.align.network import Network
from trimtab.align.reward_model import RewardModel, text_of
from trimtab.domain.errors import InvalidInput, ModelFileError, TrimtabError
from trimtab.domain.judgement import Said
from trimtab.works.resolved import Resolved

MOST_TOKENS = 1024
"""Of a conversation and its answer. Rows of more than 512 were not trained on; a little more does no harm, and what is
left out is the oldest."""


class Bench:
    """The two reward models of one alignment: the one the policy was trained against, and the judge of the result."""

    def __init__(self, folder: Path) -> None:
        job = Jobs(folder.parent).get(folder.name)
        base = Resolved(**job.recipe["resolved"]).base()
        network = Network(base, trunk_layers=_trunk_layers(job.work / "reward" / "reward.json"))
        self._base = base
        self._most = min(MOST_TOKENS, network.shape.context)
        self.reward = RewardModel.load(network, base, job.work / "reward")
        other = job.work / "judge"
        self.judge = RewardModel.load(network, base, other) if (other / "reward.json").exists() else None

    def scores(self, prompt: Sequence[Said], texts: Sequence[str]) -> list[float]:
        """Normalised: 0 is the base model's average answer, 1 a deviation better."""
        return self.reward.scores([self._recent(prompt, texts)] * len(texts), texts)

    def opinion(self, model: RewardModel, asked: Sequence[Mapping[str, Any]]) -> list[float]:
        """Of each, the probability (0..1) that one answer is good for its label, or the first of two the better."""
        texts = []
        for one in asked:
            prompt = self._recent(_said(one["prompt"]), one["texts"])
            texts += [text_of(self._base, prompt, text) for text in one["texts"]]
        features = iter(torch.split(model.features(texts), [len(one["texts"]) for one in asked]))
        found = []
        for one, own in zip(asked, features, strict=True):
            raw = model.raw(own)
            margin = raw[0] - raw[1] if len(raw) == 2 else model.above(one["label"], own)[0]
            found.append(float(margin.sigmoid()))
        return found

    def _recent(self, prompt: Sequence[Said], texts: Sequence[str]) -> Sequence[Said]:
        """As much of the conversation as is read beside the longest of the texts, the newest of it."""
        room = self._most - max(len(self._base.completion_ids(text)) for text in texts)
        for start in range(len(prompt)):
            if len(self._base.prompt_ids(prompt[start:])) <= room:
                return prompt[start:]
        raise InvalidInput(
            f"Question and answer have more than {self._most} tokens, which the reward model cannot read."
        )

    def answer(self, order: Mapping[str, Any]) -> dict[str, Any]:
        if "texts" in order:
            return {"scores": self.scores(_said(order["prompt"]), order["texts"])}
        told: dict[str, Any] = {"reward": self.opinion(self.reward, order["asked"])}
        return told | ({"judge": self.opinion(self.judge, order["asked"])} if self.judge else {})


def _trunk_layers(card: Path) -> int:
    """Where the reward model reads: a recipe may have left that to the default of its day."""
    try:
        return int(json.loads(card.read_text("utf-8"))["trunk_layers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{card} is no reward model's card ({error!r}). Train it again.") from error


def _said(prompt: Sequence[Sequence[str]]) -> list[Said]:
    return [Said(role, content) for role, content in prompt]


def main() -> None:
    wires = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints must not be mistaken for our lines
    with os.fdopen(wires, "w") as out:
        try:
            bench = Bench(Path(sys.argv[1]))
        except TrimtabError as error:
            _tell(out, {"error": error.message})
            return
        _tell(out, {"ready": True})
        for line in sys.stdin:
            order = json.loads(line)
            try:
                told = bench.answer(order)
            except TrimtabError as error:
                told = {"error": error.message}
            _tell(out, {"id": order["id"], **told})


def _tell(out: IO[str], told: Mapping[str, Any]) -> None:
    out.write(json.dumps(told) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
