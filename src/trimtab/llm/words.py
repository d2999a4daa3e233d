"""Which words of a message are the value of a text argument.

Candidates are stretches of the message: quoted, announced ("in Oslo", "subject: Lunch", "saying ..."), or left over
once the asking words, the tool's own vocabulary and the values found before are taken away. An unannounced lower-case
word is taken only if it is nearer in meaning to what the value describes than to what the tool does: "windy" is about
the weather and not a place.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence

from .dates import find_dates, find_times
from .quantities import find_numbers
from .slots import Kind, Slot
from .spans import Area, Candidate, anchored, emails, quoted, regions, remaining, stretch, urls
from .toolspec import ToolSpec
from .wording import STOP, content_stems, spaced, stem

Likeness = Callable[[str, Sequence[str]], list[float]]
"""Cosine of the first text with each of the others."""

_SAYING = re.compile(
    r"\b(?:saying|says|that says|and say|say|telling (?:him|her|them)(?: that)?|with the (?:text|message|body))\b:?\s*",
    re.I,
)


class WordFinder:
    """One message being read for one tool. `claimed` are the characters that belong to a value already."""

    def __init__(self, spec: ToolSpec, text: str, today: dt.date, likeness: Likeness | None, answering: bool) -> None:
        self.spec, self.text, self.today, self.likeness, self.answering = spec, text, today, likeness, answering
        self.frame = frame_of(spec)
        self.claimed: list[Area] = [c.claim for c in urls(text)] + [c.claim for c in emails(text)]

    def claim(self, start: int, end: int) -> None:
        """Take these characters, and a preposition or article before them."""
        lead = re.search(r"\b(?:(?:on|at|for|in|by|from|the|next|this|over|of)\s+)+$", self.text[:start], re.IGNORECASE)
        self.claimed.append(Area(lead.start() if lead else start, end))

    def free(self, start: int, end: int) -> bool:
        return not any(a.overlaps(start, end) for a in self.claimed)

    def words(self, slot: Slot, slots: Sequence[Slot]) -> str | None:
        alone = sum(s.kind in (Kind.NAME, Kind.QUERY, Kind.TEXT) for s in slots) == 1
        self._claim_leftovers(slot)
        best = self._best(slot, self._candidates(slot), alone)
        if best is None:
            return None
        self.claimed.append(best.claim)
        return best.text

    def _claim_leftovers(self, slot: Slot) -> None:
        """Days and times are no names: "London tomorrow" is London."""
        if slot.kind is Kind.NAME:
            for when in [*find_dates(self.text, self.today), *find_times(self.text)]:
                if self.free(when.start, when.end):
                    self.claim(when.start, when.end)

    def _candidates(self, slot: Slot) -> list[Candidate]:
        free = [c for c in quoted(self.text) if self.free(c.claim.start, c.claim.end)]
        own = [w for w in spaced(slot.name).split() if w not in STOP and len(w) > 2]
        free += self._introduced(own)
        if slot.kind is Kind.TEXT:
            said = _SAYING.search(self.text)
            if said and self.text[said.end() :].strip():
                free.append(self._tail(said.end()))
            free += self._runs()
        if slot.kind is Kind.QUERY:
            free += stretch(self.text, self.claimed, self.frame)
        if slot.kind in (Kind.NAME, Kind.DATE):
            free += anchored(self.text, self.claimed, slot.anchors, self.frame)
            free += self._after_number(slot)
            free += remaining(self.text, self.claimed, self.frame)
        if self.answering:
            free += stretch(self.text, self.claimed, {"it", "number"} | {stem(w) for w in own})
        return [c for c in free if self.free(c.area.start, c.area.end)]

    def _introduced(self, own: Sequence[str]) -> list[Candidate]:
        """``subject Lunch``, ``title: Dune``: the value stands after the value's own name."""
        found = []
        for word in own:
            if stem(word) in content_stems(spaced(self.spec.name)):
                continue
            m = re.search(rf"\b{re.escape(word)}\b\s*(?:is|=|:)?\s+([^,.?!;\n]+)", self.text, re.IGNORECASE)
            if m and self.free(m.start(1), m.end(1)) and m.group(1).split()[0].lower() not in STOP:
                area = Area(m.start(1), m.end(1))
                found.append(Candidate(m.group(1).strip(), area, Area(m.start(), m.end()), anchor="="))
        return found

    def _tail(self, start: int) -> Candidate:
        raw = self.text[start:].strip()
        raw = raw.strip("\"'“”").rstrip(" .") if raw[:1] in "\"'“" else raw.rstrip(" .")
        at = self.text.find(raw, start)
        return Candidate(raw, Area(at, at + len(raw)), Area(start, at + len(raw)), anchor="saying")

    def _runs(self) -> list[Candidate]:
        """What is left between claimed stretches, without the words that ask."""
        found = []
        asking = self.frame | {
            "remind",
            "translat",
            "add",
            "writ",
            "send",
            "not",
            "remember",
            "say",
            "tell",
            "set",
            "creat",
        }
        for run in regions(self.text, self.claimed, commas=False):
            part = list(run)
            while part and (
                stem(part[0].low) in asking
                or part[0].low
                in (
                    "me",
                    "please",
                    "a",
                    "an",
                    "to",
                    "the",
                    "for",
                    "can",
                    "you",
                    "could",
                    "that",
                    "how",
                    "do",
                    "and",
                    "my",
                    ":",
                )
            ):
                part.pop(0)
            while part and part[-1].low in ("please", "pls", "to", "for", "on", "at", "in", "into"):
                part.pop()
            if part and any(t.word for t in part):
                area = Area(part[0].start, part[-1].end)
                found.append(Candidate(self.text[area.start : area.end], area, area))
        return found

    def _after_number(self, slot: Slot) -> list[Candidate]:
        """``250 euros`` for what is converted *from*, ``how many yen`` for what is converted *to*."""
        anchors = slot.anchors
        if "from" in anchors:
            spots = [q.end for q in find_numbers(self.text)]
        elif "to" in anchors:
            spots = [m.end() for m in re.finditer(r"\bhow (?:many|much)\b", self.text, re.IGNORECASE)]
        else:
            return []
        found = []
        for spot in spots:
            m = re.match(
                r"\s*((?:(?!\b(?:is|are|in|to|into|do|does|can|from|for|and)\b)[^\W\d]+\s?){1,3})", self.text[spot:]
            )
            if m and m.group(1).strip():
                start = spot + m.start(1)
                area = Area(start, start + len(m.group(1).rstrip()))
                found.append(Candidate(m.group(1).strip(), area, area, anchor="#"))
        return found

    def _best(self, slot: Slot, candidates: Sequence[Candidate], alone: bool) -> Candidate | None:
        scored = [(self._score(slot, c, alone), -i, c) for i, c in enumerate(candidates)]
        scored = [s for s in scored if s[0] > 0]
        return max(scored, key=lambda s: s[:2])[2] if scored else None

    def _score(self, slot: Slot, c: Candidate, alone: bool) -> float:
        """Above 0 when the candidate may be this value; the highest is taken."""
        if c.quoted:
            return 4.0 if slot.kind is not Kind.NAME or alone else 1.7
        if c.anchor in ("=", "saying"):
            return 3.5
        if slot.kind is Kind.QUERY:
            return 1.0 + min(len(c.text.split()), 8) / 8
        if slot.kind is Kind.TEXT:
            return 1.0 + min(len(c.text.split()), 12) / 12 - (0.8 if content_stems(c.text) <= self.frame else 0.0)
        score = 0.5 * c.named
        if c.anchor == "#":
            return score + 1.9
        if c.anchor:
            return score + 2.0 - 0.15 * slot.anchors.index(c.anchor)
        return score + self._unannounced(slot, c)

    def _unannounced(self, slot: Slot, c: Candidate) -> float:
        if self.answering:
            return 1.0
        if not slot.required and self.spec.required:
            return -1.0  # left for what is required
        if any(w.isdigit() for w in c.text.split()):
            return -1.0
        before = re.findall(r"\w+", self.text[: c.area.start].lower())[-1:]
        if before and before[0] in ("to", "from", "by", "into") and before[0] not in slot.anchors:
            return -1.0  # announced as something else
        first = not self.text[: c.area.start].strip(" \n\"'") or self.text[: c.area.start].rstrip()[-1:] in ".?!"
        if c.named and not first:  # a capital at the beginning of a sentence says nothing
            return 0.8 if slot.required or not slot.path[:-1] else 0.0
        if not slot.required or self.likeness is None:
            return -1.0
        about = f"{spaced(self.spec.name)}: {self.spec.description}"
        as_value, as_tool = self.likeness(c.text, [slot.text, about])
        return 0.5 + as_value if as_value > max(0.15, as_tool - 0.02) else -1.0


def frame_of(spec: ToolSpec) -> set[str]:
    """Stems of the tool's own vocabulary: words that say what to do and not with what.

    From its name and description, and what recurs in its example questions.
    """
    stems = content_stems(f"{spaced(spec.name)} {spec.description}")
    seen: dict[str, int] = {}
    for example in spec.examples:
        for word in content_stems(example):
            seen[word] = seen.get(word, 0) + 1
    return stems | {w for w, n in seen.items() if n > 1}
