"""Rollouts of turns that use tools, on recorded results: training touches no service, and a run repeats.

A `RecordedTools` sampler draws as another sampler does. When a completion is a call that the recording knows, the
result is put behind it as the model's template writes a tool message, and the model goes on from there. The inserted
tokens are part of the row and masked: no loss, no penalty, no advantage is theirs. A call that was never recorded gets
no result; what it is worth is the reward's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Said

from .adapter import Adapter
from .base import Base
from .rollouts import Completion, Draw, Sampler

Recording = Callable[[str], str | None]
"""From what the model wrote to the recorded result, or None when it is no call that was recorded."""

_MARK = "trimtab recorded answer"


class RecordedTools:
    """A sampler whose completions may span several calls.

    Raises:
        InvalidInput: the model's template does not carry tool messages.
    """

    def __init__(self, sampler: Sampler, base: Base, recording: Recording, *, calls: int = 2) -> None:
        self._sampler, self._base, self._recording, self._calls = sampler, base, recording, calls
        self.exact = sampler.exact
        if "result 7" not in self._base.tokenizer.decode(list(self._bridge("result 7"))):
            raise InvalidInput(
                "This model's chat template leaves tool messages out; it cannot be trained on their results."
            )

    def __call__(
        self, prompts: Sequence[tuple[int, ...]], adapter: Adapter | None, draw: Draw, seed: int
    ) -> list[Completion]:
        found = self._sampler(prompts, adapter, draw, seed)
        for turn in range(1, self._calls + 1):
            bridges = {row: bridge for row, c in enumerate(found) if (bridge := self._answer(c)) is not None}
            if not bridges:
                break
            asked = [found[row].prompt_ids + found[row].ids + bridge for row, bridge in bridges.items()]
            # A seed of its own for each turn: the same numbers again would tie what is drawn to the first turn.
            more = self._sampler(asked, adapter, draw, seed + turn * 7_919_993)
            for (row, bridge), following in zip(bridges.items(), more, strict=True):
                found[row] = _joined(found[row], bridge, following)
        return found

    def _answer(self, completion: Completion) -> tuple[int, ...] | None:
        """The tokens between the model's call and where it goes on; None when there is nothing to answer."""
        if not completion.ended:
            return None
        inserted = (~completion.mask).nonzero()
        own = completion.ids[int(inserted[-1]) + 1 if len(inserted) else 0 :]
        result = self._recording(self._base.text_of(own))
        return None if result is None else self._bridge(result)

    def _bridge(self, result: str) -> tuple[int, ...]:
        """What the template writes after an answer's end: the tool's message and the opening of the next answer."""
        messages = [Said("user", "x"), Said("assistant", _MARK), Said("tool", result)]
        after = self._base.prompt_text(messages).partition(_MARK)[2]
        return self._base.encoded(after.removeprefix(self._base.tokenizer.decode([self._base.end_id])))


def _joined(first: Completion, bridge: tuple[int, ...], following: Completion) -> Completion:
    """One row of both; what is known of the inserted tokens is that nobody chose them."""
    nothing = torch.zeros(len(bridge))
    values = None
    if first.values is not None and following.values is not None:
        values = torch.cat([first.values, nothing, following.values])
    return replace(
        first,
        ids=first.ids + bridge + following.ids,
        logprobs=torch.cat([first.logprobs, nothing, following.logprobs]),
        ended=following.ended,
        mask=torch.cat([first.mask, nothing > 0, following.mask]),
        trunk=following.trunk,
        values=values,
    )
