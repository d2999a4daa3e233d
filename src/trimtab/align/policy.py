"""The policy and its value estimate: an adapter and a value head on the network, as PPO's actor.

The state of a row is the trunk's output at its tokens, so an update never reads the frozen layers. Log-probabilities
are taken at the drawn tokens only: over a vocabulary of 49,152 the logits of one long batch would outweigh the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .adapter import Adapter, LoraConfig
from .forest import Forest, portions
from .frozen import Frozen
from .network import Network
from .ppo import kl_estimate
from .rollouts import Completion


class Policy:
    """Adapter, value head, temperature. `choose` is what `ppo.update` calls."""

    def __init__(self, network: Network, adapter: Adapter, *, temperature: float = 1.0) -> None:
        self.network, self.adapter, self.temperature = network, adapter, temperature
        # Zero, so that the first advantages are the rewards themselves and not a random function of the text.
        self.value_weight = torch.zeros(network.shape.width, requires_grad=True)
        self.value_bias = torch.zeros((), requires_grad=True)

    @classmethod
    def fresh(cls, network: Network, config: LoraConfig, seed: int, *, temperature: float = 1.0) -> Policy:
        """The base model: its adapter changes nothing yet."""
        return cls(network, network.fresh_adapter(config, seed), temperature=temperature)

    def value(self, x: Tensor) -> Tensor:
        """The network's normed output ``[..., width]`` to values ``[...]``."""
        return x @ self.value_weight + self.value_bias

    def parameters(self) -> list[Tensor]:
        return [*self.adapter.parameters(), self.value_weight, self.value_bias]

    def named(self) -> dict[str, Tensor]:
        """Everything that is trained, by name; for checkpoints."""
        return {**self.adapter.named(), "value.weight": self.value_weight, "value.bias": self.value_bias}

    def load_named(self, tensors: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in self.named().items():
                tensor.copy_(tensors[name])

    def choose(self, states: Mapping[str, Tensor], actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities, entropies and values ``[B, T]`` of drawn tokens; zeros after each row's end."""
        x, where = drawn(self.network, states, self.adapter, actions.shape[1])
        logprobs, entropies = token_logprobs(x, self.network.head, actions[where], self.temperature)
        blank = torch.zeros(actions.shape)
        logprobs, entropies, values = (blank.masked_scatter(where, p) for p in (logprobs, entropies, self.value(x)))
        return logprobs, entropies, values


def states_of(completions: Sequence[Completion]) -> dict[str, Tensor]:
    """What `choose` reads: tokens and the trunk's output padded on the right, and where prompt and completion end."""
    if any(c.trunk is None for c in completions):
        raise ValueError("The completions carry no trunk output; give them one with `with_trunk` first.")
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "trunk": pad([c.trunk for c in completions], batch_first=True),  # type: ignore[misc]
        "ids": pad([torch.tensor(c.prompt_ids + c.ids) for c in completions], batch_first=True),
        "start": torch.tensor([len(c.prompt_ids) for c in completions]),
        "length": torch.tensor([len(c.ids) for c in completions]),
    }


def drawn(network: Network, states: Mapping[str, Tensor], adapter: Adapter | None, width: int) -> tuple[Tensor, Tensor]:
    """The normed output in front of each drawn token ``[N, width]``, and where in ``[B, T]`` those N stand."""
    start, length = states["start"], states["length"]
    # The last token of a row is drawn, never read: nothing is predicted after it.
    ends = (start + length - 1).tolist()
    forest = Forest([tuple(ids[:end].tolist()) for ids, end in zip(states["ids"], ends, strict=True)])
    x = network.upper(forest.laid_out(list(states["trunk"])), forest, adapter)
    at = torch.cat([path[first - 1 :] for path, first in zip(forest.paths, start.tolist(), strict=True)])
    return x[at], torch.arange(width) < length[:, None]


class _TokenLogprobs(torch.autograd.Function):
    """log softmax at one token and the entropy, keeping one ``[N, vocabulary]`` tensor for the way back, not four."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, head: Frozen, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        logprobs = head(x)
        if temperature != 1.0:
            logprobs /= temperature
        logprobs -= logprobs.logsumexp(-1, keepdim=True)
        entropies = torch.cat([-(part.exp() * part).sum(-1) for part in torch.split(logprobs, 32)])
        ctx.save_for_backward(logprobs, tokens, entropies)
        ctx.head, ctx.temperature = head, temperature
        ctx.set_materialize_grads(False)
        return logprobs.gather(-1, tokens[:, None]).squeeze(-1), entropies

    @staticmethod
    def backward(ctx: Any, chosen: Tensor | None, entropy: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        logprobs, tokens, entropies = ctx.saved_tensors
        # d log p(token) = onehot - p; d entropy = -p (log p + entropy)
        grad = logprobs.exp()
        factor = torch.zeros(len(tokens), 1) if chosen is None else -chosen[:, None]
        if entropy is not None and bool(entropy.any()):
            grad *= factor - (logprobs + entropies[:, None]) * entropy[:, None]
        else:
            grad *= factor
        if chosen is not None:
            grad.scatter_add_(-1, tokens[:, None], chosen[:, None])
        return grad @ ctx.head.weight / ctx.temperature, None, None, None


def token_logprobs(x: Tensor, head: Frozen, tokens: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """log p(token) and the entropy ``[N]`` in nats, given normed outputs ``[N, width]``, with gradients to `x`."""
    logprobs, entropies = _TokenLogprobs.apply(x, head, tokens, temperature)  # type: ignore[no-untyped-call]
    return logprobs, entropies


@torch.no_grad()
def logprobs_of(
    network: Network, completions: Sequence[Completion], adapter: Adapter | None, *, temperature: float
) -> Tensor:
    """log p of each drawn token ``[B, longest]`` under an adapter (None: the reference)."""
    width = max(len(c.ids) for c in completions)
    found = torch.zeros(len(completions), width)
    for part in portions([c.prompt_ids + c.ids for c in completions]):
        batch = [completions[i] for i in part]
        x, where = drawn(network, states_of(batch), adapter, width)
        logits = network.logits(x).div_(temperature)
        tokens = torch.cat([torch.tensor(c.ids) for c in batch])
        chosen = logits.gather(-1, tokens[:, None]).squeeze(-1) - logits.logsumexp(-1)
        found[part] = torch.zeros(len(part), width).masked_scatter(where, chosen)
    return found


def kl_of_drawn(network: Network, completions: Sequence[Completion], *, temperature: float) -> float:
    """Nats a completion from the reference of whoever drew them (k3 estimate), over the tokens that the model chose."""
    reference = logprobs_of(network, completions, None, temperature=temperature)
    nats = (kl_estimate(c.logprobs, row[: len(c.ids)])[c.mask] for c, row in zip(completions, reference, strict=True))
    return sum(float(each.sum()) for each in nats) / max(1, len(completions))
