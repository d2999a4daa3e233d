"""Small decoders with random weights, in transformers' own format, and adapters for them in PEFT's."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads must not burn a busy machine's cores

import peft
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"


def decoder(folder: Path, kind: str = "llama", seed: int = 0, layers: int = 2, **changes: Any) -> Path:
    """A model folder: 2 layers, 4 heads on 2, about 300 tokens."""
    tokens = _tokenizer(folder)
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        kind, hidden_size=128, intermediate_size=192, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, vocab_size=tokens, max_position_embeddings=512, tie_word_embeddings=False,
        bos_token_id=0, eos_token_id=1, pad_token_id=2, initializer_range=0.2, **changes,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, values in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            torch.nn.init.normal_(values, 1.0 if "norm" in name else 0.0, 0.3)
    model.save_pretrained(folder)
    return folder


def adapter(base: Path, folder: Path, seed: int, rank: int = 8, targets: tuple[str, ...] = ALL, **changes: Any) -> Path:
    """A PEFT folder with a random adapter of visible effect."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=rank, lora_alpha=16, target_modules=list(targets), task_type="CAUSAL_LM", **changes)
    with _quiet():
        model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for name, values in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(values, 0.0, 0.1)
    model.save_pretrained(folder)
    return folder


def logp(base: Path, sequences: list[list[int]], lora: Path | None = None) -> list[Any]:
    """What transformers and PEFT say, ``[tokens, vocabulary]`` each."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with _quiet():
        model = peft.PeftModel.from_pretrained(model, lora) if lora else model
    found = []
    with torch.no_grad():
        for at in range(0, len(sequences), 16):
            some = sequences[at : at + 16]
            longest = max(map(len, some))  # padded on the right, where no token looks
            logits = model(torch.tensor([ids + [0] * (longest - len(ids)) for ids in some])).logits.double()
            found += [torch.log_softmax(rows[: len(ids)], -1).numpy() for rows, ids in zip(logits, some, strict=True)]
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """peft 0.21 asks transformers for a name that transformers has renamed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def _tokenizer(folder: Path) -> int:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|im_start|>", "<|im_end|>", "<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(
        ["the harbour and the keeper of the lamp walked over there to that other one"] * 4, trainer
    )
    whole = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
    )  # fmt: skip
    whole.save_pretrained(folder)
    return int(tokenizer.get_vocab_size())
