"""How the converted model is computed: the knobs of OpenVINO's CPU plugin, and why they stand where they stand.

Measured on the int8 default model, teacher-forced on 275 tokens of plain text, against the same weights in float32
(perplexity 33.82); tokens a CPU-second on a busy two-core machine that has bfloat16, one run (compare roughly):

    precision, activations, KV cache  perplexity  KL       same top  prompt  1 request  16 requests
    bf16, 8 bits, u8 (default here)   34.04       0.0045   94 %      533-615 33-50      217-346
    bf16, 8 bits, bf16                33.87       0.0043   95 %      -       -          -
    bf16, whole, u8                   33.76       0.0015   98 %      438     43         186
    f32, 8 bits, u8                   34.17       0.0030   95 %      528     36         246
    f32, whole, u8                    33.84       0.00006  100 %     303     31         119
    f32, whole, f32                   33.82       0.00000  100 %     -       -          -
    4-bit weights, 8 bits, u8         47.42       0.317    66 %      -       -          -

Past 600 tokens of one text it is 53.07 (default) against 52.90 (exact), since rotary angles come from a table.
llama.cpp's own Q8_0 is 0.005 from F16 (`weights.py`), so the fastest row costs nothing that was not paid before. Where
exact numbers matter more than speed (comparing two versions), take `Runtime.exact()`. Four bits ruin so small a model.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Runtime:
    """Properties for `ContinuousBatchingPipeline`. The empty precision is the machine's best (bf16 where it has it)."""

    kv_cache: str = "u8"
    activation_group: int = 32
    """Activations that share a scale when they are rounded to 8 bits; 0: they are not rounded."""
    precision: str = ""

    @classmethod
    def exact(cls) -> Runtime:
        """The weights' own numbers, at about half the speed."""
        return cls(kv_cache="f32", activation_group=0, precision="f32")

    def properties(self) -> dict[str, str | int]:
        named: dict[str, str | int] = {
            "KV_CACHE_PRECISION": self.kv_cache,
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": self.activation_group,
        }
        return named | ({"INFERENCE_PRECISION_HINT": self.precision} if self.precision else {})
