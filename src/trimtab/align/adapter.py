"""A low-rank adapter: what alignment changes, and all that it changes (Hu et al. 2021, arXiv:2106.09685).

For a frozen matrix W an adapter holds A ``[rank, in]`` and B ``[out, rank]``; the layer then computes
``x W' + alpha/rank * (x A') B'``. B starts at zero, so a fresh adapter changes nothing. Files are PEFT's
(``adapter_config.json`` and ``adapter_model.safetensors``): transformers, both engines and this module load them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from trimtab.domain.durable import sync
from trimtab.domain.errors import InvalidInput, ModelFileError

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL = (*ATTENTION, "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LoraConfig:
    rank: int = 16
    alpha: float = 32.0
    """Twice the rank (Hu et al.'s and PEFT's habit)."""
    modules: tuple[str, ...] = ALL
    """All matrices of a layer: at equal size better than attention alone (Dettmers et al. 2023, arXiv:2305.14314)."""

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


def module_path(layer: int, module: str) -> str:
    """`layers.20.self_attn.q_proj`."""
    return f"layers.{layer}.{'self_attn' if module in ATTENTION else 'mlp'}.{module}"


class Adapter:
    """A and B of every adapted matrix, by `module_path`; plain fp32 tensors that require gradients."""

    def __init__(self, config: LoraConfig, a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
        self.config = config
        self.a = {name: tensor.detach().float().clone().requires_grad_() for name, tensor in a.items()}
        self.b = {name: tensor.detach().float().clone().requires_grad_() for name, tensor in b.items()}

    @classmethod
    def fresh(cls, config: LoraConfig, shapes: Mapping[str, tuple[int, int]], generator: torch.Generator) -> Adapter:
        """Changes nothing yet. `shapes` gives (out, in) of each matrix by `module_path`."""
        a, b = {}, {}
        for name, (rows, columns) in shapes.items():
            # Kaiming-uniform with a = sqrt(5), as PEFT starts it.
            bound = math.sqrt(1 / columns)
            a[name] = (torch.rand(config.rank, columns, generator=generator) * 2 - 1) * bound
            b[name] = torch.zeros(rows, config.rank)
        return cls(config, a, b)

    def named(self) -> dict[str, Tensor]:
        """Every tensor by its name in PEFT's file."""
        return {
            f"base_model.model.model.{name}.lora_{kind}.weight": tensor
            for kind, side in (("A", self.a), ("B", self.b))
            for name, tensor in side.items()
        }

    def parameters(self) -> list[Tensor]:
        return [*self.a.values(), *self.b.values()]

    def copy(self) -> Adapter:
        return Adapter(self.config, self.a, self.b)

    def load_named(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the values of another adapter of the same shape."""
        with torch.no_grad():
            for name, tensor in self.named().items():
                tensor.copy_(tensors[name])


def save_adapter(
    adapter: Adapter,
    folder: Path,
    *,
    base: str = "",
    task: str = "CAUSAL_LM",
    extra: Mapping[str, Tensor] | None = None,
) -> None:
    """Write PEFT's two files into `folder` (made if missing).

    Args:
        base: what PEFT calls the base model's name or path.
        task: PEFT's task type; `SEQ_CLS` for a reward model, whose score head comes as `extra`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().contiguous() for name, tensor in adapter.named().items()}
    tensors.update({name: tensor.detach().contiguous() for name, tensor in (extra or {}).items()})
    save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
    names = [name.split(".") for name in adapter.a]
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": base,
        "r": adapter.config.rank,
        "lora_alpha": adapter.config.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted({parts[-1] for parts in names}),
        "layers_to_transform": sorted({int(parts[1]) for parts in names}),
        "layers_pattern": "layers",
        "modules_to_save": sorted({"score"} if extra else set()) or None,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=1), "utf-8")
    for name in (TENSORS, CONFIG):
        sync(folder / name)


def read_adapter(folder: Path) -> tuple[Adapter, dict[str, Tensor]]:
    """An adapter in PEFT's format, and the tensors in it that are not its own (a score head).

    Raises:
        ModelFileError: the files are missing or damaged.
        InvalidInput: it is a kind of adapter that is not plain LoRA.
    """
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        with safe_open(str(folder / TENSORS), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelFileError(f"{folder} is not a readable adapter ({error}). Train it again.") from error
    if config.get("peft_type") != "LORA" or config.get("use_dora") or config.get("use_rslora"):
        raise InvalidInput(f"The adapter in {folder} is not a plain LoRA. Only plain LoRA is known here.")
    if config.get("bias", "none") != "none" or config.get("rank_pattern") or config.get("alpha_pattern"):
        raise InvalidInput(f"The adapter in {folder} has biases or ranks of its own per layer; that is not known here.")
    a, b, rest = {}, {}, {}
    for name, tensor in tensors.items():
        path = name.removeprefix("base_model.model.").removeprefix("model.")
        if path.endswith(".lora_A.weight"):
            a[path.removesuffix(".lora_A.weight")] = tensor
        elif path.endswith(".lora_B.weight"):
            b[path.removesuffix(".lora_B.weight")] = tensor
        else:
            rest[path] = tensor
    if a.keys() != b.keys() or not a:
        raise ModelFileError(f"The adapter in {folder} is incomplete. Train it again.")
    modules = tuple(sorted({name.rsplit(".", 1)[-1] for name in a}))
    return Adapter(LoraConfig(int(config["r"]), float(config["lora_alpha"]), modules), a, b), rest
