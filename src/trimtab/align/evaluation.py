"""Measuring a version beside the one it would replace, on prompts that neither training nor its stopping point saw.

Both answer the same prompts with the same random numbers. What comes out is half of the gate's evidence; the other
half needs the engine that serves (`works/examination.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from trimtab.domain.judgement import Said

from .adapter import Adapter
from .base import Base
from .bundled import Probe, Probes
from .forest import Forest
from .gate import Share
from .network import Network
from .policy import kl_of_drawn, token_logprobs
from .probing import passed
from .rollouts import Completion, Draw, Sampler, TorchSampler

Prompt = tuple[Said, ...]
Score = Callable[[Sequence[Prompt], Sequence[str]], list[float]]
"""How good answers are to a judge; higher is better."""

GREEDY = 1e-3
"""A temperature at which the likeliest token is as good as certain."""
TIE = 0.05
"""Two scores (in deviations) nearer than this are a tie."""
WINDOW = 256
"""Tokens of plain text that are read at once."""


@dataclass(frozen=True)
class Compared:
    """Old and new on the same prompts, one value a prompt."""

    prompts: tuple[Prompt, ...]
    old: tuple[str, ...]
    new: tuple[str, ...]
    old_tokens: tuple[int, ...]
    new_tokens: tuple[int, ...]
    kl: float
    """Nats a completion that the new version is from the base, by its own completions (k3 estimate)."""

    def wins(self, judge: Score) -> list[float]:
        """1 where the judge prefers the new answer, 0 where the old one, 0.5 for a tie."""
        before, after = judge(self.prompts, self.old), judge(self.prompts, self.new)
        return [0.5 if abs(n - o) < TIE else float(n > o) for o, n in zip(before, after, strict=True)]

    def gains(self, reward: Score) -> list[float]:
        before, after = reward(self.prompts, self.old), reward(self.prompts, self.new)
        return [n - o for o, n in zip(before, after, strict=True)]

    def longer_by(self) -> list[float]:
        return [float(n - o) for o, n in zip(self.old_tokens, self.new_tokens, strict=True)]

    def lengths(self) -> tuple[float, float]:
        return sum(self.old_tokens) / len(self.old_tokens), sum(self.new_tokens) / len(self.new_tokens)

    def distinct(self) -> tuple[float, float]:
        """Share of answers that nobody else gave, old and new: near 0 when one phrase answers everything."""
        return _distinct(self.old), _distinct(self.new)

    def samples(self, most: int = 12) -> list[dict[str, str]]:
        """For people to read: prompt, before, after."""
        told = zip(self.prompts, self.old, self.new, strict=True)
        return [{"prompt": p[-1].content, "before": o, "after": n} for p, o, n in list(told)[:most]]


class Examiner:
    """Asks the network with one adapter or another.

    Args:
        sampler: None draws with the network.
    """

    def __init__(
        self, network: Network, base: Base, *, max_tokens: int = 64, seed: int = 7, sampler: Sampler | None = None
    ) -> None:
        self._network, self._base, self._seed, self._max_tokens = network, base, seed, max_tokens
        self._sampler = sampler or TorchSampler(network, base.end_ids)

    def answers(
        self, prompts: Sequence[Prompt], adapter: Adapter | None, *, temperature: float = 1.0, max_tokens: int = 0
    ) -> list[Completion]:
        ids = [self._base.prompt_ids(prompt) for prompt in prompts]
        return self._sampler(ids, adapter, Draw(temperature, max_tokens or self._max_tokens), self._seed)

    def texts(self, completions: Sequence[Completion]) -> tuple[str, ...]:
        return tuple(self._base.text_of(c.ids) for c in completions)

    def compare(self, prompts: Sequence[Prompt], old: Adapter | None, new: Adapter | None) -> Compared:
        before, after = self.answers(prompts, old), self.answers(prompts, new)
        return Compared(
            tuple(prompts),
            self.texts(before),
            self.texts(after),
            tuple(len(c.ids) for c in before),
            tuple(len(c.ids) for c in after),
            kl_of_drawn(self._network, after, temperature=1.0),
        )

    def sets(self, probes: Probes, old: Adapter | None, new: Adapter | None) -> dict[str, Share]:
        """Safety, look-alikes, sycophancy: what went right, old and new. Greedy, so the same each time."""
        named = {"declines what harms": probes.harmful, "answers look-alikes": probes.lookalikes,
                 "does not give in": probes.sycophancy}  # fmt: skip
        return {name: Share(self._passed(few, old), self._passed(few, new)) for name, few in named.items()}

    def _passed(self, probes: Sequence[Probe], adapter: Adapter | None) -> list[bool]:
        answers = self.texts(self.answers([p.prompt for p in probes], adapter, temperature=GREEDY))
        return [passed(probe, text) for probe, text in zip(probes, answers, strict=True)]

    @torch.no_grad()
    def perplexity(self, text: str, adapter: Adapter | None) -> float:
        """Of plain text, in windows of `WINDOW` tokens, the first token of each not counted."""
        ids = self._base.text_ids(text)
        windows = [ids[i : i + WINDOW] for i in range(0, len(ids) - 1, WINDOW)]
        total, count = 0.0, 0
        for window in windows:
            if len(window) < 2:
                continue
            forest = Forest([window])
            x = self._network.upper(self._network.trunk(forest), forest, adapter)
            logprobs, _ = token_logprobs(x[:-1], self._network.head, forest.tokens[1:])
            total, count = total + float(logprobs.sum()), count + len(window) - 1
        return math.exp(-total / max(1, count))


def _distinct(texts: Sequence[str]) -> float:
    return len({" ".join(t.casefold().split()[:12]) for t in texts}) / max(1, len(texts))
