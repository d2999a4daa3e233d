"""A GGUF model as a folder that transformers loads and trains: float32 safetensors, configuration and tokenizer.

transformers reads GGUF itself (`gguf_file=`), slowly and each time anew; this is written once and loads in a fraction
of a second. The logits are the same (tests/llm/test_unpacked.py). Writing it needs neither torch nor transformers.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab.domain.errors import ModelFileError

from .architecture import Architecture
from .complete import complete_folder
from .gguf_header import GgufHeader, read_header
from .openvino_folder import ModelCard, card_of, full_tokenizer
from .shelf import OnProgress, Progress
from .tensors import Tensors, gguf_name, hf_name, open_tensors

if TYPE_CHECKING:
    import numpy as np

_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
_PAD = "<|endoftext|>"
"""Padding by the end token would teach a model trained on padded text to ignore its end."""


def safetensors_folder(gguf: Path, target: Path, on_progress: OnProgress | None = None) -> Path:
    """Write a GGUF model into the folder `target` (which must not exist, or be whole already) and return it.

    Raises:
        ModelFileError: the file is damaged or of an unsupported kind, or the disk is full.
    """
    if (target / "model.safetensors").is_file() and (target / "config.json").is_file():
        return target
    header, tensors = read_header(gguf), open_tensors(gguf)
    try:
        with complete_folder(target) as part:
            _write(header, tensors, part, on_progress or (lambda _: None))
    except (ValueError, KeyError) as error:
        raise ModelFileError(f"{gguf} cannot be unpacked: {error}. Fetch it again.") from error
    return target


def _write(header: GgufHeader, tensors: Tensors, part: Path, report: OnProgress) -> None:
    shape = tensors.architecture
    if shape.rope_factors:
        raise ValueError("its rotary factors cannot be said in a config.json")
    card = card_of(header, shape, sha256="", converter=0, precision="float32")
    full_tokenizer(header).save(str(part / "tokenizer.json"))
    tokens: list[str] = header.values["tokenizer.ggml.tokens"]
    pad = tokens.index(_PAD) if _PAD in card.special_tokens else card.end_ids[0] if card.end_ids else 0
    ids = {"bos_token_id": card.bos_id, "eos_token_id": card.end_ids[0] if card.end_ids else None, "pad_token_id": pad}
    _json(part / "config.json", _config(shape, tensors) | ids)
    _json(part / "generation_config.json", ids)
    _json(part / "tokenizer_config.json", _tokenizer_config(card, tokens, ids))
    names = ["lm_head.weight"] if "lm_head.weight" in tensors else []
    names += [hf_name(name) for name in header.places if name != "rope_freqs.weight"]
    save_tensors(part / "model.safetensors", tensors, list(dict.fromkeys(names)), header, report)


def _config(shape: Architecture, tensors: Tensors) -> dict[str, Any]:
    return {
        "architectures": [_CLASSES[shape.kind]],
        "model_type": shape.kind,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head,
        "vocab_size": shape.vocabulary,
        "rms_norm_eps": shape.epsilon,
        "rope_theta": shape.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_base},
        "max_position_embeddings": shape.context or 2048,
        "hidden_act": "silu",
        "attention_bias": shape.kind == "llama" and "model.layers.0.self_attn.q_proj.bias" in tensors,
        "mlp_bias": False,
        "tie_word_embeddings": "lm_head.weight" not in tensors,
        "dtype": "float32",
    }


def _tokenizer_config(card: ModelCard, tokens: list[str], ids: dict[str, int | None]) -> dict[str, Any]:
    named = {key.removesuffix("_id"): tokens[i] for key, i in ids.items() if i is not None}
    return named | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": card.chat_template,
        "model_max_length": card.context_length or 2048,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": card.adds_bos,
    }


def _json(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=1, ensure_ascii=False), "utf-8")


def save_tensors(file: Path, tensors: Tensors, names: list[str], header: GgufHeader, report: OnProgress) -> None:
    """A safetensors file of float32, one tensor in memory at a time."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in names:
        shape = header.places[gguf_name(name)][0]
        size = 4 * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(entries).encode()
    head += b" " * (-len(head) % 8)
    with file.open("wb") as stream:
        stream.write(len(head).to_bytes(8, "little") + head)
        for name, numbers in _each(tensors, names):
            if list(numbers.shape) != entries[name]["shape"]:
                raise ValueError(f"{name} has another shape than the file says")
            stream.write(numbers.tobytes())
            report(Progress("float32 weights", entries[name]["data_offsets"][1], at))
        stream.flush()
        os.fsync(stream.fileno())


def _each(tensors: Tensors, names: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    for name in names:
        yield name, tensors.get(name)
