"""What the base says is asked once, over all trainings on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from trimtab.align.adapter import Adapter, LoraConfig
from trimtab.align.base import Base
from trimtab.align.network import Network
from trimtab.align.rollouts import Completion, Draw, TorchSampler
from trimtab.domain.judgement import Said
from trimtab.works import base_answers
from trimtab.works.base_answers import Remembering


class Counting:
    exact = True

    def __init__(self, network: Network, base: Base) -> None:
        self.asked = 0
        self._sampler = TorchSampler(network, base.end_ids)

    def __call__(
        self, prompts: Sequence[tuple[int, ...]], adapter: Adapter | None, draw: Draw, seed: int
    ) -> list[Completion]:
        self.asked += 1
        return self._sampler(prompts, adapter, draw, seed)


DRAW = Draw(max_tokens=9)


def test_a_second_training_hears_the_base_without_asking_it(tiny: Base, network: Network, tmp_path: Path) -> None:
    prompts = [tiny.prompt_ids((Said("user", word),)) for word in ("harbour", "lamp", "keeper of the")]
    counting = Counting(network, tiny)
    first = Remembering(counting, network, tmp_path / "said")(prompts, None, DRAW, 3)
    again = Remembering(counting, network, tmp_path / "said")(prompts, None, DRAW, 3)
    assert counting.asked == 1
    for one, other in zip(first, again, strict=True):
        assert (one.prompt_ids, one.ids, one.ended) == (other.prompt_ids, other.ids, other.ended)
        for name in ("logprobs", "mask", "trunk"):
            assert torch.equal(getattr(one, name), getattr(other, name))


def test_another_question_chance_adapter_or_network_is_asked(tiny: Base, network: Network, tmp_path: Path) -> None:
    prompts = [tiny.prompt_ids((Said("user", "harbour"),))]
    counting = Counting(network, tiny)
    remembering = Remembering(counting, network, tmp_path)
    remembering(prompts, None, DRAW, 3)
    remembering(prompts * 2, None, DRAW, 3)
    remembering(prompts, None, DRAW, 4)
    remembering(prompts, None, Draw(max_tokens=8), 3)
    remembering(prompts, network.fresh_adapter(LoraConfig(rank=2), 0), DRAW, 3)
    Remembering(counting, Network(tiny, trunk_layers=0, bf16=False), tmp_path)(prompts, None, DRAW, 3)
    assert counting.asked == 6


def test_a_damaged_file_is_asked_again_and_old_ones_go(
    tiny: Base, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_answers, "MOST", 2)
    prompts = [tiny.prompt_ids((Said("user", "harbour"),))]
    counting = Counting(network, tiny)
    remembering = Remembering(counting, network, tmp_path)
    remembering(prompts, None, DRAW, 1)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-40])
    remembering(prompts, None, DRAW, 1)
    assert counting.asked == 2
    for seed in range(2, 6):
        remembering(prompts, None, DRAW, seed)
    assert len(list(tmp_path.iterdir())) == 2
