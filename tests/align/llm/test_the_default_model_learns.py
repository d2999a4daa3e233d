"""On the default model: probabilities are transformers', a planted preference is learned, and PPO follows it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_decoder import logp
from trimtab.align import reward_model as rm
from trimtab.align import reward_training, rlhf
from trimtab.align.adapter import LoraConfig, read_adapter
from trimtab.align.base import Base
from trimtab.align.forest import Forest
from trimtab.align.network import Network
from trimtab.align.policy import Policy
from trimtab.align.reward_report import report as report_on
from trimtab.align.rewards import Part, Weighted
from trimtab.align.rollouts import Draw
from trimtab.domain.judgement import Judgement, Kind, Said

pytestmark = pytest.mark.model
TOPICS = ["bread", "rain", "a bicycle", "the sea", "sleep", "a garden", "tea", "winter"]


def said(text: str) -> tuple[Said, ...]:
    return (Said("user", text),)


@pytest.fixture(scope="module")
def default_network(default_base: Base) -> Network:
    return Network(default_base, trunk_layers=26, bf16=False)


def test_the_default_model_says_here_what_it_says_in_transformers(default_base: Base, default_network: Network) -> None:
    ids = default_base.prompt_ids(said("Why is the sea salty?")) + default_base.completion_ids(
        "Rain washes salt out of rocks."
    )
    assert default_base.text_of(ids[-8:]).endswith("rocks.")
    network, forest = default_network, Forest([ids])
    with torch.no_grad():
        ours = network.logits(network.upper(network.trunk(forest), forest, None)).double().log_softmax(-1).numpy()
    np.testing.assert_allclose(ours, logp(default_base.folder, [list(ids)])[0], atol=1e-3)


def test_the_prompt_is_the_models_own_template(default_base: Base) -> None:
    ids = default_base.prompt_ids(said("Hello 12"))
    text = default_base.tokenizer.decode(ids)
    assert text.endswith("<|im_start|>user\nHello 12<|im_end|>\n<|im_start|>assistant\n")
    assert default_base.end_id == default_base.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert default_base.pad_id == 0 != default_base.end_id


@pytest.mark.slow
def test_a_planted_preference_is_learned_and_followed(
    default_base: Base, default_network: Network, tmp_path: Path
) -> None:
    better = ["Gladly! It is about {}.", "Gladly! People like {}.", "Gladly! Here is something on {}."]
    worse = ["Whatever. It is about {}.", "Go away with {}.", "I do not care for {}."]
    judged = [
        Judgement(
            f"{topic}{i}{j}", Kind.PREFERENCE, said(f"Tell me about {topic}."), good.format(topic), bad.format(topic)
        )
        for topic in TOPICS
        for (i, good), (j, bad) in itertools.product(enumerate(better), enumerate(worse))
    ]
    train = [row for row in judged if row.prompt[0].content.split()[-1] not in ("tea.", "winter.")]
    held_out = [row for row in judged if row not in train]
    model = rm.RewardModel(default_network, default_base)
    for _ in reward_training.train(model, rm.rows_of(default_base, train[::2]), reward_training.RewardConfig()):
        pass
    assert (report_on(model, rm.rows_of(default_base, held_out)).preference_accuracy or 0) >= 0.9

    prompts = [rlhf.Prompt(said(f"Tell me about {topic}.")) for topic in TOPICS[:6]]
    policy = Policy.fresh(default_network, LoraConfig(rank=8), seed=0)
    config = rlhf.RlhfConfig(steps=4, rollouts=12, draw=Draw(max_tokens=8), learning_rate=1e-3, missing_end_penalty=0.0)
    reward = Weighted([Part("model", 1.0, model.reward)])
    steps = list(rlhf.train(policy, default_base, prompts, reward, config, folder=tmp_path))
    assert steps[-1].kl_sequence > steps[0].kl_sequence
    assert all(step.kl_sequence < 12 for step in steps)
    adapter, _ = read_adapter(tmp_path / "adapter")
    default_network.check(adapter)
    assert all(torch.equal(adapter.named()[name], tensor) for name, tensor in policy.adapter.named().items())
