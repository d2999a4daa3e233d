"""Turns that use tools are rolled out on recorded results, which train nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from aligning_worker import CONFIG, make

from tiny_decoder import TEMPLATE, decoder
from trimtab.align import rlhf
from trimtab.align.base import Base, load_base
from trimtab.align.network import Network
from trimtab.align.policy import logprobs_of
from trimtab.align.recorded import RecordedTools
from trimtab.align.rollouts import Draw, TorchSampler
from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Said

OPENS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@pytest.fixture(scope="module")
def opening(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A tiny model whose template opens the answer, as real ones do."""
    folder = decoder(tmp_path_factory.mktemp("opening") / "model")
    base = load_base(folder)
    base.tokenizer.chat_template = TEMPLATE + OPENS
    return base


def test_a_recorded_result_stands_behind_its_call_and_the_model_goes_on(opening: Base) -> None:
    network = Network(opening, trunk_layers=1, bf16=False)
    ends = [opening.end_id, *range(3, 300, 4)]
    plain = TorchSampler(network, ends, lambda x: x.sum(-1))
    asked: list[str] = []

    def recording(text: str) -> str | None:
        asked.append(text)
        return "the lamp <|im_end|>" if len(asked) <= 3 else None

    prompts = [opening.prompt_ids([Said("user", word)]) for word in ("harbour", "keeper", "lamp", "x")]
    first = plain(prompts, None, Draw(max_tokens=24), seed=2)
    rows = RecordedTools(plain, opening, recording, calls=1)(prompts, None, Draw(max_tokens=24), seed=2)
    answered = [row for row in rows if not bool(row.mask.all())]
    assert len(answered) == 3
    for row, start in zip(rows, first, strict=True):
        assert row.ids[: len(start.ids)] == start.ids
    for row in answered:
        inserted = [i for i, own in zip(row.ids, row.mask.tolist(), strict=True) if not own]
        text = opening.tokenizer.decode(inserted)
        assert text.startswith("\n<|im_start|>tool\nthe lamp <")
        assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
        assert inserted.count(opening.end_id) == 1  # the one in the result is only text
        read = logprobs_of(network, [row], None, temperature=1.0)[0]
        torch.testing.assert_close(row.logprobs[row.mask], read[row.mask], atol=1e-4, rtol=0)
        assert row.trunk is not None
        assert len(row.trunk) == len(row.prompt_ids) + len(row.ids)


def test_the_policy_is_trained_on_what_it_chose_only(opening: Base, tmp_path: Path) -> None:
    network = Network(opening, trunk_layers=1, bf16=False)
    policy, prompts, reward = make(opening, network)
    sampler = RecordedTools(
        TorchSampler(network, [opening.end_id, *range(3, 300, 4)], policy.value), opening, lambda text: "the lamp"
    )
    config = replace(CONFIG, steps=2, draw=Draw(max_tokens=12))
    steps = list(rlhf.train(policy, opening, prompts, reward, config, folder=tmp_path, sampler=sampler))
    assert len(steps) == 2
    assert steps[0].tokens > 24  # call, result, answer
    assert steps[0].kl_sequence == pytest.approx(0.0, abs=1e-4)
    assert all(torch.isfinite(tensor).all() for tensor in policy.named().values())


def test_a_template_without_tool_messages_is_refused(opening: Base) -> None:
    silent = replace(opening, tokenizer=opening.tokenizer)
    kept = opening.tokenizer.chat_template
    opening.tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] != 'tool' %}{{ m['content'] }}{% endif %}{% endfor %}"
    )
    try:
        sampler = TorchSampler(Network(opening, trunk_layers=1, bf16=False), [1])
        with pytest.raises(InvalidInput, match="tool messages"):
            RecordedTools(sampler, silent, lambda text: None)
    finally:
        opening.tokenizer.chat_template = kept
