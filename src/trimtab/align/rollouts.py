"""Completions drawn from the policy, in large batches.

A rollout of a language model is one completion: its tokens, the probability each had when it was drawn, and whether it
came to its end. `TorchSampler` draws from the network itself, so its probabilities are the trained policy's own, and
the trunk's output and the values fall out on the way; any other `Sampler` (an engine) gives tokens and its own
probabilities, and the trainer weighs the difference.

What makes it fast on a CPU: rows of similar length together, 64 at once (a matrix times 64 columns costs little more
than times 8), what all prompts begin with read once, a key-value cache that is allocated once, rows that ended taken
out of the batch. The random numbers belong to the row, so that but for rounding none of this changes
what is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .adapter import Adapter
from .forest import Forest, portions
from .network import Kept, Network, by_length


@dataclass(frozen=True)
class Draw:
    """How tokens are drawn for training: the whole distribution, so that its probabilities are the policy's."""

    temperature: float = 1.0
    max_tokens: int = 48
    batch: int = 64
    """Rows at once."""


@dataclass(frozen=True)
class Completion:
    """One rollout. P prompt tokens, C drawn tokens, the end token included if `ended`."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    logprobs: Tensor
    """``[C]``: of each drawn token, by whoever drew it, at the drawing temperature."""
    ended: bool
    """False: it was cut at `max_tokens`."""
    mask: Tensor
    """``[C]`` boolean: false for tokens that the model did not choose (a tool's recorded result)."""
    trunk: Tensor | None = None
    """``[P+C, width]``: the trunk's output, where the sampler has it."""
    values: Tensor | None = None
    """``[C]``: the value head's estimate before each token, where the sampler has it."""


class Sampler(Protocol):
    """Draws completions from the policy as it is now."""

    exact: bool
    """Whether its probabilities are the trained policy's own; if not they are corrected for."""

    def __call__(
        self, prompts: Sequence[tuple[int, ...]], adapter: Adapter | None, draw: Draw, seed: int
    ) -> list[Completion]:
        """One completion for each prompt, in their order. The same seed gives the same completions."""
        ...


class ValueHead(Protocol):
    def __call__(self, x: Tensor) -> Tensor:
        """The network's normed output ``[..., width]`` to values ``[...]``."""
        ...


class TorchSampler:
    """Draws with the network that is trained."""

    exact = True

    def __init__(self, network: Network, end_ids: Sequence[int], value: ValueHead | None = None) -> None:
        self._network = network
        self._ends = torch.tensor(list(end_ids))
        self._value = value

    @torch.no_grad()
    def __call__(
        self, prompts: Sequence[tuple[int, ...]], adapter: Adapter | None, draw: Draw, seed: int
    ) -> list[Completion]:
        chances = torch.rand(len(prompts), draw.max_tokens, generator=torch.Generator().manual_seed(seed))
        drawn: list[Completion | None] = [None] * len(prompts)
        for rows in by_length([len(prompt) for prompt in prompts], draw.batch):
            batch = _Batch(self._network, adapter, [prompts[i] for i in rows], draw.max_tokens)
            for i, completion in zip(rows, self._run(batch, chances[rows], draw), strict=True):
                drawn[i] = completion
        return [completion for completion in drawn if completion is not None]

    def _run(self, batch: _Batch, chances: Tensor, draw: Draw) -> Iterator[Completion]:
        count = len(chances)
        tokens = torch.zeros(count, draw.max_tokens, dtype=torch.long)
        logprobs, values = torch.zeros(count, draw.max_tokens), torch.zeros(count, draw.max_tokens)
        lengths = torch.zeros(count, dtype=torch.long)
        ended = torch.zeros(count, dtype=torch.bool)
        x = batch.read_prompts()
        for step in range(draw.max_tokens):
            alive = batch.rows[~ended[batch.rows]]
            if not len(alive):
                break
            here = ~ended[batch.rows]
            chosen, chosen_logprobs = pick(self._network.logits(x), chances[batch.rows, step], draw.temperature)
            tokens[alive, step], logprobs[alive, step] = chosen[here], chosen_logprobs[here]
            if self._value is not None:
                values[alive, step] = self._value(x)[here]
            lengths[alive] += 1
            ended[alive] = torch.isin(chosen[here], self._ends)
            # A row that ended is read once more, for the trunk's output at its last token, and dropped afterwards.
            x = batch.read(chosen, last=step + 1 == draw.max_tokens)
            x = batch.drop(ended, x)
        for row in range(count):
            c = int(lengths[row])
            yield Completion(
                batch.prompts[row],
                tuple(tokens[row, :c].tolist()),
                logprobs[row, :c].clone(),
                bool(ended[row]),
                torch.ones(c, dtype=torch.bool),
                batch.trunk[row, : len(batch.prompts[row]) + c].clone(),
                values[row, :c].clone() if self._value is not None else None,
            )


def pick(logits: Tensor, chances: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Where each row's uniform number falls in its distribution, and the log-probability of that token."""
    likeliest = logits.amax(-1, keepdim=True)
    scaled = (logits - likeliest).div_(temperature)
    masses = scaled.exp()
    # Not the last of the running sums: a long sum in fp32 is off by more than a sum in parts.
    whole = masses.sum(-1, keepdim=True)
    heap = masses.cumsum_(-1)
    chosen = torch.searchsorted(heap, chances.unsqueeze(-1) * heap[:, -1:]).clamp_(max=logits.shape[-1] - 1)
    return chosen.squeeze(-1), (scaled.gather(-1, chosen) - whole.log()).squeeze(-1)


class _Batch:
    """Prompts of one bucket, their key-value cache, and which rows are still in it."""

    def __init__(
        self, network: Network, adapter: Adapter | None, prompts: list[tuple[int, ...]], max_tokens: int
    ) -> None:
        self._network, self._adapter = network, adapter
        self.prompts = prompts
        self._lengths = torch.tensor([len(prompt) for prompt in prompts])
        self.rows = torch.arange(len(prompts))
        """Which of the prompts each row of the cache belongs to."""
        s = network.shape
        longest = int(self._lengths.max()) + max_tokens
        shape = (len(prompts), s.kv_heads, longest, s.head)
        self._cache = [(torch.zeros(shape), torch.zeros(shape)) for _ in network.layers]
        self.trunk = torch.zeros(len(prompts), longest, s.width)

    def read_prompts(self) -> Tensor:
        """The network's normed output at each prompt's last token ``[B, width]``."""
        network, forest = self._network, Forest(self.prompts)
        kept: Kept = []
        trunk = network.trunk(forest, kept)
        x = network.upper(trunk, forest, self._adapter, kept)
        # What stands after a shorter prompt is anybody's; its own tokens will overwrite it before they look there.
        index = torch.nn.utils.rnn.pad_sequence(forest.paths, batch_first=True)
        longest = index.shape[1]
        self.trunk[:, :longest] = trunk[index]
        for (keys, values), (k, v) in zip(self._cache, kept, strict=True):
            keys[:, :, :longest], values[:, :, :longest] = k[:, index].transpose(0, 1), v[:, index].transpose(0, 1)
        return x[index[self.rows, self._lengths - 1]]

    def read(self, tokens: Tensor, *, last: bool) -> Tensor:
        """Append one token to each row; the normed output at it ``[b, width]``. `last`: only the trunk is wanted."""
        x = self._forward(tokens, trunk_only=last)
        self._lengths[self.rows] += 1
        return self._network.normed(x[:, 0])

    def _forward(self, tokens: Tensor, *, trunk_only: bool) -> Tensor:
        """The next token of each row ``[b]`` through the layers ``[b, 1, width]``."""
        network, s = self._network, self._network.shape
        here, at = torch.arange(len(self.rows)), self._lengths[self.rows]
        longest = int(at.max()) + 1
        x = F.embedding(tokens[:, None], network.embedding)
        cos, sin = network.rotary(at)
        rotary = cos[:, None, None], sin[:, None, None]
        seen = (torch.arange(longest) <= at[:, None])[:, None, None]
        for index, (layer, (keys, values)) in enumerate(zip(network.layers, self._cache, strict=True)):
            if index == network.trunk_layers:
                self.trunk[self.rows, at] = x[:, 0]
                if trunk_only:
                    break
            q, k, v = network.project(layer, x, rotary, self._adapter)
            keys[here, :, at], values[here, :, at] = k[:, :, 0], v[:, :, 0]
            # One query a row: plain products beat the fused attention. ``[b, kv_heads, groups, head]``
            q = q.reshape(len(q), s.kv_heads, -1, s.head) * s.head**-0.5
            scores = (q @ keys[:, :, :longest].transpose(-1, -2)).masked_fill_(~seen, -torch.inf)
            attended = (scores.softmax(-1) @ values[:, :, :longest]).reshape(len(q), 1, -1)
            x = network.finish(layer, x, attended, self._adapter)
        return x

    def drop(self, ended: Tensor, x: Tensor) -> Tensor:
        """Take ended rows out once they are a quarter of the batch: copying the cache costs, too."""
        alive = ~ended[self.rows]
        if int(alive.sum()) > 0.75 * len(alive):
            return x
        self._cache = [(keys[alive], values[alive]) for keys, values in self._cache]
        self.rows = self.rows[alive]
        return x[alive]


@torch.no_grad()
def with_trunk(network: Network, completions: Sequence[Completion]) -> list[Completion]:
    """The same completions, each with the trunk's output; those that have it are left alone."""
    found = list(completions)
    missing = [i for i, c in enumerate(completions) if c.trunk is None]
    ids = [found[i].prompt_ids + found[i].ids for i in missing]
    for group in portions(ids):
        forest = Forest([ids[i] for i in group])
        for i, output in zip(group, forest.apart(network.trunk(forest)), strict=True):
            found[missing[i]] = replace(found[missing[i]], trunk=output)
    return found
