"""Cutting a document into the pieces that are searched.

A piece never crosses a title, is cut where its kind of text has joints (paragraph, sentence, function, row), carries
its title path, and is an exact range of the extracted text: `text[start:end]`. Together the pieces hold every character
that is not blank, once; there is no overlap, because a sentence is never cut unless it alone is too long.

Sizes are counted in the embedding model's tokens. The whole text is tokenized once and every range is measured by
counting the tokens that begin in it, which is exact because ranges end between words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from trimtab.domain.passage import Span

from .extracted import CODE, MARKDOWN, TABLE, Extracted, Title
from .sentences import sentence_spans

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ChunkOptions:
    max_tokens: int = 200
    """Of a piece; its context comes on top. Taste: two or three paragraphs."""
    context_tokens: int = 40
    """Of the title path or table header that is embedded in front of a piece."""


@dataclass(frozen=True)
class Piece:
    start: int
    end: int
    heading: tuple[str, ...] = ()
    context: str = ""
    """Put in front of the text when it is embedded and indexed. Not part of the range."""


def chunk(document: Extracted, tokenizer: Tokenizer, options: ChunkOptions = ChunkOptions()) -> list[Piece]:
    """Pieces in order, each at most `options.max_tokens` long."""
    text = document.text
    ruler = _Ruler(text, tokenizer)
    titles = titles_of(document)
    header = _table_header(text) if document.kind == TABLE else ""
    out: list[Piece] = []
    for span, heading in _sections(text, titles, code=document.kind == CODE):
        context = _shorten(header or " > ".join(heading), tokenizer, options.context_tokens)
        for part in _pack(_atoms(text, span, document.kind, ruler, options.max_tokens), ruler, options.max_tokens):
            # The first piece of a table holds its header already.
            own = "" if header and part.start == 0 else context
            out.append(Piece(part.start, part.end, heading, own))
    return out


class _Ruler:
    """How many tokens begin in a range of the text, and where words begin."""

    STRETCH = 50_000
    """Characters tokenized at once: offsets of a whole book as Python objects would take a gigabyte."""
    LONG_WORD = 30
    """A word longer than this may be cut, and its halves could have a token for each character."""

    def __init__(self, text: str, tokenizer: Tokenizer) -> None:
        parts = [self._measure(text, begin, end, tokenizer) for begin, end in _stretches(text, self.STRETCH)]
        empty = np.zeros(0, dtype=np.int64)
        self._starts = np.concatenate([starts for starts, _ in parts]) if parts else empty
        self._words = np.concatenate([words for _, words in parts]) if parts else empty

    def _measure(self, text: str, begin: int, end: int, tokenizer: Tokenizer) -> tuple[Positions, Positions]:
        encoding = tokenizer.encode(text[begin:end], add_special_tokens=False)
        if not encoding.ids:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        offsets = np.array(encoding.offsets, dtype=np.int64) + begin
        word = np.array(encoding.word_ids, dtype=np.int64)
        first = np.flatnonzero(np.concatenate([[True], word[1:] != word[:-1]]))
        last = np.concatenate([first[1:], [len(word)]])
        starts, words = offsets[:, 0], offsets[first, 0]
        long = np.flatnonzero(offsets[last - 1, 1] - words > self.LONG_WORD)
        if len(long):
            letters = [np.arange(offsets[first[w], 0], offsets[last[w] - 1, 1]) for w in long]
            kept = np.ones(len(starts), dtype=bool)
            for w in long:
                kept[first[w] : last[w]] = False
            starts = np.sort(np.concatenate([starts[kept], *letters]))
            words = np.sort(np.concatenate([words, *[w[1:] for w in letters]]))
        return starts, words

    def count(self, start: int, end: int) -> int:
        a, b = np.searchsorted(self._starts, (start, end))
        return int(b - a)

    def fit(self, start: int, end: int, limit: int) -> int:
        """A place between words, past `start` and at most `end`, such that up to there are at most `limit` tokens."""
        beyond = int(np.searchsorted(self._starts, start)) + limit
        if beyond >= len(self._starts):
            return end
        stop = int(self._starts[beyond])
        word = int(np.searchsorted(self._words, stop, side="right")) - 1
        stop = int(self._words[word]) if word >= 0 else stop
        # A single word over the limit, which scripts whose letters are several tokens can have.
        return min(end, stop if stop > start else start + max(1, limit // 4))


def _stretches(text: str, size: int) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(text):
        end = min(len(text), start + size)
        if end < len(text):
            newline = max(text.rfind("\n", start, end), text.rfind(" ", start, end))
            end = newline + 1 if newline > start else end
        yield start, end
        start = end


# Titles

_ATX = re.compile(r" {0,3}(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$")
_SETEXT = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_FENCE = re.compile(r" {0,3}(```|~~~)")
_DEFINITION = re.compile(
    r"([ \t]*)(?:(?:export|default|public|private|protected|internal|static|final|abstract|async|pub(?:\([\w: ]+\))?|"
    r"unsafe|extern|inline|virtual|override|sealed|partial|data|open)[ \t]+)*"
    r"(?:def|class|function\*?|func|fn|impl|struct|enum|trait|interface|type|module|namespace|record|object|sub|macro_rules!)"
    r"[ \t]+([^\n({:;=]{1,120})"
)
_DECORATION = re.compile(r"[ \t]*(?:@|#\[|///|//|/\*\*|\*|#(?!\s*(?:include|define|if|endif|else)))")


def titles_of(document: Extracted) -> list[Title]:
    """The loader's titles, or those that the text itself shows (Markdown headings, definitions in source code)."""
    if document.titles:
        return sorted(document.titles, key=lambda t: t.start)
    if document.kind == MARKDOWN:
        return list(_markdown_titles(document.text))
    if document.kind == CODE:
        return list(_definitions(document.text))
    return []


def _lines(text: str) -> Iterator[tuple[int, str]]:
    start = 0
    for line in text.split("\n"):
        yield start, line
        start += len(line) + 1


def _markdown_titles(text: str) -> Iterator[Title]:
    fence = ""
    before: tuple[int, str] = (0, "")
    for start, line in _lines(text):
        mark = _FENCE.match(line)
        if mark and (not fence or mark.group(1) == fence):
            fence = "" if fence else mark.group(1)
        elif not fence:
            atx, setext = _ATX.match(line), _SETEXT.match(line)
            if atx:
                yield Title(start, len(atx.group(1)), atx.group(2))
            elif setext and before[1].strip() and not re.match(r"\s*([-*+>|#]|\d+[.)])", before[1]):
                yield Title(before[0], 1 if "=" in line else 2, before[1].strip())
        before = (start, "" if mark else line)


def _definitions(text: str) -> Iterator[Title]:
    pending: int | None = None
    for start, line in _lines(text):
        found = _DEFINITION.match(line)
        if found:
            indent = len(found.group(1).expandtabs(4))
            # Deeper than a method is a detail of its function, not a title.
            if indent <= 4:
                begin = start if pending is None else pending
                yield Title(begin, 1 + (indent > 0), " ".join(line.strip().split("(")[0].rstrip("{: ").split())[:120])
            pending = None
        elif _DECORATION.match(line):
            # Decorators and the comment above a definition belong to it.
            pending = start if pending is None else pending
        else:
            pending = None


def _sections(text: str, titles: list[Title], *, code: bool) -> Iterator[tuple[Span, tuple[str, ...]]]:
    """Ranges between titles with their title path. A title with nothing under it joins the section that follows."""
    path: list[Title] = []
    start, heading = 0, ()  # type: tuple[int, tuple[str, ...]]
    for index, title in enumerate(titles):
        nothing_under = index > 0 and _only_title(text[titles[index - 1].start : title.start])
        deeper = index > 0 and title.level > titles[index - 1].level
        if title.start > start and not (nothing_under and deeper and not code):
            yield Span(start, title.start), heading
            start = title.start
        while path and path[-1].level >= title.level:
            path.pop()
        path.append(title)
        heading = tuple(t.text for t in path)
    yield Span(start, len(text)), heading


def _only_title(piece: str) -> bool:
    lines = [line for line in piece.split("\n") if line.strip()]
    return len(lines) <= 1 or (len(lines) == 2 and _SETEXT.match(lines[1]) is not None)


def _table_header(text: str) -> str:
    return next((line.strip() for _, line in _lines(text[:20_000]) if line.strip()), "")


def _shorten(context: str, tokenizer: Tokenizer, limit: int) -> str:
    """The end of a title path says more than its beginning; the beginning of a header says more than its end."""
    context = context[: limit * 20]
    encoded = tokenizer.encode(context, add_special_tokens=False)
    if len(encoded.ids) <= limit:
        return context
    return context[: encoded.offsets[limit - 1][1]]


# Cutting


def _atoms(text: str, section: Span, kind: str, ruler: _Ruler, limit: int) -> Iterator[Span]:
    """The smallest ranges worth keeping whole, each within the limit."""
    for block in _blocks(text, section, kind):
        if ruler.count(block.start, block.end) <= limit:
            yield block
            continue
        lines = kind in (CODE, TABLE) or text[block.start : block.end].lstrip().startswith(("```", "~~~", "|"))
        for s in sentence_spans(text[block.start : block.end], lines=lines):
            yield from _cut(text, Span(block.start + s.start, block.start + s.end), ruler, limit)


_BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")


def _blocks(text: str, section: Span, kind: str) -> Iterable[Span]:
    """Paragraphs, code between blank lines, or rows of a table."""
    if kind == TABLE:
        return _rows(text, section)
    return _between(text, section, _BLANK_LINES)


def _between(text: str, section: Span, gap: re.Pattern[str]) -> Iterator[Span]:
    start = section.start
    for match in gap.finditer(text, section.start, section.end):
        yield from _solid(text, start, match.start())
        start = match.end()
        # Indentation is part of the code that follows it.
        line = text.rfind("\n", match.start(), match.end()) + 1
        if line > match.start():
            start = line
    yield from _solid(text, start, section.end)


def _solid(text: str, start: int, end: int) -> Iterator[Span]:
    piece = text[start:end]
    if piece.strip():
        yield Span(start + len(piece) - len(piece.lstrip("\n")), end - (len(piece) - len(piece.rstrip())))


def _rows(text: str, section: Span) -> Iterator[Span]:
    """Records of a CSV: a newline inside quotes does not end one."""
    start = position = section.start
    quoted = False
    while position < section.end:
        newline = text.find("\n", position, section.end)
        stop = section.end if newline < 0 else newline
        quoted ^= text.count('"', position, stop) % 2 == 1
        # An unclosed quote must not swallow the rest of the file.
        if not quoted or stop - start > 20_000:
            yield from _solid(text, start, stop)
            start, quoted = stop + 1, False
        position = stop + 1
    yield from _solid(text, min(start, section.end), section.end)


def _cut(text: str, span: Span, ruler: _Ruler, limit: int) -> Iterator[Span]:
    """A sentence longer than a piece may be: cut between words, or anywhere when it has none."""
    start = span.start
    while start < span.end:
        if ruler.count(start, span.end) <= limit:
            yield Span(start, span.end)
            return
        stop = ruler.fit(start, span.end, limit)
        blank = max(text.rfind(" ", start + 1, stop), text.rfind("\n", start + 1, stop))
        stop = blank + 1 if blank > start else stop
        yield from _solid(text, start, stop)
        start = stop


def _pack(atoms: Iterable[Span], ruler: _Ruler, limit: int) -> Iterator[Span]:
    """Neighbours together, as many as fit."""
    current: Span | None = None
    for atom in atoms:
        if current is not None and ruler.count(current.start, atom.end) <= limit:
            current = Span(current.start, atom.end)
            continue
        if current is not None:
            yield current
        current = atom
    if current is not None:
        yield current
