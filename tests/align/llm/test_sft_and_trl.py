"""Demonstrations are learned; TRL's methods run, widen the margin and give an adapter that loads here."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from test_reward_model import WORDS, pairs

from trimtab.align import sft, trl_methods
from trimtab.align.adapter import Adapter, LoraConfig, read_adapter
from trimtab.align.base import Base
from trimtab.align.network import Network
from trimtab.align.policy import Policy, logprobs_of
from trimtab.align.rewards import Part, Weighted
from trimtab.align.rlhf import Prompt
from trimtab.align.rollouts import Completion, with_trunk
from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Judgement, Kind, Said

LORA = LoraConfig(rank=8)
pytestmark = [
    # peft 0.21 asks transformers for a name that transformers has renamed.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]


def shown(count: int, seed: int) -> list[Judgement]:
    rng = random.Random(seed)
    return [
        Judgement(f"d{seed}-{i}", Kind.DEMONSTRATION, (Said("user", rng.choice(WORDS)),), "over the lamp")
        for i in range(count)
    ]


def surprise(base: Base, network: Network, adapter: Adapter | None, prompt: str, text: str) -> float:
    """Nats of an answer, its end included."""
    ids = base.completion_ids(text)
    row = Completion(
        base.prompt_ids([Said("user", prompt)]), ids, torch.zeros(len(ids)), True, torch.ones(len(ids)) > 0
    )
    return -float(logprobs_of(network, with_trunk(network, [row]), adapter, temperature=1.0).sum())


def margin(base: Base, network: Network, adapter: Adapter | None) -> float:
    """How much likelier than without the adapter the better of held-out pairs got, above the worse; mean nats."""
    held_out = pairs(12, 77)
    total = 0.0
    for judged in held_out:
        prompt = judged.prompt[0].content
        for text, sign in ((judged.completion, 1), (judged.rejected, -1)):
            total += sign * (
                surprise(base, network, None, prompt, text) - surprise(base, network, adapter, prompt, text)
            )
    return total / len(held_out)


def test_what_was_shown_becomes_likely_and_the_end_is_learned(tiny: Base, network: Network) -> None:
    policy = Policy.fresh(network, LORA, seed=0)
    before = surprise(tiny, network, policy.adapter, "harbour", "over the lamp")
    rows = sft.demonstrations_of(tiny, shown(40, 1))
    steps = list(sft.train(policy, rows, sft.SftConfig(epochs=4, batch=8, learning_rate=5e-3)))
    assert steps[-1].loss < 0.2 * steps[0].loss
    assert steps[-1].sure > 0.9
    assert surprise(tiny, network, policy.adapter, "harbour", "over the lamp") < 0.2 * before


def test_supervised_training_goes_on_where_it_stopped(tiny: Base, network: Network, tmp_path: Path) -> None:
    rows, config = sft.demonstrations_of(tiny, shown(24, 1)), sft.SftConfig(epochs=2, batch=8, checkpoint_every=1)
    whole, stopped, resumed = (Policy.fresh(network, LORA, seed=0) for _ in range(3))
    count = len(list(sft.train(whole, rows, config)))
    for step in sft.train(stopped, rows, config, folder=tmp_path):
        if step.step == 3:
            break
    assert [step.step for step in sft.train(resumed, rows, config, folder=tmp_path)] == list(range(4, count + 1))
    for mine, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_preferences_widen_the_margin(method: trl_methods.Method, tiny: Base, network: Network, tmp_path: Path) -> None:
    config = trl_methods.TrlConfig(method=method, steps=25, batch=8, learning_rate=3e-3, lora=LORA, trunk_layers=1)
    steps = list(trl_methods.train(tiny, config, folder=tmp_path, judgements=pairs(60, 1)))
    assert [step.step for step in steps] == list(range(1, 26))
    assert all("loss" in step.metrics for step in steps)
    adapter, _ = read_adapter(tmp_path / "adapter")
    network.check(adapter)
    assert margin(tiny, network, adapter) > 1.0


def test_trls_supervised_training_learns_the_same(tiny: Base, network: Network, tmp_path: Path) -> None:
    config = trl_methods.TrlConfig(method="sft", steps=20, batch=8, learning_rate=5e-3, lora=LORA, trunk_layers=1)
    for _ in trl_methods.train(tiny, config, folder=tmp_path, judgements=shown(40, 1)):
        pass
    adapter, _ = read_adapter(tmp_path / "adapter")
    before = surprise(tiny, network, None, "harbour", "over the lamp")
    assert surprise(tiny, network, adapter, "harbour", "over the lamp") < 0.3 * before


@pytest.mark.parametrize("method", ["grpo", "rloo"])
def test_a_rewarded_length_is_learned(method: trl_methods.Method, tiny: Base, tmp_path: Path) -> None:
    def letters(prompts, completions, context) -> list[float]:  # type: ignore[no-untyped-def]
        assert all(row["topic"] == prompt[0].content for prompt, row in zip(prompts, context, strict=True))
        return [float(sum(c.isascii() and c.isalpha() for c in text)) for text in completions]

    prompts = [Prompt((Said("user", word),), {"topic": word}) for word in WORDS]
    config = trl_methods.TrlConfig(
        method=method, steps=3, batch=8, group=4, max_tokens=8, learning_rate=1e-3, lora=LORA, trunk_layers=1, beta=0.02
    )
    reward = Weighted([Part("letters", 1.0, letters)])
    steps = list(trl_methods.train(tiny, config, folder=tmp_path, prompts=prompts, reward=reward))
    assert [step.step for step in steps] == [1, 2, 3]
    assert all(step.metrics["reward"] > 0 for step in steps)
    adapter, _ = read_adapter(tmp_path / "adapter")
    assert any(bool(b.any()) for b in adapter.b.values())


def test_a_training_that_is_closed_ends_after_its_step(tiny: Base, tmp_path: Path) -> None:
    config = trl_methods.TrlConfig(method="dpo", steps=1000, batch=4, lora=LORA, trunk_layers=1)
    steps = trl_methods.train(tiny, config, folder=tmp_path, judgements=pairs(20, 1))
    assert next(steps).step == 1
    steps.close()  # type: ignore[attr-defined]
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("method", trl_methods.METHODS)
def test_a_method_without_its_data_says_what_it_needs(method: trl_methods.Method, tiny: Base, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=f"{method.upper()} needs"):
        next(trl_methods.train(tiny, trl_methods.TrlConfig(method=method), folder=tmp_path))
