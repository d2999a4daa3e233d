"""Finding an operation by what it does: BM25 over its id, path, summary, tags, description and argument names."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from .operations import Operation
from .words import snake

K1, B = 1.2, 0.5
_STOP = frozenset(
    "a an and are as at be by can do for from get given has how i in is it its me my of on or the to".split()
)
_WORDS = re.compile(r"[a-z0-9]+")


class Index:
    """Operations of one API, found by words."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = {operation.id: operation for operation in operations}
        self._bags = [_bag(operation) for operation in operations]
        self._all = list(operations)
        self._length = [sum(bag.values()) for bag in self._bags]
        self._mean = sum(self._length) / max(len(self._length), 1) or 1.0
        self._holding = Counter(word for bag in self._bags for word in bag)

    def find(self, query: str, most: int = 8) -> list[Operation]:
        """The best fits, best first; the one that is called `query` comes before all. Empty when no word fits."""
        terms = set(_terms(query)) or set(_WORDS.findall(query.lower()))
        ranked = sorted(
            ((self._score(terms, at), at) for at in range(len(self._all))), key=lambda pair: (-pair[0], pair[1])
        )
        found = [self._all[at] for score, at in ranked[:most] if score > 0]
        exact = self.operations.get(query.strip())
        if exact is not None:
            found = [exact, *(one for one in found if one is not exact)][:most]
        return found

    def _score(self, terms: set[str], at: int) -> float:
        bag, total = self._bags[at], len(self._all)
        score = 0.0
        for term in terms & bag.keys():
            rare = math.log(1 + (total - self._holding[term] + 0.5) / (self._holding[term] + 0.5))
            count = bag[term]
            score += rare * count * (K1 + 1) / (count + K1 * (1 - B + B * self._length[at] / self._mean))
        return score * (0.8 if self._all[at].deprecated else 1.0)


def _bag(operation: Operation) -> Counter[str]:
    """Words with their weight: what names an operation counts more than what explains it."""
    bag: Counter[str] = Counter()
    arguments = " ".join(operation.schema["properties"])
    weighted = ((operation.id, 4), (operation.summary, 4), (operation.path, 2), (" ".join(operation.tags), 2))
    for text, weight in (*weighted, (operation.description, 1), (arguments, 1)):
        for word in _terms(text):
            bag[word] += weight
    bag[operation.method] += 1
    return bag


def _terms(text: str) -> list[str]:
    return [_stem(word) for word in snake(text).split("_") if word and word not in _STOP]


def _stem(word: str) -> str:
    """Plural and singular alike; no more than that."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
