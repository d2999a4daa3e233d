"""What training should leave as it is: how the model goes on with plain text that nobody asked a question in.

A policy that is only pulled towards rewards forgets a little of everything else ("alignment tax"). InstructGPT mixes a
gradient on pretraining text into PPO's (PPO-ptx; Ouyang et al. 2022, section 3.5). Nobody hands us that text, so the
base model writes it: some openings, gone on with at temperature 1. The loss is the KL divergence of the policy from the
base over all tokens at each place of those texts, exact, so a handful of texts is enough.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .adapter import Adapter
from .base import Base
from .forest import Forest, Ids
from .network import Network
from .rollouts import Draw, TorchSampler, with_trunk

OPENINGS = (
    "The", "In the morning", "A small", "When they", "It was", "Some of the", "One of the oldest", "He said",
    "She had", "After the war", "To make", "The city of", "Researchers", "There are", "Many people", "At the end of",
)  # fmt: skip


class PlainText:
    """The base's own texts, which the base and its trunk read once."""

    def __init__(self, network: Network, base: Base, *, tokens: int = 48, seed: int = 0, rows: int = 2) -> None:
        self._network, self._rows = network, rows
        prompts = [base.text_ids(opening) for opening in OPENINGS]
        drawn = TorchSampler(network, base.end_ids)(prompts, None, Draw(1.0, tokens), seed)
        self._texts = [(c.prompt_ids + c.ids, c.trunk) for c in with_trunk(network, drawn) if c.trunk is not None]
        with torch.no_grad():
            self._base = [self._outputs([text], None) for text in self._texts]
        self._next = 0

    def kl(self, adapter: Adapter | None) -> Tensor:
        """Nats a token, over the next few of the texts, with gradients to the adapter."""
        few = [(self._next + i) % len(self._texts) for i in range(self._rows)]
        self._next += self._rows
        with torch.no_grad():
            base = self._logprobs(torch.cat([self._base[i] for i in few]))
        now = self._logprobs(self._outputs([self._texts[i] for i in few], adapter))
        return (base.exp() * (base - now)).sum(-1).mean()

    def _outputs(self, texts: Sequence[tuple[Ids, Tensor]], adapter: Adapter | None) -> Tensor:
        """The network's normed output at all tokens of the texts, one text after another."""
        forest = Forest([ids for ids, _ in texts])
        x = self._network.upper(forest.laid_out([trunk for _, trunk in texts]), forest, adapter)
        return torch.cat(forest.apart(x))

    def _logprobs(self, x: Tensor) -> Tensor:
        return torch.log_softmax(self._network.logits(x), -1)

    def rewind(self, step: int, updates: int) -> None:
        """As if `step` steps of so many updates had been taken: a run that goes on reads what it would have read."""
        self._next = step * updates * self._rows
