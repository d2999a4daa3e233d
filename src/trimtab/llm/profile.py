"""Which profile a model gets: how it is asked, and what it is trusted to do on its own.

For a file the decision comes from its header: below about three billion parameters a model neither chooses tools nor
abstains reliably (measured at 0.135, 0.5 and 1.5 billion), so it is guided and quotes. A bigger one calls tools
natively if its chat template knows tools. A remote model is taken to be capable unless told otherwise.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.domain.model import Profile, Sampling

from .gguf_header import GgufHeader, read_header

CAPABLE_PARAMETERS = 2.8e9
"""What is sold as "3B" begins here."""

SMALL = Sampling(temperature=0.3, min_p=0.1, max_tokens=384)
"""Cool and narrow. No repeat penalty: 1.15 halved the right answers of the smallest model."""

CAPABLE = Sampling(temperature=0.7, top_p=0.95, max_tokens=1024)

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([MBT])\b", re.IGNORECASE)
_UNIT = {"m": 1e6, "b": 1e9, "t": 1e12}


def profile_for(
    model: Path | str, *, slot_context: int = 4096, base_url: str = "", name: str = "", **overrides: Any
) -> Profile:
    """The profile of a GGUF file (a `Path`) or of a remote model (its name).

    Args:
        slot_context: tokens a request may have, as the engine or the server was set up.
        base_url: the remote server's address.
        name: what to call it, if not by its file name.
        overrides: fields of `Profile` that a person set; they win over what was found.

    Raises:
        ModelFileError: the file cannot be read.
    """
    if isinstance(model, Path):
        found = _local(read_header(model), slot_context)
        found = replace(found, name=name or model.stem)
    else:
        found = Profile(
            name=name or model,
            tools="native",
            grounding="write",
            context_tokens=slot_context,
            sampling=CAPABLE,
            base_url=base_url,
        )
    return replace(found, **overrides)


def _local(header: GgufHeader, slot_context: int) -> Profile:
    capable = parameters(header) >= CAPABLE_PARAMETERS
    template = header.chat_template
    return Profile(
        name=header.name,
        tools="native" if capable and "tools" in template else "guided",
        grounding="write" if capable else "quote",
        context_tokens=min(slot_context, header.context_length or slot_context),
        chat_template="",  # the engine applies the file's own
        system_role="system" in template or "message['role']" in template or "message.role" in template,
        sampling=CAPABLE if capable else SMALL,
        version=str(header.values.get("general.version", "")),
    )


def parameters(header: GgufHeader) -> float:
    """How many parameters a model has, by its size label, else from its dimensions.

    The dimensions give an estimate within a fifth for the transformer shapes in use, mixtures of experts included.
    """
    label = _SIZE.search(str(header.values.get("general.size_label", "")))
    if label:
        return float(label[1]) * _UNIT[label[2].lower()]
    arch = header.architecture

    def number(key: str) -> float:
        value = header.values.get(f"{arch}.{key}", 0)
        return float(max(value) if isinstance(value, list) and value else value or 0)

    width, depth = number("embedding_length"), number("block_count")
    experts = max(1.0, number("expert_count"))
    vocabulary = len(header.values.get("tokenizer.ggml.tokens", []))
    return width * (depth * (4 * width + 3 * experts * number("feed_forward_length")) + vocabulary)
