"""Which tool a message calls for, or none.

Three signals per tool, each cheap: the cosine of the message and the tool (its example questions, or its name and
description), the words they share (weighted by how typical the word is of the tool), and how near the message is to
ordinary talk (`ordinary.py`). A logistic function, fitted once on the tune split of the question set of
`benchmarks/tool_calling.py`, turns them into a score from 0 to 1; there are two sets of weights, for tools with and
without example questions.

The threshold belongs to the installed set. Nothing is left to the messages of the day: every example question, held
out from its own tool, must pass, and ordinary talk, held out from itself, must not. The threshold is 0.4 where that
lies between the highest scores of the ordinary lines and the lowest of the examples, else the nearer of the two
bounds. More tools make it more likely that some tool resembles ordinary talk, so the threshold rises with the set.

It does not know documents, and it does not see earlier messages: the caller does.
"""

from __future__ import annotations

import math
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..domain.model import Embedder
from .ordinary import ORDINARY
from .toolspec import ToolSpec
from .wording import content_stems, masked, named_masked, spaced

Vectors = npt.NDArray[np.float32]

PRIOR = 0.4
"""The threshold before the installed set has its say (tune split: nothing is lost below it, nothing gained above)."""
_LOWEST, _HIGHEST = 0.35, 0.85
_COVERED = 0.55
"""Cosine above which a tool plainly covers an ordinary line, which then says nothing against that tool."""

_LACKING = 0.35
"""Taken off the likeness of a message without any word that nearly all of the tool's examples have ("Wikipedia")."""

WEIGHTS_WITH = (-4.96, 7.85, 2.35, -3.06, 2.0)
WEIGHTS_WITHOUT = (-4.38, 7.03, 7.03, -3.36, 1.73)
"""Bias, likeness, cosine with the description, nearness to ordinary talk, shared words."""

_EXPLAIN = re.compile(r"^\W*(?:why\b|explain\b|how (?:do|does|did)\b(?! (?:i|you|we|one)\b))", re.IGNORECASE)
_EXPLAINING = 1.5
"""Taken off the logit of tools without examples when the message asks for an explanation: "How do plants grow?" is
about plants, and so is `water_plants`, but a description alone cannot say that it does not explain."""


class VectorCache:
    """Embeddings by text, so that a tool or a message is embedded once. Keeps the `size` last used.

    Safe to use from several threads.
    """

    def __init__(self, embedder: Embedder, size: int = 8192) -> None:
        self._embedder = embedder
        self._size = size
        self._kept: OrderedDict[str, Vectors] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, texts: Sequence[str]) -> Vectors:
        """One row for each text, of length 1."""
        rows = self._known(texts)
        unknown = [t for t in dict.fromkeys(texts) if t not in rows]
        if unknown:
            made = np.asarray(self._embedder.embed_documents(unknown), dtype=np.float32)
            norms = np.linalg.norm(made, axis=1, keepdims=True)
            fresh = dict(zip(unknown, made / np.maximum(norms, 1e-9), strict=True))
            rows |= fresh
            self._keep(fresh)
        return np.stack([rows[t] for t in texts])

    def _known(self, texts: Sequence[str]) -> dict[str, Vectors]:
        """What is here already, taken at once: another thread may make it go while the rest is embedded."""
        with self._lock:
            found = {t: self._kept[t] for t in texts if t in self._kept}
            for text in found:
                self._kept.move_to_end(text)
        return found

    def _keep(self, fresh: dict[str, Vectors]) -> None:
        with self._lock:
            self._kept.update(fresh)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)


@dataclass(frozen=True)
class Route:
    """How well one tool fits. `score` is 0..1; the parts say why."""

    name: str
    score: float
    likeness: float
    """Cosine with the tool's nearest example question or its description."""
    shared: float
    """Typical words of the tool that the message uses, 0..1."""


@dataclass(frozen=True)
class Routing:
    """Every tool, best first, and what it took to be chosen."""

    routes: tuple[Route, ...]
    threshold: float
    ordinary: float
    """Cosine with the nearest line of ordinary talk."""

    @property
    def best(self) -> Route | None:
        """The tool to use, or None."""
        return self.routes[0] if self.routes and self.routes[0].score >= self.threshold else None


class Router:
    """Made for one set of tools; reusable for any number of messages."""

    def __init__(self, specs: Sequence[ToolSpec], vectors: VectorCache) -> None:
        self.specs = tuple(specs)
        self.vectors = vectors
        """Embeds the messages. Another may be put in its place once the router stands."""
        self._descriptions = [f"{spaced(s.name)}: {s.description}" for s in self.specs]
        self._examples = [masked(e) for s in self.specs for e in s.examples]
        self._owner = np.array([i for i, s in enumerate(self.specs) for _ in s.examples], dtype=np.int64)
        self._with = np.array([bool(s.examples) for s in self.specs], dtype=bool)
        self._typical = _typical_words(self.specs, self._descriptions)
        self._d = vectors.of(self._descriptions) if self.specs else np.zeros((0, 1), np.float32)
        self._e = vectors.of(self._examples) if self._examples else None
        self._essential = [_essential_words(spec) for spec in self.specs]
        self._keep = {w for table in self._typical for w in table}
        self._named = [named_masked(e, self._keep) for s in self.specs for e in s.examples]
        self._n = vectors.of(self._named) if self._named else None
        self._o = vectors.of([masked(line) for line in ORDINARY])
        self._covered = (self._d @ self._o.T) > _COVERED if self.specs else np.zeros((0, len(ORDINARY)), bool)
        self.threshold = self._calibrated()

    def route(self, message: str) -> Routing:
        """Score every tool for `message`."""
        vector = self.vectors.of([masked(message)])[0]
        scores, likeness, shared = self._scores(message, vector)
        order = np.argsort(-scores, kind="stable")
        routes = tuple(Route(self.specs[i].name, float(scores[i]), float(likeness[i]), float(shared[i])) for i in order)
        return Routing(routes, self.threshold, float((self._o @ vector).max()))

    def features(
        self, message: str, vector: Vectors, *, skip_example: int = -1, skip_ordinary: int = -1
    ) -> npt.NDArray[np.float64]:
        """One row a tool: likeness, cosine with the description, nearness to ordinary talk, shared words."""
        described = self._d @ vector
        likeness = described.copy()
        if self._e is not None:
            near = self._e @ vector
            if self._n is not None:
                near = np.maximum(near, self._n @ self.vectors.of([named_masked(message, self._keep)])[0])
            if skip_example >= 0:
                near[skip_example] = -1.0
            np.maximum.at(likeness, self._owner, near)
        talk = np.broadcast_to(self._o @ vector, self._covered.shape).copy()
        if skip_ordinary >= 0:
            talk[:, skip_ordinary] = -1.0
        talk[self._covered] = -1.0
        stems = content_stems(masked(message))
        lacking = np.array([bool(words) and not words & stems for words in self._essential])
        likeness = likeness - _LACKING * lacking
        shared = np.array([_shared(stems, words) for words in self._typical])
        return np.column_stack([likeness, described, talk.max(axis=1), shared])

    def _scores(
        self, message: str, vector: Vectors, *, skip_example: int = -1, skip_ordinary: int = -1
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        if not self.specs:
            return np.zeros(0), np.zeros(0), np.zeros(0)
        x = self.features(message, vector, skip_example=skip_example, skip_ordinary=skip_ordinary)
        weights = np.where(self._with[:, None], np.array(WEIGHTS_WITH), np.array(WEIGHTS_WITHOUT))
        logit = weights[:, 0] + (x * weights[:, 1:]).sum(axis=1)
        if _EXPLAIN.match(message):
            logit = logit - _EXPLAINING * ~self._with
        return 1.0 / (1.0 + np.exp(-logit)), x[:, 0], x[:, 3]

    def _calibrated(self) -> float:
        """See the module's note. 5 % of the ordinary lines may be above, 5 % of the examples below."""
        if not self.specs:
            return PRIOR
        talk = []
        for i, line in enumerate(ORDINARY):
            open_to = ~self._covered[:, i]
            if open_to.any():
                scores, _, _ = self._scores(line, self._o[i], skip_ordinary=i)
                talk.append(float(scores[open_to].max()))
        low = float(np.quantile(talk, 0.95)) if talk else _LOWEST
        high = _HIGHEST
        counts = Counter(self._owner.tolist())
        flat = [(i, e) for i, s in enumerate(self.specs) for e in s.examples]
        passed = []
        for n, (owner, example) in enumerate(flat):
            if counts[owner] > 1 and self._e is not None:
                scores, _, _ = self._scores(example, self._e[n], skip_example=n)
                passed.append(float(scores[owner]))
        if len(passed) >= 4:
            high = float(np.quantile(passed, 0.05))
        if low > high:  # they overlap: neither bound can be kept, so take the middle
            return float(np.clip((low + high) / 2, _LOWEST, _HIGHEST))
        return float(np.clip(np.clip(PRIOR, low, high), _LOWEST, _HIGHEST))


def _typical_words(specs: Sequence[ToolSpec], descriptions: Sequence[str]) -> list[dict[str, float]]:
    """For each tool: stem -> how typical, 0..1. Typical is what recurs in its texts and not in those of many others."""
    tables: list[dict[str, float]] = []
    for spec, description in zip(specs, descriptions, strict=True):
        texts = [content_stems(e) for e in spec.examples]
        seen = Counter(w for t in texts for w in t)
        named = content_stems(spaced(spec.name))
        table = dict.fromkeys(content_stems(description), 0.5)
        table.update(dict.fromkeys(named, 1.0))
        for word, n in seen.items():
            share = n / len(texts)
            if n > 1 or word in table:
                table[word] = max(table.get(word, 0.0), min(1.0, 0.4 + share))
        tables.append(table)
    holders = Counter(w for t in tables for w in t)
    talk = Counter(w for line in ORDINARY for w in content_stems(line))
    return [
        {w: v / (1.0 + 0.3 * math.log(holders[w])) / (1.0 + 0.15 * talk[w]) for w, v in table.items()}
        for table in tables
    ]


def _essential_words(spec: ToolSpec) -> set[str]:
    """Stems in at least four fifths of the tool's examples, where there are three or more of those."""
    if len(spec.examples) < 3:
        return set()
    seen = Counter(w for e in spec.examples for w in content_stems(masked(e)))
    return {w for w, n in seen.items() if n >= 0.8 * len(spec.examples)}


def _shared(stems: set[str], typical: dict[str, float]) -> float:
    """How typical the message's words are of the tool: one strong word is worth most of it."""
    weights = [typical[w] for w in stems if w in typical]
    return 1.0 - math.prod(1.0 - 0.8 * w for w in weights)
