"""Passes over a fixed set of texts: order, learning rate, and the trunk's output, kept from the first pass on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .network import Network, shared_prefix

_KEPT = 768 * 1024**2
"""Bytes of trunk output that are kept; texts beyond it are read again in each pass."""


def batches(count: int, epochs: int, size: int, seed: int) -> list[list[int]]:
    """Indices of each step's rows, shuffled anew in each pass."""
    shuffle = random.Random(seed)  # noqa: S311 (an order, not a secret)
    steps: list[list[int]] = []
    for _ in range(epochs):
        indices = list(range(count))
        shuffle.shuffle(indices)
        steps += [indices[start : start + size] for start in range(0, count, size)]
    return steps


def rate_at(step: int, steps: int, warmup: float) -> float:
    """The learning rate's share at a step: up in a straight line for a share `warmup` of them, then down to a tenth."""
    rising = max(1, round(steps * warmup))
    return (step + 1) / rising if step < rising else 1.0 - 0.9 * (step - rising) / max(1, steps - rising)


class Trunks:
    """The trunk's output of texts, kept while there is room."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._kept: dict[tuple[int, ...], Tensor] = {}
        self._bytes = 0

    def of(self, texts: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """``[T, width]`` for each text's token ids."""
        missing = {ids for ids in texts if ids not in self._kept}
        found = dict(self._read(sorted(missing, key=lambda ids: (len(ids), ids))))
        outputs = [found[ids] if ids in found else self._kept[ids] for ids in texts]
        for ids, output in found.items():
            if self._bytes + output.nbytes <= _KEPT:
                self._kept[ids] = output
                self._bytes += output.nbytes
        return outputs

    def _read(self, missing: Sequence[tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], Tensor]]:
        for start in range(0, len(missing), 16):
            part = missing[start : start + 16]
            padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids in part], batch_first=True)
            for ids, output in zip(part, self._network.trunk(padded, shared_prefix(part)), strict=True):
                yield ids, output[: len(ids)].clone()
