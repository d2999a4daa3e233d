"""A checkpoint: a player at one moment of its training, as a safetensors file.

What is needed to read it stands in the file's header; nothing in it runs. A file is believed only as far as its
shapes: sizes are bounded before anything is built, and every number must be finite.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from trimtab.domain.errors import ModelFileError

from .board import CODES, FREE, OPEN, POSITIONS, TO_CANONICAL
from .player import ROW, SHAPES, About, Player, Policy, freeze

FORMAT = "trimtab-player-1"
LARGEST = 20_000_000
"""Bytes we are willing to open; a player of 1024 units has 4 MB."""
WIDEST = 1024


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name, and what they are."""

    about: About
    tensors: Mapping[str, Tensor]

    @property
    def policy(self) -> Policy:
        """How it plays, as tables.

        Raises:
            ModelFileError: the tensors are not those of such a player.
        """
        return _READERS[self.about.algorithm](self)

    def save(self, path: Path) -> None:
        """Write the file; a crash leaves the old one or the new one, never half of either."""
        header = {"format": FORMAT, "about": json.dumps(asdict(self.about))}
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_bytes(save({name: tensor.contiguous() for name, tensor in self.tensors.items()}, header))
        part.replace(path)


def open_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint that `Checkpoint.save` wrote.

    Raises:
        ModelFileError: there is no such file, or it is not a whole checkpoint of a player.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise ModelFileError(
            f"{path} cannot be read ({error.strerror}). `trimtab learn tictactoe` writes one."
        ) from None
    try:
        if len(data) > LARGEST:
            raise ValueError("it is too large")
        checkpoint = Checkpoint(_about(data), load(data))
        if not all(bool(torch.isfinite(tensor).all()) for tensor in checkpoint.tensors.values()):
            raise ValueError("a weight is not a number")
        _ = checkpoint.policy
    except ModelFileError:
        raise
    except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelFileError(
            f"{path} is not a player's checkpoint: {reason}. Train one: trimtab learn tictactoe --out FOLDER"
        ) from None
    return checkpoint


def _about(data: bytes) -> About:
    """The header's own words, each of the type it should have."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])["__metadata__"]
    if header.get("format") != FORMAT:
        raise ValueError(f"its format is {str(header.get('format'))[:40]!r}, not {FORMAT!r}")
    said = json.loads(header["about"])
    about = About(**{field.name: said[field.name] for field in fields(About)})
    for field in fields(About):
        if type(getattr(about, field.name)) is not type(field.default):
            raise ValueError(f"`{field.name}` in its header is no {type(field.default).__name__}")
    if about.algorithm not in _READERS:
        raise ValueError("its algorithm is neither ppo nor q")
    if not 1 <= about.hidden <= WIDEST:
        raise ValueError(f"its hidden layers have not 1 to {WIDEST} units")
    return about


def _network(checkpoint: Checkpoint) -> Policy:
    player = Player(checkpoint.about.hidden)
    try:
        player.load_state_dict(dict(checkpoint.tensors))
    except RuntimeError:
        raise ModelFileError("The weights are not those of a player of this size. Train one again.") from None
    return freeze(player, checkpoint.about)


def _table(checkpoint: Checkpoint) -> Policy:
    q = checkpoint.tensors.get("q")
    if q is None or q.shape != (len(SHAPES), POSITIONS):
        raise ModelFileError("The table is not one of 627 states and 9 positions. Train one again.")
    worth = np.take_along_axis(q.double().numpy()[ROW], TO_CANONICAL, -1)
    worth = np.where(FREE, worth, -np.inf)
    chances = np.zeros((CODES, POSITIONS))
    chances[OPEN, worth[OPEN].argmax(-1)] = 1.0
    values = np.zeros(CODES)
    values[OPEN] = worth[OPEN].max(-1)
    return Policy(chances, values, checkpoint.about)


_READERS: dict[str, Callable[[Checkpoint], Policy]] = {"ppo": _network, "q": _table}
