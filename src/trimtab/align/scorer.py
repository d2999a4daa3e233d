"""How likely a model finds a text as the answer to messages: what every form of judging is made of.

`Scorer` is the contract. `TorchScorer` reads a folder with safetensors; another implementation may ask an engine for
its log-probabilities. Only the logits of the answer's tokens are computed: over a vocabulary of 49,000 those of the
prompt would be most of the memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

# Spinning OpenMP threads halve the speed of a machine that also serves; the runtime reads this once, when torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch import Tensor

from trimtab.domain.errors import InvalidInput, ModelFileError
from trimtab.domain.judgement import Said
from trimtab.domain.neutral import Neutraliser


@dataclass(frozen=True)
class Continuation:
    """A text that might answer messages."""

    messages: tuple[Said, ...]
    text: str


@dataclass(frozen=True)
class LogProbability:
    total: float
    """Natural logarithm, summed over the tokens of the text; the token that ends an answer is not counted."""
    tokens: int

    @property
    def mean(self) -> float:
        """Per token, so that a long text is not unlikely for being long. 0 for an empty text."""
        return self.total / self.tokens if self.tokens else 0.0


class Scorer(Protocol):
    def __call__(self, wanted: Sequence[Continuation]) -> list[LogProbability]:
        """The log-probability of each text after its messages, in the order given."""
        ...


class TorchScorer:
    """A causal language model with a chat template, from a folder, on the processor.

    score = TorchScorer(folder)
    score([Continuation((Said("user", "Is 2 even?"),), "Yes")])[0].mean
    """

    def __init__(self, folder: Path, *, batch_tokens: int = 2048) -> None:
        """Load the model in fp32.

        Args:
            batch_tokens: padded tokens of one forward pass.

        Raises:
            ModelFileError: the folder is not a model that can be read.
            InvalidInput: its tokenizer has no chat template.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            self._model: Any = AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=torch.float32, local_files_only=True, use_safetensors=True
            )
            self._tokenizer: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError) as error:
            raise ModelFileError(
                f"{folder} is not a readable model folder ({error}). It needs config.json, safetensors and a tokenizer."
            ) from error
        if not self._tokenizer.chat_template:
            raise InvalidInput(
                f"The tokenizer in {folder} has no chat template. Add chat_template.jinja to the folder."
            )
        self._model.train(False)
        special = [str(token) for token in self._tokenizer.added_tokens_decoder.values()]
        self._neutral = Neutraliser([*self._tokenizer.all_special_tokens, *special])
        self._context = int(getattr(self._model.config, "max_position_embeddings", 0) or 1 << 30)
        self._batch_tokens = batch_tokens

    def __call__(self, wanted: Sequence[Continuation]) -> list[LogProbability]:
        """See `Scorer`. What several requests share in full is computed once: "Yes" and "No" after one question cost
        as much as "Yes".

        Raises:
            InvalidInput: messages and text are longer than the model's context.
        """
        encoded = [self._encode(one) for one in wanted]
        # The last token of a text is only predicted, never read.
        texts: dict[tuple[int, ...], dict[tuple[int, ...], None]] = {}
        for before, text in encoded:
            if text:
                texts.setdefault(before + text[:-1], {})[text] = None
        found: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {}
        for batch in self._batches(list(texts)):
            for read, states in zip(batch, self._states(batch), strict=True):
                for text in texts[read]:
                    before = read[: len(read) - len(text) + 1]
                    found[before, text] = self._total(states[len(before) - 1 :], text)
        return [LogProbability(found.get(key, 0.0), len(key[1])) for key in encoded]

    def _encode(self, one: Continuation) -> tuple[tuple[int, ...], tuple[int, ...]]:
        messages = [{"role": said.role, "content": self._neutral(said.content)} for said in one.messages]
        opening = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        before, text = self._ids(opening), self._ids(self._neutral(one.text))
        if len(before) + len(text) > self._context:
            raise InvalidInput(
                f"A text to judge has {len(before) + len(text)} tokens with its messages; the model reads "
                f"{self._context}. Shorten it."
            )
        return before, text

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _batches(self, items: Sequence[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
        """Of about one length each, so that little of a batch is padding."""
        batch: list[tuple[int, ...]] = []
        for item in sorted(items, key=len):
            if batch and (len(batch) + 1) * len(item) > self._batch_tokens:
                yield batch
                batch = []
            batch.append(item)
        if batch:
            yield batch

    @torch.inference_mode()
    def _states(self, batch: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """The last layer's states, ``[tokens, width]`` for each."""
        longest = max(map(len, batch))
        # Padded on the right: a causal model never looks there, so any id will do and positions stay as they are.
        ids = torch.zeros((len(batch), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, read in enumerate(batch):
            ids[row, : len(read)] = torch.tensor(read)
            mask[row, : len(read)] = 1
        hidden: Tensor = self._model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        return [hidden[row, : len(read)] for row, read in enumerate(batch)]

    @torch.inference_mode()
    def _total(self, states: Tensor, text: tuple[int, ...]) -> float:
        """The state before a token predicts it."""
        logs = self._model.get_output_embeddings()(states).float().log_softmax(-1)
        return float(logs.gather(1, torch.tensor(text)[:, None]).sum())
