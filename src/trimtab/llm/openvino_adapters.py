"""Several LoRA adapters in one OpenVINO model, chosen by each request.

OpenVINO GenAI 2026.4 has one adapter for the whole batch, set by `generate`; `add_request` ignores a request's own
adapters, and its prefix cache reuses what was computed under another adapter (tests/llm/test_openvino_adapters.py shows
all three). So the choice is made inside the graph (`openvino_slots.py`):

- The server adds `slot * vocabulary` to the first token of the prompt (`tagged`). The graph divides: the remainder is
  the token, the quotient the slot, which the rest of the sequence learns through the KV cache. It survives chunked
  prompts, preemption and reuse like any other key and value.
- The prefix cache knows blocks by their tokens, so a prompt cached under one adapter is not found under another.
- Any mix of adapters is one batch, and each request's numbers are those of its solo run.

A new adapter means a new model (`with_adapters`, a second or two) and a new pipeline, built beside the running one. A
model with one adapter of rank 8 on every matrix took 11-25 % more CPU for a prompt and 22-44 % more for a token alone
(busy machine, two runs), also for requests that want none: serve without adapters when none is wanted. A prompt that is
tagged cannot be given a repetition penalty: GenAI looks its first token up in the logits and refuses.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from trimtab.domain.errors import InvalidInput

from .lora import Lora, read_adapter
from .openvino_folder import CARD, ModelCard, read_card, write_card
from .openvino_slots import insert
from .openvino_weights import MODEL, alone, save, written
from .shelf import sha256_of

MOST = 64
"""Adapters in one model (taste). The KV cache's 8 bits would tell 255 apart; each makes every request slower."""


def tagged(ids: Sequence[int], slot: int, vocabulary: int) -> list[int]:
    """A prompt's token ids for the adapter in `slot` (0: none)."""
    return [ids[0] + slot * vocabulary, *ids[1:]] if slot and ids else list(ids)


def slot_of(card: ModelCard, adapter: str | None) -> int:
    """The slot of an adapter by its name; `None` is the bare model.

    Raises:
        InvalidInput: the model was made without it.
    """
    if adapter is None:
        return 0
    if adapter not in card.adapters:
        known = ", ".join(card.adapters) or "none"
        raise InvalidInput(f"The engine has no adapter {adapter!r} (it has: {known}). Load it first.")
    return card.adapters.index(adapter) + 1


def with_adapters(folder: Path, adapters: Mapping[str, Path], cache_dir: Path) -> Path:
    """The folder of a model from `prepare_openvino` with adapters (PEFT folders or GGUF files) inside, by name.

    Made when `cache_dir` does not have it yet; `folder` itself when there are no adapters. It is as large as the model:
    whoever switches to it removes the one before.

    Raises:
        InvalidInput: too many adapters.
        ModelFileError: an adapter cannot be used with this model, or the disk is full.
    """
    if not adapters:
        return folder
    if len(adapters) > MOST:
        raise InvalidInput(f"{len(adapters)} adapters are more than one model takes ({MOST}). Remove some.")
    card = read_card(folder)
    loras = [read_adapter(path, card.shape) for path in adapters.values()]
    target = cache_dir / f"{folder.name}.with-{_fingerprint(adapters)[:16]}"
    with alone(cache_dir, target):
        if not (target / CARD).is_file():
            names = tuple(adapters)
            written(target, folder, lambda part: _write(folder, part, replace(card, adapters=names), loras))
    return target


def _fingerprint(adapters: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in adapters.items():
        files = [path / "adapter_config.json", path / "adapter_model.safetensors"] if path.is_dir() else [path]
        digest.update(repr((name, [sha256_of(file) for file in files])).encode())
    return digest.hexdigest()


def _write(folder: Path, part: Path, card: ModelCard, loras: Sequence[Lora]) -> None:
    import openvino as ov

    model = ov.Core().read_model(folder / MODEL)
    insert(model, loras, card.shape)
    save(model, part)
    for file in folder.iterdir():
        if file.is_file() and file.name not in (MODEL, Path(MODEL).with_suffix(".bin").name, CARD):
            _link(file, part / file.name)
    write_card(card, part)


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(file, target)
