"""The logits of a converted model, computed the way the continuous batching pipeline computes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino._offline_transformations import paged_attention_transformation

from trimtab.llm.openvino_runtime import Runtime

EXACT = Runtime.exact().properties()
_BLOCK = 32


class Paged:
    """A compiled model with a KV cache of its own. Sequences are given whole and computed as one batch."""

    def __init__(self, folder: Path, properties: dict[str, Any] | None = None, blocks: int = 128) -> None:
        model = ov.Core().read_model(folder / "openvino_model.xml")
        paged_attention_transformation(model)
        compiled = ov.Core().compile_model(model, "CPU", properties or {})
        self._request = compiled.create_infer_request()
        for port in compiled.inputs:
            if "cache." in port.any_name:
                shape = [size.get_length() if size.is_static else blocks for size in port.partial_shape]
                self._request.set_tensor(port.any_name, ov.Tensor(port.element_type, ov.Shape(shape)))

    def logp(self, sequences: Sequence[Sequence[int]], steps: int = 0) -> list[np.ndarray]:
        """Log probabilities ``[tokens, vocabulary]`` of each; the last `steps` tokens one by one, as in generation."""
        heads = [len(s) - steps for s in sequences]
        parts = [[part] for part in self._run(sequences, [0] * len(sequences), heads)]
        for step in range(steps):
            now = self._run(sequences, [h + step for h in heads], [h + step + 1 for h in heads])
            for found, part in zip(parts, now, strict=True):
                found.append(part)
        return [log_softmax(np.concatenate(found)) for found in parts]

    def _run(self, sequences: Sequence[Sequence[int]], begin: list[int], end: list[int]) -> list[np.ndarray]:
        tables, first = [], 0
        for sequence, stop in zip(sequences, end, strict=True):
            tables.append(np.arange(first, first - (-stop // _BLOCK)))
            first += -(-len(sequence) // _BLOCK)
        lengths = np.array(end) - np.array(begin)
        self._set("input_ids", np.concatenate([s[b:e] for s, b, e in zip(sequences, begin, end, strict=True)]), "i8")
        self._set("position_ids", np.concatenate([np.arange(b, e) for b, e in zip(begin, end, strict=True)]), "i8")
        self._set("past_lens", np.array(begin), "i4")
        self._set("subsequence_begins", np.cumsum([0, *lengths]), "i4")
        self._set("block_indices", np.concatenate(tables), "i4")
        self._set("block_indices_begins", np.cumsum([0, *map(len, tables)]), "i4")
        self._set("max_context_len", np.array(max(end)), "i4")
        self._request.infer()
        logits = self._request.get_output_tensor(0).data.reshape(int(lengths.sum()), -1).astype(np.float64)
        return np.split(logits, np.cumsum(lengths)[:-1])

    def _set(self, name: str, values: np.ndarray, kind: str) -> None:
        self._request.set_tensor(name, ov.Tensor(np.array(values, kind)))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
