"""The base model as a folder of safetensors and a tokenizer, read once, and prompts as the engine serves them.

Nothing here trains. `Base` turns a conversation into the token ids that the model is served with: the model's own chat
template with the opening of an answer, special tokens only where the template writes them, never out of a message's
text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

# Spinning OpenMP threads halve the speed of a machine that also serves; the runtime reads this once, when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trimtab.domain.errors import InvalidInput, ModelFileError
from trimtab.domain.judgement import Said
from trimtab.domain.neutral import Neutraliser

_END_TEXTS = ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>", "<|end|>", "</s>")


@dataclass(frozen=True)
class Base:
    """A model before any alignment. Made by `load_base`."""

    folder: Path
    config: dict[str, Any] = field(repr=False)
    """`config.json` as it stands."""
    tokenizer: Any = field(repr=False)
    """A fast transformers tokenizer."""

    @cached_property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer; the first is the model's own."""
        declared = self.config.get("eos_token_id")
        ids = declared if isinstance(declared, list) else [declared]
        known = [self.tokenizer.convert_tokens_to_ids(t) for t in _END_TEXTS if t in self.tokenizer.all_special_tokens]
        return tuple(dict.fromkeys(int(i) for i in [*ids, *known] if i is not None))

    @property
    def end_id(self) -> int:
        return self.end_ids[0]

    @cached_property
    def pad_id(self) -> int:
        """Never the end of an answer: a model trained with its end as padding does not learn to stop."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None and pad != self.end_id else 0

    @cached_property
    def _neutral(self) -> Neutraliser:
        special = [str(token) for token in self.tokenizer.added_tokens_decoder.values()]
        return Neutraliser([*self.tokenizer.all_special_tokens, *special])

    def prompt_ids(self, prompt: Sequence[Said]) -> tuple[int, ...]:
        """The conversation under the model's template, up to where its answer begins."""
        return self.encoded(self.prompt_text(prompt))

    def prompt_text(self, prompt: Sequence[Said]) -> str:
        """The same as text, special tokens of messages broken.

        Raises:
            InvalidInput: the conversation has no message.
        """
        if not prompt:
            raise InvalidInput("A prompt needs at least one message.")
        messages = [{"role": said.role, "content": self._neutral(said.content)} for said in prompt]
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def plain(self, text: str) -> str:
        """Text with what looks like a special token broken."""
        return self._neutral(text)

    def completion_ids(self, text: str, *, ended: bool = True) -> tuple[int, ...]:
        """An answer's tokens and, if it `ended`, the token that ends it."""
        return self.text_ids(text) + ((self.end_id,) if ended else ())

    def text_ids(self, text: str) -> tuple[int, ...]:
        """Plain text; what looks like a special token in it is not one."""
        return self.encoded(self._neutral(text))

    def text_of(self, ids: Sequence[int]) -> str:
        """An answer as a person reads it, without the token that ends it."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def encoded(self, text: str) -> tuple[int, ...]:
        """Text that may hold special tokens on purpose: a template's."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def load_base(folder: Path, *, threads: int | None = None) -> Base:
    """Read a model folder: `config.json`, safetensors (one file or sharded) and a tokenizer with its chat template.

    Args:
        threads: for torch, process-wide; the physical cores are best. None leaves torch's own choice.

    Raises:
        ModelFileError: something is missing or damaged.
        InvalidInput: the tokenizer has no chat template.
    """
    from transformers import AutoTokenizer

    if threads:
        torch.set_num_threads(threads)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from error
    if not tokenizer.chat_template:
        raise InvalidInput(f"The tokenizer in {folder} has no chat template. Add chat_template.jinja to the folder.")
    return Base(folder, config, tokenizer)


class Weights(Mapping[str, Tensor]):
    """The tensors of a folder's safetensors files by their names, in fp32, each read when it is asked for.

    Raises:
        ModelFileError: there is none, or one is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._where: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with self._open(path) as tensors:
                self._where.update(dict.fromkeys(tensors.keys(), path))
        if not self._where:
            raise _unreadable(folder, "no safetensors")

    def _open(self, path: Path) -> Any:
        try:
            return safe_open(str(path), framework="pt")
        except (OSError, SafetensorError) as error:
            raise _unreadable(self._folder, error) from error

    def __getitem__(self, name: str) -> Tensor:
        with self._open(self._where[name]) as tensors:
            found: Tensor = tensors.get_tensor(name).float()
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


def _unreadable(folder: Path, why: object) -> ModelFileError:
    return ModelFileError(
        f"{folder} is not a readable model folder ({why}). It needs config.json, safetensors and a tokenizer."
    )
