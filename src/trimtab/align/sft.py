"""Supervised fine-tuning: the policy learns answers as somebody wanted them.

The loss is the mean over the wanted answers' tokens, the end included, of ``-log p(token)``; the prompt is not learned.
The answers of a demonstration set are read in several epochs, and the trunk is read once, which is why this does not go
through TRL's SFTTrainer (`trl_methods` has it, for comparison: `benchmarks/alignment.py` counted 354 rows a CPU
minute here and 87 there).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Judgement, Kind

from .base import Base
from .checkpoint import Checkpoints
from .epochs import Passes, Trunks, descend
from .network import by_length
from .policy import Policy, drawn, states_of, token_logprobs
from .rollouts import Completion


@dataclass(frozen=True)
class Demonstration:
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    """The answer, its end included."""
    weight: float


@dataclass(frozen=True)
class SftConfig(Passes):
    """What a person may turn. Defaults by taste, after TRL's for LoRA."""


@dataclass(frozen=True)
class SftStep:
    step: int
    steps: int
    loss: float
    """Nats a token of the answers."""
    sure: float
    """Share of the answers' tokens that had a probability above one half."""
    learning_rate: float
    seconds: float


def demonstrations_of(base: Base, judgements: Iterable[Judgement], *, max_tokens: int = 512) -> list[Demonstration]:
    """The demonstrations among judgements; those longer than `max_tokens` with their prompt are left out."""
    found = []
    for judged in judgements:
        if judged.kind is Kind.DEMONSTRATION and judged.weight > 0:
            row = Demonstration(base.prompt_ids(judged.prompt), base.completion_ids(judged.completion), judged.weight)
            if len(row.prompt_ids) + len(row.ids) <= max_tokens:
                found.append(row)
    return found


def train(
    policy: Policy, rows: Sequence[Demonstration], config: SftConfig, *, folder: Path | None = None
) -> Iterator[SftStep]:
    """Train `policy`'s adapter in place, one step for each value yielded.

    Args:
        folder: for checkpoints; a run that was killed goes on from there, to the same weights.

    Raises:
        InvalidInput: there are no rows.
        Conflict: the folder holds another run.
    """
    if not rows:
        raise InvalidInput("There is no demonstration to learn from. Edit an answer, or import some.")
    checkpoints = Checkpoints(folder, repr((config, [hash(row) for row in rows]))) if folder else None
    trunks = Trunks(policy.network)
    steps = descend(
        policy.adapter.named(),
        rows,
        config,
        lambda batch: _learn(policy, batch, trunks, config.microbatch),
        checkpoints=checkpoints,
    )
    for told in steps:
        yield SftStep(*told)


def _learn(policy: Policy, rows: Sequence[Demonstration], trunks: Trunks, microbatch: int) -> tuple[float, float]:
    total = sum(row.weight * len(row.ids) for row in rows)
    loss, sure = 0.0, 0
    for group in by_length([len(row.prompt_ids) + len(row.ids) for row in rows], microbatch):
        part = [rows[i] for i in group]
        logprobs, weights = _logprobs(policy, part, trunks)
        share = -(weights * logprobs).sum() / total
        share.backward()  # type: ignore[no-untyped-call]
        loss += float(share.detach())
        sure += int((logprobs.exp() > 0.5).sum())
    return loss, sure / sum(len(row.ids) for row in rows)


def _logprobs(policy: Policy, rows: Sequence[Demonstration], trunks: Trunks) -> tuple[torch.Tensor, torch.Tensor]:
    """log p of every token of these answers and its weight ``[N]``, with gradients."""
    trunk = trunks.of([row.prompt_ids + row.ids for row in rows])
    completions = [
        Completion(row.prompt_ids, row.ids, torch.zeros(len(row.ids)), True, torch.ones(len(row.ids), dtype=torch.bool))
        for row in rows
    ]
    states = states_of([replace(c, trunk=output) for c, output in zip(completions, trunk, strict=True)])
    x, _ = drawn(policy.network, states, policy.adapter, max(len(row.ids) for row in rows))
    tokens = torch.cat([torch.tensor(row.ids) for row in rows])
    weights = torch.cat([torch.full((len(row.ids),), row.weight) for row in rows])
    return token_logprobs(x, policy.network.head, tokens)[0], weights
