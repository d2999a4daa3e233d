"""The reward model: how much people would like an answer, learned from preferences and from 0/1 labels alike.

A second adapter on the policy's network, and a score head on the output at the answer's last token. One loss takes both
kinds of judgement, a row's weight before each:

- a preference: ``-log sigmoid(score(better) - score(worse))`` (Bradley-Terry; Ouyang et al. 2022, equation 1);
- a label: ``-log sigmoid(+-(score - threshold))``, a threshold for each label, learned, so that the score's zero stays
  free.

TRL's RewardTrainer does not fit: it takes pairs only, and it reads all layers in each epoch, where this trainer reads
the trunk once (for SFT, the same comparison, four times as many rows a CPU minute: `benchmarks/alignment.py`).

Scores are in nats of log-odds. For PPO they are brought to mean 0 and deviation 1 over samples of the base model
(`normalise`), so that a step's size does not depend on how long the reward model trained.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trimtab.domain.errors import InvalidInput, ModelFileError
from trimtab.domain.judgement import Judgement, Kind, Said

from .adapter import Adapter, LoraConfig, read_adapter, save_adapter
from .base import Base
from .checkpoint import Checkpoints
from .epochs import Passes, Trunks, descend
from .network import Network, by_length, shared_prefix
from .rollouts import Completion

_CARD = "reward.json"


@dataclass(frozen=True)
class Text:
    """A judged text: its tokens, and how long it is for a person."""

    ids: tuple[int, ...]
    words: int


@dataclass(frozen=True)
class Row:
    """A preference (`worse` is there) or a label (`good` is there)."""

    judgement: Judgement
    text: Text
    worse: Text | None = None
    good: bool | None = None
    label: str = ""

    @property
    def texts(self) -> list[Text]:
        return [self.text] if self.worse is None else [self.text, self.worse]


def rows_of(
    base: Base, judgements: Iterable[Judgement], *, bad: Sequence[str] = (), max_tokens: int = 512
) -> list[Row]:
    """Judgements as the trainer reads them. Demonstrations say nothing about a worse text and are left out.

    Args:
        bad: labels whose 1 means a bad answer (``toxic``); all others are good.
        max_tokens: of prompt and answer together; longer ones are left out.
    """
    rows = []
    for judged in judgements:
        prompt = base.prompt_ids(judged.prompt)
        text = _text(base, prompt, judged.completion)
        if judged.kind is Kind.PREFERENCE:
            row = Row(judged, text, worse=_text(base, prompt, judged.rejected))
        elif judged.kind is Kind.LABEL and judged.value is not None:
            row = Row(judged, text, good=bool(judged.value) != (judged.label in bad), label=judged.label)
        else:
            continue
        if judged.weight > 0 and all(len(text.ids) <= max_tokens for text in row.texts):
            rows.append(row)
    return rows


def _text(base: Base, prompt: tuple[int, ...], completion: str) -> Text:
    return Text(prompt + base.completion_ids(completion), len(completion.split()))


@dataclass(frozen=True)
class RewardConfig(Passes):
    """What a person may turn. The defaults separate the bundled data; see the benchmark. A reward model learns its set
    by heart in a few passes (Ouyang: one)."""

    weight_decay: float = 0.01


@dataclass(frozen=True)
class RewardStep:
    step: int
    steps: int
    loss: float
    accuracy: float
    """Of this batch's rows, before the step."""
    learning_rate: float
    seconds: float


class RewardModel:
    """Scores answers. `adapter` and the score head are what training changes."""

    def __init__(self, network: Network, base: Base, adapter: Adapter, *, head: Tensor) -> None:
        self.network, self.base, self.adapter = network, base, adapter
        self.head = head.detach().clone().requires_grad_()
        """``[width]``."""
        self.thresholds: dict[str, Tensor] = {}
        self.mean, self.deviation = 0.0, 1.0

    @classmethod
    def fresh(cls, network: Network, base: Base, config: LoraConfig, seed: int = 0) -> RewardModel:
        generator = torch.Generator().manual_seed(seed)
        width = network.shape.width
        head = torch.randn(width, generator=generator) / width  # small: all answers begin about equal
        return cls(network, base, network.fresh_adapter(config, seed), head=head)

    # ------------------------------------------------------------------ scoring

    def score(self, prompt: Sequence[Said], completion: str) -> float:
        """One answer's score, normalised when the model is."""
        return self.scores([prompt], [completion])[0]

    def scores(self, prompts: Sequence[Sequence[Said]], completions: Sequence[str]) -> list[float]:
        ids = [
            self.base.prompt_ids(prompt) + self.base.completion_ids(text)
            for prompt, text in zip(prompts, completions, strict=True)
        ]
        return self._normal(self.raw_scores(ids))

    def scores_of(self, completions: Sequence[Completion]) -> list[float]:
        """Scores of rollouts, from their trunk outputs where they carry them; a cut answer where it was cut."""
        trunks = [c.trunk for c in completions if c.trunk is not None]
        ids = [c.prompt_ids + c.ids for c in completions]
        return self._normal(self.raw_scores(ids, trunks if len(trunks) == len(ids) else None))

    def reward(
        self, prompts: Sequence[Sequence[Said]], completions: Sequence[str], context: Sequence[Mapping[str, Any]]
    ) -> list[float]:
        """The model as one of `rewards.Weighted`'s parts."""
        rollouts = [row.get("rollout") for row in context]
        if rollouts and all(isinstance(rollout, Completion) for rollout in rollouts):
            return self.scores_of(rollouts)  # type: ignore[arg-type]
        return self.scores(prompts, completions)

    def best_of(self, prompt: Sequence[Said], completions: Sequence[str]) -> tuple[int, list[float]]:
        """The index of the best answer, and every score.

        Raises:
            InvalidInput: there is none to choose from.
        """
        if not completions:
            raise InvalidInput("There is no completion to choose from. Sample at least one.")
        scores = self.scores([prompt] * len(completions), completions)
        return max(range(len(scores)), key=scores.__getitem__), scores

    def normalise(self, completions: Sequence[Completion]) -> None:
        """Make these (the base model's samples) mean 0 and deviation 1."""
        self.mean, self.deviation = 0.0, 1.0
        scores = torch.tensor(self.scores_of(completions))
        self.mean, self.deviation = float(scores.mean()), max(float(scores.std(correction=0)), 1e-3)

    def _normal(self, raw: Tensor) -> list[float]:
        return [float(score) for score in (raw - self.mean) / self.deviation]

    @torch.no_grad()
    def raw_scores(
        self, ids: Sequence[tuple[int, ...]], trunks: Sequence[Tensor] | None = None, rows: int = 16
    ) -> Tensor:
        """Scores as they were learned ``[texts]``, before `normalise`, without gradients."""
        scores = torch.zeros(len(ids))
        for part in by_length([len(text) for text in ids], rows):
            scores[part] = self.raw([ids[i] for i in part], [trunks[i] for i in part] if trunks else None)
        return scores

    def raw(self, ids: Sequence[tuple[int, ...]], trunks: Sequence[Tensor] | None = None) -> Tensor:
        """Raw scores ``[B]``, with gradients to adapter and head; `trunks` where the trunk's output is known."""
        shared = shared_prefix(ids)
        if trunks is None:
            tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(i) for i in ids], batch_first=True)
            trunk = self.network.trunk(tokens, shared)
        else:
            trunk = torch.nn.utils.rnn.pad_sequence(list(trunks), batch_first=True)
        last = torch.tensor([len(i) - 1 for i in ids])
        return self.network.upper(trunk, self.adapter, shared)[torch.arange(len(last)), last] @ self.head

    # ------------------------------------------------------------------ state

    def threshold(self, label: str) -> Tensor:
        return self.thresholds.setdefault(label, torch.zeros((), requires_grad=True))

    def parameters(self) -> list[Tensor]:
        return list(self.named().values())

    def named(self) -> dict[str, Tensor]:
        labels = {f"threshold.{name}": tensor for name, tensor in sorted(self.thresholds.items())}
        return {**self.adapter.named(), "base_model.model.score.weight": self.head, **labels}

    def save(self, folder: Path) -> None:
        """PEFT's files (task SEQ_CLS, so transformers loads it, too) and `reward.json`."""
        head = {"base_model.model.score.weight": self.head.unsqueeze(0)}
        save_adapter(self.adapter, folder, task="SEQ_CLS", extra=head)
        card = {
            "mean": self.mean,
            "deviation": self.deviation,
            "thresholds": {name: float(tensor.detach()) for name, tensor in self.thresholds.items()},
            "trunk_layers": self.network.trunk_layers,
        }
        (folder / _CARD).write_text(json.dumps(card, indent=1), "utf-8")

    @classmethod
    def load(cls, network: Network, base: Base, folder: Path) -> RewardModel:
        """Raises ModelFileError when the folder holds no reward model, InvalidInput when it is another network's."""
        adapter, rest = read_adapter(folder)
        network.check(adapter)
        try:
            card = json.loads((folder / _CARD).read_text("utf-8"))
            model = cls(network, base, adapter, head=rest["score.weight"].squeeze(0))
            model.mean, model.deviation = float(card["mean"]), float(card["deviation"])
            thresholds = {str(name): float(value) for name, value in card["thresholds"].items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelFileError(f"{folder} holds no reward model ({error!r}). Train it again.") from error
        model.thresholds = {name: torch.tensor(value, requires_grad=True) for name, value in thresholds.items()}
        return model


# ---------------------------------------------------------------------- training


def train(
    model: RewardModel, rows: Sequence[Row], config: RewardConfig, *, folder: Path | None = None
) -> Iterator[RewardStep]:
    """Train `model` in place, one step for each value yielded.

    Args:
        folder: for checkpoints; a run that was killed goes on from there, to the same weights.

    Raises:
        InvalidInput: there are no rows.
        Conflict: the folder holds another run.
    """
    if not rows:
        raise InvalidInput("There is no preference and no label to learn from. Rate some answers first.")
    for label in sorted({row.label for row in rows if row.good is not None}):
        model.threshold(label)
    checkpoints = Checkpoints(folder, repr((config, [row.judgement.id for row in rows]))) if folder else None
    trunks = Trunks(model.network)
    steps = descend(
        model.named(),
        rows,
        config,
        lambda batch: _learn(model, batch, trunks, config.microbatch),
        weight_decay=config.weight_decay,
        checkpoints=checkpoints,
    )
    for told in steps:
        yield RewardStep(*told)


def _learn(model: RewardModel, rows: Sequence[Row], trunks: Trunks, microbatch: int) -> tuple[float, float]:
    """Leave the batch's gradient in the parameters; its mean loss and the share of rows that were right."""
    total = sum(row.judgement.weight for row in rows)
    longest = [max(len(text.ids) for text in row.texts) for row in rows]
    size = max(1, microbatch // 2)  # a preference has two texts and stays together
    loss, right = 0.0, 0
    for group in by_length(longest, size):
        part = [rows[i] for i in group]
        texts = [text for row in part for text in row.texts]
        margins = margins_of(
            model, part, model.raw([text.ids for text in texts], trunks.of([text.ids for text in texts]))
        )
        weights = torch.tensor([row.judgement.weight for row in part])
        share = (weights * F.softplus(-margins)).sum() / total
        share.backward()  # type: ignore[no-untyped-call]
        loss += float(share.detach())
        right += int((margins > 0).sum())
    return loss, right / len(rows)


def margins_of(model: RewardModel, rows: Sequence[Row], scores: Tensor) -> Tensor:
    """By how many nats each row is right ``[rows]``; scores are those of all their texts, in order."""
    margins, at = [], 0
    for row in rows:
        if row.worse is not None:
            margins.append(scores[at] - scores[at + 1])
        else:
            above = scores[at] - model.threshold(row.label)
            margins.append(above if row.good else -above)
        at += len(row.texts)
    return torch.stack(margins)
