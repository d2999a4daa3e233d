"""What the base model says, kept beside its weights: the same question with the same random numbers has one answer,
so a second training on the same base does not ask again."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from trimtab.align.adapter import Adapter
from trimtab.align.network import Network
from trimtab.align.rollouts import Completion, Draw, Sampler

_log = logging.getLogger(__name__)

MOST = 24
"""Files that are kept; the longest unused goes first. One is some 10 MB."""


class Remembering:
    """A sampler that asks `sampler`, and keeps what it said as the base.

    Args:
        folder: for the answers; made when there are some.
    """

    def __init__(self, sampler: Sampler, network: Network, folder: Path) -> None:
        self._sampler, self._folder = sampler, folder
        self.exact = sampler.exact
        # Other layers in the trunk or other roundings are other answers, and so may those of another release be.
        self._how = (version("trimtab"), torch.__version__, network.trunk_layers, network.bf16)

    def __call__(
        self, prompts: Sequence[tuple[int, ...]], adapter: Adapter | None, draw: Draw, seed: int
    ) -> list[Completion]:
        if adapter is not None or not prompts:
            return self._sampler(prompts, adapter, draw, seed)
        asked = hashlib.sha256(repr((self._how, list(prompts), draw, seed)).encode()).hexdigest()
        path = self._folder / f"{asked}.safetensors"
        known = _read(path, prompts)
        if known is None:
            known = self._sampler(prompts, None, draw, seed)
            self._keep(path, known)
        return known

    def _keep(self, path: Path, completions: Sequence[Completion]) -> None:
        """Answers that cannot be kept are drawn again another time."""
        if any(c.trunk is None or c.values is not None for c in completions):
            return
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            save_file(_tensors(completions), part)
            part.replace(path)
            for old in sorted(self._folder.glob("*.safetensors"), key=lambda one: one.stat().st_mtime)[:-MOST]:
                old.unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:
            _log.warning("the base's answers are not kept in %s: %s", self._folder, error)
            part.unlink(missing_ok=True)


def _tensors(completions: Sequence[Completion]) -> dict[str, torch.Tensor]:
    return {
        "ids": torch.cat([torch.tensor(c.ids, dtype=torch.long) for c in completions]),
        "lengths": torch.tensor([len(c.ids) for c in completions]),
        "ended": torch.tensor([c.ended for c in completions]),
        "logprobs": torch.cat([c.logprobs for c in completions]),
        "mask": torch.cat([c.mask for c in completions]),
        "trunk": torch.cat([c.trunk for c in completions if c.trunk is not None]),
    }


def _read(path: Path, prompts: Sequence[tuple[int, ...]]) -> list[Completion] | None:
    try:
        file: Any
        with safe_open(str(path), framework="pt") as file:
            kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        lengths = kept["lengths"].tolist()
        own = [kept[name].split(lengths) for name in ("ids", "logprobs", "mask")]
        trunks = kept["trunk"].split([len(p) + count for p, count in zip(prompts, lengths, strict=True)])
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError):
        return None
    with suppress(OSError):
        os.utime(path)
    return [
        Completion(prompt, tuple(ids.tolist()), logprobs, ended, mask, trunk)
        for prompt, ids, logprobs, mask, ended, trunk in zip(prompts, *own, kept["ended"].tolist(), trunks, strict=True)
    ]
