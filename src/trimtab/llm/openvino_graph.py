"""The decoder as an OpenVINO graph, with names.

Attention is written the way `ContinuousBatchingPipeline` expects it (a stateful scaled-dot-product attention, which it
replaces by paged attention). Every matrix product carries the Hugging Face name of its matrix, so that adapters find
it. Matrices are stored compressed and decompressed by the CPU plugin inside its kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .architecture import Architecture
from .four_bits import GROUP, Floats, FourBits, fitted, nearest
from .tensors import Tensors

Precision = Literal["int8", "int4", "f16"]
GramOf = Callable[[str], Floats | None]
"""What a matrix reads, by its name (`calibration.Grams.of`)."""
_ANY_CONTEXT = 131_072
"""Places for which a model has angles that does not say how many it was trained for."""


def build(
    source: Tensors,
    precision: Precision,
    done: Callable[[int], None] = lambda _: None,
    gram_of: GramOf | None = None,
) -> Any:
    """An `openvino.Model` of the source. `done` hears after each layer how many are finished. Matrices in 4 bits are
    fitted to what they read, where that is told.

    Raises:
        KeyError, ValueError: a tensor is missing or has another shape than the architecture says.
    """
    import openvino as ov

    return _Builder(ov, source, precision, gram_of).model(done)


def inputs_of(ids: Sequence[int], past: int = 0) -> dict[str, Any]:
    """What the graph of one sequence is given to read `ids` after `past` tokens that it remembers."""
    import numpy as np

    return {
        "input_ids": np.array([ids], np.int64),
        "attention_mask": np.ones((1, past + len(ids)), np.int64),
        "position_ids": np.arange(past, past + len(ids), dtype=np.int64)[None],
        "beam_idx": np.zeros(1, np.int32),
    }


@dataclass
class _Step:
    """What all layers share."""

    cos: Any
    sin: Any
    mask: Any
    beam: Any
    batch: Any
    """``[1]``: sequences."""


class _Builder:
    def __init__(self, ov: Any, source: Tensors, precision: Precision, gram_of: GramOf | None) -> None:
        self.ov, self.op = ov, ov.opset13
        self.source, self.precision, self.gram_of = source, precision, gram_of
        self.shape: Architecture = source.architecture
        self.sinks: list[Any] = []
        self.variables: list[Any] = []

    def model(self, done: Callable[[int], None]) -> Any:
        op, shape = self.op, self.shape
        ids, mask, positions = (
            self._input(n, [-1, -1], "i64") for n in ("input_ids", "attention_mask", "position_ids")
        )
        beam = self._input("beam_idx", [-1], "i32")
        table = self._matrix("model.embed_tokens.weight", (shape.vocabulary, shape.hidden), self._kind_of_table())
        state = op.gather(table, op.convert(ids, "i32"), self._int(0))
        state.set_friendly_name("model.embed_tokens")
        step = self._step(ids, mask, positions, beam)
        for layer in range(shape.layers):
            state = self._layer(f"model.layers.{layer}", layer, state, step)
            done(layer + 1)
        state = self._norm("model.norm.weight", state, shape.hidden)
        tied = "lm_head.weight" not in self.source
        head = table if tied else self._matrix("lm_head.weight", (shape.vocabulary, shape.hidden))
        logits = op.matmul(state, head, False, True)
        logits.set_friendly_name("lm_head")
        result = op.result(logits, name="logits")
        result.output(0).get_tensor().set_names({"logits"})
        return self.ov.Model([result], self.sinks, [ids, mask, positions, beam], "decoder")

    def _kind_of_table(self) -> Precision:
        """The embedding is looked up and, when tied, is the output matrix, which 4 bits would hurt most."""
        return "int8" if self.precision == "int4" else self.precision

    def _step(self, ids: Any, mask: Any, positions: Any, beam: Any) -> _Step:
        import numpy as np

        op = self.op
        frequencies = np.array(self.shape.frequencies(), np.float32)
        angles = np.outer(np.arange(self.shape.context or _ANY_CONTEXT, dtype=np.float32), frequencies)
        cos, sin = self._turned(np.cos(angles), positions), self._turned(np.sin(angles), positions)
        total = op.gather(op.shape_of(mask), self._int(1), self._int(0))
        seen = op.convert(op.range(self._int(0), total, self._int(1), "i64"), "i64")
        allowed = op.less_equal(op.reshape(seen, self._ints([1, 1, 1, -1]), False), self._column(positions))
        nothing, never = op.constant(np.float32(0)), op.constant(np.float32(-65504))
        batch = op.gather(op.shape_of(ids), self._ints([0]), self._int(0))
        return _Step(cos, sin, op.select(allowed, nothing, never), beam, batch)

    def _turned(self, table: Any, positions: Any) -> Any:
        """The rows of a table ``[context, head / 2]`` for these places: ``[batch, 1, tokens, head]``.

        Looked up, not computed: a processor with bfloat16 would compute the angles in it, and there 257 is 256. Answers
        from 600 tokens of passages were right 4 times of 16 that way, and 11 times with the table.
        """
        rows = self.op.gather(self.op.constant(table), self.op.convert(positions, "i32"), self._int(0))
        return self.op.unsqueeze(self.op.concat([rows, rows], 2), self._int(1))

    def _column(self, positions: Any) -> Any:
        return self.op.unsqueeze(self.op.unsqueeze(positions, self._int(1)), self._int(3))

    def _layer(self, name: str, layer: int, state: Any, step: _Step) -> Any:
        op, shape = self.op, self.shape
        normed = self._norm(f"{name}.input_layernorm.weight", state, shape.hidden)
        q = self._heads(f"{name}.self_attn.q", normed, shape.heads, step)
        k = self._heads(f"{name}.self_attn.k", normed, shape.kv_heads, step)
        v = self._heads(f"{name}.self_attn.v", normed, shape.kv_heads, None)
        attended = self.attention(str(layer), q, k, v, step.mask, step.beam, step.batch)
        merged = op.reshape(
            op.transpose(attended, self._ints([0, 2, 1, 3])), self._ints([0, 0, shape.heads * shape.head]), True
        )
        state = op.add(state, self._project(f"{name}.self_attn.o_proj", merged, shape.hidden, shape.heads * shape.head))
        normed = self._norm(f"{name}.post_attention_layernorm.weight", state, shape.hidden)
        gate = op.swish(self._project(f"{name}.mlp.gate_proj", normed, shape.inner, shape.hidden))
        up = self._project(f"{name}.mlp.up_proj", normed, shape.inner, shape.hidden)
        return op.add(state, self._project(f"{name}.mlp.down_proj", op.multiply(gate, up), shape.hidden, shape.inner))

    def _heads(self, name: str, state: Any, heads: int, rotate: _Step | None) -> Any:
        """Projected, split in heads and rotated to its place: ``[batch, heads, tokens, head]``."""
        op, head = self.op, self.shape.head
        projected = self._project(f"{name}_proj", state, heads * head, self.shape.hidden)
        split = op.reshape(projected, self._ints([0, 0, heads, head]), True)
        if f"{name}_norm.weight" in self.source:
            split = self._norm(f"{name}_norm.weight", split, head)
        split = op.transpose(split, self._ints([0, 2, 1, 3]))
        return self._rotated(split, rotate) if rotate else split

    def _rotated(self, x: Any, step: _Step) -> Any:
        import numpy as np

        op, half = self.op, self.shape.head // 2
        first = op.slice(x, self._ints([0]), self._ints([half]), self._ints([1]), self._ints([3]))
        second = op.slice(x, self._ints([half]), self._ints([2 * half]), self._ints([1]), self._ints([3]))
        turned = op.concat([op.multiply(second, op.constant(np.float32(-1))), first], 3)
        return op.add(op.multiply(x, step.cos), op.multiply(turned, step.sin))

    def attention(self, name: str, q: Any, k: Any, v: Any, mask: Any, beam: Any, batch: Any) -> Any:
        """Attention over what this sequence has seen, remembered under `name`."""
        groups = self.shape.heads // self.shape.kv_heads
        keys = self._remembered(f"past_key_values.{name}.key", k, beam, batch)
        values = self._remembered(f"past_key_values.{name}.value", v, beam, batch)
        return self.op.scaled_dot_product_attention(q, self._shared(keys, groups), self._shared(values, groups), mask)

    def _remembered(self, name: str, now: Any, beam: Any, batch: Any) -> Any:
        import numpy as np

        op, heads, head = self.op, self.shape.kv_heads, self.shape.head
        shape = op.concat([batch, self._ints([heads]), self._ints([0]), self._ints([head])], 0)
        nothing = op.broadcast(op.constant(np.float32(0)), shape)
        info = self.ov.op.util.VariableInfo()
        info.data_shape = self.ov.PartialShape([-1, heads, -1, head])
        info.data_type, info.variable_id = self.ov.Type.f32, name
        variable = self.ov.op.util.Variable(info)
        past = self.ov.opset6.read_value(nothing, variable)
        all_of_it = op.concat([op.gather(past, beam, self._int(0)), now], 2)
        self.sinks.append(self.ov.opset6.assign(all_of_it, variable))
        return all_of_it

    def _shared(self, x: Any, groups: int) -> Any:
        """Each key or value head stands for `groups` query heads."""
        if groups == 1:
            return x
        import numpy as np

        op, heads, head = self.op, self.shape.kv_heads, self.shape.head
        wide = op.unsqueeze(x, self._int(2))
        wide = op.broadcast(wide, op.constant(np.array([1, 1, groups, 1, 1], np.int64)), broadcast_spec="BIDIRECTIONAL")
        return op.reshape(wide, self._ints([0, heads * groups, -1, head]), True)

    def _norm(self, name: str, x: Any, size: int) -> Any:
        import numpy as np

        op = self.op
        squares = op.reduce_mean(op.power(x, op.constant(np.float32(2))), self._ints([-1]), True)
        root = op.sqrt(op.add(squares, op.constant(np.float32(self.shape.epsilon))))
        normed = op.multiply(x, op.divide(op.constant(np.float32(1)), root))
        return op.multiply(normed, op.constant(self._numbers(name, (size,)).reshape(1, 1, -1)))

    def _project(self, name: str, x: Any, out: int, width: int) -> Any:
        product = self.op.matmul(x, self._matrix(f"{name}.weight", (out, width)), False, True)
        product.set_friendly_name(name)
        if f"{name}.bias" not in self.source:
            return product
        return self.op.add(product, self.op.constant(self._numbers(f"{name}.bias", (out,)).reshape(1, 1, -1)))

    def _matrix(self, name: str, shape: tuple[int, int], precision: Precision | None = None) -> Any:
        bits = precision or self.precision
        gram = self.gram_of(name) if self.gram_of and bits == "int4" else None
        return compressed(self.ov, self._numbers(name, shape), bits, gram)

    def _numbers(self, name: str, shape: tuple[int, ...]) -> Any:
        numbers = self.source.get(name)
        if numbers.shape != shape:
            raise ValueError(f"{name} has shape {numbers.shape}, not {shape}")
        return numbers

    def _input(self, name: str, shape: list[int], kind: str) -> Any:
        parameter = self.op.parameter(shape, getattr(self.ov.Type, kind), name)
        parameter.set_friendly_name(name)
        parameter.output(0).get_tensor().set_names({name})
        return parameter

    def _int(self, value: int) -> Any:
        import numpy as np

        return self.op.constant(np.int64(value))

    def _ints(self, values: list[int]) -> Any:
        import numpy as np

        return self.op.constant(np.array(values, np.int64))


def compressed(ov: Any, numbers: Any, precision: Precision, gram: Floats | None = None) -> Any:
    """A matrix ``[out, in]`` as a constant in few bits, and the operations that make it float32 again."""
    import numpy as np

    op = ov.opset13
    width = numbers.shape[1]
    if precision == "f16" or width % GROUP:
        return op.convert(op.constant(numbers.astype(np.float16)), "f32")
    if precision == "int8":
        exact = _int8(ov, numbers.reshape(numbers.shape[0], width // GROUP, GROUP))
    else:
        exact = _int4(ov, nearest(numbers) if gram is None else fitted(numbers, gram))
    flat = op.reshape(exact, op.constant(np.array(numbers.shape, np.int64)), False)
    return op.convert(flat, "f32")


def _int8(ov: Any, groups: Any) -> Any:
    """Whole numbers -127..127 times a scale: Q8_0, exactly."""
    import numpy as np

    op = ov.opset13
    scale = np.abs(groups).max(2, keepdims=True) / np.float32(127)
    whole = np.rint(groups / np.where(scale > 0, scale, 1)).astype(np.int8)
    return op.multiply(op.convert(op.constant(whole), "f16"), op.constant(scale.astype(np.float16)))


def _int4(ov: Any, matrix: FourBits) -> Any:
    op = ov.opset13
    shifted = op.subtract(op.convert(_nibbles(ov, matrix.whole), "f16"), op.constant(matrix.zero))
    return op.multiply(shifted, op.constant(matrix.scale))


def _nibbles(ov: Any, whole: Any) -> Any:
    """A constant of 4-bit numbers, two a byte, the first in the lower half."""
    import numpy as np

    flat = np.append(whole.reshape(-1), np.zeros(whole.size % 2, np.uint8)).reshape(-1, 2)
    packed = np.ascontiguousarray(flat[:, 0] | (flat[:, 1] << 4))
    return ov.op.Constant(ov.Tensor(packed, ov.Shape(list(whole.shape)), ov.Type.u4), shared_memory=False)
