"""Putting an answer together from sources: quoting, citing, and telling what a tool said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from trimtab.domain.events import CallStatus, ToolFinished
from trimtab.domain.passage import Citation, Passage, Span

from .grounding import cited_numbers

NOT_FOUND = "I did not find this in your documents."
SURROUNDING_CHARS = 300
"""How much of the passage around the best sentence a small model reads: about the sentences beside it. More of it
misleads a small model: of 16 questions it phrased 6 rightly so, 4 with the whole passage."""
CLOSE = 0.12
"""A second sentence is quoted when it scores within this of the best."""
_FOLLOW_UP = re.compile(
    r"^\W*(?:and|or|but|what about|how about|why|then|also)\b"
    r"|\b(?:it|its|they|them|their|that|this|those|these|he|she|his|her)\b",
    re.I,
)


def not_found(found: Sequence[tuple[Passage, Span, str, float]]) -> str:
    """What is said below the floor, with where the nearest thing stands."""
    if not found:
        return NOT_FOUND
    passage = found[0][0]
    place = " › ".join((passage.name, *passage.heading))
    return f"{NOT_FOUND} The closest passage is in {place}. To hear the model's own guess, ask with documents off."


@dataclass(frozen=True)
class Best:
    """The sentences that answer best, and whether they are good enough to."""

    found: tuple[tuple[Passage, Span, str, float], ...]
    """Good enough to quote."""
    score: float
    nearest: tuple[tuple[Passage, Span, str, float], ...] = ()
    """The best there was, good enough or not."""

    @classmethod
    def of(cls, sentences: Sequence[tuple[Passage, Span, str, float]], floor: float) -> Best:
        if not sentences:
            return cls((), 0.0)
        top = sentences[0][3]
        kept = [s for s in sentences[:2] if s[3] >= floor and s[3] >= top - CLOSE]
        return cls(tuple(kept), top, tuple(sentences[:1]))

    @property
    def supported(self) -> bool:
        return bool(self.found)

    @property
    def citations(self) -> tuple[Citation, ...]:
        return tuple(
            Citation(
                number=number,
                kind="passage",
                title=passage.name,
                heading=passage.heading,
                document_id=passage.document_id,
                span=span,
                quote=sentence,
                score=round(score, 4),
            )
            for number, (passage, span, sentence, score) in enumerate(self.found, 1)
        )

    def texts(self) -> list[str]:
        """What a phrasing is held to: the quoted sentences, with their headings."""
        return [" ".join((*passage.heading, sentence)) for passage, _, sentence, _ in self.found]

    def quoted(self) -> str:
        """Markdown block quotes, each with its citation mark."""
        return "\n\n".join(f"> {' '.join(c.quote.split())} [{c.number}]" for c in self.citations)

    def surroundings(self) -> str:
        """The part of the best passage around its best sentence, cut at line or word borders."""
        passage, span, _, _ = self.found[0]
        if len(passage.text) <= SURROUNDING_CHARS:
            return passage.text
        middle = (span.start + span.end) // 2 - passage.span.start
        start = max(0, min(middle - SURROUNDING_CHARS // 2, len(passage.text) - SURROUNDING_CHARS))
        piece = passage.text[start : start + SURROUNDING_CHARS]
        if start > 0:
            piece = piece[piece.find(" ") + 1 :]
        if start + SURROUNDING_CHARS < len(passage.text):
            piece = piece[: piece.rfind(" ")]
        return piece


def standalone(question: str, history: Sequence[tuple[str, str]]) -> str:
    """A follow-up such as "And how long is it?" with the question before it, so that a search can find something."""
    if len(question.split()) > 8 or not _FOLLOW_UP.search(question):
        return question
    earlier = next((text for role, text in reversed(history) if role == "user"), "")
    return f"{earlier[:300]} {question}".strip()


def cite_results(results: Sequence[ToolFinished]) -> tuple[Citation, ...]:
    """One citation for each source of each result that came from outside."""
    out: list[Citation] = []
    for result in results:
        if result.status is not CallStatus.OK:
            continue
        for source in result.sources:
            out.append(
                Citation(
                    number=len(out) + 1,
                    kind="tool",
                    title=source.get("title", "") or result.tool,
                    url=source.get("url", ""),
                    call_id=result.call_id,
                )
            )
    return tuple(out)


def tell(results: Sequence[ToolFinished], citations: Sequence[Citation]) -> str:
    """The tools' own sentences, one paragraph each; empty when a result has none and a model must phrase it."""
    parts = []
    for result in results:
        if result.status is CallStatus.OK:
            if not result.answer:
                return ""
            marks = "".join(f" [{c.number}]" for c in citations if c.call_id == result.call_id)
            parts.append(result.answer + marks)
        else:
            parts.append(failure(result))
    return "\n\n".join(parts)


def failure(result: ToolFinished) -> str:
    """What a person is told about a call that gave nothing."""
    match result.status:
        case CallStatus.REJECTED:
            return f"I did not use {result.tool}: {result.text}"
        case CallStatus.INVALID:
            return f"I could not use {result.tool}. {result.text}"
        case _:
            return f"{result.tool} did not work: {result.text}"


def quote_result(results: Sequence[ToolFinished], citations: Sequence[Citation]) -> str:
    """The beginning of what the tools said, word for word."""
    parts = []
    for result in results:
        if result.status is not CallStatus.OK:
            parts.append(failure(result))
            continue
        mark = next((f" [{c.number}]" for c in citations if c.call_id == result.call_id), "")
        parts.append(f"> {' '.join(result.text.split())[:600]}{mark}")
    return "\n\n".join(parts)


def cited(text: str, passages: Sequence[Passage]) -> tuple[Citation, ...]:
    """Citations for the [n] marks a model wrote; marks that name no passage are left out."""
    return tuple(
        Citation(
            number=n,
            kind="passage",
            title=passages[n - 1].name,
            heading=passages[n - 1].heading,
            document_id=passages[n - 1].document_id,
            span=passages[n - 1].span,
            quote=passages[n - 1].text,
            score=round(passages[n - 1].score, 4),
        )
        for n in cited_numbers(text)
        if 1 <= n <= len(passages)
    )
