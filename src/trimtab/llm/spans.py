"""Stretches of a message that may be a value. Every candidate is the person's own characters, in their order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .wording import STOP, Token, stem, tokens

_QUOTED = re.compile(r"[\"“”«]([^\"“”«»\n]{1,500})[\"“”»]|(?<!\w)['‘]([^'\n]{1,300})['’](?!\w)")
_URL = re.compile(
    r"(?:https?://|www\.)[^\s<>\"']+"
    r"|(?<![@\w.])(?:[a-z0-9-]+\.)+(?:com|org|net|edu|gov|io|dev|info|example|co\.uk|de|fr|at|ch)(?:/[^\s<>\"']*)?(?!\w)",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_EDGE = frozenset("a an the my our some this that any".split())
_POLITE = frozenset("please pls plz thanks thank now today rn there here again currently quickly asap like".split())
_COMMAND = frozenset(
    """say look find search play open read fetch check tell show give explain summarise summarize calculate
    compute work convert change translate send write set turn switch put add make book reserve order buy
    track remind want need go see get do take figure visit load list run start stop use call hear listen
    watch cook know learn compare page website site article articles something anything everything stuff
    thing things someone""".split()
)
_JOIN = frozenset("of the de da di du la le el al von van der and & for in on to with".split())
_BREAK = frozenset(',.?!;:()"“”')


@dataclass(frozen=True)
class Area:
    """Characters [start, end) of a message."""

    start: int
    end: int

    def overlaps(self, start: int, end: int) -> bool:
        return start < self.end and self.start < end


@dataclass(frozen=True)
class Candidate:
    """A possible value and what announced it (``""`` when nothing did). `claim` also covers the announcing word."""

    text: str
    area: Area
    claim: Area
    anchor: str = ""
    quoted: bool = False

    @property
    def named(self) -> bool:
        """It looks like a name or a code: a capital or a digit in each of its telling words."""
        telling = [w for w in self.text.split() if w.lower() not in _JOIN and w.lower() not in _EDGE]
        return bool(telling) and all(any(c.isupper() or c.isdigit() for c in w) for w in telling)


def quoted(text: str) -> list[Candidate]:
    """What stands in quotation marks."""
    found = []
    for m in _QUOTED.finditer(text):
        inner = m.group(1) or m.group(2)
        if inner.strip():
            start = m.start(1) if m.group(1) else m.start(2)
            area = Area(start, start + len(inner))
            found.append(Candidate(inner.strip(), area, Area(m.start(), m.end()), quoted=True))
    return found


def urls(text: str) -> list[Candidate]:
    """Web addresses; one written without a scheme gets https."""
    found = []
    for m in _URL.finditer(text):
        raw = m.group().rstrip(".,;:!?)]}")
        area = Area(m.start(), m.start() + len(raw))
        found.append(Candidate(raw if "://" in raw else "https://" + raw, area, area))
    return found


def emails(text: str) -> list[Candidate]:
    return [
        Candidate(m.group().rstrip("."), Area(m.start(), m.end()), Area(m.start(), m.end()))
        for m in _EMAIL.finditer(text)
    ]


def regions(text: str, claimed: Sequence[Area], *, commas: bool = True) -> Iterator[list[Token]]:
    """Runs of words between punctuation and what is claimed already."""
    run: list[Token] = []
    for token in tokens(text):
        taken = any(a.overlaps(token.start, token.end) for a in claimed)
        ends = token.text in _BREAK and (commas or token.text != ",")
        if taken or ends:
            if run:
                yield run
            run = []
        else:
            run.append(token)
    if run:
        yield run


def anchored(
    text: str, claimed: Sequence[Area], anchors: Iterable[str], frame: set[str], *, whole: bool = False
) -> list[Candidate]:
    """What follows one of `anchors`, to the next preposition (or, `whole`, to the end of the run)."""
    wanted = set(anchors)
    found = []
    for run in regions(text, claimed):
        for i, token in enumerate(run):
            if token.low not in wanted:
                continue
            rest = run[i + 1 :]
            stop = next((j for j, t in enumerate(rest) if _ends(rest, j)), len(rest)) if not whole else len(rest)
            candidate = _made(text, rest[:stop], frame, anchor=token)
            if candidate:
                found.append(candidate)
    return found


def remaining(text: str, claimed: Sequence[Area], frame: set[str]) -> list[Candidate]:
    """Runs of words that neither ask nor belong to the tool's own vocabulary."""
    found = []
    for run in regions(text, claimed):
        part: list[Token] = []
        for i, token in enumerate(run):
            joins = token.low in _JOIN and bool(part) and i + 1 < len(run) and not _idle(run[i + 1], frame)
            if _idle(token, frame) and not (joins and token.low not in ("for", "in", "on", "to", "with")):
                found += [c for c in [_made(text, part, frame)] if c]
                part = []
            else:
                part.append(token)
        found += [c for c in [_made(text, part, frame)] if c]
    return found


def stretch(text: str, claimed: Sequence[Area], frame: set[str]) -> list[Candidate]:
    """Each run without the asking words at its beginning and the tool's words and politeness at its end."""
    return [c for run in regions(text, claimed, commas=False) if (c := _made(text, run, frame, leading=True))]


def _ends(rest: list[Token], j: int) -> bool:
    token = rest[j]
    if j == 0:
        return token.low in ("in", "at", "for", "from", "to", "on", "by", "with")
    inner = token.low in ("of", "de", "da", "di", "du", "la", "le", "the")
    return (token.low in STOP and not inner) or token.low in _POLITE or token.low in ("next", "this")


def _idle(token: Token, frame: set[str]) -> bool:
    return (
        token.low in STOP or token.low in _POLITE or token.low in _COMMAND or stem(token.low) in frame or not token.word
    )


def _made(
    text: str, part: list[Token], frame: set[str], *, anchor: Token | None = None, leading: bool = False
) -> Candidate | None:
    """The candidate of these tokens, trimmed; None when nothing is left."""
    part = list(part)
    while part and (part[-1].low in _POLITE or part[-1].low in STOP or not part[-1].word or _framed(part[-1], frame)):
        part.pop()
    while part and leading and _idle(part[0], frame):
        part.pop(0)
    while part and (not part[0].word or (part[0].low in _EDGE and not part[0].text[0].isupper())):
        part.pop(0)
    if not part or all(_idle(t, frame) for t in part):
        return None
    start, end = part[0].start, part[-1].end
    return Candidate(
        text[start:end], Area(start, end), Area(anchor.start if anchor else start, end), anchor.low if anchor else ""
    )


def _framed(token: Token, frame: set[str]) -> bool:
    return stem(token.low) in frame
