"""Which texts say almost the same: exact near-duplicate groups, without a model and without chance.

Two texts are alike by the Jaccard similarity of their sets of character 5-grams, after folding case, width and white
space. Groups are transitive: what is like something in a group belongs to it. Candidates are found by prefix filtering
(Bayardo et al. 2007, "Scaling up all pairs similarity search"; Wang et al. 2012, "Can we beat the prefix filtering?"):
two sets with a Jaccard of at least t share l of their |x| - ceil(t|x|) + l rarest elements. So no pair is missed, as
MinHash would now and then.

Of a text with more than `MOST` different 5-grams only those with the smallest hashes count (a bottom-k sketch).
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
import zlib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import chain

SIZE = 5
MOST = 512
IN_COMMON = 8
"""The l above. More makes fewer candidates and more to count."""

Shingles = frozenset[int]


def normal(text: str) -> str:
    """`text` with case, width and white space folded."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def key_of(text: str) -> str:
    """The same for texts that differ in case, width or white space only: 32 hexadecimal digits."""
    return hashlib.sha256(normal(text).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def shingles(text: str) -> Shingles:
    """Hashes of the 5-grams; of a shorter text the text itself."""
    folded = normal(text)
    raw = {folded[i : i + SIZE] for i in range(max(1, len(folded) - SIZE + 1))}
    hashes = {zlib.crc32(gram.encode("utf-8", "surrogatepass")) for gram in raw}
    return frozenset(hashes if len(hashes) <= MOST else sorted(hashes)[:MOST])


def likeness(one: Shingles, other: Shingles) -> float:
    """Jaccard similarity, 0 to 1."""
    both = len(one & other)
    return both / (len(one) + len(other) - both) if both else 0.0


class Groups:
    """A union-find over things, each known by its number."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def find(self, at: int) -> int:
        root = at
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[at] != root:
            self._parent[at], at = root, self._parent[at]
        return root

    def join(self, one: int, other: int) -> None:
        """The smaller number names the group."""
        low, high = sorted((self.find(one), self.find(other)))
        self._parent[high] = low

    def join_equal(self, keys: Iterable[Hashable | None]) -> None:
        """Join all that have the same key; None is no key."""
        first: dict[Hashable, int] = {}
        for number, key in enumerate(keys):
            if key is not None:
                self.join(first.setdefault(key, number), number)

    def names(self) -> list[int]:
        """Of each thing, the smallest number in its group."""
        return [self.find(number) for number in range(len(self._parent))]


def join_alike(groups: Groups, texts: Sequence[str], threshold: float) -> None:
    """Join all whose texts have a likeness of at least `threshold` (above 0)."""
    sets = [shingles(text) for text in texts]
    groups.join_equal(sets)
    distinct = sorted({sets[name]: name for name in range(len(sets))}.values(), key=lambda n: (len(sets[n]), n))
    often = Counter(gram for number in distinct for gram in sets[number])
    seen: dict[int, list[int]] = {}
    for number in distinct:
        mine = sets[number]
        least = math.ceil(threshold * len(mine) - 1e-9)  # a common part smaller than this is not enough for any partner
        rarest = sorted(mine, key=lambda gram: (often[gram], gram))[: len(mine) - least + IN_COMMON]
        common = Counter(chain.from_iterable(seen.get(gram, ()) for gram in rarest))
        for other, count in common.items():
            if count < min(IN_COMMON, least) or len(sets[other]) < least:
                continue
            if groups.find(other) != groups.find(number) and likeness(mine, sets[other]) >= threshold:
                groups.join(number, other)
        for gram in rarest:
            seen.setdefault(gram, []).append(number)


def alike(texts: Sequence[str], threshold: float) -> list[int]:
    """Of each text, the number of the first one in its group of near-duplicates."""
    groups = Groups(len(texts))
    join_alike(groups, texts, threshold)
    return groups.names()
