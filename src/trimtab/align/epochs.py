"""Training in passes over a fixed set of texts: order, learning rate, steps; the trunk's output is kept from the first
pass on."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from .checkpoint import Checkpoints, load_optimizer, optimizer_tensors
from .forest import Forest, portions
from .network import Network

Row = TypeVar("Row")

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


@dataclass(frozen=True)
class Passes:
    """How often, how fast and in what portions rows are read."""

    epochs: int = 2
    batch: int = 16
    """Rows a step."""
    microbatch: int = 8
    """Texts that go through the network at once. Memory only."""
    learning_rate: float = 5e-4
    warmup: float = 0.1
    """Share of the steps; then the rate falls to a tenth in a straight line."""
    checkpoint_every: int = 5
    """Steps between two checkpoints."""
    seed: int = 0


def descend(
    named: Mapping[str, Tensor],
    rows: Sequence[Row],
    config: Passes,
    learn: Callable[[list[Row]], tuple[float, float]],
    *,
    weight_decay: float = 0.0,
    checkpoints: Checkpoints | None = None,
) -> Iterator[tuple[int, int, float, float, float, float]]:
    """Change the tensors `named` in place, from the last checkpoint on where there is one. Yields for each step its
    number, the number of all, what `learn` said of its rows, the learning rate and the seconds it took.

    Args:
        learn: leaves the gradient of some rows in the tensors; returns their loss and a share (of what was right).

    Raises:
        Conflict: the checkpoint is another run's.
    """
    parameters = list(named.values())
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=weight_decay)
    order = batches(len(rows), config.epochs, config.batch, config.seed)
    state = checkpoints.latest() if checkpoints else None
    if state is not None:
        with torch.no_grad():
            for name, tensor in named.items():
                tensor.copy_(state.tensors[name])
        load_optimizer(optimizer, state.tensors)
    for step in range(state.step if state else 0, len(order)):
        start = time.perf_counter()
        rate = config.learning_rate * rate_at(step, len(order), config.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, share = learn([rows[i] for i in order[step]])
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if checkpoints and ((step + 1) % config.checkpoint_every == 0 or step + 1 == len(order)):
            checkpoints.save(step + 1, {**named, **optimizer_tensors(optimizer)}, {})
        yield step + 1, len(order), loss, share, rate, time.perf_counter() - start


class Trunks:
    """The trunk's output of texts, kept while there is room."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._kept: dict[tuple[int, ...], Tensor] = {}
        self._bytes = 0

    def of(self, texts: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """``[T, width]`` for each text's token ids."""
        missing = {ids for ids in texts if ids not in self._kept}
        found = dict(self._read(sorted(missing)))
        outputs = [found[ids] if ids in found else self._kept[ids] for ids in texts]
        for ids, output in found.items():
            if self._bytes + output.nbytes <= _KEPT:
                self._kept[ids] = output
                self._bytes += output.nbytes
        return outputs

    def _read(self, missing: Sequence[tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], Tensor]]:
        for part in portions(missing):
            forest = Forest([missing[i] for i in part])
            yield from zip((missing[i] for i in part), forest.apart(self._network.trunk(forest)), strict=True)
