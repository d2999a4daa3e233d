"""A model in the form that OpenVINO GenAI loads, made once from a GGUF file or a safetensors folder.

The folder that `prepare_openvino` returns holds `openvino_model.xml/bin`, GenAI's own tokenizer and detokenizer
(needed for structured output only), `tokenizer.json` and `model.json` (see `openvino_folder.py`). It is named after the
source's hash, the precision and the converter's version, written in a temporary folder and renamed when complete.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trimtab.domain.errors import ModelFileError, Unavailable
from trimtab.domain.ownership import FolderLock

from .architecture import ARCHITECTURES, Architecture
from .complete import complete_folder
from .gguf_header import GgufHeader
from .hf_header import header_of
from .openvino_folder import CARD, TOKENIZER, card_of, full_tokenizer, write_card, write_native_tokenizer
from .openvino_graph import Precision, build
from .shelf import OnProgress, Progress, sha256_of
from .tensors import open_tensors

MODEL = "openvino_model.xml"
CONVERTER: dict[Precision, int] = {"int8": 3, "f16": 3, "int4": 4}
"""Raise it when the same source gives another folder: old folders are then left alone and not used."""
_PATIENCE = 600.0
"""Seconds to wait for another process that is converting the same model."""


def prepare_openvino(
    source: Path, cache_dir: Path, *, precision: Precision = "int8", on_progress: OnProgress | None = None
) -> Path:
    """The folder of `source` (a GGUF file, or a folder with config.json, safetensors and tokenizer.json) made
    over for OpenVINO GenAI, in `cache_dir`; made when it is not there.

    Raises:
        ModelFileError: the source is missing, damaged or of an unsupported kind, or the disk is full.
        Unavailable: another process has been converting the same model for ten minutes.
    """
    header = header_of(source)
    if header.architecture not in ARCHITECTURES:
        raise ModelFileError(
            f"{source} is a {header.architecture or 'nameless'!r} model; the openvino engine knows "
            f"{', '.join(ARCHITECTURES)}. Serve it with the llamacpp engine."
        )
    sha256 = _hash(source)
    target = folder_of(source, sha256, cache_dir, precision)
    if (target / CARD).is_file():
        return target
    with alone(cache_dir, target):
        if not (target / CARD).is_file():
            report = on_progress or (lambda _: None)
            written(target, source, lambda part: _write(source, sha256, part, precision, report))
    return target


def folder_of(source: Path, sha256: str, cache_dir: Path, precision: Precision) -> Path:
    """Where `prepare_openvino` puts it."""
    return cache_dir / f"{source.stem}.openvino-{precision}.{sha256[:16]}.v{CONVERTER[precision]}"


def _hash(source: Path) -> str:
    if not source.is_dir():
        return sha256_of(source)
    files = sorted(f for f in source.iterdir() if f.suffix in (".json", ".safetensors", ".jinja") and f.is_file())
    return hashlib.sha256(repr([(f.name, sha256_of(f)) for f in files]).encode()).hexdigest()


@contextmanager
def alone(cache_dir: Path, target: Path) -> Iterator[None]:
    """One process at a time; the others wait for its result."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            lock = FolderLock(cache_dir / f".{target.name}.lock", "A model that is being converted")
            break
        except Unavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
    try:
        yield
    finally:
        lock.release()


def written(target: Path, source: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder by `write(temporary folder)` and give it its name when it is complete.

    Raises:
        ModelFileError: the source cannot be used, or the disk is full.
    """
    try:
        with complete_folder(target) as part:
            write(part)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{source} cannot be converted: {_last_line(error)}. Fetch it again.") from error


def save(model: Any, folder: Path) -> None:
    """Write `openvino_model.xml/bin` and read their outline again.

    Raises:
        OSError: they could not be written whole; the native writer does not say why.
    """
    import openvino as ov

    try:
        ov.save_model(model, folder / MODEL, compress_to_fp16=False)
        ov.Core().read_model(folder / MODEL)
    except RuntimeError as error:
        raise OSError(errno.ENOSPC, f"no space left? {_last_line(error)}") from error


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["unknown"])[-1][:300]


def _write(source: Path, sha256: str, part: Path, precision: Precision, report: OnProgress) -> None:
    tensors = open_tensors(source)
    header = header_of(source)
    _check_vocabulary(header, tensors.architecture)
    steps = tensors.architecture.layers + 2
    report(Progress("OpenVINO model", 0, steps))
    model = build(tensors, precision, lambda layer: report(Progress("OpenVINO model", layer, steps)))
    save(model, part)
    report(Progress("OpenVINO model", steps - 1, steps))
    if source.is_dir():
        shutil.copyfile(source / TOKENIZER, part / TOKENIZER)
    else:
        full_tokenizer(header).save(str(part / TOKENIZER))
    write_native_tokenizer(header, part)
    write_card(
        card_of(header, tensors.architecture, sha256=sha256, converter=CONVERTER[precision], precision=precision), part
    )
    report(Progress("OpenVINO model", steps, steps))


def _check_vocabulary(header: GgufHeader, shape: Architecture) -> None:
    known = len(header.values.get("tokenizer.ggml.tokens", []))
    if known != shape.vocabulary:
        raise ValueError(f"its vocabulary has {known} tokens where its matrices have {shape.vocabulary}")
