"""What a GGUF file says about itself, read in a fraction of a second and without trusting it.

Only the key-value header and the list of tensors are read, never their numbers. Every count is compared with the file's
size before anything is allocated, so a damaged or hostile file costs an error, not memory.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.domain.errors import ModelFileError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_KEYS = 4096
_MAX_TENSORS = 1 << 16
_CONTROL, _USER_DEFINED = 3, 4


@dataclass(frozen=True)
class GgufHeader:
    """The key-value pairs, and the few of them that decide how a model is asked."""

    path: Path
    values: dict[str, Any] = field(repr=False)
    tensor_types: dict[str, int] = field(repr=False)
    """GGML type number of each tensor."""
    places: dict[str, tuple[tuple[int, ...], int]] = field(default_factory=dict, repr=False)
    """Of each tensor: its shape, outermost dimension first, and where in the file it begins."""

    @property
    def architecture(self) -> str:
        return str(self.values.get("general.architecture", ""))

    @property
    def name(self) -> str:
        return str(self.values.get("general.name", "") or self.path.stem)

    @property
    def chat_template(self) -> str:
        return str(self.values.get("tokenizer.chat_template", ""))

    @property
    def context_length(self) -> int:
        """Tokens the model was trained for; 0 when the file does not say."""
        return int(self.values.get(f"{self.architecture}.context_length", 0))

    @property
    def special_tokens(self) -> tuple[str, ...]:
        """Texts that the tokenizer turns into control tokens, longest first."""
        tokens = self.values.get("tokenizer.ggml.tokens", [])
        kinds = self.values.get("tokenizer.ggml.token_type", [])
        special = {
            t for t, kind in zip(tokens, kinds, strict=False) if kind in (_CONTROL, _USER_DEFINED) and len(t) > 1
        }
        return tuple(sorted(special, key=lambda t: (-len(t), t)))


def read_header(path: Path) -> GgufHeader:
    """Read a file's header.

    Raises:
        ModelFileError: the file is missing, no GGUF, or damaged.
    """
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, data)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror}). Check the path.") from error
    except (struct.error, ValueError, UnicodeDecodeError, KeyError) as error:
        raise ModelFileError(f"{path} is damaged: its header cannot be read ({error}). Fetch it again.") from error


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def string(self) -> str:
        length = self.scalar("Q")
        if length > len(self.data) - self.at:
            raise ValueError("a string is longer than the file")
        start, self.at = self.at, self.at + length
        # A few vocabularies hold pieces that are no UTF-8 on their own.
        return self.data[start : self.at].decode("utf-8", errors="replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array()
        return self.scalar(_SCALARS[kind])

    def array(self) -> list[Any]:
        kind, count = self.scalar("I"), self.scalar("Q")
        if kind == _ARRAY:
            raise ValueError("arrays of arrays are not used by any model")
        width = 8 if kind == _STRING else struct.calcsize("<" + _SCALARS[kind])
        if count * width > len(self.data) - self.at:
            raise ValueError("an array is longer than the file")
        if kind == _STRING:
            return [self.string() for _ in range(count)]
        values = struct.unpack_from(f"<{count}{_SCALARS[kind]}", self.data, self.at)
        self.at += count * width
        return list(values)


def _parse(path: Path, data: mmap.mmap) -> GgufHeader:
    reader = _Reader(data)
    if data[:4] != b"GGUF":
        raise ValueError("it does not begin with 'GGUF'")
    reader.at = 4
    version, tensors, keys = reader.scalar("I"), reader.scalar("Q"), reader.scalar("Q")
    if version not in (2, 3):
        raise ValueError(f"GGUF version {version} is not known")
    if keys > _MAX_KEYS:
        raise ValueError(f"{keys} keys")
    values: dict[str, Any] = {}
    for _ in range(keys):
        key = reader.string()
        values[key] = reader.value(reader.scalar("I"))
    types, places = _tensors(reader, tensors)
    alignment = int(values.get("general.alignment", 32))
    if not 0 < alignment <= 1 << 16:
        raise ValueError(f"an alignment of {alignment}")
    start = -(-reader.at // alignment) * alignment
    return GgufHeader(path, values, types, {name: (shape, start + at) for name, (shape, at) in places.items()})


def _tensors(reader: _Reader, count: int) -> tuple[dict[str, int], dict[str, tuple[tuple[int, ...], int]]]:
    if count > _MAX_TENSORS:
        raise ValueError(f"{count} tensors")
    types: dict[str, int] = {}
    places: dict[str, tuple[tuple[int, ...], int]] = {}
    last = 0
    for _ in range(count):
        name = reader.string()
        dimensions = reader.scalar("I")
        if dimensions > 4:
            raise ValueError(f"a tensor of {dimensions} dimensions")
        shape = tuple(reader.scalar("Q") for _ in range(dimensions))[::-1]  # the file counts from the innermost
        types[name] = reader.scalar("I")
        places[name] = shape, reader.scalar("Q")
        last = max(last, places[name][1])
    if reader.at + last > len(reader.data):
        raise ValueError("the file ends before its last tensor")
    return types, places
