"""Documents in, passages out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Span:
    """Half-open character range [start, end) in a document's extracted text."""

    start: int
    end: int


@dataclass(frozen=True)
class Passage:
    """A piece of a document that a search found.

    `score` is the cosine similarity of question and passage (-1..1) and is what the relevance floor is compared with;
    ranking is by `fused`, the reciprocal-rank-fusion score of both sides.
    """

    id: str
    document_id: str
    name: str
    """The document's name as a person knows it: a path inside the ingested folder, or the uploaded file's name."""
    text: str
    span: Span
    heading: tuple[str, ...] = ()
    """Title path, outermost first."""
    score: float = 0.0
    fused: float = 0.0
    vector_rank: int | None = None
    keyword_rank: int | None = None
    keyword_score: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Citation:
    """Support for part of an answer. `number` is what the answer shows in brackets."""

    number: int
    kind: str
    """``"passage"`` or ``"tool"``."""
    title: str
    heading: tuple[str, ...] = ()
    document_id: str = ""
    span: Span | None = None
    """The quoted sentence inside the document, where there is one."""
    quote: str = ""
    url: str = ""
    call_id: str = ""
    """The tool call it came from, for `kind == "tool"`."""
    score: float = 0.0
