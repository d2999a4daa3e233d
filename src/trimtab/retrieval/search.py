"""Ranking: what both indexes found, put together, and the sentences in it that answer.

Reciprocal rank fusion (Cormack et al., SIGIR 2009) with its k of 60 needs no scores that can be compared, only ranks.
Whether anything was found at all is decided by the cosine alone, because BM25 has no scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab.domain.document import Document
from trimtab.domain.passage import Passage, Span

from .contracts import Encoder
from .sentences import sentence_spans

Matrix = npt.NDArray[np.float32]

RRF_K = 60


@dataclass(frozen=True)
class Filters:
    """Only documents that fit all of these. Empty means any."""

    name: str = ""
    """A name, or a pattern with ``*``, ``?`` and ``[...]``."""
    collection: str = ""
    collections: tuple[str, ...] = ()
    """One of these."""
    mime: str = ""
    """A type (``text/markdown``), or its beginning (``text/``)."""
    document_ids: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self != Filters()

    def accept(self, document: Document) -> bool:
        return (
            (not self.name or document.name == self.name or fnmatchcase(document.name, self.name))
            and (not self.collection or document.collection == self.collection)
            and (not self.collections or document.collection in self.collections)
            and (not self.mime or document.mime.startswith(self.mime))
            and (not self.document_ids or document.id in self.document_ids)
        )


class Fused(NamedTuple):
    id: str
    score: float
    vector_rank: int | None
    keyword_rank: int | None


def fuse(by_vector: Sequence[str], by_keyword: Sequence[str], k: int = RRF_K) -> list[Fused]:
    """Both rankings in one, best first. Ranks count from 1; ties keep the vector side's order."""
    vector = {chunk_id: rank for rank, chunk_id in enumerate(by_vector, start=1)}
    keyword = {chunk_id: rank for rank, chunk_id in enumerate(by_keyword, start=1)}
    fused = [
        Fused(i, sum(1 / (k + ranks[i]) for ranks in (vector, keyword) if i in ranks), vector.get(i), keyword.get(i))
        for i in dict.fromkeys([*by_vector, *by_keyword])
    ]
    return sorted(fused, key=lambda f: -f.score)


class Quote(NamedTuple):
    """A sentence that may answer: `span` is its place in the document, `score` its cosine to the question."""

    passage: Passage
    span: Span
    sentence: str
    score: float


def best_sentences(encoder: Encoder, question: str, passages: Sequence[Passage], n: int) -> list[Quote]:
    """The `n` sentences of these passages nearest to the question, best first. The same sentence counts once."""
    candidates: dict[tuple[str, int], tuple[Passage, Span, str, str]] = {}
    for passage in passages:
        for span in _quotable(passage):
            sentence = passage.text[span.start : span.end]
            place = Span(passage.span.start + span.start, passage.span.start + span.end)
            # A row of a table means nothing without its header.
            shown = f"{passage.metadata['context']}\n{sentence}" if _is_table(passage) else sentence
            candidates.setdefault((passage.document_id, place.start), (passage, place, sentence, shown))
    if not candidates or n <= 0:
        return []
    vectors = encoder.encode([question, *(shown for _, _, _, shown in candidates.values())])
    scores = vectors[1:] @ vectors[0]
    quotes = [Quote(p, place, s, float(x)) for (p, place, s, _), x in zip(candidates.values(), scores, strict=True)]
    unique: dict[str, Quote] = {}
    for quote in sorted(quotes, key=lambda q: -q.score):
        unique.setdefault(" ".join(quote.sentence.lower().split()), quote)
    return list(unique.values())[:n]


def _quotable(passage: Passage) -> list[Span]:
    """Its sentences without titles, fences and rules, unless it has nothing else."""
    mime = str(passage.metadata.get("mime", ""))
    spans = sentence_spans(passage.text, lines=mime.startswith("text/x-") or _is_table(passage))
    titles = {" ".join(title.split()).lower() for title in passage.heading}
    kept = [s for s in spans if not _is_title(passage.text[s.start : s.end], titles)]
    return kept or spans


def _is_title(sentence: str, titles: set[str]) -> bool:
    bare = sentence.strip("#=-`~*_ \n")
    return not bare or sentence.startswith(("# ", "## ", "### ", "#### ", "```", "~~~")) or bare.lower() in titles


def _is_table(passage: Passage) -> bool:
    return passage.metadata.get("mime") in ("text/csv", "text/tab-separated-values") and bool(
        passage.metadata["context"]
    )


def nearest_exactly(vector: Matrix, rows: Sequence[tuple[str, bytes]], k: int) -> list[tuple[str, float]]:
    """(id, cosine) best first over rows of (id, float32 blob)."""
    if not rows:
        return []
    matrix = np.frombuffer(b"".join(blob for _, blob in rows), dtype="<f4").reshape(len(rows), -1)
    scores = matrix @ vector
    order = np.argsort(-scores, kind="stable")[:k]
    return [(rows[i][0], float(scores[i])) for i in order]


def cosines(vector: Matrix, rows: Sequence[tuple[str, bytes]]) -> Mapping[str, float]:
    return dict(nearest_exactly(vector, rows, len(rows)))
