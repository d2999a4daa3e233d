"""Which beginnings of prompts the pipeline still has in its key-value cache.

The pipeline keeps what it has read in blocks of 32 tokens and finds them again by the text before them, but it does
not say how much of a prompt it found. So this book repeats its arithmetic: a block is known once it was computed, takes
room until someone needs that room, and the one unused for longest goes first. It counts whole blocks only and gives a
block up rather earlier than the pipeline does, so what it says was cached really was.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

BLOCK = 32
"""Tokens in a block, fixed in OpenVINO's CPU plugin."""


def chain(ids: Sequence[int]) -> list[int]:
    """A number for each whole block of `ids`, which stands for that block and everything before it."""
    marks, before = [], 0
    for end in range(BLOCK, len(ids) + 1, BLOCK):
        before = hash((before, *ids[end - BLOCK : end]))
        marks.append(before)
    return marks


class PrefixBook:
    """The whole blocks that are in the cache. `room` is how many it holds besides those of running requests."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def known(self, marks: Sequence[int]) -> int:
        """How many of a prompt's first blocks are there. Asking is using: they stay for longer."""
        count = 0
        for mark in marks:
            if mark not in self._blocks:
                break
            self._blocks.move_to_end(mark)
            count += 1
        return count

    def learn(self, marks: Sequence[int]) -> None:
        """These blocks have been computed."""
        for mark in marks:
            self._blocks[mark] = None
            self._blocks.move_to_end(mark)
        while len(self._blocks) > self._room:
            self._blocks.popitem(last=False)
