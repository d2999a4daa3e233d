"""The graph surgery behind `openvino_adapters.py`: LoRA adapters in numbered slots, one slot a token.

Slot 0 is the bare model. A tag on the first token says the slot; one more attention layer, whose key marks the tagged
token and whose value is the slot, tells every token after it. The adapters' A matrices are stacked, their outputs
multiplied by a row that is the scale for the token's own adapter and 0 for the others, and B's product is added to the
named matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .architecture import Architecture
from .lora import Lora

if TYPE_CHECKING:
    import numpy as np

_GROUPS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
"""Matrices with the same input: their A's are one product."""
_SHARP = 32.0
"""Key and query of the tagged token: a score of 32 * 32 / sqrt(head) leaves the others e^-100."""


def insert(model: Any, adapters: Sequence[Lora], shape: Architecture) -> None:
    """Give an `openvino.Model` made by `openvino_graph` the adapters, in slots 1, 2 and so on."""
    if adapters:
        _Insertion(model, adapters, shape).run()


@dataclass
class _Place:
    """Where an adapter's columns are among all."""

    lora: Lora
    begin: int
    end: int


class _Insertion:
    def __init__(self, model: Any, adapters: Sequence[Lora], shape: Architecture) -> None:
        import openvino as ov

        self.ov, self.op = ov, ov.opset13
        self.model, self.shape = model, shape
        self.nodes = {node.get_friendly_name(): node for node in model.get_ops()}
        self.places: list[_Place] = []
        for lora in adapters:
            begin = self.places[-1].end if self.places else 0
            self.places.append(_Place(lora, begin, begin + lora.rank))
        self.width = self.places[-1].end

    def run(self) -> None:
        slot = self._slot()
        rows = {n: self._rows(slot, n) for n in {len(group) for group in _GROUPS}}
        for layer in range(self.shape.layers):
            for group in _GROUPS:
                names = [f"model.layers.{layer}.{inner}" for inner in group]
                if any(name in place.lora.matrices for name in names for place in self.places):
                    self._adapt(names, rows[len(names)])
        self.model.validate_nodes_and_infer_types()

    def _slot(self) -> Any:
        """Each token's slot, ``[batch, tokens]`` int32; the tag is taken off the tokens on the way."""
        op = self.op
        table = self.nodes["model.embed_tokens"]
        ids = table.input_value(1)
        size = op.constant(_i32(self.shape.vocabulary))
        table.input(1).replace_source_output(op.floor_mod(ids, size).output(0))
        return self._carried(op.convert(op.divide(ids, size), "f32"))

    def _carried(self, tag: Any) -> Any:
        """From the tagged token to all tokens after it, by an attention layer that looks at nothing else."""
        import numpy as np

        op, head = self.op, self.shape.head
        one = np.zeros((1, 1, 1, head), np.float32)
        one[..., 0] = 1
        column = op.unsqueeze(op.unsqueeze(tag, op.constant(_i64(1))), op.constant(_i64(3)))  # [batch, 1, tokens, 1]
        value = op.multiply(column, op.constant(one))
        key = op.multiply(op.minimum(column, op.constant(np.float32(1))), op.constant(one * _SHARP))
        query = op.multiply(op.add(op.multiply(column, op.constant(np.float32(0))), op.constant(np.float32(1))),
                            op.constant(one * _SHARP))  # fmt: skip
        attended = self._attention(query, key, value)
        first = op.gather(attended, op.constant(_i64(0)), op.constant(_i64(3)))  # [batch, 1, tokens]
        return op.convert(op.round(op.squeeze(first, op.constant(_i64(1))), "half_to_even"), "i32")

    def _attention(self, query: Any, key: Any, value: Any) -> Any:
        """With the mask and the order of the first layer's attention."""
        like = next(n for n in self.model.get_ordered_ops() if n.get_type_name() == "ScaledDotProductAttention")
        mask = like.input_value(3)
        past = next(n for n in self.model.get_ordered_ops() if n.get_type_name() == "ReadValue")
        gather = next(iter(past.output(0).get_target_inputs())).get_node()
        beam = gather.input_value(1)
        keys = self._remembered("slot.key", key, beam)
        values = self._remembered("slot.value", value, beam)
        return self.op.scaled_dot_product_attention(query, keys, values, mask)

    def _remembered(self, name: str, now: Any, beam: Any) -> Any:
        import numpy as np

        op, head = self.op, self.shape.head
        batch = op.gather(op.shape_of(now), op.constant(np.array([0], np.int64)), op.constant(_i64(0)))
        shape = op.concat([batch, op.constant(np.array([1, 0, head], np.int64))], 0)
        info = self.ov.op.util.VariableInfo()
        info.data_shape = self.ov.PartialShape([-1, 1, -1, head])
        info.data_type, info.variable_id = self.ov.Type.f32, f"past_key_values.{name}"
        variable = self.ov.op.util.Variable(info)
        past = self.ov.opset6.read_value(op.broadcast(op.constant(np.float32(0)), shape), variable)
        seen = op.concat([op.gather(past, beam, op.constant(_i64(0))), now], 2)
        self.model.add_variables([variable])
        self.model.add_sinks([self.ov.opset6.assign(seen, variable)])
        return seen

    def _rows(self, slot: Any, repeats: int) -> Any:
        """For each token its adapter's scale in its adapter's columns: ``[batch, tokens, repeats * width]``."""
        import numpy as np

        table = np.zeros((len(self.places) + 1, self.width), np.float32)
        for i, place in enumerate(self.places):
            table[i + 1, place.begin : place.end] = place.lora.scale
        return self.op.gather(self.op.constant(np.tile(table, (1, repeats))), slot, self.op.constant(_i64(0)))

    def _adapt(self, names: list[str], row: Any) -> None:
        import numpy as np

        op = self.op
        down = np.concatenate([self._down(name) for name in names])
        x = self.nodes[names[0]].input_value(0)
        inside = op.multiply(op.matmul(x, op.constant(down), False, True), row)
        for i, name in enumerate(names):
            up = self._up(name)
            if not up.any():
                continue
            wide = np.zeros((up.shape[0], len(names) * self.width), np.float32)
            wide[:, i * self.width : (i + 1) * self.width] = up
            product = self.nodes[name]
            users = list(product.output(0).get_target_inputs())
            total = op.add(product, op.matmul(inside, op.constant(wide), False, True))
            for user in users:
                user.replace_source_output(total.output(0))

    def _down(self, name: str) -> np.ndarray:
        """All adapters' A for one matrix ``[width, in]``; zeros where an adapter has none."""
        import numpy as np

        stacked = np.zeros((self.width, self.shape.matrix(name.split(".", 3)[-1])[1]), np.float32)
        for place in self.places:
            if name in place.lora.matrices:
                a = place.lora.matrices[name][0]
                stacked[place.begin : place.begin + a.shape[0]] = a
        return stacked

    def _up(self, name: str) -> np.ndarray:
        """All adapters' B for one matrix ``[out, width]``."""
        import numpy as np

        stacked = np.zeros((self.shape.matrix(name.split(".", 3)[-1])[0], self.width), np.float32)
        for place in self.places:
            if name in place.lora.matrices:
                b = place.lora.matrices[name][1]
                stacked[:, place.begin : place.begin + b.shape[1]] = b
        return stacked


def _i32(value: int) -> Any:
    import numpy as np

    return np.int32(value)


def _i64(value: int) -> Any:
    import numpy as np

    return np.int64(value)
