"""What a converted model's folder says about itself: `model.json` and `tokenizer.json` beside OpenVINO's own files.

The server of the engine needs no GGUF reader and no transformers: the card says how the model is asked (template, ends,
special tokens, context), and `tokenizer.json` is read by the `tokenizers` package.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.domain.errors import ModelFileError

from .gguf_header import GgufHeader
from .tokens import bare_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CARD, TOKENIZER = "model.json", "tokenizer.json"
_ENDS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
_END_TEXTS = ("<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<|end_of_text|>", "<|end|>", "</s>")


@dataclass(frozen=True)
class ModelCard:
    """How the converted model is asked."""

    name: str
    architecture: str
    source_sha256: str
    converter: int
    """Version of the code that wrote the folder."""
    precision: str
    chat_template: str
    context_length: int
    """Tokens the model was trained for; 0 when the source does not say."""
    vocabulary: int
    """Width of the logits."""
    bos_id: int | None
    adds_bos: bool
    """Whether a prompt begins with `bos_id` although the template does not write it."""
    end_ids: tuple[int, ...]
    """Token ids that end an answer; the first is the model's own."""
    special_tokens: tuple[str, ...]
    """Texts that are control tokens when parsed as such, longest first."""


def read_card(folder: Path) -> ModelCard:
    """The card of a converted model.

    Raises:
        ModelFileError: the folder has no readable card.
    """
    try:
        values = json.loads((folder / CARD).read_text("utf-8"))
        return ModelCard(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (OSError, ValueError, TypeError) as error:
        raise ModelFileError(
            f"{folder / CARD} cannot be read ({error}). Delete the folder {folder}; it is written again."
        ) from error


def write_card(card: ModelCard, folder: Path) -> None:
    (folder / CARD).write_text(json.dumps(asdict(card), indent=1), "utf-8")


def card_of(header: GgufHeader, *, sha256: str, converter: int, precision: str) -> ModelCard:
    """The card of a GGUF file."""
    values = header.values
    tokens: list[str] = values.get("tokenizer.ggml.tokens", [])
    bos = values.get("tokenizer.ggml.bos_token_id")
    return ModelCard(
        name=header.name,
        architecture=header.architecture,
        source_sha256=sha256,
        converter=converter,
        precision=precision,
        chat_template=header.chat_template,
        context_length=header.context_length,
        vocabulary=len(tokens),
        bos_id=None if bos is None else int(bos),
        adds_bos=bool(values.get("tokenizer.ggml.add_bos_token", False)),
        end_ids=_end_ids(values, tokens, header.special_tokens),
        special_tokens=header.special_tokens,
    )


def _end_ids(values: dict[str, Any], tokens: list[str], special: tuple[str, ...]) -> tuple[int, ...]:
    """The declared ends, and the special tokens that mean an end in every family we know."""
    declared = [int(values[key]) for key in _ENDS if key in values]
    known = [tokens.index(text) for text in _END_TEXTS if text in special]
    return tuple(dict.fromkeys(i for i in declared + known if 0 <= i < len(tokens)))


def full_tokenizer(header: GgufHeader) -> Tokenizer:
    """The file's tokenizer, special tokens and decoding included.

    With `encode_special_tokens = True` on it, special tokens in a text are encoded as plain text.

    Raises:
        ModelFileError: a kind of vocabulary that we cannot rebuild.
    """
    from tokenizers import AddedToken, decoders

    tokenizer = bare_tokenizer(header)
    tokenizer.decoder = decoders.ByteLevel()
    ids = {text: i for i, text in enumerate(header.values["tokenizer.ggml.tokens"])}
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in sorted(header.special_tokens, key=ids.__getitem__)]
    )
    return tokenizer
