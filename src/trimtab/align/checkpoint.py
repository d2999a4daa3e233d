"""The state of a training run, written so that a kill at any moment costs at most the step it hit.

A checkpoint is a folder `step-000012` with `state.safetensors` and `state.json`. It is written under another name,
forced to disk and renamed; older ones go only then. No pickle: tensors are safetensors, all else is JSON.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from trimtab.domain.durable import sync
from trimtab.domain.errors import Conflict, ModelFileError

_TENSORS, _FACTS = "state.safetensors", "state.json"


@dataclass(frozen=True)
class State:
    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run in `folder`. `run` identifies its settings and data: another run's are refused."""

    def __init__(self, folder: Path, run: str) -> None:
        self._folder, self._run = folder, run
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write step `step`, then forget the one before."""
        final = self._folder / f"step-{step:06d}"
        part = self._folder / f".{final.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, part / _TENSORS)
        (part / _FACTS).write_text(json.dumps({"run": self._run, "step": step, "facts": facts}), "utf-8")
        publish(part, final)
        for other in self._folder.glob("step-*"):
            if other != final:
                shutil.rmtree(other, ignore_errors=True)

    def latest(self) -> State | None:
        """The last complete step; None for a new run.

        Raises:
            Conflict: the folder holds another run.
            ModelFileError: the checkpoint is damaged.
        """
        found = sorted(self._folder.glob("step-*"))
        if not found:
            return None
        try:
            values = json.loads((found[-1] / _FACTS).read_text("utf-8"))
            tensors = load_file(found[-1] / _TENSORS)
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelFileError(
                f"The checkpoint {found[-1]} cannot be read ({error}). Delete it and train again."
            ) from error
        if values["run"] != self._run:
            raise Conflict(
                f"{self._folder} holds a training run with other settings or data. Give this run a folder of its own."
            )
        return State(int(values["step"]), tensors, values["facts"])


def publish(part: Path, final: Path) -> None:
    """Give a complete folder its name, durably. A folder of that name gives way."""
    for file in part.iterdir():
        sync(file)
    sync(part)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(part, final)
    sync(final.parent)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An Adam's state by name; the parameters' order is their name."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{i}.{name}": torch.as_tensor(value) for i, slot in state.items() for name, value in slot.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    whole = optimizer.state_dict()
    slots: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            slots.setdefault(int(index), {})[key] = tensor.clone()
    optimizer.load_state_dict({"state": slots, "param_groups": whole["param_groups"]})
