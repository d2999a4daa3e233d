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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimtab.domain.errors import InvalidInput, ModelFileError, Unavailable
from trimtab.domain.ownership import FolderLock

from .architecture import ARCHITECTURES, Architecture
from .complete import complete_folder
from .gguf_header import GgufHeader
from .hf_header import header_of
from .openvino_folder import CARD, TOKENIZER, ModelCard, card_of, full_tokenizer, write_card, write_native_tokenizer
from .openvino_graph import GramOf, Precision, build
from .shelf import OnProgress, Progress, sha256_of
from .tensors import open_tensors

MODEL = "openvino_model.xml"
_SIXTEEN_BITS = {0, 1, 30}
"""GGML's numbers of float32, float16 and bfloat16."""
CONVERTER: dict[Precision, int] = {"int8": 3, "f16": 3, "int4": 4}
"""Raise it when the same source gives another folder: old folders are then left alone and not used."""
Conversation = Sequence[Mapping[str, str]]
"""Messages with ``role`` and ``content``, as a chat template takes them."""
_LONGEST, _ENOUGH = 512, 16_384
"""Tokens of one conversation that a model is fitted to, and of all of them."""
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
    _known(source)
    sha256 = _hash(source)
    target = folder_of(source, sha256, cache_dir, precision)
    if (target / CARD).is_file():
        return target
    with alone(cache_dir, target):
        if not (target / CARD).is_file():
            report = on_progress or (lambda _: None)
            written(target, source, lambda part: _write(source, sha256, part, precision, report))
    return target


def calibrate_openvino(
    source: Path, cache_dir: Path, conversations: Sequence[Conversation], *, on_progress: OnProgress | None = None
) -> Path:
    """The folder that `prepare_openvino` makes in 4 bits, with the numbers of the layers fitted to what the model reads
    in these conversations (see `four_bits.fitted`). It takes the place of one that is there.

    Raises:
        ModelFileError: the source is missing, damaged or of an unsupported kind, or the disk is full.
        InvalidInput: there is nothing to fit it to, or its matrices come in few bits already.
        Unavailable: another process has been converting the same model for ten minutes.
    """
    header, report = _known(source), on_progress or (lambda _: None)
    if not comes_whole(header):
        raise InvalidInput(
            f"The matrices of {header.name} come in few bits already, so nothing is gained by fitting them to texts. "
            "Use openvino/int4 as it is."
        )
    if not any(message["content"].strip() for messages in conversations for message in messages):
        raise InvalidInput("There is no text to fit the model to.")
    sha256 = _hash(source)
    target = folder_of(source, sha256, cache_dir, "int4")

    def write(part: Path) -> None:
        _write(source, sha256, part, "int4", report, conversations)
        shutil.rmtree(target, ignore_errors=True)  # the new one is whole: it takes the place

    with alone(cache_dir, target):
        written(target, source, write)
    return target


def _known(source: Path) -> GgufHeader:
    header = header_of(source)
    if header.architecture not in ARCHITECTURES:
        raise ModelFileError(
            f"{source} is a {header.architecture or 'nameless'!r} model; the openvino engine knows "
            f"{', '.join(ARCHITECTURES)}. Serve it with the llamacpp engine."
        )
    return header


def comes_whole(header: GgufHeader) -> bool:
    """Whether the matrices of its layers have 16 bits and more, so that fewer are a choice."""
    matrices = {n: k for n, k in header.tensor_types.items() if n.startswith("blk.") and len(header.places[n][0]) > 1}
    return set(matrices.values()) <= _SIXTEEN_BITS


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


def _write(
    source: Path,
    sha256: str,
    part: Path,
    precision: Precision,
    report: OnProgress,
    conversations: Sequence[Conversation] = (),
) -> None:
    tensors = open_tensors(source)
    header = header_of(source)
    _check_vocabulary(header, tensors.architecture)
    if source.is_dir():
        shutil.copyfile(source / TOKENIZER, part / TOKENIZER)
    else:
        full_tokenizer(header).save(str(part / TOKENIZER))
    card = card_of(header, tensors.architecture, sha256=sha256, converter=CONVERTER[precision], precision=precision)
    gram_of: GramOf | None = None
    if conversations:
        from .calibration import Grams

        texts = _as_ids(conversations, part, card)
        gram_of = Grams(tensors, texts, lambda done, of: report(Progress("Reading texts", done, of))).of
        digest = hashlib.sha256(repr(texts).encode()).hexdigest()
        card = replace(card, fitted_to=sum(map(len, texts)), fitted_texts=digest[:16])
    steps = tensors.architecture.layers + 2
    report(Progress("OpenVINO model", 0, steps))
    model = build(tensors, precision, lambda layer: report(Progress("OpenVINO model", layer, steps)), gram_of)
    save(model, part)
    report(Progress("OpenVINO model", steps - 1, steps))
    write_native_tokenizer(header, part)
    write_card(card, part)
    report(Progress("OpenVINO model", steps, steps))


def _as_ids(conversations: Sequence[Conversation], part: Path, card: ModelCard) -> list[list[int]]:
    """As the model's own template writes them, as many as are enough."""
    from .openvino_server.prompt import Prompter
    from .openvino_server.refusal import Refusal

    prompter, found, tokens = Prompter(part, card), [], 0
    for messages in conversations:
        try:
            ids = prompter.chat(messages, {"add_generation_prompt": False})
        except Refusal:  # the model has no template, or its template no such turn
            ids = prompter.text("\n".join(message["content"] for message in messages))
        if ids := ids[:_LONGEST]:
            found.append(ids)
            tokens += len(ids)
        if tokens >= _ENOUGH:
            break
    return found


def _check_vocabulary(header: GgufHeader, shape: Architecture) -> None:
    known = len(header.values.get("tokenizer.ggml.tokens", []))
    if known != shape.vocabulary:
        raise ValueError(f"its vocabulary has {known} tokens where its matrices have {shape.vocabulary}")
