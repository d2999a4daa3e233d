"""Sentences and where they are: what an answer can quote, and what a chunk is made of.

Rules instead of a trained splitter, because a quote needs exact spans, every sentence of a table or a listing is a
line, and the rules are the same on every machine. Splitting errs towards too long: a wrong cut loses a subject.
"""

from __future__ import annotations

import re

from trimtab.domain.passage import Span

_ABBREVIATIONS = frozenset(
    (
        "mr mrs ms dr prof st sr jr vs etc e.g i.e cf al fig figs eq eqs sec ch vol no nos p pp ed eds dept univ "
        "approx est inc ltd co corp jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun "
        "a.m p.m u.s u.k ca bzw z.b"
    ).split()
)
_END = re.compile(r"[.!?。!?…]+[\"'”’)\]]*(?=\s|$)|[。!?]")
# A line that stands alone: list item, table row, heading, definition, quote, horizontal rule, code fence.
_OWN_LINE = re.compile(r"[ \t]*(?:[-*+•] |\d{1,3}[.)] |[a-z][.)] |\||#{1,6} |>|```|~~~|={3,}|-{3,})")
_WORD_BEFORE = re.compile(r"[\w.]*$")


def sentence_spans(text: str, *, lines: bool = False) -> list[Span]:
    """Sentences in order, without the blanks around them. They cover every non-blank character of `text`.

    With `lines`, each line is a sentence: for source code and tables.
    """
    if lines:
        return [span for a, b in _line_ranges(text) if (span := _trimmed(text, a, b))]
    spans: list[Span] = []
    for start, end in _paragraphs(text):
        spans += _split(text, start, end)
    return spans


def _line_ranges(text: str) -> list[tuple[int, int]]:
    ranges, start = [], 0
    for line in text.splitlines(keepends=True):
        ranges.append((start, start + len(line)))
        start += len(line)
    return ranges


def _paragraphs(text: str) -> list[tuple[int, int]]:
    """Ranges whose sentences may run over a line's end: hard-wrapped prose, or one item of a list."""
    out: list[tuple[int, int]] = []
    start: int | None = None
    fenced = alone = False
    for begin, end in _line_ranges(text):
        line = text[begin:end]
        fence = line.lstrip().startswith(("```", "~~~"))
        # A heading or table row ends with its line; a list item may be continued.
        row = line.lstrip().startswith(("|", "#")) or fence or fenced
        if not line.strip() or _OWN_LINE.match(line) or row or alone:
            if start is not None:
                out.append((start, begin))
            start = begin if line.strip() else None
        elif start is None:
            start = begin
        alone = row
        fenced ^= fence
    if start is not None:
        out.append((start, len(text)))
    return out


def _split(text: str, start: int, end: int) -> list[Span]:
    spans: list[Span] = []
    begin = start
    for match in _END.finditer(text, start, end):
        if _is_end(text, match.start(), match.end(), end):
            span = _trimmed(text, begin, match.end())
            if span:
                spans.append(span)
            begin = match.end()
    rest = _trimmed(text, begin, end)
    return [*spans, rest] if rest else spans


def _is_end(text: str, dot: int, after: int, limit: int) -> bool:
    mark = text[dot]
    if mark != ".":
        return True
    following = text[after : min(after + 40, limit)].lstrip()
    if following and following[0].islower():
        return False
    found = _WORD_BEFORE.search(text, max(0, dot - 20), dot)
    word = found.group() if found else ""
    if word.lower() in _ABBREVIATIONS:
        return False
    if len(word) == 1 and word.isalpha() and word.isupper():
        return False  # an initial: J. Smith
    # "1." opens a list item; "in 1969." ends a sentence.
    return not (word.isdigit() and len(word) <= 2 and text[:dot].rpartition("\n")[2].strip() == word)


def _trimmed(text: str, start: int, end: int) -> Span | None:
    piece = text[start:end]
    body = piece.strip()
    if not body:
        return None
    start += len(piece) - len(piece.lstrip())
    return Span(start, start + len(body))
