"""The default embedding model: all-MiniLM-L6-v2 on OpenVINO, as LangChain `Embeddings`.

Speed comes from four things: 8-bit weights and activations (see `encoder`), texts sorted by length so that hardly any
padding is computed, small batches that stay in the processor's cache, and one thread a batch: several batches run at
once instead of several threads waiting for each other inside one.

Measured on 200 passages of the Python reference: cosine to fp32 0.998 (0.9965 at worst), and 2.2-2.7 times as many a
CPU-second. The first text of a length OpenVINO has not seen costs some milliseconds more, so lengths are rounded up to
multiples of eight. The rest of the arithmetic is bfloat16 where the processor has it, so two machines' vectors differ
a little (cosine 0.9999): do not compare them for equality.

On a processor without OpenVINO's 8-bit kernels the same 8-bit weights are computed in fp32: as good, and no faster
than fp32.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from langchain_core.embeddings import Embeddings
from tokenizers import Tokenizer

from trimtab.domain.errors import InvalidInput, ModelFileError, Unavailable

from .encoder import fingerprint, read_encoder

Matrix = npt.NDArray[np.float32]

GROUP = 384
"""Numbers of a token that share a scale. Measured: 128 is nearer to fp32 (cosine 0.9991) and a twentieth slower."""
STEP = 8
"""Texts are padded to a multiple of this many tokens."""


@dataclass(frozen=True)
class EmbeddingOptions:
    threads: int = 2
    max_tokens: int = 256
    """Longer texts are cut, as the model was trained; chunks are made shorter than this."""
    batch_tokens: int = 512
    """Padded tokens computed at once in one thread. Measured: 256 is a tenth slower; more than 512 gains nothing."""
    precision: str = "int8"
    """``"int8"`` or ``"fp32"``."""


class MiniLmEmbeddings(Embeddings):
    """Unit vectors of 384 numbers. Safe to call from several threads.

    Args:
        folder: holds `config.json`, `model.safetensors` and `tokenizer.json`.

    Raises:
        ModelFileError: a file of the model is missing or damaged.
        Unavailable: OpenVINO cannot compute it on this machine.
    """

    def __init__(self, folder: Path, options: EmbeddingOptions = EmbeddingOptions()) -> None:
        self.options = options
        self.fingerprint = fingerprint(folder, options.precision)
        self.kept = folder.parent / "prepared" / f"vectors-{self.fingerprint}.npz"
        """Where vectors of texts that do not change may be kept."""
        self.tokenizer = load_tokenizer(folder / "tokenizer.json")
        threads = max(1, options.threads)
        compiled = _compiled(read_encoder(folder, options.precision), threads, options.precision)
        self.dimensions = int(compiled.output(0).partial_shape[1].get_length())
        # A request computes one batch at a time; whoever wants one more waits for the first that is free.
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(threads):
            self._requests.put(compiled.create_infer_request())
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="embed")
        self._closed = threading.Event()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        rows: list[list[float]] = self.encode(texts).tolist()
        return rows

    def embed_query(self, text: str) -> list[float]:
        row: list[float] = self.encode([text])[0].tolist()
        return row

    def encode(self, texts: Sequence[str]) -> Matrix:
        """[len(texts), dimensions] float32, in the order given."""
        if self._closed.is_set():
            raise InvalidInput("This embedding model was closed. Open a new one.")
        out = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        if not texts:
            return out
        batches = list(self._batches(self._token_ids(texts)))
        if len(batches) == 1 or self.options.threads <= 1:
            results: Iterator[Matrix] = map(self._run, batches)
        else:
            results = self._pool.map(self._run, batches)
        for (rows, _), vectors in zip(batches, results, strict=True):
            out[rows] = vectors
        return out

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without special tokens and without a limit."""
        return [len(e.ids) for e in self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def close(self) -> None:
        """Stop the threads. Later calls raise `InvalidInput`."""
        self._closed.set()
        self._pool.shutdown(wait=True)

    def _token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        encoded = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=True)
        limit = self.options.max_tokens
        # The last id is the separator, which a cut text keeps.
        return [e.ids if len(e.ids) <= limit else [*e.ids[: limit - 1], e.ids[-1]] for e in encoded]

    def _batches(self, ids: list[list[int]]) -> Iterator[tuple[list[int], list[list[int]]]]:
        # Longest first: the last batches are short, so the threads finish together.
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        rows: list[int] = []
        for i in order:
            if rows and (len(rows) + 1) * len(ids[rows[0]]) > self.options.batch_tokens:
                yield rows, [ids[r] for r in rows]
                rows = []
            rows.append(i)
        if rows:
            yield rows, [ids[r] for r in rows]

    def _run(self, batch: tuple[list[int], list[list[int]]]) -> Matrix:
        _, ids = batch
        tokens = np.zeros((len(ids), -(-len(ids[0]) // STEP) * STEP), dtype=np.int32)
        mask = np.zeros_like(tokens)
        for row, sequence in enumerate(ids):
            tokens[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        request = self._requests.get()
        try:
            request.infer({"input_ids": tokens, "mask": mask})
            # Copied: the request's memory is overwritten by its next batch.
            vectors: Matrix = np.array(request.get_output_tensor(0).data, dtype=np.float32)
        finally:
            self._requests.put(request)
        return vectors


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer without the padding and the 128-token limit its file asks for."""
    # One of our threads calls it with many texts; its own pool would compete with the model for the same cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ModelFileError(f"The tokenizer {path} cannot be read ({error}). Run: trimtab models pull") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _compiled(model: Any, threads: int, precision: str) -> Any:
    """The model ready to run, tried once: some combinations are refused only when the first text comes."""
    import openvino

    one_thread_each = {"NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
    plain = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0, "INFERENCE_PRECISION_HINT": "f32"}
    choices: list[dict[str, Any]] = [plain]
    if precision == "int8":
        choices.insert(0, {"DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP})
    core, failed = openvino.Core(), ""
    for choice in choices:
        try:
            compiled = core.compile_model(model, "CPU", {**one_thread_each, **choice})
            compiled({"input_ids": np.ones((1, STEP), np.int32), "mask": np.ones((1, STEP), np.int32)})
            return compiled
        except RuntimeError as error:
            failed = str(error).strip().splitlines()[-1]
    raise Unavailable(f"OpenVINO cannot compute the embedding model on this processor ({failed}).")
