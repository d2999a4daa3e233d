"""PPO's throughput and memory beside TRL's GRPO; all methods on one budget: `python -m benchmarks.alignment`.

Each side runs in a process of its own on the default model, with the same prompts, adapter, batch and completion
length (the base model hardly ever ends within it). Both take one epoch over what was drawn and have a reference; ours
pays for a reward model, a value head and the hold on plain text besides, TRL's GRPO gets its reward from a word count.
`ppo x 2` takes two epochs. The first step of each is thrown away. Supervised training is timed the same way.

`--compare` gives DPO, KTO, GRPO, RLOO and PPO the same CPU seconds, with one reward model, on the bundled data, and
shows what became of held-out prompts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from trimtab.align import bundled, reward_model, reward_training, rlhf, sft, trl_methods
from trimtab.align.adapter import Adapter, LoraConfig, read_adapter
from trimtab.align.base import Base, load_base
from trimtab.align.network import Network
from trimtab.align.policy import Policy, logprobs_of
from trimtab.align.rewards import Part, Weighted
from trimtab.align.rollouts import Draw, TorchSampler
from trimtab.domain.judgement import Judgement, Kind
from trimtab.llm import catalogue, fetch, shelf
from trimtab.llm.unpacked import safetensors_folder

REPOSITORY = Path(__file__).parent.parent
ROWS, TOKENS, TRUNK = 32, 32, 20


def unpacked(folder: Path) -> Path:
    models = Path(os.environ.get("TRIMTAB_TEST_MODELS") or REPOSITORY / ".trimtab" / "models")
    fetch.pull(catalogue.entry(catalogue.DEFAULT_CHAT), models, hub="")
    return safetensors_folder(shelf.resolve_model(catalogue.DEFAULT_CHAT, models), folder)


def prompts() -> list[rlhf.Prompt]:
    return [rlhf.Prompt(prompt.prompt) for prompt in bundled.prompts("train")]


def words(prompts: object, completions: Sequence[str], context: object) -> list[float]:
    return [float(len(text.split())) for text in completions]


# ---------------------------------------------------------------------- one side, in its own process


def ppo(base: Base, scratch: Path, epochs: int = 1) -> tuple[Iterator[object], int]:
    network = Network(base, trunk_layers=TRUNK)
    scorer = reward_model.RewardModel(network, base)
    config = rlhf.RlhfConfig(rollouts=ROWS, draw=Draw(max_tokens=TOKENS), missing_end_penalty=0.0)
    config = replace(config, ppo=replace(config.ppo, epochs=epochs, kl_cap=None, kl_stop=None))
    reward = Weighted([Part("model", 1.0, scorer.reward)])
    return rlhf.train(Policy.fresh(network, LoraConfig(), 0), base, prompts(), reward, config, folder=scratch), ROWS


def grpo(base: Base, scratch: Path) -> tuple[Iterator[object], int]:
    config = trl_methods.TrlConfig(method="grpo", steps=30, batch=ROWS, max_tokens=TOKENS, trunk_layers=TRUNK)
    reward = Weighted([Part("words", 1.0, words)])
    return trl_methods.train(base, config, folder=scratch, prompts=prompts(), reward=reward), ROWS


def judged(kind: Kind) -> list[Judgement]:
    return [row for row in bundled.load_bundled("train") if row.kind is kind]


def sft_ours(base: Base, scratch: Path) -> tuple[Iterator[object], int]:
    network = Network(base, trunk_layers=TRUNK)
    rows = sft.demonstrations_of(base, judged(Kind.DEMONSTRATION))[:24]
    return sft.train(Policy.fresh(network, LoraConfig(), 0), rows, sft.SftConfig(epochs=4, batch=8)), 8


def sft_trl(base: Base, scratch: Path) -> tuple[Iterator[object], int]:
    config = trl_methods.TrlConfig(method="sft", steps=12, batch=8, trunk_layers=TRUNK)
    return trl_methods.train(base, config, folder=scratch, judgements=judged(Kind.DEMONSTRATION)[:24]), 8


SIDES: dict[str, tuple[Callable[[Base, Path], tuple[Iterator[object], int]], int]] = {
    "ppo, ours": (ppo, 3),
    "ppo x 2": (partial(ppo, epochs=2), 3),
    "grpo, TRL": (grpo, 3),
    "sft, ours": (sft_ours, 8),
    "sft, TRL": (sft_trl, 8),
}


def side(name: str, folder: Path) -> None:
    """Run the named side and print one line of JSON."""
    base = load_base(folder, threads=os.cpu_count())
    make, count = SIDES[name]
    with tempfile.TemporaryDirectory() as scratch:
        steps, rows = make(base, Path(scratch))
        next(steps)
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in islice(steps, count):
            pass
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        steps.close()  # type: ignore[attr-defined]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"name": name, "cpu": cpu / count / rows, "wall": wall / count / rows, "peak": peak}))


def throughput(folder: Path) -> None:
    print(f"{'':12} {'rows a CPU minute':>18} {'rows a minute':>14} {'peak MB':>8}")
    for name in SIDES:
        command = [sys.executable, "-m", "benchmarks.alignment", "--side", name, "--model", str(folder)]
        done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        print(f"{name:12} {60 / row['cpu']:18.1f} {60 / row['wall']:14.1f} {row['peak']:8.0f}", flush=True)


# ---------------------------------------------------------------------- all methods on one budget


def compare(folder: Path, cpu_seconds: float, scratch: Path) -> None:
    base = load_base(folder, threads=os.cpu_count())
    network = Network(base, trunk_layers=TRUNK)
    train = bundled.load_bundled("train")
    random.Random(0).shuffle(train)
    scorer = reward_model.RewardModel(network, base)
    rows = reward_model.rows_of(base, train[:400])
    for _ in reward_training.train(scorer, rows, reward_training.RewardConfig()):
        pass
    draw = Draw(max_tokens=40)
    sampler = TorchSampler(network, base.end_ids)
    scorer.normalise(sampler([base.prompt_ids(p.messages) for p in prompts()[:64]], None, draw, 1))
    reward = Weighted([Part("model", 1.0, scorer.reward)])
    held_out = [base.prompt_ids(p.prompt) for p in bundled.prompts("test")]

    def row(name: str, adapter: Adapter | None, spent: float, steps: int) -> None:
        drawn = sampler(held_out, adapter, draw, 7)
        reference = logprobs_of(network, drawn, None, temperature=1.0)
        kl = sum(float((c.logprobs - r[: len(c.ids)]).sum()) for c, r in zip(drawn, reference, strict=True))
        scores = scorer.scores_of(drawn)
        spread = rlhf.diversity([base.text_of(c.ids) for c in drawn])
        length = sum(len(c.ids) for c in drawn) / len(drawn)
        print(
            f"{name:6} {spent:8.0f} {steps:6} {sum(scores) / len(scores):8.2f} {kl / len(drawn):8.2f} {length:8.1f} "
            f"{sum(c.ended for c in drawn) / len(drawn):8.2f} {spread['self_similarity']:8.3f}",
            flush=True,
        )

    print(f"{'':6} {'CPU s':>8} {'steps':>6} {'reward':>8} {'KL':>8} {'tokens':>8} {'ended':>8} {'alike':>8}")
    row("base", None, 0.0, 0)
    policy = Policy.fresh(network, LoraConfig(), 0)
    start, count = time.process_time(), 0
    config = rlhf.RlhfConfig(steps=1000, draw=draw)
    for step in rlhf.train(policy, base, prompts(), reward, config, folder=scratch / "ppo"):
        count = step.step
        if time.process_time() - start > cpu_seconds:
            break
    row("ppo", policy.adapter, time.process_time() - start, count)
    for method in ("dpo", "kto", "grpo", "rloo"):
        assert method in trl_methods.METHODS
        told = trl_methods.TrlConfig(
            method=method,
            steps=1000,
            batch=16 if method in trl_methods.ONLINE else 8,
            max_tokens=40,
            cpu_seconds=cpu_seconds,
        )
        start, count = time.process_time(), 0
        for done in trl_methods.train(
            base, told, folder=scratch / method, judgements=train, prompts=prompts(), reward=reward
        ):
            count = done.step
        spent = time.process_time() - start
        row(method, read_adapter(scratch / method / "adapter")[0], spent, count)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--model", type=Path, help="a model folder; without it the default model is unpacked")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--cpu-seconds", type=float, default=300.0)
    given = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.model or unpacked(Path(scratch) / "model")
        if given.side:
            side(given.side, folder)
        elif given.compare:
            compare(folder, given.cpu_seconds, Path(scratch))
        else:
            throughput(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
