"""Where a person's word would teach most: where the reward model is unsure, or where judge and people disagree.

Nobody waits for a model: what it thinks is worked out behind, some candidates at a time, and used from the next
question on. A candidate that it has not read yet counts as half worth asking. Without a reward model all count alike.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from trimtab.align.queue import Candidate, at_odds, unsure
from trimtab.domain.errors import TrimtabError

from .reward import Opinion, RewardModels

AT_A_TIME = 24
"""Candidates that are read for one question: some seconds of one processor with the default base."""
KEPT = 5000
REST_SECONDS = 60.0
"""After a failure (no reward model, no memory) it is not tried again for so long."""
UNREAD = 0.5

Key = tuple[str, str]


class Doubts:
    """An `align.queue.Uncertainty`. One for a server; called from any thread."""

    def __init__(self, rewards: RewardModels, *, rest: float = REST_SECONDS) -> None:
        self._rewards = rewards
        self._rest = rest
        self._lock = threading.Lock()
        self._known: dict[Key, Opinion] = {}
        self._of = ""
        """The job whose models said so."""
        self._reading = False
        self._not_before = 0.0

    def __call__(self, candidates: Sequence[Candidate]) -> list[float]:
        """0 (nothing to learn) to 1, one for each."""
        with self._lock:
            found = [self._known.get(_key(one)) for one in candidates]
            unread = [one for one, opinion in zip(candidates, found, strict=True) if opinion is None][:AT_A_TIME]
            begin = bool(unread) and not self._reading and time.monotonic() >= self._not_before
            self._reading = self._reading or begin
        if begin:
            self._rewards.behind(self._read(unread))
        return [worth(opinion, one.people) for one, opinion in zip(candidates, found, strict=True)]

    async def _read(self, candidates: Sequence[Candidate]) -> None:
        try:
            job, opinions = await self._rewards.opinions(candidates)
        except TrimtabError:  # there is none, or no room for it: the queue stays as it is
            self._not_before = time.monotonic() + self._rest
        else:
            with self._lock:
                if job != self._of or len(self._known) > KEPT:
                    self._known.clear()
                self._of = job
                self._known |= {_key(one): opinion for one, opinion in zip(candidates, opinions, strict=True)}
        finally:
            self._reading = False


def worth(opinion: Opinion | None, people: float | None) -> float:
    """How much would be learned: the reward model's doubt, or, where people have spoken, how far the judge (without
    one the reward model) is from them, if that is more."""
    if opinion is None:
        return UNREAD
    doubt = unsure(opinion.reward)
    if people is None:
        return doubt
    return max(doubt, at_odds(opinion.reward if opinion.judge is None else opinion.judge, people))


def _key(one: Candidate) -> Key:
    return one.id, one.label if len(one.texts) == 1 else ""
