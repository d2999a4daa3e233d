"""The weights that are served: a faster equal of the shipped file, written once.

llama.cpp reads a prompt slowly from Q4_1. The same weights can be written in other formats with the `gguf` package.
Measured by `benchmarks/weights.py` on a two-core machine that was also doing other work (compare rows):

    weights           MB   perplexity  KL to F16  same top token  answers of 15  prompt tok/s  1 request tok/s
    F16              244   32.5        0          100 %           10             310           41
    Q4_1 as shipped   98   32.7        0.004       97 %           10             183           42
    Q8_0             145   32.6        0.005       96 %           11             258           41
    Q4_0              92   37.5        0.270       67 %           13             401           50

Q8_0 is served: it says the same as the shipped file and reads prompts 1.4 times as fast. Q4_0 is faster still, but
another model: a third of its likeliest next tokens differ. (10 and 13 of 15 are too few to tell apart.)
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from .complete import complete_file
from .gguf_header import read_header
from .shelf import OnProgress, Progress, sha256_of

_Q4_1 = 3
SERVED = "Q8_0"
"""What a Q4_1 file is served as, see the table above."""


def prepare(path: Path, cache_dir: Path, on_progress: OnProgress | None = None) -> Path:
    """The file to serve for `path`: itself, or a faster equal of it, written into `cache_dir` once.

    Raises:
        ModelFileError: the file cannot be read, or the disk is full.
    """
    if _Q4_1 not in read_header(path).tensor_types.values():
        return path
    target = cache_dir / f"{path.stem}.{SERVED}.{sha256_of(path)[:16]}.gguf"
    if not target.exists():
        cache_dir.mkdir(parents=True, exist_ok=True)
        rewrite(path, target, SERVED, on_progress)
    return target


def form_path(source: Path, sha256: str, folder: Path, kind: str) -> Path:
    """Where `written_as` writes."""
    return folder / f"{source.stem}.{kind}.{sha256[:16]}.gguf"


def written_as(source: Path, folder: Path, kind: str, on_progress: OnProgress | None = None) -> Path:
    """`source` with all its matrices as `kind` (``f16``, ``q8_0``, ``q5_0``, ``q4_0``), written into `folder` once.

    Raises:
        ModelFileError: the file cannot be read, or the disk is full.
    """
    target = form_path(source, sha256_of(source), folder, kind)
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rewrite(source, target, kind.upper(), on_progress, every=True)
    return target


def rewrite(
    source: Path, target: Path, kind: str, on_progress: OnProgress | None = None, *, every: bool = False
) -> None:
    """Write `source` again with its Q4_1 matrices as `kind` (Q8_0, Q4_0, F16...); everything else byte for byte.
    `every`: with all its matrices as `kind`, whatever they were.

    One tensor is in memory at a time. The file gets its name when it is complete.

    Raises:
        ModelFileError: the file cannot be read, or the disk is full.
    """
    with complete_file(target) as part:
        _write(source, part, kind, on_progress or (lambda _: None), every)


def _write(source: Path, part: Path, kind: str, report: OnProgress, every: bool) -> None:
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(part, str(reader.fields["general.architecture"].contents()))
    _copy_values(reader, writer, kind)
    types = [_new_type(t, gguf.GGMLQuantizationType[kind], every) for t in reader.tensors]
    sizes = [_bytes(t, new) for t, new in zip(reader.tensors, types, strict=True)]
    for tensor, new, size in zip(reader.tensors, types, sizes, strict=True):
        shape = [
            int(n) for n in reversed(tensor.shape)
        ]  # GGUF counts dimensions from the innermost, numpy from the outermost
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), size, raw_dtype=new)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        done = 0
        for tensor, new, size in zip(reader.tensors, types, sizes, strict=True):
            writer.write_tensor_data(_converted(tensor, new))
            done += size
            report(Progress("faster weights", done, sum(sizes)))
    except BaseException:
        with contextlib.suppress(OSError):  # closing writes what is left, and a full disk refuses that, too
            writer.close()
        raise
    writer.close()


def _copy_values(reader: Any, writer: Any, kind: str) -> None:
    import gguf

    for name, value in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue  # the writer sets these itself
        contents = value.contents()
        if name == "general.file_type":
            contents = int(gguf.LlamaFileType[f"MOSTLY_{kind}"])
        inner = value.types[-1] if value.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, contents, value.types[0], sub_type=inner)


def _new_type(tensor: Any, wanted: Any, every: bool) -> Any:
    import gguf

    fits = every and len(tensor.shape) > 1 and int(tensor.shape[0]) % gguf.GGML_QUANT_SIZES[wanted][0] == 0
    return wanted if fits or int(tensor.tensor_type) == _Q4_1 else tensor.tensor_type


def _bytes(tensor: Any, kind: Any) -> int:
    import gguf

    per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    return int(tensor.n_elements) // per_block * block_bytes


def _converted(tensor: Any, kind: Any) -> Any:
    import gguf

    if kind == tensor.tensor_type:
        return tensor.data
    return gguf.quants.quantize(gguf.quants.dequantize(tensor.data, tensor.tensor_type), kind)
