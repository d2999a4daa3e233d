"""What a Hugging Face folder says about how its model is asked, in the words of a GGUF header.

So that everything above reads one kind of header. Only byte-level BPE vocabularies (`tokenizer.json`) are known. How
a text is cut before merging has no name in such a folder; whoever tokenises uses its `tokenizer.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trimtab.domain.errors import ModelFileError

from .gguf_header import GgufHeader, read_header

_NORMAL, _CONTROL, _UNUSED = 1, 3, 5


def header_of(source: Path) -> GgufHeader:
    """The header of a GGUF file, or one like it for a folder with `config.json` and `tokenizer.json`.

    Raises:
        ModelFileError: it is missing, damaged or has another kind of vocabulary.
    """
    if not source.is_dir():
        return read_header(source)
    try:
        return _of_folder(source)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{source} cannot be used: {error!r}. Choose another model or engine.") from error


def _of_folder(folder: Path) -> GgufHeader:
    config, tokenizer = _json(folder / "config.json"), _json(folder / "tokenizer.json")
    said = _json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    model = tokenizer["model"]
    if model["type"] != "BPE":
        raise ValueError(f"vocabularies of type {model['type']!r} are not supported")
    added = {int(t["id"]): str(t["content"]) for t in tokenizer.get("added_tokens", []) if t.get("special")}
    ids = {int(i): str(t) for t, i in model["vocab"].items()} | {
        int(t["id"]): str(t["content"]) for t in tokenizer.get("added_tokens", [])
    }
    size = int(config["vocab_size"])
    if not 0 < len(ids) <= 1 << 20 or not max(ids) < size <= 1 << 20:
        raise ValueError(f"its vocabulary of {len(ids)} does not fit {size} rows")
    values: dict[str, Any] = {
        "general.architecture": str(config["model_type"]),
        "general.name": folder.name,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        # Rows without a token exist in padded vocabularies.
        "tokenizer.ggml.tokens": [ids.get(i, f"[PAD{i}]") for i in range(size)],
        "tokenizer.ggml.token_type": [
            _CONTROL if i in added else _NORMAL if i in ids else _UNUSED for i in range(size)
        ],
        "tokenizer.ggml.merges": [m if isinstance(m, str) else " ".join(m) for m in model["merges"]],
        "tokenizer.ggml.add_bos_token": bool(said.get("add_bos_token", False)),
        "tokenizer.chat_template": _template(folder, said),
        f"{config['model_type']}.context_length": int(config.get("max_position_embeddings") or 0),
    }
    for name in ("bos", "eos", "padding"):
        one = config.get(f"{'pad' if name == 'padding' else name}_token_id")
        one = one[0] if isinstance(one, list) and one else one
        if isinstance(one, int) and 0 <= one < size:
            values[f"tokenizer.ggml.{name}_token_id"] = one
    return GgufHeader(folder, values, {})


def _template(folder: Path, said: dict[str, Any]) -> str:
    file = folder / "chat_template.jinja"
    return file.read_text("utf-8") if file.is_file() else str(said.get("chat_template") or "")


def _json(file: Path) -> dict[str, Any]:
    found = json.loads(file.read_text("utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{file.name} holds no object")
    return found
