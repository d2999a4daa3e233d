"""The default embedding model: all-MiniLM-L6-v2 on ONNX Runtime, as LangChain `Embeddings`.

Speed comes from four things: 8-bit weights and activations (see `onnx_model`), texts sorted by length so that hardly
any padding is computed, small batches that stay in the processor's cache, and one thread a batch: several batches run
at once instead of several threads waiting for each other inside one.

Measured on 256 passages of the Python reference: cosine to fp32 0.997, and 2.2 times as many a CPU-second. A limit:
activations share one scale a batch, so a text's vector depends a little on its neighbours (cosine to itself alone 0.995
on average, 0.989 at worst). nDCG does not feel it; do not compare int8 vectors for equality.
"""

from __future__ import annotations

import os
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

from trimtab.domain.errors import InvalidInput, ModelFileError

from .onnx_model import Progress, ensure_onnx, fingerprint

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EmbeddingOptions:
    threads: int = 2
    max_tokens: int = 256
    """Longer texts are cut, as the model was trained; chunks are made shorter than this."""
    batch_tokens: int = 512
    """Padded tokens computed at once in one thread. Measured: 256-512 beat larger batches by a tenth."""
    precision: str = "int8"
    """``"int8"`` or ``"fp32"``."""


class OnnxEmbeddings(Embeddings):
    """Unit vectors of 384 numbers. Safe to call from several threads.

    Args:
        folder: holds `config.json`, `model.safetensors` and `tokenizer.json`.
        cache: where the quantized model is kept; made when missing.

    Raises:
        ModelFileError: a file of the model is missing or damaged.
    """

    def __init__(
        self,
        folder: Path,
        cache: Path,
        options: EmbeddingOptions = EmbeddingOptions(),
        progress: Progress | None = None,
    ) -> None:
        self.options = options
        self.fingerprint = fingerprint(folder, options.precision)
        self.tokenizer = load_tokenizer(folder / "tokenizer.json")
        self._session = _session(ensure_onnx(folder, cache, options.precision, progress))
        self.dimensions = int(self._session.get_outputs()[0].shape[1])
        self._pool = ThreadPoolExecutor(max(1, options.threads), thread_name_prefix="embed")
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
        tokens = np.zeros((len(ids), len(ids[0])), dtype=np.int32)
        mask = np.zeros_like(tokens)
        for row, sequence in enumerate(ids):
            tokens[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        vectors: Matrix = self._session.run(None, {"input_ids": tokens, "mask": mask})[0]
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


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Batches differ in shape; planning memory for each shape costs more than it saves.
    options.enable_mem_pattern = False
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base
        raise ModelFileError(f"The encoder {path} cannot be loaded ({error}). Delete it; it is made again.") from error
