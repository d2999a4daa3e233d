"""A folder of safetensors as a GGUF file that says everything else as another GGUF file does.

For a model that was made from an installed one: vocabulary, chat template and all other keys are copied from that, only
the number of layers and the name are its own. Matrices are 16 bits, vectors 32, as llama.cpp's converter writes them.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from trimtab.domain.errors import ModelFileError

from .complete import complete_file
from .gguf_header import read_header
from .tensors import SafeFolder, heads_of, hf_name, open_tensors, to_gguf_rows


def gguf_of(folder: Path, like: Path, target: Path, name: str) -> Path:
    """Write `folder` as `target`, with the keys of the GGUF file `like`.

    Raises:
        ModelFileError: a file is damaged, the two are no kin, or the disk is full.
    """
    tensors = open_tensors(folder)
    assert isinstance(tensors, SafeFolder)
    try:
        with complete_file(target) as part:
            _write(tensors, like, part, name)
    except (KeyError, ValueError) as error:
        raise ModelFileError(f"{folder} cannot be packed like {like}: {error}. Make it again.") from error
    return target


def _write(tensors: SafeFolder, like: Path, part: Path, name: str) -> None:
    import gguf
    import numpy as np

    reader, header, shape = gguf.GGUFReader(like), read_header(like), tensors.architecture
    if header.architecture != shape.kind:
        raise ValueError(f"one is {shape.kind}, the other {header.architecture}")
    writer = gguf.GGUFWriter(part, header.architecture)
    own: dict[str, Any] = {
        "general.file_type": int(gguf.LlamaFileType.MOSTLY_F16),
        "general.name": name,
        f"{header.architecture}.block_count": shape.layers,
    }
    for key, value in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            inner = value.types[-1] if value.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, own.get(key, value.contents()), value.types[0], sub_type=inner)
    names = [one for one in header.places if not one.startswith("blk.") or int(one.split(".")[1]) < shape.layers]
    for one in names:
        sizes = list(_shape_of(tensors, one, header.places[one][0]))
        wide = len(sizes) > 1
        kind = gguf.GGMLQuantizationType.F16 if wide else gguf.GGMLQuantizationType.F32
        count = int(np.prod(sizes))
        writer.add_tensor_info(one, sizes, np.dtype(np.float32), count * (2 if wide else 4), raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for one in names:
            numbers = _numbers(tensors, one)
            writer.write_tensor_data(numbers.astype(np.float16 if numbers.ndim > 1 else np.float32))
    except BaseException:
        with contextlib.suppress(OSError):  # closing writes what is left, and a full disk refuses that, too
            writer.close()
        raise
    writer.close()


def _shape_of(tensors: SafeFolder, name: str, known: tuple[int, ...]) -> tuple[int, ...]:
    """The shape a tensor has in the file whose keys are copied; the folder must have it, too.

    Raises:
        KeyError: the folder does not have it.
    """
    if hf_name(name) not in tensors:
        raise KeyError(name)
    return known


def _numbers(tensors: SafeFolder, name: str) -> Any:
    numbers = tensors.get(hf_name(name))
    heads = heads_of(hf_name(name), tensors.architecture)
    return to_gguf_rows(numbers, heads) if heads else numbers
