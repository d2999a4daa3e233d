"""What training should leave as it is: how the model goes on with plain text that nobody asked a question in.

A policy that is only pulled towards rewards forgets a little of everything else ("alignment tax"). InstructGPT mixes a
gradient on pretraining text into PPO's (PPO-ptx; Ouyang et al. 2022, section 3.5). Nobody hands us that text, so the
base model writes it: some openings, gone on with at temperature 1. The loss is the KL divergence of the policy from the
base over all tokens at each place of those texts, exact, so a handful of texts is enough.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .adapter import Adapter
from .base import Base
from .network import Network
from .rollouts import Draw, TorchSampler, with_trunk

OPENINGS = (
    "The", "In the morning", "A small", "When they", "It was", "Some of the", "One of the oldest", "He said",
    "She had", "After the war", "To make", "The city of", "Researchers", "There are", "Many people", "At the end of",
)  # fmt: skip


class PlainText:
    """The base's own texts, read by its trunk once."""

    def __init__(self, network: Network, base: Base, *, tokens: int = 48, seed: int = 0, rows: int = 2) -> None:
        self._network, self._rows = network, rows
        prompts = [base.text_ids(opening) for opening in OPENINGS]
        drawn = TorchSampler(network, base.end_ids)(prompts, None, Draw(1.0, tokens), seed)
        self._trunks = [c.trunk for c in with_trunk(network, drawn) if c.trunk is not None]
        self._next = 0

    def kl(self, adapter: Adapter | None) -> Tensor:
        """Nats a token, over the next few of the texts, with gradients to the adapter."""
        few = [self._trunks[(self._next + i) % len(self._trunks)] for i in range(self._rows)]
        self._next += self._rows
        trunk = torch.nn.utils.rnn.pad_sequence(few, batch_first=True)
        there = torch.nn.utils.rnn.pad_sequence([torch.ones(len(one)) for one in few], batch_first=True) > 0
        with torch.no_grad():
            base = self._logprobs(trunk, None, there)
        return (base.exp() * (base - self._logprobs(trunk, adapter, there))).sum(-1).mean()

    def _logprobs(self, trunk: Tensor, adapter: Adapter | None, there: Tensor) -> Tensor:
        return torch.log_softmax(self._network.logits(self._network.upper(trunk, adapter)[there]), -1)

    def rewind(self, step: int, updates: int) -> None:
        """As if `step` steps of so many updates had been taken: a run that goes on reads what it would have read."""
        self._next = step * updates * self._rows
