"""A decoder in two halves: a frozen trunk, and the upper layers that an adapter may change.

Policy, reference and reward model are one set of weights. Up to the trunk's end they are the same function of the
tokens, so the trunk's output is computed once for each token and handed to all three; what differs is which adapter the
upper layers wear (the reference: none). With 20 of 30 layers in the trunk, the reference, the reward and each epoch
of training read a third of the layers.

This is the Llama family's arithmetic (Llama, Mistral, Qwen2, Qwen3: RMS norms, rotary positions, grouped-query
attention, SwiGLU) written plainly; a test compares its logits with transformers'. Matrices that read the same input
are kept as one (q, k and v; gate and up), which is what makes small batches fast. What is read together is a `Forest`:
nothing that several sequences begin with is read twice, and nothing is padding.

With `bf16` the layers' frozen matrices, and only they, are multiplied in bfloat16; the sums between them, the
vocabulary's logits and all that is trained stay fp32. Sampling, reference and training round alike, so the policy that
is sampled is the policy that is trained (to a few hundredths of a nat a token); it differs from the fp32 model by less
than an 8-bit file does. It pays where the processor multiplies bfloat16 itself: `bf16_is_faster` measures that.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trimtab.domain.errors import InvalidInput

from .adapter import Adapter, LoraConfig, module_path
from .base import Base, Weights
from .forest import Forest
from .frozen import Frozen

Kept = list[tuple[Tensor, Tensor]]
"""Keys and values of layers, ``[kv_heads, N, head]`` each."""

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class Shape:
    """What the forward pass needs of `config.json`."""

    layers: int
    width: int
    heads: int
    kv_heads: int
    head: int
    eps: float
    theta: float
    context: int

    @classmethod
    def of(cls, config: dict[str, Any]) -> Shape:
        """Raises InvalidInput for what `Network` does not compute."""
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        family = config.get("model_type")
        window = config.get("sliding_window") if config.get("use_sliding_window", family == "mistral") else None
        if family not in FAMILIES or kind != "default" or config.get("hidden_act", "silu") != "silu" or window:
            raise InvalidInput(
                f"A {family!r} model with {kind!r} positions cannot be aligned here; known are {', '.join(FAMILIES)} "
                "with plain rotary positions and no sliding window. Choose another base model."
            )
        heads = int(config["num_attention_heads"])
        return cls(
            layers=int(config["num_hidden_layers"]),
            width=int(config["hidden_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head=int(config.get("head_dim") or config["hidden_size"] // heads),
            eps=float(config["rms_norm_eps"]),
            theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
            context=int(config["max_position_embeddings"]),
        )


class Trainable:
    """A matrix ``[out, in]`` that gradients reach."""

    def __init__(self, weight: Tensor) -> None:
        self.weight, self.shape, self.dtype = weight, weight.shape, weight.dtype

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight)


class Linear:
    """Matrices that read the same input, as one: ``[sum(out), in]``."""

    def __init__(self, paths: Sequence[str], parts: Sequence[Tensor], biases: Sequence[Tensor | None]) -> None:
        self.paths = tuple(paths)
        self.sizes = [len(part) for part in parts]
        self.product: Frozen | Trainable = Frozen(torch.cat(list(parts)) if len(parts) > 1 else parts[0])
        self.bias = torch.cat([bias for bias in biases if bias is not None]) if biases[0] is not None else None

    @property
    def weight(self) -> Tensor:
        return self.product.weight

    def trainable(self) -> Linear:
        """A copy, in fp32, whose weight is trained."""
        copied = copy.copy(self)
        copied.product = Trainable(self.weight.detach().float().clone().requires_grad_())
        return copied

    def __call__(self, x: Tensor, adapter: Adapter | None) -> Tensor:
        y = self.product(x.to(self.product.dtype)).to(x.dtype)
        y = y if self.bias is None else y + self.bias
        changed = [path for path in self.paths if path in adapter.a] if adapter else []
        if adapter is None or not changed:
            return y
        low = F.linear(x, torch.cat([adapter.a[path] for path in changed])) * adapter.config.scale
        lows = dict(zip(changed, low.chunk(len(changed), -1), strict=True))
        deltas = [
            F.linear(lows[path], adapter.b[path]) if path in lows else y.new_zeros(*y.shape[:-1], size)
            for path, size in zip(self.paths, self.sizes, strict=True)
        ]
        return y + (torch.cat(deltas, -1) if len(deltas) > 1 else deltas[0])


@dataclass(frozen=True)
class Layer:
    before_attention: Tensor
    before_mlp: Tensor
    qkv: Linear
    o: Linear
    gate_up: Linear
    down: Linear
    q_norm: Tensor | None
    k_norm: Tensor | None

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], index: int, dtype: torch.dtype) -> Layer:
        prefix = f"model.layers.{index}."

        def linear(*modules: str) -> Linear:
            paths = [module_path(index, module) for module in modules]
            parts = [weights[f"model.{path}.weight"].to(dtype) for path in paths]
            return Linear(paths, parts, [weights.get(f"model.{path}.bias") for path in paths])

        return cls(
            weights[prefix + "input_layernorm.weight"],
            weights[prefix + "post_attention_layernorm.weight"],
            linear("q_proj", "k_proj", "v_proj"),
            linear("o_proj"),
            linear("gate_proj", "up_proj"),
            linear("down_proj"),
            weights.get(prefix + "self_attn.q_norm.weight"),
            weights.get(prefix + "self_attn.k_norm.weight"),
        )


class Network:
    """The base model's layers, none of which is ever written to.

    Args:
        trunk_layers: how many of the lower layers no adapter touches.
        bf16: see the module. None measures what is faster on this machine.
    """

    def __init__(self, base: Base, *, trunk_layers: int, bf16: bool | None = None) -> None:
        self.shape = Shape.of(base.config)
        if not 0 <= trunk_layers < self.shape.layers:
            raise InvalidInput(f"trunk_layers must be 0 to {self.shape.layers - 1} for this model, not {trunk_layers}.")
        self.trunk_layers = trunk_layers
        self.bf16 = bf16_is_faster() if bf16 is None else bf16
        weights = Weights(base.folder)  # one matrix at a time: all of them in fp32 first would be the peak of memory
        self.embedding = weights["model.embed_tokens.weight"]
        own_head = weights.get("lm_head.weight")
        self.head = Frozen(self.embedding, shared=True) if own_head is None else Frozen(own_head)
        self.norm = weights["model.norm.weight"]
        dtype = torch.bfloat16 if self.bf16 else torch.float32
        self.layers = [Layer.of(weights, i, dtype) for i in range(self.shape.layers)]
        angles = torch.outer(torch.arange(min(self.shape.context, 8192)).float(), self._frequencies())
        self._cos, self._sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)

    def _frequencies(self) -> Tensor:
        return self.shape.theta ** (-torch.arange(0, self.shape.head, 2).float() / self.shape.head)

    def adapted_shapes(self, config: LoraConfig) -> dict[str, tuple[int, int]]:
        """(out, in) of each matrix of the upper layers that `config` names, for `Adapter.fresh`."""
        shapes = {}
        for layer in self.layers[self.trunk_layers :]:
            for linear in (layer.qkv, layer.o, layer.gate_up, layer.down):
                for path, size in zip(linear.paths, linear.sizes, strict=True):
                    if path.rsplit(".", 1)[-1] in config.modules:
                        shapes[path] = (size, linear.product.shape[1])
        return shapes

    def fresh_adapter(self, config: LoraConfig, seed: int) -> Adapter:
        return Adapter.fresh(config, self.adapted_shapes(config), torch.Generator().manual_seed(seed))

    def check(self, adapter: Adapter) -> None:
        """Refuse an adapter that changes other matrices than this network's upper layers have.

        Raises:
            InvalidInput: it was made for another base model or another trunk.
        """
        shapes = self.adapted_shapes(LoraConfig())
        for name, a in adapter.a.items():
            if name not in shapes or (len(adapter.b[name]), a.shape[1]) != shapes[name]:
                raise InvalidInput(
                    f"The adapter changes {name}, which this base model does not have above its {self.trunk_layers} "
                    "frozen layers. Use the base model and the trunk it was trained with."
                )

    def rotary(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        return self._cos[positions], self._sin[positions]

    @torch.no_grad()
    def trunk(self, forest: Forest, kept: Kept | None = None) -> Tensor:
        """The trunk's output at each of the forest's tokens ``[N, width]``.

        Args:
            kept: each layer's keys and values are added to it.
        """
        x = F.embedding(forest.tokens, self.embedding)
        return self._run(self.layers[: self.trunk_layers], x, forest, None, kept)

    def upper(self, hidden: Tensor, forest: Forest, adapter: Adapter | None, kept: Kept | None = None) -> Tensor:
        """The trunk's output to the last layer's, normed ``[N, width]``; with gradients to the adapter."""
        return self.normed(self._run(self.layers[self.trunk_layers :], hidden, forest, adapter, kept))

    @torch.no_grad()
    def states(self, tokens: Tensor) -> Iterator[Tensor]:
        """What goes into the first layer ``[B, T, width]``, then what comes out of each layer. Rows are padded on the
        right: a causal mask keeps that out."""
        x = F.embedding(tokens, self.embedding)
        yield x
        for layer in self.layers:
            x = self.through([layer], x)
            yield x

    def through(self, layers: Sequence[Layer], hidden: Tensor) -> Tensor:
        """Any layers over ``[B, T, width]``, with gradients to those of them that are trained."""
        groups = self.shape.heads // self.shape.kv_heads
        rotary = self.rotary(torch.arange(hidden.shape[1]))
        for layer in layers:
            q, k, v = self.project(layer, hidden, rotary, None)
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            hidden = self.finish(layer, hidden, attended.transpose(1, 2).flatten(2), None)
        return hidden

    def normed(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.norm, self.shape.eps)

    def logits(self, x: Tensor) -> Tensor:
        return self.head(x)

    def _run(
        self, layers: Sequence[Layer], x: Tensor, forest: Forest, adapter: Adapter | None, kept: Kept | None
    ) -> Tensor:
        x, rotary = x[None], self.rotary(forest.positions)
        for layer in layers:
            q, k, v = self.project(layer, x, rotary, adapter)
            if kept is not None:
                kept.append((k[0], v[0]))
            x = self.finish(layer, x, self._attend_back(q, k, v, forest), adapter)
        return x[0]

    def _attend_back(self, q: Tensor, k: Tensor, v: Tensor, forest: Forest) -> Tensor:
        """What each of the forest's tokens gathers along its path ``[1, N, heads * head]``."""
        groups = self.shape.heads // self.shape.kv_heads
        sizes = [part.tokens for part in forest.parts]
        queries, keys, values = (
            torch.split(x, sizes, 2) for x in (q, k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1))
        )
        found = []
        for part, asked in zip(forest.parts, queries, strict=True):
            known, knows = (torch.cat([x[i] for i in part.path], 2) for x in (keys, values))
            found.append(
                F.scaled_dot_product_attention(
                    asked, known, knows, attn_mask=part.unseen, is_causal=part.unseen is None
                )
            )
        return torch.cat(found, 2).transpose(1, 2).flatten(2)

    def project(
        self, layer: Layer, x: Tensor, rotary: tuple[Tensor, Tensor], adapter: Adapter | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries ``[B, heads, T, head]``, keys and values ``[B, kv_heads, T, head]``, rotated."""
        s = self.shape
        qkv = layer.qkv(rms_norm(x, layer.before_attention, s.eps), adapter)
        q, k, v = (
            part.view(*part.shape[:-1], -1, s.head).transpose(1, 2)
            for part in torch.split(qkv, [s.heads * s.head, s.kv_heads * s.head, s.kv_heads * s.head], -1)
        )
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = rms_norm(q, layer.q_norm, s.eps), rms_norm(k, layer.k_norm, s.eps)
        return rotate(q, *rotary), rotate(k, *rotary), v

    def finish(self, layer: Layer, x: Tensor, attended: Tensor, adapter: Adapter | None) -> Tensor:
        """The rest of a layer, given what attention gathered ``[B, T, heads * head]``."""
        x = x + layer.o(attended, adapter)
        gate, up = layer.gate_up(rms_norm(x, layer.before_mlp, self.shape.eps), adapter).chunk(2, -1)
        return x + layer.down(F.silu(gate) * up, adapter)


def by_length(lengths: Sequence[int], rows: int) -> Iterator[list[int]]:
    """Indices of texts in groups of similar length, so that little of a batch is padding."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), rows):
        yield order[start : start + rows]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: the two halves of each head turn against each other. cos, sin ``[T, head]``, or broadcast."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def bf16_is_faster(width: int = 576, rows: int = 64) -> bool:
    """Whether this processor multiplies bfloat16 at least 1.3 times as fast as fp32; a few milliseconds."""
    x, w = torch.ones(rows, width), torch.ones(4 * width, width)

    def seconds(x: Tensor, w: Tensor) -> float:
        F.linear(x, w)
        start = time.perf_counter()
        for _ in range(20):
            F.linear(x, w)
        return time.perf_counter() - start

    with torch.no_grad():
        return min(seconds(x, w) for _ in range(3)) > 1.3 * min(seconds(x.bfloat16(), w.bfloat16()) for _ in range(3))
