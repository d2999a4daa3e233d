"""The reward model: how much people would like an answer, learned from preferences and from 0/1 labels alike.

The network's own layers already tell much of what people tell apart; what has to be learned is a direction
(`reward_training`). An answer becomes two vectors of what the frozen layers make of it, the mean over its tokens and
its last token, and its score is a weighted sum of their numbers. So a rollout is scored at no cost: the trunk's output
is what the policy needs anyway.

Scores are in nats of log-odds. For PPO they are brought to mean 0 and deviation 1 over samples of the base model
(`normalise`), so that a step's size does not depend on how sure the reward model is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trimtab.domain.errors import InvalidInput, ModelFileError
from trimtab.domain.judgement import Judgement, Kind, Said

from .base import Base
from .epochs import Trunks
from .forest import Forest, portions
from .network import Network
from .rollouts import Completion

Reads = Literal["trunk", "top"]
"""The layer an answer is read at: where the adapters begin, or the last one."""
_CARD, _TENSORS = "reward.json", "reward.safetensors"


@dataclass(frozen=True)
class Text:
    """An answer after its prompt."""

    ids: tuple[int, ...]
    """Tokens of prompt and answer."""
    prompt: int
    """How many of them are the prompt's."""
    words: int
    """How long the answer is for a person."""


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
        text = text_of(base, judged.prompt, judged.completion)
        if judged.kind is Kind.PREFERENCE:
            row = Row(judged, text, worse=text_of(base, judged.prompt, judged.rejected))
        elif judged.kind is Kind.LABEL and judged.value is not None:
            row = Row(judged, text, good=bool(judged.value) != (judged.label in bad), label=judged.label)
        else:
            continue
        if judged.weight > 0 and all(len(text.ids) <= max_tokens for text in row.texts):
            rows.append(row)
    return rows


def text_of(base: Base, prompt: Sequence[Said], completion: str) -> Text:
    before = base.prompt_ids(prompt)
    return Text(before + base.completion_ids(completion), len(before), len(completion.split()))


class RewardModel:
    """Scores answers. It changes nothing of the network that it reads with."""

    def __init__(self, network: Network, base: Base, *, reads: Reads = "trunk") -> None:
        self.network, self.base, self.reads = network, base, reads
        self.trunks: Trunks | None = None
        """Where the trunk's output of texts is kept, when others read them, too."""
        size = 2 * network.shape.width
        self.centre, self.spread = torch.zeros(size), torch.ones(size)
        self.weight = torch.zeros(size)
        """``[2 * width]``, over the mean and the last token."""
        self.labels: dict[str, tuple[Tensor, Tensor]] = {}
        """Each label's own vector ``[2 * width]``, and its threshold ``[]``."""
        self.ridge = 0.0
        self.mean, self.deviation = 0.0, 1.0

    # ------------------------------------------------------------------ scoring

    def score(self, prompt: Sequence[Said], completion: str) -> float:
        """One answer's score, normalised when the model is."""
        return self.scores([prompt], [completion])[0]

    def scores(self, prompts: Sequence[Sequence[Said]], completions: Sequence[str]) -> list[float]:
        texts = [text_of(self.base, p, text) for p, text in zip(prompts, completions, strict=True)]
        return self._normal(self.raw(self.features(texts)))

    def scores_of(self, completions: Sequence[Completion]) -> list[float]:
        """Scores of rollouts, from their trunk outputs where they carry them; a cut answer where it was cut."""
        trunks = [c.trunk for c in completions if c.trunk is not None]
        texts = [Text(c.prompt_ids + c.ids, len(c.prompt_ids), 0) for c in completions]
        return self._normal(self.raw(self.features(texts, trunks if len(trunks) == len(texts) else None)))

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

    # ------------------------------------------------------------------ what is read of an answer

    @torch.no_grad()
    def features(self, texts: Sequence[Text], trunks: Sequence[Tensor] | None = None) -> Tensor:
        """``[texts, 2 * width]``: the mean over the answer's tokens, and its last token.

        Args:
            trunks: the trunk's output of each text, where it is known.
        """
        if trunks is None and self.trunks is not None:
            trunks = self.trunks.of([text.ids for text in texts])
        found = torch.zeros(len(texts), 2 * self.network.shape.width)
        for part in portions([text.ids for text in texts]):
            known = None if trunks is None else [trunks[i] for i in part]
            for i, read in zip(part, self._read([texts[i].ids for i in part], known), strict=True):
                # An answer of no token is read where it would begin.
                own = read[min(texts[i].prompt, len(texts[i].ids) - 1) : len(texts[i].ids)]
                found[i] = torch.cat([own.mean(0), own[-1]])
        return found

    def _read(self, ids: Sequence[tuple[int, ...]], trunks: Sequence[Tensor] | None) -> Sequence[Tensor]:
        if trunks is not None and self.reads == "trunk":
            return trunks
        forest = Forest(ids)
        x = self.network.trunk(forest) if trunks is None else forest.laid_out(trunks)
        return forest.apart(self.network.upper(x, forest, None) if self.reads == "top" else x)

    def raw(self, features: Tensor) -> Tensor:
        """Scores as they were learned ``[texts]``, before `normalise`."""
        return ((features - self.centre) / self.spread) @ self.weight

    def above(self, label: str, features: Tensor) -> Tensor:
        """By how many nats each text passes for what the label says ``[texts]``. One that was never learned is passed
        by what is better than the base model's average answer."""
        if label not in self.labels:
            return self.raw(features) - self.mean
        own, threshold = self.labels[label]
        return self.raw(features) + ((features - self.centre) / self.spread) @ own - threshold

    def margins(self, rows: Sequence[Row], features: Tensor) -> Tensor:
        """By how many nats each row is right ``[rows]``; `features` are those of all their texts, in order."""
        margins, at = [], 0
        for row in rows:
            own = features[at : at + len(row.texts)]
            if row.worse is not None:
                better, worse = self.raw(own)
                margins.append(better - worse)
            else:
                margins.append(self.above(row.label, own)[0] * (1 if row.good else -1))
            at += len(row.texts)
        return torch.stack(margins)

    # ------------------------------------------------------------------ state

    def named(self) -> dict[str, Tensor]:
        own = {f"label.{name}": vector for name, (vector, _) in sorted(self.labels.items())}
        thresholds = {f"threshold.{name}": value for name, (_, value) in sorted(self.labels.items())}
        return {"centre": self.centre, "spread": self.spread, "weight": self.weight, **own, **thresholds}

    def save(self, folder: Path) -> None:
        """`reward.safetensors` and `reward.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in self.named().items()}, folder / _TENSORS)
        card = {
            "mean": self.mean,
            "deviation": self.deviation,
            "reads": self.reads,
            "ridge": self.ridge,
            "trunk_layers": self.network.trunk_layers,
        }
        (folder / _CARD).write_text(json.dumps(card, indent=1), "utf-8")

    @classmethod
    def load(cls, network: Network, base: Base, folder: Path) -> RewardModel:
        """Raises ModelFileError when the folder holds no reward model, InvalidInput when it is another network's."""
        try:
            card = json.loads((folder / _CARD).read_text("utf-8"))
            tensors = load_file(folder / _TENSORS)
            trunk_layers = int(card["trunk_layers"])
            model = cls(network, base, reads="top" if card["reads"] == "top" else "trunk")
            model.mean, model.deviation = float(card["mean"]), float(card["deviation"])
            model.ridge = float(card["ridge"])
            model.centre, model.spread, model.weight = (tensors[name] for name in ("centre", "spread", "weight"))
            for name in [name.removeprefix("label.") for name in tensors if name.startswith("label.")]:
                model.labels[name] = tensors[f"label.{name}"], tensors[f"threshold.{name}"]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ModelFileError(f"{folder} holds no reward model ({error!r}). Train it again.") from error
        if len(model.weight) != 2 * network.shape.width or trunk_layers != network.trunk_layers:
            raise InvalidInput(
                f"The reward model in {folder} reads another base model, or this one above {trunk_layers} layers, "
                f"not {network.trunk_layers}. Use the base model and the trunk it was trained with."
            )
        return model
