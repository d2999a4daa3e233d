"""A BERT sentence encoder as an OpenVINO graph, built from its safetensors file without torch.

Linear layers keep their weights in 8 bits, one scale an output; OpenVINO quantizes what comes into them while it runs,
one scale for each token and each 384 of its numbers. So nothing is calibrated and a text's vector does not depend on
its neighbours. Pooling and normalising are part of the graph: a run takes token ids and gives unit vectors.

Building takes a third of a second, loading included, so nothing is kept on disk.

Tried and left: ranges fixed by calibration (with the outliers smoothed into the weights) were about a tenth faster, but
further from fp32 (cosine 0.9976 beside 0.9982) and need texts that are like the person's own; without smoothing, or
with half of it, 0.985. OpenVINO's fused attention operator was no faster than the three plain ones.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.domain.errors import ModelFileError

RECIPE = "bert-openvino-dynamic-i8-1"
"""Changes when the graph or the quantization changes, so that stored vectors are not mistaken for the new ones."""

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """What the graph needs to know from `config.json`."""

    layers: int
    heads: int
    hidden: int
    positions: int
    epsilon: float

    @classmethod
    def read(cls, path: Path) -> Shape:
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            if raw.get("model_type") != "bert" or raw.get("hidden_act") != "gelu":
                raise ModelFileError(
                    f"{path} does not describe a BERT encoder with GELU; only those can be built here."
                )
            return cls(
                int(raw["num_hidden_layers"]),
                int(raw["num_attention_heads"]),
                int(raw["hidden_size"]),
                int(raw["max_position_embeddings"]),
                float(raw["layer_norm_eps"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelFileError(
                f"The embedding model's {path} cannot be read ({error}). Run: trimtab models pull"
            ) from error


def read_safetensors(path: Path) -> dict[str, Array]:
    """The fp32 tensors of a safetensors file, mapped from disk. Other types (position ids) are left out.

    Raises:
        ModelFileError: the file is missing, truncated, or its header lies about its size.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size - 8, 100_000_000):
                raise ValueError("the header is longer than the file")
            header: dict[str, Any] = json.loads(file.read(length))
        data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length)
        tensors: dict[str, Array] = {}
        for name, entry in header.items():
            if name == "__metadata__" or entry["dtype"] != "F32":
                continue
            begin, end = entry["data_offsets"]
            if not 0 <= begin <= end <= len(data):
                raise ValueError(f"tensor {name} lies outside the file")
            tensors[name] = data[begin:end].view(np.float32).reshape(entry["shape"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise ModelFileError(f"The weights in {path} cannot be read ({error}). Run: trimtab models pull") from error
    return tensors


def build_graph(tensors: dict[str, Array], shape: Shape, precision: str = "int8") -> Any:
    """An `openvino.Model`: `input_ids`, `mask` (int32, batch x sequence) to `embedding` (batch x hidden).

    Vectors are mean-pooled over real tokens and have length 1. `precision` is ``"int8"`` or ``"fp32"``.

    Raises:
        KeyError: a weight is missing.
        ValueError: a weight has not the shape `config.json` promises.
    """
    return _Graph(tensors, shape, precision == "int8").build()


class _Graph:
    """Shapes in comments: b texts, s tokens, h heads, d numbers a head, e = h * d."""

    def __init__(self, tensors: dict[str, Array], shape: Shape, quantized: bool) -> None:
        import openvino
        from openvino import opset15

        self._ov, self._op = openvino, opset15
        self._tensors, self._shape, self._quantized = tensors, shape, quantized

    def build(self) -> Any:
        op, free = self._op, self._ov.PartialShape([-1, -1])
        ids = op.parameter(free, self._ov.Type.i32, name="input_ids")
        mask = op.parameter(free, self._ov.Type.i32, name="mask")
        real = op.convert(mask, "f32")  # b s, 1 for a token and 0 for padding
        # Added to attention scores: 0 for a token, so far below all others for padding that its share is 0.
        bias = op.multiply(
            op.subtract(op.unsqueeze(real, self._integers([1, 2])), self._numbers(1.0)), self._numbers(10_000.0)
        )
        x = self._embeddings(ids)
        for layer in range(self._shape.layers):
            x = self._layer(layer, x, bias)
        return self._ov.Model([self._pool(x, real)], [ids, mask], "sentence-encoder")

    def _embeddings(self, ids: Any) -> Any:
        op, e = self._op, "embeddings."
        word = op.gather(self._weight(e + "word_embeddings.weight"), ids, self._integer(0))  # b s e
        # Sentence encoders see one segment only, so its row is added to the positions' once.
        segment = self._tensors[e + "token_type_embeddings.weight"][0]
        positions = op.constant(self._tensors[e + "position_embeddings.weight"] + segment)
        length = op.gather(op.shape_of(ids, "i64"), self._integers([1]), self._integer(0))
        zero, one = self._integers([0]), self._integers([1])
        return self._norm(op.add(word, op.slice(positions, zero, length, one, zero)), e + "LayerNorm.")

    def _layer(self, layer: int, x: Any, bias: Any) -> Any:
        op, p = self._op, f"encoder.layer.{layer}."
        heads = self._attention(x, bias, p + "attention.self.")
        x = self._norm(op.add(self._dense(heads, p + "attention.output.dense"), x), p + "attention.output.LayerNorm.")
        wide = op.gelu(self._dense(x, p + "intermediate.dense"), "erf")
        return self._norm(op.add(self._dense(wide, p + "output.dense"), x), p + "output.LayerNorm.")

    def _attention(self, x: Any, bias: Any, source: str) -> Any:
        op, h, e = self._op, self._shape.heads, self._shape.hidden
        together = self._dense(x, *(source + part for part in ("query", "key", "value")))  # b s 3e
        split = op.reshape(together, self._integers([0, 0, 3, h, e // h]), True)
        split = op.transpose(split, self._integers([2, 0, 3, 1, 4]))  # 3 b h s d
        q, k, v = (op.gather(split, self._integer(i), self._integer(0)) for i in range(3))
        scores = op.multiply(op.matmul(q, k, False, True), self._numbers((e // h) ** -0.5))
        seen = op.matmul(op.softmax(op.add(scores, bias), -1), v, False, False)  # b h s d
        return op.reshape(op.transpose(seen, self._integers([0, 2, 1, 3])), self._integers([0, 0, e]), True)

    def _pool(self, x: Any, real: Any) -> Any:
        op = self._op
        # [b 1 s] x [b s e]: the sum over real tokens. Dividing by their number would not change the direction, and the
        # length is normalised away.
        total = op.squeeze(op.matmul(op.unsqueeze(real, self._integers([1])), x, False, False), self._integers([1]))
        return op.normalize_l2(total, self._integers([1]), 1e-12, "max")

    def _dense(self, x: Any, *sources: str) -> Any:
        weight = np.concatenate([self._tensors[f"{source}.weight"] for source in sources])  # out in
        bias = np.concatenate([self._tensors[f"{source}.bias"] for source in sources])
        if weight.shape[0] != bias.shape[0]:
            raise ValueError(f"{sources[0]}: {weight.shape[0]} rows and {bias.shape[0]} biases")
        matrix = self._int8(weight) if self._quantized else self._op.constant(weight)
        return self._op.add(self._op.matmul(x, matrix, False, True), self._op.constant(bias[None, None]))

    def _int8(self, weight: Array) -> Any:
        scale = np.maximum(np.abs(weight).max(axis=1, keepdims=True), 1e-12) / 127
        codes = np.clip(np.rint(weight / scale), -127, 127).astype(np.int8)
        op = self._op
        return op.multiply(op.convert(op.constant(codes), "f32"), op.constant(scale.astype(np.float32)))

    def _norm(self, x: Any, source: str) -> Any:
        op = self._op
        centred = op.mvn(x, self._integers([-1]), True, self._shape.epsilon, "inside_sqrt")
        return op.add(op.multiply(centred, self._weight(source + "weight")), self._weight(source + "bias"))

    def _weight(self, name: str) -> Any:
        return self._op.constant(np.array(self._tensors[name]))

    def _numbers(self, value: float) -> Any:
        return self._op.constant(np.array(value, np.float32))

    def _integers(self, values: list[int]) -> Any:
        return self._op.constant(np.array(values, np.int64))

    def _integer(self, value: int) -> Any:
        return self._op.constant(np.array(value, np.int64))


def read_encoder(folder: Path, precision: str = "int8") -> Any:
    """The `openvino.Model` of the model in `folder` (`config.json`, `model.safetensors`).

    Raises:
        ModelFileError: a file of the model is missing or damaged.
    """
    shape, tensors = Shape.read(folder / "config.json"), read_safetensors(folder / "model.safetensors")
    try:
        return build_graph(tensors, shape, precision)
    # OpenVINO says RuntimeError when shapes do not fit each other.
    except (KeyError, ValueError, IndexError, ZeroDivisionError, RuntimeError) as error:
        raise ModelFileError(
            f"{folder / 'model.safetensors'} lacks weights its config.json promises ({error}). Run: trimtab models pull"
        ) from error


def fingerprint(folder: Path, precision: str = "int8") -> str:
    """What identifies the vectors a model makes: 16 hex digits over its weights, its tokenizer and our recipe."""
    digest = hashlib.sha256(f"{RECIPE}/{precision}/".encode())
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        try:
            with (folder / name).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise ModelFileError(
                f"The embedding model in {folder} has no readable {name}. Run: trimtab models pull"
            ) from error
    return digest.hexdigest()[:16]
