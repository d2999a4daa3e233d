"""A tiny PPO run, the same in the test and in a process that is killed:
`python -m aligning_worker MODEL FOLDER STEPS`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from trimtab.align import rlhf
from trimtab.align.adapter import Adapter, LoraConfig, read_adapter
from trimtab.align.base import Base, load_base
from trimtab.align.network import Network
from trimtab.align.policy import Policy
from trimtab.align.ppo import PPOConfig
from trimtab.align.rewards import Part, Weighted
from trimtab.align.rollouts import Draw
from trimtab.domain.judgement import Said

CONFIG = rlhf.RlhfConfig(
    steps=8,
    rollouts=16,
    draw=Draw(max_tokens=10),
    learning_rate=1e-2,
    missing_end_penalty=0.0,
    plain_coefficient=0.0,
    evaluate_every=3,
    ppo=PPOConfig(epochs=2, minibatches=2, microbatch=8, kl_coefficient=0.02, kl_target=2.0, value_clip=None),
)


def low(
    prompts: Sequence[Sequence[Said]], completions: Sequence[str], context: Sequence[Mapping[str, Any]]
) -> list[float]:
    """The share of tokens from the lower half of the vocabulary: learnable from the first step."""
    return [sum(i < 150 for i in row["rollout"].ids) / len(row["rollout"].ids) for row in context]


def make(base: Base, network: Network) -> tuple[Policy, list[rlhf.Prompt], Weighted]:
    prompts = [rlhf.Prompt((Said("user", word),)) for word in ("harbour", "lamp", "keeper of the", "x", "one over")]
    return Policy.fresh(network, LoraConfig(rank=4), seed=0), prompts, Weighted([Part("low", 1.0, low)])


def run(
    base: Base, network: Network, folder: Path, steps: int = CONFIG.steps, tell: Callable[[int], None] | None = None
) -> Adapter:
    policy, prompts, reward = make(base, network)
    config = replace(CONFIG, steps=steps, patience=steps, plain_coefficient=0.1)
    for step in rlhf.train(policy, base, prompts, reward, config, validation=prompts[:2], folder=folder):
        if tell:
            tell(step.step)
    return read_adapter(folder / "adapter")[0]


def alone(model: Path, folder: Path, steps: int, tell: Callable[[int], None]) -> None:
    """The run in a process of its own."""
    torch.set_num_threads(1)
    base = load_base(model)
    run(base, Network(base, trunk_layers=1, bf16=False), folder, steps, tell)


def told(model: Path, folder: Path, steps: int, steps_done: Connection) -> None:
    """The same in a process that was forked."""
    alone(model, folder, steps, steps_done.send)


if __name__ == "__main__":
    alone(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), lambda step: print(step, flush=True))
