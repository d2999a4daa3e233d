"""Which layers a model can do without, and what is left when they are gone.

A layer's importance is its block influence (Men et al. 2024, "ShortGPT", arXiv:2403.03853): one minus the cosine
between what goes into the layer and what comes out, in the mean over the tokens of some texts. A layer that hardly
turns what it is given can go. Where a student is trained for longer, layers are dropped at even distances in the upper
two thirds instead (after DistilBERT, Sanh et al. 2019, arXiv:1910.01108): no gap is wide, and most layers that learn
are near one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from trimtab.domain.errors import InvalidInput

from .network import Network


def influence(network: Network, texts: Sequence[tuple[int, ...]]) -> list[float]:
    """Of each layer, over all tokens of these texts. 0: it changes nothing but the length."""
    totals, tokens = torch.zeros(len(network.layers)), 0
    for ids in texts:
        states = network.states(torch.tensor([ids]))
        before = next(states)
        for layer, after in enumerate(states):
            totals[layer] += (1 - F.cosine_similarity(before, after, dim=-1)).sum()
            before = after
        tokens += len(ids)
    return [float(total) / max(1, tokens) for total in totals]


def least(scores: Sequence[float], count: int) -> tuple[int, ...]:
    """The `count` layers of the lowest scores, in order.

    Raises:
        InvalidInput: too few would be left.
    """
    _check(len(scores), count)
    return tuple(sorted(sorted(range(len(scores)), key=lambda layer: (scores[layer], layer))[:count]))


def spread(layers: int, count: int) -> tuple[int, ...]:
    """`count` layers at even distances, none of the lower third and not the last.

    Raises:
        InvalidInput: too few would be left.
    """
    _check(layers, count)
    first, last = layers // 3, layers - 2
    if count > last - first + 1:
        raise InvalidInput(f"At most {last - first + 1} of {layers} layers can be dropped at even distances.")
    step = (last - first + 1) / count
    return tuple(first + int(step * i + step / 2) for i in range(count))


def _check(layers: int, count: int) -> None:
    if not 1 <= count <= layers - 2:
        raise InvalidInput(f"Of {layers} layers 1 to {layers - 2} can be dropped, not {count}.")
