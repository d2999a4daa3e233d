"""An adapter that costs nothing to make: random numbers, big enough to be heard."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file


def adapter(folder: Path, seed: int, base: Path) -> Path:
    """A rank-4 LoRA of random numbers, big enough to be heard, in both formats."""
    from trimtab.llm.architecture import of_gguf
    from trimtab.llm.gguf_header import read_header
    from trimtab.llm.lora import adapter_gguf

    random = np.random.default_rng(seed)
    tensors, names = {}, [f"model.layers.{layer}.mlp.down_proj" for layer in range(20, 30, 2)]
    for name in names:
        tensors[f"base_model.model.{name}.lora_A.weight"] = random.normal(0, 0.05, (4, 1536)).astype(np.float32)
        tensors[f"base_model.model.{name}.lora_B.weight"] = random.normal(0, 2.0, (576, 4)).astype(np.float32)
    (folder / "adapter").mkdir(parents=True)
    save_file(tensors, folder / "adapter" / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["down_proj"], "task_type": "CAUSAL_LM"}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    adapter_gguf(folder / "adapter", folder / "adapter.gguf", of_gguf(read_header(base)))
    return folder
