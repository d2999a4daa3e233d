"""A BERT sentence encoder as an ONNX graph, built from its safetensors file without torch.

The graph is written by hand with ONNX Runtime's fused transformer operators (one `Attention` node a layer instead of
two dozen), then quantized: weights to int8 once, activations to uint8 while running. Pooling and normalising are part
of the graph, so a run takes token ids and gives unit vectors.

Quantizing takes about 2 s, so the result is kept beside nothing else than its own name: the hash of the weights and of
the recipe. A changed weights file or a changed recipe is another file; a half-written one never gets that name.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.domain.errors import ModelFileError

RECIPE = "bert-fused-dynamic-u8s8-1"
"""Changes when the graph or the quantization changes, so that a cached file is not mistaken for the new one."""

Array = npt.NDArray[np.float32]
Progress = Callable[[str, float], None]
"""Called with what is being done and the part of it that is done, 0..1."""


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


class _Graph:
    """Collects nodes and weights; `add` returns the name of the node's first output."""

    def __init__(self) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._numpy = helper, numpy_helper
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def weight(self, name: str, value: npt.NDArray[Any]) -> str:
        self.weights.append(self._numpy.from_array(np.ascontiguousarray(value), name))
        return name

    def add(
        self, op: str, inputs: list[str], name: str, *, outputs: int = 1, domain: str = "", **attributes: Any
    ) -> str:
        names = [name] + [f"{name}.{i}" for i in range(1, outputs)]
        self.nodes.append(self._helper.make_node(op, inputs, names, name=name, domain=domain, **attributes))
        return name


_MS = "com.microsoft"


def build_graph(tensors: dict[str, Array], shape: Shape) -> Any:
    """An fp32 `onnx.ModelProto`: `input_ids`, `mask` (int32, batch x sequence) to `embedding` (batch x hidden).

    Rows are padded on the right. Vectors are mean-pooled over real tokens and have length 1.
    """
    from onnx import TensorProto, helper

    g = _Graph()
    x = _embeddings(g, tensors, shape)
    for layer in range(shape.layers):
        x = _layer(g, tensors, shape, layer, x)
    _pool(g, x)
    ids = [helper.make_tensor_value_info(n, TensorProto.INT32, ["batch", "sequence"]) for n in ("input_ids", "mask")]
    out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", shape.hidden])
    graph = helper.make_graph(g.nodes, "sentence-encoder", ids, [out], g.weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(_MS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _embeddings(g: _Graph, t: dict[str, Array], shape: Shape) -> str:
    e = "embeddings."
    names = [
        g.weight("word", t[e + "word_embeddings.weight"]),
        g.weight("position", t[e + "position_embeddings.weight"]),
        # Sentence encoders see one segment only, so its row is added where it costs nothing.
        g.weight("segment", t[e + "token_type_embeddings.weight"]),
        g.weight("norm.w", t[e + "LayerNorm.weight"]),
        g.weight("norm.b", t[e + "LayerNorm.bias"]),
    ]
    g.add("Sub", ["input_ids", "input_ids"], "segments")
    inputs = ["input_ids", "segments", *names, "mask"]
    # Its second output counts the real tokens of each row, which is how Attention takes right-padded batches.
    return g.add("EmbedLayerNormalization", inputs, "x", outputs=2, domain=_MS, epsilon=shape.epsilon)


def _layer(g: _Graph, t: dict[str, Array], shape: Shape, layer: int, x: str) -> str:
    p, n = f"encoder.layer.{layer}.", f"l{layer}."
    parts = [f"{p}attention.self.{name}" for name in ("query", "key", "value")]
    qkv = g.weight(n + "qkv.w", np.concatenate([t[q + ".weight"].T for q in parts], axis=1))
    qkv_bias = g.weight(n + "qkv.b", np.concatenate([t[q + ".bias"] for q in parts]))
    heads = g.add("Attention", [x, qkv, qkv_bias, "x.1"], n + "attention", domain=_MS, num_heads=shape.heads)
    x = _dense_and_norm(g, t, shape, heads, x, p + "attention.output.", n + "out")
    up = g.weight(n + "up.w", t[p + "intermediate.dense.weight"].T)
    up_bias = g.weight(n + "up.b", t[p + "intermediate.dense.bias"])
    wide = g.add("MatMul", [x, up], n + "up")
    wide = g.add("BiasGelu", [wide, up_bias], n + "gelu", domain=_MS)
    return _dense_and_norm(g, t, shape, wide, x, p + "output.", n + "down")


def _dense_and_norm(g: _Graph, t: dict[str, Array], shape: Shape, x: str, skip: str, source: str, name: str) -> str:
    weight = g.weight(name + ".w", t[source + "dense.weight"].T)
    dense = g.add("MatMul", [x, weight], name)
    names = [
        g.weight(name + ".norm.w", t[source + "LayerNorm.weight"]),
        g.weight(name + ".norm.b", t[source + "LayerNorm.bias"]),
        g.weight(name + ".b", t[source + "dense.bias"]),
    ]
    inputs = [dense, skip, *names]
    return g.add("SkipLayerNormalization", inputs, name + ".norm", domain=_MS, epsilon=shape.epsilon)


def _pool(g: _Graph, x: str) -> None:
    g.weight("axis1", np.array([1], dtype=np.int64))
    g.add("Cast", ["mask"], "mask.f", to=1)
    g.add("Unsqueeze", ["mask.f", "axis1"], "mask.row")
    # [batch, 1, sequence] x [batch, sequence, hidden]: the sum over real tokens. Dividing by their number would not
    # change the direction, and the length is normalised away.
    g.add("MatMul", ["mask.row", x], "pool.sum")
    g.add("Squeeze", ["pool.sum", "axis1"], "pool")
    g.add("LpNormalization", ["pool"], "embedding", axis=-1, p=2)


BLOCK = 128


def _block_quantize(model: Any, suffix: str) -> None:
    """Replace the MatMul nodes whose name ends in `suffix` by 8-bit ones with a scale for each 128 inputs.

    The input of a layer's last projection has a few channels a hundred times larger than the rest, and one scale for
    the whole activation drowns the others: with one scale the cosine to fp32 is 0.9937, with this 0.997, for an eighth
    of the speed. Every other projection is fine with one scale.
    """
    from onnx import helper, numpy_helper

    weights = {w.name: w for w in model.graph.initializer}
    for index, node in enumerate(list(model.graph.node)):
        if node.op_type != "MatMul" or not node.name.endswith(suffix):
            continue
        source = weights[node.input[1]]
        matrix = numpy_helper.to_array(source).T  # [outputs, inputs]
        outputs, inputs = matrix.shape
        blocks = matrix.reshape(outputs, inputs // BLOCK, BLOCK)
        scale = np.maximum(np.abs(blocks).max(axis=-1), 1e-12) / 127
        # Stored unsigned around 128, which is the operator's default zero point.
        codes = (np.clip(np.rint(blocks / scale[..., None]), -127, 127) + 128).astype(np.uint8)
        names = [node.input[1] + ".q", node.input[1] + ".s"]
        model.graph.initializer.remove(source)
        model.graph.initializer.append(numpy_helper.from_array(codes, names[0]))
        model.graph.initializer.append(numpy_helper.from_array(scale.reshape(-1).astype(np.float32), names[1]))
        attributes = {"K": inputs, "N": outputs, "bits": 8, "block_size": BLOCK, "accuracy_level": 4}
        new = helper.make_node(
            "MatMulNBits", [node.input[0], *names], list(node.output), name=node.name, domain=_MS, **attributes
        )
        model.graph.node.remove(node)
        model.graph.node.insert(index, new)


def _quantize(model: Any, target: Path) -> None:
    import logging

    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    _block_quantize(model, ".down")
    with tempfile.TemporaryDirectory(prefix="quantize-", dir=target.parent) as folder:
        source, result = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        onnx.save(model, str(source))
        root = logging.getLogger()
        level = root.level
        root.setLevel(logging.ERROR)  # it advises a pre-processing step that our hand-fused graph does not need
        try:
            quantize_dynamic(
                str(source),
                str(result),
                per_channel=True,
                reduce_range=False,  # measured: a reduced range is slower and worse on AVX-512 VNNI and on AVX2
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["MatMul", "Attention"],
                nodes_to_exclude=["pool.sum"],
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
            )
        finally:
            root.setLevel(level)
        with result.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(result, target)


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


def ensure_onnx(folder: Path, cache: Path, precision: str = "int8", progress: Progress | None = None) -> Path:
    """The ONNX file for the model in `folder` (`config.json`, `model.safetensors`, `tokenizer.json`).

    Made on first use (about 4 s) and kept in `cache`. `precision` is ``"int8"`` or ``"fp32"``. Two processes may do
    this at once: each writes its own file and the last rename wins with equal content.

    Raises:
        ModelFileError: a file of the model is missing or damaged.
    """
    import onnx

    say = progress or (lambda what, part: None)
    target = cache / f"encoder-{precision}-{fingerprint(folder, precision)}.onnx"
    if target.exists():
        return target
    say("reading the embedding model", 0.0)
    shape, tensors = Shape.read(folder / "config.json"), read_safetensors(folder / "model.safetensors")
    try:
        model = build_graph(tensors, shape)
    except (KeyError, ValueError) as error:
        raise ModelFileError(
            f"{folder / 'model.safetensors'} lacks weights its config.json promises ({error}). Run: trimtab models pull"
        ) from error
    cache.mkdir(parents=True, exist_ok=True)
    say("quantizing the embedding model", 0.3)
    if precision == "int8":
        _quantize(model, target)
    else:
        handle, part = tempfile.mkstemp(prefix="fp32-", dir=cache)
        os.close(handle)
        onnx.save(model, part)
        os.replace(part, target)
    say("embedding model ready", 1.0)
    return target
