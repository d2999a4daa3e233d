"""Arguments of a call, taken from what the person said. Nothing is invented.

Each value is a stretch of the message, a number or date that occurs in it (normalised), or one of the schema's own
choices that the message names. Values of plain kinds are found by rule, typed ones first, and each one claims its
characters, so that no two values share a word. What no rule fits (`Kind.FREE`) is left for the model and checked with
`support.py`. A required value that is not found is missing; an optional one is left out.
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft202012Validator

from .dates import find_dates, find_times
from .quantities import Quantity, find_numbers
from .slots import Kind, Slot, slots_of
from .spans import Area, emails, quoted, stretch, urls
from .sums import arithmetic
from .toolspec import ToolSpec
from .wording import STOP, spaced, stem, tokens
from .words import Likeness, WordFinder

_NEGATED = re.compile(r"\b(?:no|not|without|don't|do not|never|non|disable|off)\W+(?:\w+\W+){0,1}$", re.IGNORECASE)
_DURATION = {"day": 1.0, "week": 7.0, "fortnight": 14.0, "hour": 1 / 24, "minute": 1 / 1440, "second": 1 / 86400}


@dataclass
class Filling:
    """Arguments so far. `missing` are required values that nothing supports; `open` are for the model."""

    arguments: dict[str, Any] = field(default_factory=dict)
    missing: list[Slot] = field(default_factory=list)
    open: list[Slot] = field(default_factory=list)


def fill(
    spec: ToolSpec,
    text: str,
    today: dt.date,
    *,
    likeness: Likeness | None = None,
    only: Sequence[Slot] | None = None,
    answering: bool = False,
) -> Filling:
    """Look for the tool's values in `text`.

    Args:
        likeness: tells whether an unannounced lower-case word may be what a value describes; without it, it is not.
        only: these slots, instead of all.
        answering: `text` replies to a question for these values, so it need not announce them.
    """
    slots = list(only) if only is not None else slots_of(spec)
    order = sorted(slots, key=lambda s: (_ORDER[s.kind], not s.required))

    def filled(order: Sequence[Slot]) -> Filling:
        return _filled(_Work(spec, text, today, likeness, answering), slots, order)

    result = filled(order)
    names = [slot for slot in order if slot.kind is Kind.NAME and slot.required]
    if 1 < len(names) <= _ORDERS and any(slot in result.missing for slot in names):
        # One name may have taken the only words that another could have: "at the harbour for Anna".
        for others in itertools.permutations(names):
            queue = iter(others)
            again = filled([next(queue) if slot in names else slot for slot in order])
            result = again if len(again.missing) < len(result.missing) else result
    return result


def _filled(work: _Work, slots: Sequence[Slot], order: Sequence[Slot]) -> Filling:
    """Value after value, in this order; each takes its words away from those that come later."""
    result = Filling()
    for slot in order:
        if slot.kind is Kind.FREE:
            result.open.append(slot)
            continue
        before = list(work.claimed)
        value = work.value(slot, slots)
        if value is not None and _fits(slot, value):
            put(result.arguments, slot.path, value)
            continue
        work.claimed = before  # what does not fit here may be another value
        if slot.required:
            result.missing.append(slot)
    result.missing.sort(key=slots.index)
    return result


def put(arguments: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set `value` at `path`, making the objects on the way."""
    for name in path[:-1]:
        arguments = arguments.setdefault(name, {})
    arguments[path[-1]] = value


_ORDERS = 3
"""Up to so many names are tried in every order: six."""

_ORDER = {
    Kind.URL: 0, Kind.EMAIL: 0, Kind.EXPRESSION: 1, Kind.DATE: 2, Kind.TIME: 3, Kind.NUMBER: 4, Kind.CHOICE: 5,
    Kind.BOOLEAN: 6, Kind.NAME: 7, Kind.QUERY: 8, Kind.TEXT: 9, Kind.FREE: 10,
}  # fmt: skip


class _Work(WordFinder):
    """One message being read for one tool."""

    def __init__(self, spec: ToolSpec, text: str, today: dt.date, likeness: Likeness | None, answering: bool) -> None:
        super().__init__(spec, text, today, likeness, answering)
        self.numbers: dict[tuple[str, ...], Quantity] | None = None

    def value(self, slot: Slot, slots: Sequence[Slot]) -> Any:
        if slot.many:
            return self._list(slot)
        match slot.kind:
            case Kind.URL:
                return next((c.text for c in urls(self.text)), None)
            case Kind.EMAIL:
                return next((c.text for c in emails(self.text)), None)
            case Kind.EXPRESSION:
                return self._expression()
            case Kind.DATE:
                day = self._when(slot, find_dates(self.text, self.today))
                # "until Christmas": a tool that wants plain text may know days that we do not
                return day if day or "format" in slot.schema else self.words(slot, slots)
            case Kind.TIME:
                return self._when(slot, find_times(self.text))
            case Kind.NUMBER:
                return self._number(slot, slots)
            case Kind.CHOICE:
                return self._choice(slot)
            case Kind.BOOLEAN:
                return self._yes_or_no(slot)
            case _:
                return self.words(slot, slots)

    # ---- typed values

    def _expression(self) -> str | None:
        found = arithmetic(self.text)
        if found is None:
            return None
        self.claimed.append(found)
        return self.text[found.start : found.end]

    def _when(self, slot: Slot, found: Sequence[Any]) -> str | None:
        for when in found:
            if when.iso and self.free(when.start, when.end):
                self.claim(when.start, when.end)
                return str(when.iso)
        return None

    def _number(self, slot: Slot, slots: Sequence[Slot]) -> int | float | None:
        if self.numbers is None:
            self.numbers = self._assign([s for s in slots if s.kind is Kind.NUMBER and not s.many])
            for quantity in self.numbers.values():
                after = re.match(r"[-\s]*([^\W\d]+)", self.text[quantity.end :])
                unit = after is not None and stem(after.group(1)) in {
                    w for s in slots for w in s.words if s.kind is Kind.NUMBER
                }
                unit = unit or (
                    after is not None
                    and (
                        stem(after.group(1)) in _DURATION
                        or after.group(1).lower() in ("people", "persons", "guests", "degrees")
                    )
                )
                self.claim(quantity.start, quantity.end + (after.end() if unit and after else 0))
        quantity_ = self.numbers.get(slot.path)
        if quantity_ is None:
            return None
        return _as_number(slot, self._scaled(slot, quantity_))

    def _scaled(self, slot: Slot, quantity: Quantity) -> int | float:
        """A duration in the slot's own unit: two weeks are 14 `days`."""
        unit = next((u for u in _DURATION if u in slot.words or stem(u) in slot.words), None)
        after = re.match(r"\s*-?([^\W\d]+)", self.text[quantity.end :])
        said = next((u for u in _DURATION if after and stem(after.group(1)) == stem(u)), None)
        if unit is None or said is None or unit == said:
            return quantity.value
        return round(quantity.value * _DURATION[said] / _DURATION[unit], 6)

    def _assign(self, slots: Sequence[Slot]) -> dict[tuple[str, ...], Quantity]:
        """Numbers to slots: by the words around them, then, for required slots, in the order they come."""
        taken = self.claimed + [Area(w.start, w.end) for w in find_dates(self.text, self.today)]
        free = [q for q in find_numbers(self.text) if not any(a.overlaps(q.start, q.end) for a in taken)]
        scored = sorted(
            ((self._hint(slot, q), -i, slot, q) for slot in slots for i, q in enumerate(free)),
            key=lambda t: (-t[0], -t[1]),
        )
        chosen: dict[tuple[str, ...], Quantity] = {}
        for hint, _, slot, quantity in scored:
            if hint > 0 and slot.path not in chosen and quantity not in chosen.values():
                chosen[slot.path] = quantity
        for slot in slots:
            rest = [q for q in free if q not in chosen.values()]
            if slot.path not in chosen and rest and (slot.required or self.answering):
                chosen[slot.path] = rest[0]
        return chosen

    def _hint(self, slot: Slot, quantity: Quantity) -> float:
        """How strongly the words next to a number speak for this slot; 0 when they do not."""
        after = re.findall(r"[^\W_]+", self.text[quantity.end : quantity.end + 60])[:4]
        before = re.findall(r"[^\W_]+", self.text[max(0, quantity.start - 60) : quantity.start])[::-1][:3]
        words = slot.words | ({"week", "day"} if slot.words & {"day"} else set())
        words |= {"peopl", "person", "guest"} if words & {"peopl", "person", "guest", "passenger"} else set()
        best = 0.0
        for distance, word in enumerate(after):
            if stem(word) in words and word.lower() not in STOP:
                best = max(best, 2.0 / (1 + distance))
        for distance, word in enumerate(before):
            if stem(word) in words and word.lower() not in STOP:
                best = max(best, 1.2 / (1 + distance))
        return best

    def _choice(self, slot: Slot) -> Any:
        options = slot.schema.get("enum") or [slot.schema.get("const")]
        if slot.required and len(options) == 1:
            return options[0]  # the only value there is says nothing about the message
        found: list[tuple[float, int, Any, Area]] = []
        for option in options:
            said = spaced(str(option))
            one = said[:-1] if said.endswith("s") and len(said) > 3 else said
            pattern = rf"(?<!\w){re.escape(one)}(?:e?s)?(?!\w)".replace(r"\ ", r"[\s_-]+")
            for m in re.finditer(pattern, self.text, re.IGNORECASE):
                if said and self.free(m.start(), m.end()):
                    found.append((self._announced(slot, m.start()), -m.start(), option, Area(m.start(), m.end())))
        if not found:
            return None
        best = max(found, key=lambda f: f[:2])
        self.claimed.append(best[3])
        return best[2]

    def _announced(self, slot: Slot, start: int) -> float:
        """1 when one of the slot's words stands just before; a "from" slot also likes what follows a number."""
        before = re.findall(r"\w+", self.text[:start].lower())[-2:]
        if before and before[-1] in slot.anchors:
            return 1.0
        if "from" in slot.anchors:
            return 0.8 if before and before[-1][:1].isdigit() else 0.0
        many = len(before) == 2 and before == ["how", "many"]
        return 0.6 if "to" in slot.anchors and many else 0.0

    def _yes_or_no(self, slot: Slot) -> bool | None:
        names = {stem(w) for w in spaced(slot.name).split() if w not in STOP} - self.frame
        for token in tokens(self.text):
            if stem(token.low) in names and self.free(token.start, token.end):
                return _NEGATED.search(self.text[: token.start]) is None
        if self.answering:
            reply = re.match(r"\W*(yes|yeah|yep|sure|true|no|nope|false)\b", self.text, re.IGNORECASE)
            return reply.group(1).lower() in ("yes", "yeah", "yep", "sure", "true") if reply else None
        return None

    def _list(self, slot: Slot) -> list[Any] | None:
        """Several values: everything of a typed kind, or names between commas and "and"."""
        if slot.kind is Kind.NUMBER:
            return [q.value for q in find_numbers(self.text)] or None
        if slot.kind in (Kind.URL, Kind.EMAIL):
            return [c.text for c in (urls(self.text) if slot.kind is Kind.URL else emails(self.text))] or None
        if slot.kind is Kind.DATE:
            return [w.iso for w in find_dates(self.text, self.today)] or None
        if slot.kind is Kind.CHOICE:
            items = slot.schema["items"]
            return [
                o
                for o in items.get("enum", [])
                if re.search(rf"(?<!\w){re.escape(spaced(str(o)))}s?(?!\w)", self.text, re.I)
            ] or None
        inside = [c.text for c in quoted(self.text)]
        parts = inside or [p for p in re.split(r"\s*(?:,|;|\band\b|&)\s*", self.text) if p.strip()]
        found = []
        for part in parts:
            part = re.sub(r"\s+\b(?:on|to|onto|in|into|from)\b\s+(?:my|the|our|a)\b.*$", "", part, flags=re.IGNORECASE)
            found += [c.text for c in stretch(part, [], self.frame)][:1]
        return found or None


def _as_number(slot: Slot, value: int | float) -> int | float | None:
    if slot.schema.get("type") == "integer":
        return int(value) if float(value).is_integer() else None
    return value


def _fits(slot: Slot, value: Any) -> bool:
    """Limits of the property itself, so that 99 days are asked about instead of refused later."""
    if isinstance(value, str) and not value.strip():
        return False  # "saying ." says nothing
    return bool(Draft202012Validator(dict(slot.schema)).is_valid(value))
