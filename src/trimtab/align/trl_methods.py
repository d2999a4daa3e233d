"""The algorithms that are TRL's: SFT, DPO, KTO, GRPO and RLOO, with one way in and the same adapter out.

TRL reads text, so prompts are handed to it as the text that the engine serves (special tokens in messages broken), and
the adapter touches the same layers as ours. It trains fp32, reads all layers in each step, keeps no checkpoint that we
would load (its own are pickles), and so is not resumed: a run that was stopped starts again. What it costs beside
`rlhf` and `sft` is measured by `benchmarks/alignment.py`.
"""

from __future__ import annotations

import importlib
import queue
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trimtab.domain.errors import InvalidInput, TrimtabError
from trimtab.domain.judgement import Judgement, Kind, Said

from .adapter import Adapter, LoraConfig, read_adapter
from .base import Base
from .network import Shape
from .rewards import Weighted
from .rlhf import Prompt, write_adapter

Method = Literal["sft", "dpo", "kto", "grpo", "rloo"]
METHODS: tuple[Method, ...] = ("sft", "dpo", "kto", "grpo", "rloo")
ONLINE = ("grpo", "rloo")


@dataclass(frozen=True)
class TrlConfig:
    """What a person may turn, for all five; fields that a method does not have are not used by it."""

    method: Method = "dpo"
    steps: int = 12
    """DPO broke the model after two dozen steps on 90 easy pairs: few, and look at the samples."""
    batch: int = 8
    """Rows a step (pairs for DPO, completions for GRPO and RLOO)."""
    learning_rate: float = 1e-4
    beta: float = 0.1
    """Weight of the distance to the reference (DPO, KTO: Rafailov et al. 2023, arXiv:2305.18290; GRPO, RLOO: KL)."""
    max_tokens: int = 48
    """Of a drawn completion."""
    max_length: int = 512
    """Of prompt and completion; longer rows are cut."""
    group: int = 4
    """Completions of one prompt that are compared with each other (GRPO, RLOO)."""
    temperature: float = 1.0
    cpu_seconds: float | None = None
    """A budget of this process's CPU time: over it, the training ends after its step."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    trunk_layers: int = 20
    seed: int = 0


@dataclass(frozen=True)
class TrlStep:
    step: int
    steps: int
    metrics: dict[str, float]
    """As TRL names them: ``loss``, ``rewards/margins``, ``kl``, ``reward``..."""
    seconds: float


def train(
    base: Base,
    config: TrlConfig,
    *,
    folder: Path,
    judgements: Sequence[Judgement] = (),
    prompts: Sequence[Prompt] = (),
    reward: Weighted | None = None,
) -> Iterator[TrlStep]:
    """Run one method; one step for each value yielded. At the end `folder/adapter` holds the adapter.

    Args:
        judgements: for SFT (demonstrations), DPO (preferences), KTO (labels, and both sides of preferences).
        prompts, reward: for GRPO and RLOO.

    Raises:
        InvalidInput: there is nothing of the kind that the method learns from.
    """
    rows = _rows(base, config, judgements, prompts)
    if not rows or (config.method in ONLINE and reward is None):
        need = "prompts and a reward" if config.method in ONLINE else "judgements of the kind it learns from"
        raise InvalidInput(f"{config.method.upper()} needs {need}, and got none.")
    with tempfile.TemporaryDirectory(prefix="trimtab-trl-") as scratch:
        trainer = _trainer(base, config, rows, prompts, reward, Path(scratch))
        yield from _followed(trainer, config.steps, config.cpu_seconds)
        trainer.model.save_pretrained(scratch, safe_serialization=True)
        write_adapter(_read(Path(scratch)), folder / "adapter")


def _read(folder: Path) -> Adapter:
    return read_adapter(folder)[0]


def _rows(
    base: Base, config: TrlConfig, judgements: Sequence[Judgement], prompts: Sequence[Prompt]
) -> list[dict[str, Any]]:
    """TRL's columns. The end of an answer is added by TRL, except for SFT and KTO texts that it takes as they are."""
    if config.method in ONLINE:
        return [{"prompt": _prompt(base, p.messages), "row": i} for i, p in enumerate(prompts)]
    rows: list[dict[str, Any]] = []
    for judged in judgements:
        prompt, completion = _prompt(base, judged.prompt), base.plain(judged.completion)
        preference = judged.kind is Kind.PREFERENCE
        if config.method == "sft" and judged.kind is Kind.DEMONSTRATION:
            rows.append({"prompt": prompt, "completion": completion})
        elif config.method == "dpo" and preference:
            rows.append({"prompt": prompt, "chosen": completion, "rejected": base.plain(judged.rejected)})
        elif config.method == "kto" and judged.kind is Kind.LABEL:
            rows.append({"prompt": prompt, "completion": completion, "label": bool(judged.value)})
        elif config.method == "kto" and preference:
            rows.append({"prompt": prompt, "completion": completion, "label": True})
            rows.append({"prompt": prompt, "completion": base.plain(judged.rejected), "label": False})
    return rows


def _prompt(base: Base, messages: Sequence[Said]) -> str:
    """The served text, without a first token that the tokenizer would add by itself."""
    text, tokenizer = base.prompt_text(messages), base.tokenizer
    adds = bool(tokenizer("")["input_ids"])
    return text.removeprefix(tokenizer.bos_token) if adds and tokenizer.bos_token else text


def _trainer(
    base: Base,
    config: TrlConfig,
    rows: list[dict[str, Any]],
    prompts: Sequence[Prompt],
    reward: Weighted | None,
    scratch: Path,
) -> Any:
    import torch
    from datasets import Dataset
    from peft import LoraConfig as PeftConfig
    from transformers import AutoModelForCausalLM, TrainingArguments

    trl: Any = importlib.import_module("trl")  # it gives its names out lazily, which a type checker cannot see
    layers = Shape.of(base.config).layers
    peft_config = PeftConfig(
        task_type="CAUSAL_LM",
        r=config.lora.rank,
        lora_alpha=config.lora.alpha,  # type: ignore[arg-type]  # PEFT divides by it; any number does
        lora_dropout=0.0,
        target_modules=list(config.lora.modules),
        layers_to_transform=list(range(config.trunk_layers, layers)),
        layers_pattern="layers",
    )
    model = AutoModelForCausalLM.from_pretrained(str(base.folder), dtype=torch.float32, local_files_only=True)
    model.config.pad_token_id = base.pad_id
    # transformers renamed it; the old name warns.
    renamed = "activation_checkpointing" in TrainingArguments.__dataclass_fields__
    recomputing = "activation_checkpointing" if renamed else "gradient_checkpointing"
    common: dict[str, Any] = {
        "output_dir": str(scratch / "trl"),
        "max_steps": config.steps,
        "per_device_train_batch_size": config.batch,
        "learning_rate": config.learning_rate,
        "use_cpu": True,
        "bf16": False,
        recomputing: False,
        "report_to": "none",
        "logging_steps": 1,
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": config.seed,
        "dataloader_pin_memory": False,
    }
    given: dict[str, Any] = {
        "model": model,
        "processing_class": base.tokenizer,
        "peft_config": peft_config,
        "train_dataset": Dataset.from_list(rows),
    }
    if config.method == "sft":
        return trl.SFTTrainer(
            args=trl.SFTConfig(**common, max_length=config.max_length, completion_only_loss=True), **given
        )
    if config.method == "dpo":
        return trl.DPOTrainer(args=trl.DPOConfig(**common, max_length=config.max_length, beta=config.beta), **given)
    if config.method == "kto":
        return trl.KTOTrainer(args=trl.KTOConfig(**common, max_length=config.max_length, beta=config.beta), **given)
    online = {
        **common,
        "num_generations": config.group,
        "max_completion_length": config.max_tokens,
        "temperature": config.temperature,
        "beta": config.beta,
    }
    assert reward is not None
    given["reward_funcs"] = _reward_function(base, prompts, reward)
    if config.method == "grpo":
        return trl.GRPOTrainer(args=trl.GRPOConfig(**online), **given)
    return trl.RLOOTrainer(args=trl.RLOOConfig(**online), **given)


def _reward_function(base: Base, prompts: Sequence[Prompt], reward: Weighted) -> Any:
    def total(prompts: list[str], completions: list[str], row: list[int], **_: Any) -> list[float]:
        asked = [known[i] for i in row]
        return reward([p.messages for p in asked], completions, [p.context for p in asked]).totals

    known = prompts
    return total


def _followed(trainer: Any, steps: int, cpu_seconds: float | None) -> Iterator[TrlStep]:
    """Train in a thread and hand on what TRL logs. Closing the iterator ends the training after its step."""
    from transformers import TrainerCallback

    found: queue.Queue[TrlStep | BaseException | None] = queue.Queue()
    stop = threading.Event()
    began = time.process_time()

    class Follow(TrainerCallback):
        def __init__(self) -> None:
            self.since = time.perf_counter()

        def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any) -> None:
            numbers = {k: float(v) for k, v in (logs or {}).items() if isinstance(v, int | float)}
            if "train_runtime" in numbers:  # the summary at the end, not a step
                return
            now = time.perf_counter()
            found.put(TrlStep(int(state.global_step), steps, numbers, now - self.since))
            self.since = now

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            spent = cpu_seconds is not None and time.process_time() - began > cpu_seconds
            control.should_training_stop = control.should_training_stop or stop.is_set() or spent

    def work() -> None:
        try:
            trainer.train()
            found.put(None)
        except BaseException as error:
            found.put(error)

    trainer.add_callback(Follow())
    thread = threading.Thread(target=work, name="trl", daemon=True)
    thread.start()
    try:
        while (step := found.get()) is not None:
            if isinstance(step, TrimtabError):
                raise step
            if isinstance(step, BaseException):
                raise InvalidInput(f"TRL could not go on: {type(step).__name__}: {step}") from step
            yield step
    finally:
        stop.set()
        thread.join()
