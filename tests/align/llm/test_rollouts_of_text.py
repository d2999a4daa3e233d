"""Completions are drawn from the policy's own distribution, the same for the same seed."""

from __future__ import annotations

import torch

from trimtab.align.adapter import LoraConfig
from trimtab.align.base import Base
from trimtab.align.forest import Forest
from trimtab.align.network import Network
from trimtab.align.policy import Policy, logprobs_of
from trimtab.align.rollouts import Draw, TorchSampler, pick
from trimtab.domain.judgement import Said

QUESTIONS = ["Who keeps the lamp?", "harbour", "And the other one walked where?", "x"]


def prompts(base: Base) -> list[tuple[int, ...]]:
    return [base.prompt_ids([Said("user", q)]) for q in QUESTIONS]


def shaken(network: Network) -> Policy:
    """A policy that differs from the base model and has values."""
    policy = Policy.fresh(network, LoraConfig(rank=4), seed=5)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for b in policy.adapter.b.values():
            b.normal_(0.0, 0.1, generator=generator)
        policy.value_weight.normal_(0.0, 0.1, generator=generator)
    return policy


def test_probabilities_values_and_trunk_are_those_of_a_plain_reading(tiny: Base, network: Network) -> None:
    policy = shaken(network)
    sampler = TorchSampler(network, tiny.end_ids, policy.value)
    completions = sampler(prompts(tiny), policy.adapter, Draw(max_tokens=12), seed=3)
    read = logprobs_of(network, completions, policy.adapter, temperature=1.0)
    for completion, row in zip(completions, read, strict=True):
        count = len(completion.ids)
        torch.testing.assert_close(completion.logprobs, row[:count], atol=1e-4, rtol=0)
        forest = Forest([completion.prompt_ids + completion.ids])
        with torch.no_grad():
            trunk = network.trunk(forest)
            values = policy.value(network.upper(trunk, forest, policy.adapter))
        assert completion.trunk is not None
        assert completion.values is not None
        torch.testing.assert_close(completion.trunk, trunk, atol=1e-3, rtol=1e-4)
        before = len(completion.prompt_ids) - 1
        torch.testing.assert_close(completion.values, values[before : before + count], atol=1e-3, rtol=1e-3)


def test_neither_batch_size_nor_company_changes_what_is_drawn(tiny: Base, network: Network) -> None:
    sampler, asked = TorchSampler(network, tiny.end_ids), prompts(tiny)
    together = sampler(asked, None, Draw(max_tokens=10), seed=4)
    apart = sampler(asked, None, Draw(max_tokens=10, batch=1), seed=4)
    assert [c.ids for c in together] == [c.ids for c in apart]
    assert [c.ids for c in sampler(asked, None, Draw(max_tokens=10), seed=5)] != [c.ids for c in together]


def test_a_row_stops_at_its_end_and_the_others_go_on(tiny: Base, network: Network) -> None:
    # A third of the vocabulary ends an answer, so rows end at different steps and are taken out of the batch.
    ends = list(range(0, 300, 3))
    completions = TorchSampler(network, ends)(prompts(tiny) * 8, None, Draw(max_tokens=15), seed=1)
    assert len({len(c.ids) for c in completions}) > 3
    for completion in completions:
        assert not any(i in ends for i in completion.ids[:-1])
        assert completion.ended == (completion.ids[-1] in ends)
        assert completion.ended or len(completion.ids) == 15
        assert completion.trunk is not None
        assert len(completion.trunk) == len(completion.prompt_ids) + len(completion.ids)
        assert bool((completion.trunk.abs().sum(-1) > 0).all())


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.log(torch.tensor([0.5, 0.0001, 0.2999, 0.2])).expand(20_000, 4)
    chosen, logprobs = pick(logits, torch.rand(20_000, generator=torch.Generator().manual_seed(0)), 1.0)
    shares = torch.bincount(chosen, minlength=4) / len(chosen)
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.0001, 0.2999, 0.2]), atol=0.012, rtol=0)
    torch.testing.assert_close(logprobs, logits.log_softmax(-1)[0][chosen])
