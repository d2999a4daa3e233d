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

from .architecture import Architecture
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
    shape: Architecture
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
    adapters: tuple[str, ...] = ()
    """Names of the adapters inside; the first is in slot 1 (see `openvino_adapters.py`)."""
    fitted_to: int = 0
    """Tokens of text that its matrices were fitted to; 0: each number is rounded to the nearest."""
    fitted_texts: str = ""
    """Hash of those tokens."""


def read_card(folder: Path) -> ModelCard:
    """The card of a converted model.

    Raises:
        ModelFileError: the folder has no readable card.
    """
    try:
        values: dict[str, Any] = json.loads((folder / CARD).read_text("utf-8"))
        shape = values.pop("shape")
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        factors = tuple(shape.pop("rope_factors"))
        return ModelCard(**(values | lists), shape=Architecture(**shape, rope_factors=factors))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelFileError(
            f"{folder / CARD} cannot be read ({error}). Delete the folder {folder}; it is written again."
        ) from error


def write_card(card: ModelCard, folder: Path) -> None:
    (folder / CARD).write_text(json.dumps(asdict(card), indent=1), "utf-8")


def card_of(header: GgufHeader, shape: Architecture, *, sha256: str, converter: int, precision: str) -> ModelCard:
    """The card of a model whose header (or one like it) says how it is asked."""
    values = header.values
    tokens: list[str] = values.get("tokenizer.ggml.tokens", [])
    bos = values.get("tokenizer.ggml.bos_token_id")
    return ModelCard(
        name=header.name,
        shape=shape,
        source_sha256=sha256,
        converter=converter,
        precision=precision,
        chat_template=header.chat_template,
        context_length=shape.context,
        vocabulary=shape.vocabulary,
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


def write_native_tokenizer(header: GgufHeader, folder: Path) -> None:
    """OpenVINO GenAI's own tokenizer and detokenizer, which its structured output needs.

    Made from a file that holds the vocabulary only and that we wrote: the native reader sees nothing of the source's.
    """
    import openvino_genai

    vocabulary = folder / "vocabulary.gguf"
    _write_vocabulary(header, vocabulary)
    try:
        options: Any = {"enable_save_ov_model": True}
        openvino_genai.Tokenizer(str(vocabulary), **options)
    finally:
        vocabulary.unlink(missing_ok=True)


def _write_vocabulary(header: GgufHeader, file: Path) -> None:
    import gguf

    values = header.values
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(str(values["tokenizer.ggml.pre"]))
    writer.add_token_list(values["tokenizer.ggml.tokens"])
    writer.add_token_types(values["tokenizer.ggml.token_type"])
    writer.add_token_merges(values["tokenizer.ggml.merges"])
    for name in ("bos", "eos", "padding"):
        key = f"tokenizer.ggml.{name}_token_id"
        if key in values:
            writer.add_uint32(key, int(values[key]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
