"""How likely a model finds a text as the answer to messages: what every form of judging is made of.

`Scorer` is the contract. `NetworkScorer` reads with the network that is being aligned, wearing an adapter or none, so
that judging needs no second copy of the weights; a system message that many requests share (a principle) is read once
a batch. `TorchScorer` reads any causal model that transformers knows, from a folder. Another implementation may ask an
engine for its log-probabilities.

Only the logits of the answer's tokens are computed: over a vocabulary of 49,000 those of the prompt would be most of
the memory. What several requests share in full is read once: "Yes" and "No" after one question cost as much as "Yes".
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
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

from .adapter import Adapter
from .base import Base
from .forest import Forest, Ids
from .network import Network

_ALIKE = 24
"""Requests are batched with those that begin with the same tokens, about a system message's worth."""


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
        """The log-probability of each text after its messages, in the order given.

        Raises:
            InvalidInput: messages and text are longer than the model's context.
        """
        ...


class NetworkScorer:
    """The model that is being aligned, as it stands with an adapter, or as the base without one.

    score = NetworkScorer(base, network)
    score([Continuation((Said("user", "Is 2 even?"),), "Yes")])[0].mean
    """

    def __init__(
        self, base: Base, network: Network, adapter: Adapter | None = None, *, batch_tokens: int = 2048
    ) -> None:
        self._base = base
        self._network = network
        self._adapter = adapter
        self._batch_tokens = batch_tokens

    def __call__(self, wanted: Sequence[Continuation]) -> list[LogProbability]:
        """See `Scorer`."""
        encoded = [(self._base.prompt_ids(one.messages), self._base.text_ids(one.text)) for one in wanted]
        _check(encoded, self._network.shape.context)
        return _score(encoded, self._states, self._network.logits, self._batch_tokens)

    def _states(self, batch: Sequence[Ids]) -> list[Tensor]:
        forest = Forest(batch)
        return forest.apart(self._network.upper(self._network.trunk(forest), forest, self._adapter))


class TorchScorer:
    """A causal language model with a chat template, from a folder, in fp32 on the processor.

    score = TorchScorer(folder)
    """

    def __init__(self, folder: Path, *, batch_tokens: int = 2048) -> None:
        """Load the model.

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
        """See `Scorer`."""
        encoded = [(self._opening(one.messages), self._ids(self._neutral(one.text))) for one in wanted]
        _check(encoded, self._context)
        return _score(encoded, self._states, self._model.get_output_embeddings(), self._batch_tokens)

    def _opening(self, said: Sequence[Said]) -> Ids:
        messages = [{"role": one.role, "content": self._neutral(one.content)} for one in said]
        return self._ids(self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _ids(self, text: str) -> Ids:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _states(self, batch: Sequence[Ids]) -> Tensor:
        ids, mask = _padded(batch)
        states: Tensor = self._model.base_model(input_ids=ids, attention_mask=mask).last_hidden_state
        return states


def _check(encoded: Sequence[tuple[Ids, Ids]], context: int) -> None:
    longest = max((len(before) + len(text) for before, text in encoded), default=0)
    if longest > context:
        raise InvalidInput(
            f"A text to judge has {longest} tokens with its messages; the model reads {context}. Shorten it."
        )


@torch.inference_mode()
def _score(
    encoded: Sequence[tuple[Ids, Ids]],
    states_of: Callable[[Sequence[Ids]], Iterable[Tensor]],
    logits: Callable[[Tensor], Tensor],
    batch_tokens: int,
) -> list[LogProbability]:
    """`states_of` gives the last layer's output of each text ``[T, width]``; `logits` reads the vocabulary off it."""
    # The last token of a text is only predicted, never read.
    texts: dict[Ids, dict[Ids, None]] = {}
    for before, text in encoded:
        if text:
            texts.setdefault(before + text[:-1], {})[text] = None
    found: dict[tuple[Ids, Ids], float] = {}
    for batch in _batches(list(texts), batch_tokens):
        for read, states in zip(batch, states_of(batch), strict=True):
            for text in texts[read]:
                start = len(read) - len(text)
                # The state before a token predicts it.
                logs = logits(states[start : len(read)]).float().log_softmax(-1)
                found[read[: start + 1], text] = float(logs.gather(1, torch.tensor(text)[:, None]).sum())
    return [LogProbability(found.get(key, 0.0), len(key[1])) for key in encoded]


def _batches(items: Sequence[Ids], batch_tokens: int) -> Iterator[list[Ids]]:
    """Those that begin alike together, then by length, so that little of a batch is padding."""
    batch: list[Ids] = []
    longest = 0
    for item in sorted(items, key=lambda ids: (ids[:_ALIKE], len(ids), ids)):
        longest = max(longest, len(item))
        if batch and (len(batch) + 1) * longest > batch_tokens:
            yield batch
            batch, longest = [], len(item)
        batch.append(item)
    if batch:
        yield batch


def _padded(batch: Sequence[Ids]) -> tuple[Tensor, Tensor]:
    """Ids and mask, padded on the right: a causal model never looks there, so any id will do."""
    ids = torch.zeros((len(batch), max(map(len, batch))), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, read in enumerate(batch):
        ids[row, : len(read)] = torch.tensor(read)
        mask[row, : len(read)] = 1
    return ids, mask
