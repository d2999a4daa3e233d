"""PPO raises the reward of text, stays near the reference, and survives kill -9 at any moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from aligning_worker import CONFIG, make, run

from trimtab.align import ppo, rlhf
from trimtab.align.adapter import read_adapter
from trimtab.align.base import Base
from trimtab.align.network import Network
from trimtab.align.plain import PlainText
from trimtab.align.policy import logprobs_of
from trimtab.align.rollouts import Completion, Draw, TorchSampler
from trimtab.domain.errors import Conflict, InvalidInput
from trimtab.domain.judgement import Said

STEPS = 12


def free(steps: int = STEPS, **changes: object) -> rlhf.RlhfConfig:
    return replace(CONFIG, steps=steps, ppo=replace(CONFIG.ppo, **changes))  # type: ignore[arg-type]


def test_the_reward_rises_and_the_adapter_is_there(tiny: Base, network: Network, tmp_path: Path) -> None:
    policy, prompts, reward = make(tiny, network)
    steps = list(rlhf.train(policy, tiny, prompts, reward, free(kl_coefficient=0.0, kl_target=None), folder=tmp_path))
    assert [step.step for step in steps] == list(range(1, STEPS + 1))
    early, late = (sum(s.reward for s in part) / 3 for part in (steps[:3], steps[-3:]))
    assert late > early + 0.1
    assert late == pytest.approx(sum(s.parts["low"] for s in steps[-3:]) / 3)
    adapter, _ = read_adapter(tmp_path / "adapter")
    assert all(torch.equal(adapter.named()[n], t) for n, t in policy.adapter.named().items())
    assert steps[0].kl_sequence == pytest.approx(0.0, abs=1e-5)
    assert steps[-1].kl_sequence > 0.1


def test_the_penalty_holds_the_policy_near_the_reference(tiny: Base, network: Network, tmp_path: Path) -> None:
    def drifted(name: str, **changes: object) -> float:
        policy, prompts, reward = make(tiny, network)
        # Slow enough that chance does not decide: at 1e-2 a rounding changes the last steps by half.
        config = replace(free(10, **changes), learning_rate=3e-3)
        return list(rlhf.train(policy, tiny, prompts, reward, config, folder=tmp_path / name))[-1].kl_sequence

    loose = drifted("loose", kl_coefficient=0.0, kl_target=None)
    held = drifted("held", kl_coefficient=1.0, kl_target=None)
    assert held < 0.5 * loose


def test_a_step_over_the_cap_is_taken_back(tiny: Base, network: Network, tmp_path: Path) -> None:
    policy, prompts, reward = make(tiny, network)
    config = free(kl_coefficient=0.0, kl_target=None, kl_cap=0.2)
    steps = list(rlhf.train(policy, tiny, prompts, reward, config, folder=tmp_path))
    over = [step for step in steps if step.kl_sequence > 0.2]
    assert over  # the rate is far too high for such a cap
    assert all(step.stopped == "rejected" for step in over)
    for step in over:
        after = steps[step.step : step.step + 1]
        assert all(later.kl_sequence <= 0.2 for later in after)


def test_the_coefficient_follows_the_drift(tiny: Base, network: Network, tmp_path: Path) -> None:
    policy, prompts, reward = make(tiny, network)
    config = free(kl_coefficient=0.01, kl_target=0.05, kl_gain=1.0)
    steps = list(rlhf.train(policy, tiny, prompts, reward, config, folder=tmp_path))
    assert steps[-1].kl_coefficient > 0.01
    assert any(step.kl_sequence > 0.05 for step in steps)


def test_validation_prompts_choose_which_step_is_kept(tiny: Base, network: Network, tmp_path: Path) -> None:
    policy, prompts, reward = make(tiny, network)
    # A rate that breaks the policy: later steps are no better, so the run ends and an early step is kept.
    config = replace(free(steps=30), learning_rate=0.0, evaluate_every=2, patience=2)
    steps = list(rlhf.train(policy, tiny, prompts, reward, config, validation=prompts[:2], folder=tmp_path))
    assert len(steps) == 6
    assert [step.held_out is not None for step in steps] == [False, True] * 3
    assert steps[-1].best_step == 2


def test_a_foreign_sampler_is_corrected_for(tiny: Base, network: Network, tmp_path: Path) -> None:
    class Colder:
        """An engine that draws at another temperature than it was asked for, and says so in its probabilities."""

        exact = False

        def __call__(self, prompts, adapter, draw, seed) -> list[Completion]:  # type: ignore[no-untyped-def]
            drawn = TorchSampler(network, tiny.end_ids)(prompts, adapter, replace(draw, temperature=0.3), seed)
            return [replace(completion, trunk=None, values=None) for completion in drawn]

    policy, prompts, reward = make(tiny, network)
    steps = list(rlhf.train(policy, tiny, prompts, reward, free(steps=2), folder=tmp_path, sampler=Colder()))
    assert all(step.importance < 0.98 for step in steps)
    assert steps[0].kl_sequence == pytest.approx(0.0, abs=1e-4)  # the first policy is the reference, whoever drew


def test_tokens_the_model_did_not_choose_train_nothing(tiny: Base, network: Network, tmp_path: Path) -> None:
    inserted = tiny.text_ids("the lamp")

    class WithTool:
        """After four tokens a recorded tool result is put in, which the model did not choose."""

        exact = True

        def __init__(self, policy) -> None:  # type: ignore[no-untyped-def]
            self.policy, self.plain = policy, TorchSampler(network, tiny.end_ids, policy.value)

        def __call__(self, prompts, adapter, draw, seed) -> list[Completion]:  # type: ignore[no-untyped-def]
            found = []
            for first in self.plain(prompts, adapter, replace(draw, max_tokens=4), seed):
                ids = first.ids + inserted
                mask = torch.tensor([True] * len(first.ids) + [False] * len(inserted))
                nothing = torch.zeros(len(inserted)).fill_(torch.nan)
                assert first.values is not None
                found.append(
                    Completion(
                        first.prompt_ids, ids, torch.cat([first.logprobs, nothing]), True, mask,
                        values=torch.cat([first.values, nothing]),
                    )
                )  # fmt: skip
            return found

    policy, prompts, reward = make(tiny, network)
    before = {name: tensor.detach().clone() for name, tensor in policy.named().items()}
    steps = list(rlhf.train(policy, tiny, prompts, reward, free(steps=2), folder=tmp_path, sampler=WithTool(policy)))
    assert all(torch.isfinite(tensor).all() for tensor in policy.named().values())
    assert any(not torch.equal(before[name], tensor) for name, tensor in policy.named().items())
    assert all(step.kl_token < 1 for step in steps)


def test_what_a_step_shows_adds_up(tiny: Base, network: Network, tmp_path: Path) -> None:
    policy, prompts, reward = make(tiny, network)
    (step,) = rlhf.train(policy, tiny, prompts, reward, free(steps=1), folder=tmp_path)
    assert 0 < step.tokens <= CONFIG.draw.max_tokens
    assert 0 <= step.ended <= 1
    assert len(step.samples) == CONFIG.samples
    assert set(step.seconds) == {"rollouts", "scoring", "update", "evaluation"}
    assert rlhf.as_dict(step)["samples"][0]["prompt"] == step.samples[0].prompt


def test_diversity_tells_one_phrase_from_many() -> None:
    same = rlhf.diversity(["of course have a nice day"] * 6)
    many = rlhf.diversity(["the keeper walked", "a lamp went out", "harbour in the night", "one other thing"])
    assert same["self_similarity"] == pytest.approx(1.0)
    assert same["distinct"] < 0.2
    assert many == {"distinct": 1.0, "self_similarity": 0.0}


def test_another_run_is_not_continued(tiny: Base, network: Network, tmp_path: Path) -> None:
    policy, prompts, reward = make(tiny, network)
    list(rlhf.train(policy, tiny, prompts, reward, free(steps=1), folder=tmp_path))
    with pytest.raises(Conflict, match="folder of its own"):
        next(rlhf.train(policy, tiny, prompts, reward, replace(free(steps=2), seed=9), folder=tmp_path))


def test_a_prompt_too_long_for_the_model_is_refused(tiny: Base, network: Network, tmp_path: Path) -> None:
    policy, prompts, reward = make(tiny, network)
    config = replace(CONFIG, draw=Draw(max_tokens=600))
    with pytest.raises(InvalidInput, match="reads 512"):
        next(rlhf.train(policy, tiny, prompts, reward, config, folder=tmp_path))


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_in_the_same_weights(
    tiny: Base, tiny_folder: Path, network: Network, tmp_path: Path
) -> None:
    whole = run(tiny, network, tmp_path / "whole")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "aligning_worker", str(tiny_folder), str(tmp_path / "killed"), str(CONFIG.steps)]
    kills = 0
    for lines in (1, 2, 1, 3, 100):
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            seen = [line for _, line in zip(range(lines), worker.stdout, strict=False)]
            if len(seen) == lines:
                worker.send_signal(signal.SIGKILL)
                kills += 1
            worker.stdout.read()
        if len(seen) < lines:
            assert worker.returncode == 0
            break
    assert kills == 4
    adapter, _ = read_adapter(tmp_path / "killed" / "adapter")
    for name, tensor in whole.named().items():
        torch.testing.assert_close(adapter.named()[name], tensor, atol=1e-5, rtol=0)


def test_what_is_said_to_plain_text_changes_less_where_that_is_asked_for(
    tiny: Base, network: Network, tmp_path: Path
) -> None:
    def moved(name: str, coefficient: float) -> tuple[float, float]:
        policy, prompts, reward = make(tiny, network)
        config = replace(CONFIG, plain_coefficient=coefficient)
        steps = list(rlhf.train(policy, tiny, prompts, reward, config, folder=tmp_path / name))
        with torch.no_grad():
            plain = PlainText(network, tiny, rows=16, seed=1)  # other texts than those it was held to
            return float(plain.kl(policy.adapter)), steps[-1].reward - steps[0].reward

    free, learned = moved("free", 0.0)
    held, learned_too = moved("held", 1.0)
    assert held < 0.7 * free
    assert min(learned, learned_too) > 0


def test_the_reference_is_the_model_without_its_adapter(tiny: Base, network: Network) -> None:
    policy, _, _ = make(tiny, network)
    drawn = TorchSampler(network, tiny.end_ids)([tiny.prompt_ids([Said("user", "x")])], None, Draw(max_tokens=6), 0)
    torch.testing.assert_close(
        logprobs_of(network, drawn, None, temperature=1.0), logprobs_of(network, drawn, policy.adapter, temperature=1.0)
    )
    assert ppo.kl_estimate(drawn[0].logprobs, drawn[0].logprobs).abs().max() == 0
