"""Which engine serves a model, and why, in words for `trimtab doctor`."""

from __future__ import annotations

import importlib.util
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trimtab.domain.errors import InvalidInput

from .gguf_header import read_header

EngineName = Literal["openvino", "llamacpp"]
WantedEngine = Literal["auto", "openvino", "llamacpp"]
_X86 = ("x86_64", "amd64")


@dataclass(frozen=True)
class Choice:
    """An engine and the reason for it."""

    engine: EngineName
    reason: str
    fallback: bool = False
    """Whether llama.cpp may take over if this one cannot: nobody asked for it by name."""


def choose(weights: Path, wanted: WantedEngine = "auto", *, native_tools: bool = False) -> Choice:
    """The engine for a GGUF file.

    Args:
        native_tools: the model calls tools by itself, so the engine should read the calls out of its answers.

    Raises:
        InvalidInput: `openvino` was asked for and cannot run here or cannot read this model; says why.
        ModelFileError: the file cannot be read.
    """
    if wanted == "llamacpp":
        return Choice("llamacpp", "the setting `engine` says so")
    obstacle = _obstacle(weights)
    if wanted == "openvino":
        if obstacle:
            raise InvalidInput(f"The openvino engine cannot serve {weights.name}: {obstacle}. Set `engine` to auto.")
        return Choice("openvino", "the setting `engine` says so")
    if obstacle:
        return Choice("llamacpp", f"openvino cannot: {obstacle}")
    if platform.machine().lower() not in _X86:
        return Choice(
            "llamacpp", f"openvino was measured to be faster on x86-64 only, and this is {platform.machine()}"
        )
    if native_tools:
        return Choice("llamacpp", "this model calls tools by itself, and llama.cpp reads the calls out of its answers")
    return Choice("openvino", "it reads prompts faster than llama.cpp on an x86-64 processor (measured: 3 times)", True)


def _obstacle(weights: Path) -> str:
    """What keeps openvino from serving this file, or nothing."""
    from .architecture import ARCHITECTURES

    if sys.platform == "win32":
        return "it does not run on Windows"
    if importlib.util.find_spec("openvino_genai") is None:
        return "the package openvino-genai is not installed"
    header = read_header(weights)
    if header.architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        return f"it reads the architectures {known}, and this model is of the architecture {header.architecture!r}"
    if header.values.get("tokenizer.ggml.model") != "gpt2":
        return "it needs a byte-level vocabulary, and this model has another kind"
    return ""
