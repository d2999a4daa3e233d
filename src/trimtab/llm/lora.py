"""LoRA adapters: read from PEFT's folder or from an adapter GGUF, written as either.

Both hold the same matrices: `y = W x + scale * B (A x)`. They differ in names, in where the scale is kept (PEFT:
`lora_alpha / r`, or `/ sqrt(r)` with rsLoRA; GGUF: `adapter.lora.alpha / r`), and, for the `llama` architecture, in the
order of B's rows for q and k (see `tensors.py`). Kinds that are more than these two matrices (DoRA, trained biases,
whole modules, adapters on the embedding) are refused: served without their other half they would answer wrongly.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.domain.errors import ModelFileError

from .architecture import Architecture
from .complete import complete_file
from .gguf_header import read_header
from .tensors import (
    PROJECTIONS,
    from_gguf_rows,
    gguf_name,
    gguf_tensor,
    heads_of,
    hf_name,
    safetensors_of,
    to_gguf_rows,
)

if TYPE_CHECKING:
    import numpy as np

_PEFT_PREFIX = "base_model.model."
_MODULE = re.compile(r"model\.layers\.(\d{1,4})\.(self_attn|mlp)\.[a-z]+_proj")
_MOST_RANK = 1024


@dataclass(frozen=True)
class Lora:
    """An adapter in Hugging Face's names and order."""

    scale: float
    matrices: dict[str, tuple[np.ndarray, np.ndarray]] = field(repr=False)
    """By module (`model.layers.0.self_attn.q_proj`): A ``[r, in]`` and B ``[out, r]``, float32."""

    @property
    def rank(self) -> int:
        return max(int(a.shape[0]) for a, _ in self.matrices.values())


def read_adapter(path: Path, shape: Architecture) -> Lora:
    """The adapter in a PEFT folder or a GGUF file, checked against the model it is for.

    Raises:
        ModelFileError: it is missing, damaged, of an unsupported kind or for another model.
    """
    try:
        lora = _read_peft(path) if path.is_dir() else _read_gguf(path, shape)
        _check(lora, shape)
        return lora
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise ModelFileError(f"The adapter {path} cannot be used: {error}. Train or convert it again.") from error


def _read_peft(folder: Path) -> Lora:
    config: dict[str, Any] = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    for key in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "trainable_token_indices"):
        if config.get(key):
            raise ValueError(f"its {key!r} is not supported")
    if config.get("peft_type", "LORA") != "LORA" or config.get("bias", "none") != "none":
        raise ValueError("only LoRA without trained biases is supported")
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    if not 0 < rank <= _MOST_RANK:
        raise ValueError(f"its rank is {rank}")
    found: dict[str, dict[str, Any]] = {}
    for name, read in safetensors_of(folder / "adapter_model.safetensors").items():
        module, _, part = name.removeprefix(_PEFT_PREFIX).rpartition(".lora_")
        if part not in ("A.weight", "B.weight"):
            raise ValueError(f"it holds {name!r}, which is no LoRA matrix")
        found.setdefault(module, {})[part[0]] = read()
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return Lora(scale, {m: (parts["A"], parts["B"]) for m, parts in found.items()})


def _read_gguf(path: Path, shape: Architecture) -> Lora:
    header = read_header(path)
    kind = header.values.get("general.type"), header.values.get("adapter.type")
    if kind != ("adapter", "lora") or header.architecture != shape.kind:
        raise ValueError(f"it is no LoRA for a {shape.kind!r} model")
    found: dict[str, dict[str, Any]] = {}
    for name in header.places:
        stem, _, part = name.rpartition(".lora_")
        if part not in ("a", "b"):
            raise ValueError(f"it holds {name!r}, which is no LoRA matrix")
        full = hf_name(stem)
        numbers, heads = gguf_tensor(header, name), heads_of(full, shape)
        found.setdefault(full.removesuffix(".weight"), {})[part] = (
            from_gguf_rows(numbers, heads) if heads and part == "b" else numbers
        )
    alpha = float(header.values["adapter.lora.alpha"])
    ranks = {int(parts["a"].shape[0]) for parts in found.values()}
    if len(ranks) != 1:
        raise ValueError("its matrices have several ranks")
    return Lora(alpha / ranks.pop(), {m: (parts["a"], parts["b"]) for m, parts in found.items()})


def _check(lora: Lora, shape: Architecture) -> None:
    import numpy as np

    if not lora.matrices or not math.isfinite(lora.scale):
        raise ValueError("it holds no matrices or no finite scale")
    for module, (a, b) in lora.matrices.items():
        match = _MODULE.fullmatch(module)
        inner = module.split(".", 3)[-1]
        if match is None or inner not in PROJECTIONS or int(match[1]) >= shape.layers:
            raise ValueError(f"the model has no {module!r}")
        out, width = shape.matrix(inner)
        if a.ndim != 2 or not 0 < a.shape[0] <= _MOST_RANK or a.shape[1] != width or b.shape != (out, a.shape[0]):
            raise ValueError(f"{module} is for a matrix of another size than {out} x {width}")
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise ValueError(f"{module} holds numbers that are not finite")


def adapter_gguf(adapter: Path, target: Path, shape: Architecture) -> None:
    """Write an adapter (PEFT folder or GGUF) as the GGUF that llama.cpp serves over a model of this shape.

    Raises:
        ModelFileError: the adapter cannot be used, or the target cannot be written.
    """
    lora = read_adapter(adapter, shape)
    with complete_file(target) as part:
        _write_gguf(lora, part, shape)


def _write_gguf(lora: Lora, part: Path, shape: Architecture) -> None:
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(part, shape.kind)
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    ranks = {int(a.shape[0]) for a, _ in lora.matrices.values()}
    if len(ranks) != 1:
        raise ValueError("a GGUF adapter has one rank")
    writer.add_float32("adapter.lora.alpha", lora.scale * ranks.pop())
    for module, (a, b) in sorted(lora.matrices.items()):
        name, heads = gguf_name(f"{module}.weight"), heads_of(f"{module}.weight", shape)
        writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(a, np.float32))
        rows = to_gguf_rows(b, heads) if heads else b
        writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(rows, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def adapter_peft(adapter: Path, target: Path, shape: Architecture, base: str = "") -> None:
    """Write an adapter (PEFT folder or GGUF) as a PEFT folder. `base` is what it says it was trained on.

    Raises:
        ModelFileError: the adapter cannot be used, or the target cannot be written.
    """
    import numpy as np
    from safetensors.numpy import save_file

    lora = read_adapter(adapter, shape)
    tensors = {}
    for module, (a, b) in lora.matrices.items():
        tensors[f"{_PEFT_PREFIX}{module}.lora_A.weight"] = np.ascontiguousarray(a)
        tensors[f"{_PEFT_PREFIX}{module}.lora_B.weight"] = np.ascontiguousarray(b)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.scale * lora.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted({m.rsplit(".", 1)[1] for m in lora.matrices}),
        "inference_mode": True,
    }
    try:
        target.mkdir(parents=True, exist_ok=True)
        save_file(tensors, target / "adapter_model.safetensors")
        (target / "adapter_config.json").write_text(json.dumps(config, indent=1), "utf-8")
    except OSError as error:
        raise ModelFileError(
            f"{target} cannot be written ({error.strerror}). Free some space and try again."
        ) from error
