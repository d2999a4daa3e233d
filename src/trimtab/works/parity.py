"""Does the engine say what was trained? The adapter is served, and its greedy words compared with the network's.

Run with the model as it was installed as well: what serving does to that (8-bit weights and activations) is the
measure of what may be explained away for the version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel

from trimtab.align.adapter import Adapter
from trimtab.align.base import Base
from trimtab.align.evaluation import GREEDY, Prompt
from trimtab.align.network import Network
from trimtab.align.policy import logprobs_of
from trimtab.align.rollouts import Draw, Sampler
from trimtab.align.writer import as_message
from trimtab.llm.served import Spoken

TOKENS = 12
AT_ONCE = 4


@dataclass(frozen=True)
class Parity:
    alike: float
    """Share of prompts with the same greedy text, `TOKENS` tokens of it."""
    drift: float
    """Mean difference in the log-probability of the first token, where both chose the same."""


async def measure(
    network: Network, base: Base, prompts: Sequence[Prompt], adapter: Adapter | None, spoken: Spoken, sampler: Sampler
) -> Parity:
    """One version, served beside trained. `spoken` wears the adapter, `adapter` is the same as trained; None is the
    base.

    Raises:
        EngineError: the engine does not answer.
    """
    trained = await asyncio.to_thread(_trained, network, base, prompts, adapter, sampler)
    room = asyncio.Semaphore(AT_ONCE)
    said = await asyncio.gather(*(_asked(spoken.bare, prompt, room) for prompt in prompts))
    return _parity(trained, list(said))


_Words = list[tuple[str, str, float]]
"""For each prompt: the text, its first token, and that token's log-probability."""


def _trained(
    network: Network, base: Base, prompts: Sequence[Prompt], adapter: Adapter | None, sampler: Sampler
) -> _Words:
    ids = [base.prompt_ids(prompt) for prompt in prompts]
    drawn = sampler(ids, adapter, Draw(GREEDY, TOKENS), 0)
    # Drawn greedily, said as the engine says it: at temperature 1.
    first = logprobs_of(network, drawn, adapter, temperature=1.0)[:, 0].tolist()
    return [
        (base.text_of(one.ids).strip(), base.text_of(one.ids[:1]), logprob)
        for one, logprob in zip(drawn, first, strict=True)
    ]


async def _asked(model: BaseChatModel, prompt: Prompt, room: asyncio.Semaphore) -> tuple[str, str, float]:
    options: dict[str, Any] = {"temperature": 0.0, "max_tokens": TOKENS, "logprobs": True}
    async with room:
        answer = await model.ainvoke([as_message(said) for said in prompt], **options)
    tokens = answer.response_metadata.get("logprobs", {}).get("content") or [{"token": "", "logprob": 0.0}]
    return str(answer.text).strip(), str(tokens[0]["token"]), float(tokens[0]["logprob"])


def _parity(trained: _Words, served: _Words) -> Parity:
    alike = [one[0] == other[0] for one, other in zip(trained, served, strict=True)]
    same = [abs(one[2] - other[2]) for one, other in zip(trained, served, strict=True) if one[1] == other[1]]
    # Where not even the first token agrees nothing can be compared: that counts as a whole nat.
    apart = [*same, *([1.0] * (len(trained) - len(same)))]
    return Parity(sum(alike) / max(1, len(alike)), sum(apart) / max(1, len(apart)))
