"""The shape of a decoder of the Llama family, from a GGUF header or a Hugging Face `config.json`.

Three architectures: `llama`, `qwen2` (biases on q, k and v) and `qwen3` (norms on q and k). Every number is checked
before anything is allocated by it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .gguf_header import GgufHeader

ARCHITECTURES = ("llama", "qwen2", "qwen3")
_MOST = 1 << 20


@dataclass(frozen=True)
class Architecture:
    """Sizes are counts of numbers, not bytes."""

    kind: str
    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    epsilon: float
    rope_base: float
    context: int
    """Tokens the model was trained for; 0 when not said."""
    rope_factors: tuple[float, ...] = ()
    """What each rotary frequency is divided by; empty: nothing."""

    def frequencies(self) -> list[float]:
        """Rotary frequencies, one for each pair of numbers of a head."""
        plain = [self.rope_base ** (-2 * i / self.head) for i in range(self.head // 2)]
        return [f / d for f, d in zip(plain, self.rope_factors, strict=True)] if self.rope_factors else plain

    def matrix(self, name: str) -> tuple[int, int]:
        """Outputs and inputs of a layer's matrix: `self_attn.q_proj` and so on."""
        wide, narrow = self.heads * self.head, self.kv_heads * self.head
        return {
            "self_attn.q_proj": (wide, self.hidden),
            "self_attn.k_proj": (narrow, self.hidden),
            "self_attn.v_proj": (narrow, self.hidden),
            "self_attn.o_proj": (self.hidden, wide),
            "mlp.gate_proj": (self.inner, self.hidden),
            "mlp.up_proj": (self.inner, self.hidden),
            "mlp.down_proj": (self.hidden, self.inner),
        }[name]

    def check(self) -> None:
        """Raises ValueError when the numbers do not make a model."""
        sizes = (self.layers, self.hidden, self.inner, self.heads, self.kv_heads, self.head, self.vocabulary)
        if self.kind not in ARCHITECTURES:
            raise ValueError(f"the architecture is {self.kind!r}, not one of {', '.join(ARCHITECTURES)}")
        if not all(0 < n <= _MOST for n in sizes) or self.heads % self.kv_heads or self.head % 2:
            raise ValueError(f"its sizes make no model: {sizes}")
        if not (0 < self.epsilon < 1 and 1 <= self.rope_base < 1e12):
            raise ValueError("its norm or rotary numbers make no model")
        if self.rope_factors and not (
            len(self.rope_factors) == self.head // 2 and all(0 < f < 1e6 for f in self.rope_factors)
        ):
            raise ValueError("its rotary factors make no model")


def of_gguf(header: GgufHeader, rope_factors: tuple[float, ...] = ()) -> Architecture:
    """Raises ValueError when a number is missing or makes no model."""
    kind, values = header.architecture, header.values

    def number(key: str, default: Any = None) -> Any:
        value = values.get(f"{kind}.{key}", default)
        if not isinstance(value, int | float):
            raise ValueError(f"{kind}.{key} is missing")
        return value

    if values.get(f"{kind}.rope.scaling.type", "none") not in ("none", ""):
        raise ValueError("scaled rotary positions are not supported")
    heads, hidden = int(number("attention.head_count")), int(number("embedding_length"))
    found = Architecture(
        kind=kind,
        layers=int(number("block_count")),
        hidden=hidden,
        inner=int(number("feed_forward_length")),
        heads=heads,
        kv_heads=int(number("attention.head_count_kv", heads)),
        head=int(number("attention.key_length", hidden // max(heads, 1))),
        vocabulary=len(values.get("tokenizer.ggml.tokens", [])),
        epsilon=float(number("attention.layer_norm_rms_epsilon")),
        rope_base=float(number("rope.freq_base", 10000.0)),
        context=header.context_length,
        rope_factors=rope_factors,
    )
    found.check()
    return found


def of_config(config: dict[str, Any]) -> Architecture:
    """From a `config.json`. Raises ValueError when a number is missing or makes no model."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type not in ("default", "llama3"):
        raise ValueError(f"rotary positions of type {rope_type!r} are not supported")
    try:
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        plain = Architecture(
            kind=str(config["model_type"]),
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            inner=int(config["intermediate_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head=int(config.get("head_dim") or hidden // max(heads, 1)),
            vocabulary=int(config["vocab_size"]),
            epsilon=float(config["rms_norm_eps"]),
            rope_base=float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0),
            context=int(config.get("max_position_embeddings") or 0),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"its config.json lacks {error}") from error
    plain.check()
    if rope_type == "default":
        return plain
    scaled = Architecture(**{**plain.__dict__, "rope_factors": _llama3(plain, rope)})
    scaled.check()
    return scaled


def _llama3(plain: Architecture, rope: dict[str, Any]) -> tuple[float, ...]:
    """Llama 3.1: long waves are slowed by `factor`, short ones not, those between by degrees."""
    factor, low, high = float(rope["factor"]), float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    trained = float(rope["original_max_position_embeddings"])
    found = []
    for frequency in plain.frequencies():
        turns = trained * frequency / (2 * math.pi)
        smooth = min(max((turns - low) / (high - low), 0.0), 1.0)
        found.append(1 / ((1 - smooth) / factor + smooth))
    return tuple(found)
