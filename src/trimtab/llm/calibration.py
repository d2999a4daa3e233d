"""What the matrices of a model read while it reads texts: what `four_bits.fitted` goes by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .four_bits import Floats
from .openvino_graph import build, inputs_of
from .openvino_runtime import Runtime
from .tensors import Tensors

AT_ONCE = 1 << 30
"""Bytes of sums that are kept at the same time: more layers than that are read for in another pass over the texts."""

ROWS = 512
"""Tokens whose inputs are multiplied in one go: a short text for itself costs more than it computes."""

Ids = Sequence[int]


class Grams:
    """The mean of ``x xᵀ`` over the inputs x of each matrix of the layers. Ask in the order of the layers: only those
    that fit in memory are kept.

    Args:
        texts: token ids; each is read from its beginning.
        done: hears how many texts of all passes are read, and how many there are.
    """

    def __init__(self, source: Tensors, texts: Sequence[Ids], done: Callable[[int, int], None]) -> None:
        shape = source.architecture
        layer = 4 * (2 * shape.hidden**2 + (shape.heads * shape.head) ** 2 + shape.inner**2)
        self._together = max(1, AT_ONCE // layer)
        self._source, self._texts, self._done = source, texts, done
        self._first = -1
        self._now: Mapping[str, Floats] = {}

    def of(self, name: str) -> Floats | None:
        """``[in, in]``, for the Hugging Face name of a matrix; None for one outside the layers."""
        if not name.startswith("model.layers."):
            return None
        first = int(name.split(".")[2]) // self._together * self._together
        if first != self._first:
            self._now = {}  # before the next are made
            self._first, self._now = first, self._read(first)
        return self._now[name]

    def _read(self, first: int) -> Mapping[str, Floats]:
        layers = self._source.architecture.layers
        passes, before = -(-layers // self._together), first // self._together
        read = _Reading(self._source, {f"model.layers.{n}" for n in range(first, min(layers, first + self._together))})
        for at, ids in enumerate(self._texts):
            read.add(ids)
            self._done(before * len(self._texts) + at + 1, passes * len(self._texts))
        return read.means()


class _Reading:
    """The model with the inputs of some layers' matrices as further outputs."""

    def __init__(self, source: Tensors, layers: set[str]) -> None:
        import openvino as ov

        model = build(source, "int8")
        self._places: dict[str, tuple[Any, list[str]]] = {}
        for operation in model.get_ops():
            name = operation.get_friendly_name()
            if operation.get_type_name() == "MatMul" and ".".join(name.split(".")[:3]) in layers:
                read = operation.input_value(0)
                self._places.setdefault(read.get_node().get_friendly_name(), (read, []))[1].append(name)
        model.add_results([ov.opset13.result(read) for read, _ in self._places.values()])
        self._request = ov.Core().compile_model(model, "CPU", Runtime.exact().properties()).create_infer_request()
        self._rows: list[list[Floats]] = []
        self._waiting = self._tokens = 0
        self._sums: list[Floats] = []

    def add(self, ids: Ids) -> None:
        self._request.reset_state()
        self._request.infer(inputs_of(ids))
        outputs = range(1, 1 + len(self._places))
        self._rows.append([self._request.get_output_tensor(at).data[0].copy() for at in outputs])
        self._waiting += len(ids)
        if self._waiting >= ROWS:
            self._sum_up()

    def means(self) -> Mapping[str, Floats]:
        """Once the texts are read."""
        self._sum_up()
        names = [names for _, names in self._places.values()]
        means = [total / np.float32(self._tokens) for total in self._sums]
        return {f"{name}.weight": mean for mean, named in zip(means, names, strict=True) for name in named}

    def _sum_up(self) -> None:
        if self._rows:
            read = [np.concatenate(rows) for rows in zip(*self._rows, strict=True)]
            sums = [x.T @ x for x in read]
            self._sums = [np.add(a, b, out=a) for a, b in zip(self._sums, sums, strict=True)] if self._sums else sums
            self._tokens += self._waiting
            self._rows, self._waiting = [], 0
