"""How many tokens a text is: exactly, for the vocabularies we can rebuild, else an estimate on the safe side.

A GGUF file carries its vocabulary and merges; with them the `tokenizers` library counts in microseconds, in this
process, without asking a busy engine. For the default model that is exact: the tests compare it with the engine's own
count. The other pre-tokenizers in `_PRE` cut as llama.cpp does, but were not compared, for want of such a model.

For other files, and for remote models, the count is estimated from the text's shape: four letters or one digit, sign or
line end a token, two bytes of anything else. English is over-counted by about half, so trimming a thread by it keeps
too little rather than too much; a vocabulary made for English only may still need more for other languages (German with
SmolLM2's: up to 1.5 times the estimate).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.domain.errors import ModelFileError
from trimtab.domain.model import TokenCounter

from .gguf_header import GgufHeader, read_header

if TYPE_CHECKING:
    from tokenizers import Tokenizer

COUNTED_CHARS = 1_000_000
"""Longer texts are estimated: nobody who has that much text needs the last token of it."""

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_PRE = {"smollm": "digits", "gpt-2": "bytes", "llama-bpe": _LLAMA3, "qwen2": _QWEN2}
"""GGUF's name of a pre-tokenizer to how a text is cut before merging."""

_PIECE = re.compile(r"[A-Za-z]{1,4}|[0-9]|\n|[!-/:-@\[-`{-~]")
_BEYOND = re.compile(r"[^\x00-\x7f]+")


def estimate(texts: Sequence[str]) -> list[int]:
    """Tokens of each text for a vocabulary we do not have; meant to be too many rather than too few."""
    return [len(_PIECE.findall(t)) + sum(_halves(m) for m in _BEYOND.findall(t)) for t in texts]


def _halves(text: str) -> int:
    return (len(text.encode("utf-8", "replace")) + 1) // 2


class VocabularyCounter:
    """Exact counts with a GGUF file's own vocabulary."""

    def __init__(self, header: GgufHeader) -> None:
        self._tokenizer = bare_tokenizer(header)

    def __call__(self, texts: Sequence[str]) -> list[int]:
        short = [t if len(t) <= COUNTED_CHARS else "" for t in texts]
        counted = self._tokenizer.encode_batch_fast(short, add_special_tokens=False)
        return [
            len(c.ids) if len(t) <= COUNTED_CHARS else estimate([t])[0] for t, c in zip(texts, counted, strict=True)
        ]

    def ids(self, text: str) -> list[int]:
        """Token ids of a text. Special tokens in it are text."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)


def counter_for(model: Path | None = None) -> TokenCounter:
    """The best counter for a model file; `None` means a remote model, whose vocabulary we do not have.

    Raises:
        ModelFileError: the file cannot be read.
    """
    if model is None:
        return estimate
    try:
        changed = model.stat().st_mtime_ns
    except OSError as error:
        raise ModelFileError(f"{model} cannot be read ({error.strerror}). Check the path.") from error
    return _counter(model, changed)


@lru_cache(maxsize=8)
def _counter(model: Path, _changed: int) -> TokenCounter:
    header = read_header(model)
    return VocabularyCounter(header) if is_known(header) else estimate


def is_known(header: GgufHeader) -> bool:
    """Whether the file's vocabulary is of a kind that we can rebuild."""
    return header.values.get("tokenizer.ggml.model") == "gpt2" and header.values.get("tokenizer.ggml.pre") in _PRE


def bare_tokenizer(header: GgufHeader) -> Tokenizer:
    """The file's tokenizer without its special tokens: every text is text.

    Raises:
        ModelFileError: the vocabulary is of another kind, or incomplete.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    values = header.values
    if not is_known(header) or "tokenizer.ggml.merges" not in values or "tokenizer.ggml.tokens" not in values:
        kind = f"{values.get('tokenizer.ggml.model')}/{values.get('tokenizer.ggml.pre')}"
        raise ModelFileError(
            f"{header.path} has a vocabulary of a kind we cannot rebuild ({kind}). Choose another model or engine."
        )
    vocabulary = {token: i for i, token in enumerate(values["tokenizer.ggml.tokens"])}
    merges = [tuple(pair.split(" ", 1)) for pair in values["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(
        BPE(vocab=vocabulary, merges=merges, ignore_merges=values["tokenizer.ggml.pre"] == "llama-bpe")
    )
    tokenizer.pre_tokenizer = _cut(_PRE[values["tokenizer.ggml.pre"]])
    return tokenizer


def _cut(how: str) -> Any:
    from tokenizers import Regex, pre_tokenizers

    if how == "bytes":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if how == "digits":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    split = pre_tokenizers.Split(Regex(how), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
