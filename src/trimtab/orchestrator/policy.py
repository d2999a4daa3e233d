"""Who says whether a call with effects may run: what may not run at all, and what a person has allowed beforehand.

The rules that need no memory are in `turn.py`: only `Effect.READ` runs unasked, an approval is for one call. What is
remembered between turns, and how far a connector is vouched for, is asked of a `Policy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from trimtab.domain.tool import Effect, ToolInfo


@dataclass(frozen=True)
class Wish:
    """A call with effects that a model asks for and nobody has decided yet."""

    owner: str
    turn: str
    connector: str
    tool: str
    definition: str
    """Digest of what the tool says of itself now. An approval that was remembered for another definition is none."""
    effect: Effect
    arguments: Mapping[str, Any]
    tainted: bool
    """Whether the turn has read anything from outside. What earlier turns of the thread have read is the policy's
    business."""
    used: frozenset[str] = frozenset()
    """Remembered approvals that this turn has used."""


class Policy(Protocol):
    """Asked before a person is."""

    async def refusal(self, info: ToolInfo) -> str:
        """Why this tool may not run whatever a person says; empty when it may."""
        ...

    async def remembered(self, wish: Wish) -> str:
        """The id of an approval the person has remembered that covers this call, counted as used; empty for none."""
        ...


class AskEachTime:
    """Nothing is remembered and nothing is refused beforehand."""

    async def refusal(self, info: ToolInfo) -> str:
        return ""

    async def remembered(self, wish: Wish) -> str:
        return ""
