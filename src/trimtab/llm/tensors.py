"""A model's numbers by their Hugging Face names, from a GGUF file or a safetensors folder.

llama.cpp keeps the rows of q and k of the `llama` architecture in another order (pairs interleaved, where Hugging Face
has halves). They are put back here, so everything above sees one order. Offsets and sizes come from files that are not
trusted and are checked against the file before they are used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from trimtab.domain.errors import ModelFileError

from . import architecture
from .architecture import Architecture
from .gguf_header import GgufHeader, read_header

if TYPE_CHECKING:
    import numpy as np

_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_PLAIN = {"F32": "<f4", "F16": "<f2"}
PROJECTIONS = tuple(name for name in _LAYER if name.endswith("_proj"))
"""The matrices of a layer that an adapter may change."""


class Tensors(Protocol):
    """Where a model's numbers come from."""

    architecture: Architecture

    def get(self, name: str) -> np.ndarray:
        """A tensor as float32, matrices as ``[out, in]``. Raises KeyError when the source has none of that name."""
        ...

    def __contains__(self, name: object) -> bool: ...


def gguf_name(name: str) -> str:
    """`model.layers.3.self_attn.q_proj.weight` is `blk.3.attn_q.weight`. Raises KeyError for other names."""
    stem, _, kind = name.rpartition(".")
    if stem in _OUTSIDE:
        return f"{_OUTSIDE[stem]}.{kind}"
    _, _, layer, inner = stem.split(".", 3) if stem.startswith("model.layers.") else ("", "", "", stem)
    return f"blk.{int(layer or -1)}.{_LAYER[inner]}.{kind}"


def hf_name(name: str) -> str:
    """The other way round. Raises KeyError for names that no supported model has."""
    outside = {v: k for k, v in _OUTSIDE.items()}
    stem, _, kind = name.rpartition(".")
    if stem in outside:
        return f"{outside[stem]}.{kind}"
    parts = stem.split(".", 2)
    if len(parts) != 3 or parts[0] != "blk" or not parts[1].isdigit():
        raise KeyError(name)
    return f"model.layers.{parts[1]}.{ {v: k for k, v in _LAYER.items()}[parts[2]] }.{kind}"


def heads_of(name: str, shape: Architecture) -> int:
    """Heads whose rows llama.cpp keeps in another order; 0: none, the order is the same."""
    if shape.kind != "llama":
        return 0
    return shape.heads if ".q_proj." in name else shape.kv_heads if ".k_proj." in name else 0


def to_gguf_rows(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k in llama.cpp's order: the halves of each head interleaved."""
    shape = rows.shape
    return rows.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def from_gguf_rows(rows: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `to_gguf_rows`."""
    shape = rows.shape
    return rows.reshape(heads, shape[0] // heads // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def open_tensors(source: Path) -> Tensors:
    """The numbers of a GGUF file or of a folder with `config.json` and safetensors.

    Raises:
        ModelFileError: it is missing, damaged or of an unsupported kind.
    """
    try:
        return SafeFolder(source) if source.is_dir() else GgufTensors(read_header(source))
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ModelFileError(f"{source} cannot be used: {error}. Choose another model or engine.") from error


class GgufTensors:
    """Tensors of a GGUF file, made float32 one at a time."""

    def __init__(self, header: GgufHeader) -> None:
        self._header = header
        factors = gguf_tensor(header, "rope_freqs.weight") if "rope_freqs.weight" in header.places else ()
        self.architecture = architecture.of_gguf(header, tuple(float(x) for x in factors))

    def __contains__(self, name: object) -> bool:
        try:
            return gguf_name(str(name)) in self._header.places
        except (KeyError, ValueError):
            return False

    def get(self, name: str) -> np.ndarray:
        numbers = gguf_tensor(self._header, gguf_name(name))
        heads = heads_of(name, self.architecture)
        return from_gguf_rows(numbers, heads) if heads else numbers


def gguf_tensor(header: GgufHeader, name: str) -> np.ndarray:
    """A tensor of a GGUF file as float32, in the file's own order of rows.

    Raises:
        KeyError: the file has none of that name.
        ValueError: the tensor does not fit in the file.
    """
    import gguf
    import numpy as np

    shape, at = header.places[name]
    kind = gguf.GGMLQuantizationType(header.tensor_types[name])
    per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    size = math.prod(shape) // per_block * block_bytes
    if not shape or shape[-1] % per_block or not 0 < size <= header.path.stat().st_size - at:
        raise ValueError(f"{name} does not fit in the file")
    data = np.fromfile(header.path, np.uint8, size, offset=at)
    if kind.name in _PLAIN:
        return data.view(_PLAIN[kind.name]).astype(np.float32).reshape(shape)
    rows = data.reshape(-1, shape[-1] // per_block * block_bytes)
    return gguf.quants.dequantize(rows, kind).astype(np.float32).reshape(shape)


class SafeFolder:
    """Tensors of a Hugging Face folder, one file or several."""

    def __init__(self, folder: Path) -> None:
        self.architecture = architecture.of_config(json.loads((folder / "config.json").read_text("utf-8")))
        files = sorted(folder.glob("model*.safetensors"))
        if not files:
            raise ValueError("it has no model.safetensors")
        self._tensors = {name: get for file in files for name, get in safetensors_of(file).items()}

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def get(self, name: str) -> np.ndarray:
        return self._tensors[name]()


def safetensors_of(file: Path) -> dict[str, Callable[[], np.ndarray]]:
    """A function for each tensor of a safetensors file, which reads it as float32.

    Raises:
        ValueError: the file is damaged.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(size - 8, 100_000_000):
            raise ValueError(f"{file.name} has a damaged header")
        entries: dict[str, Any] = json.loads(stream.read(length))
    entries.pop("__metadata__", None)
    return {name: _reader(file, 8 + length, size, entry) for name, entry in entries.items()}


def _reader(file: Path, start: int, size: int, entry: dict[str, Any]) -> Callable[[], np.ndarray]:
    shape, kind = tuple(int(n) for n in entry["shape"]), str(entry["dtype"])
    width = {"F32": 4, "F16": 2, "BF16": 2}.get(kind)
    begin, end = (int(n) for n in entry["data_offsets"])
    if width is None:
        raise ValueError(f"numbers of type {kind} are not supported")
    if not (0 <= begin <= end <= size - start and end - begin == width * math.prod(shape)):
        raise ValueError(f"{file.name} is damaged: a tensor lies outside the file")

    def read() -> np.ndarray:
        import numpy as np

        with file.open("rb") as stream:
            stream.seek(start + begin)
            data = stream.read(end - begin)
        if kind == "BF16":  # the upper half of a float32
            return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(shape)
        return np.frombuffer(data, np.float32 if kind == "F32" else np.float16).astype(np.float32).reshape(shape)

    return read
