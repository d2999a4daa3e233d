"""Days and times of day in an English message, told from today.

    find_dates("next Friday or 5 December", today)  ->  2026-11-27, 2026-12-05

A weekday is the next one after today, with or without "next"; a day and month without a year is the next one from
today on. 03/04/2026 means two different days to different people and is not read.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .quantities import SMALL

_MONTHS = "january february march april may june july august september october november december".split()
_DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
_MONTH = "(" + "|".join(f"{m[:3]}(?:{m[3:]})?" for m in _MONTHS) + r")\.?"
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?:,?\s+(\d{4}))?"
_COUNT = r"(\d{1,3}|a|an|" + "|".join(SMALL) + ")"


@dataclass(frozen=True)
class When:
    """A day or a time, as ISO 8601, and the characters that say it."""

    iso: str
    start: int
    end: int


def find_dates(text: str, today: dt.date) -> list[When]:
    """Days said in `text`, in order, without overlaps."""
    found: list[When] = []
    for pattern, read in _RULES:
        for match in pattern.finditer(text):
            try:
                day = read(match, today)
            except (ValueError, OverflowError):  # 31 February, or the year 10000
                continue
            if all(match.end() <= f.start or match.start() >= f.end for f in found):
                found.append(When(day.isoformat(), match.start(), match.end()))
    return sorted(found, key=lambda f: f.start)


_TIME = re.compile(
    r"\b(\d{1,2})(?::(\d{2}))?\s*(am|pm|a\.m\.|p\.m\.|o'clock)|\b([01]?\d|2[0-3]):([0-5]\d)\b|\b(noon|midnight)\b", re.I
)


def find_times(text: str) -> list[When]:
    """Times of day as ``HH:MM``, in order."""
    return [When(clock, m.start(), m.end()) for m in _TIME.finditer(text) if (clock := _clock(m))]


def _clock(match: re.Match[str]) -> str:
    hour, minute, half, full_hour, full_minute, word = match.groups()
    if word:
        return "12:00" if word.lower() == "noon" else "00:00"
    if full_hour:
        return f"{int(full_hour):02d}:{full_minute}"
    h, m = int(hour), int(minute or 0)
    if half.lower().startswith("o"):
        return f"{h:02d}:{m:02d}" if h < 24 and m < 60 else ""
    if not 1 <= h <= 12 or m >= 60:
        return ""
    return f"{h % 12 + (12 if half.lower().startswith('p') else 0):02d}:{m:02d}"


def _iso(match: re.Match[str], _: dt.date) -> dt.date:
    return dt.date(int(match[1]), int(match[2]), int(match[3]))


def _relative(match: re.Match[str], today: dt.date) -> dt.date:
    word = re.sub(r"\s+", " ", match[1].lower())
    days = {"today": 0, "tonight": 0, "tomorrow": 1, "yesterday": -1, "day after tomorrow": 2}
    return today + dt.timedelta(days=days[word])


def _weekday(match: re.Match[str], today: dt.date) -> dt.date:
    ahead = (_DAYS.index(match[1].lower()) - today.weekday() - 1) % 7 + 1
    return today + dt.timedelta(days=ahead)


def _in_days(match: re.Match[str], today: dt.date) -> dt.date:
    said = match[1].lower()
    count = int(said) if said.isdigit() else SMALL.get(said, 1)
    return today + dt.timedelta(days=count * (7 if match[2].lower().startswith("week") else 1))


def _day_month(match: re.Match[str], today: dt.date) -> dt.date:
    return _upcoming(int(match[1]), match[2], match[3], today)


def _month_day(match: re.Match[str], today: dt.date) -> dt.date:
    return _upcoming(int(match[2]), match[1], match[3], today)


def _upcoming(day: int, month: str, year: str | None, today: dt.date) -> dt.date:
    number = next(i for i, m in enumerate(_MONTHS, 1) if m.startswith(month.lower()[:3]))
    if year:
        return dt.date(int(year), number, day)
    this = dt.date(today.year, number, day)
    return this if this >= today else dt.date(today.year + 1, number, day)


_Reader = Callable[[re.Match[str], dt.date], dt.date]


def _rules() -> Iterator[tuple[re.Pattern[str], _Reader]]:
    flags = re.IGNORECASE
    yield re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b"), _iso
    yield re.compile(rf"\b{_DAY}\s+(?:of\s+)?{_MONTH}\b{_YEAR}", flags), _day_month
    yield re.compile(rf"\b{_MONTH}\s+{_DAY}\b{_YEAR}", flags), _month_day
    yield re.compile(rf"\bin\s+{_COUNT}\s+(days?|weeks?)\b", flags), _in_days
    yield re.compile(r"\b(day\s+after\s+tomorrow|today|tonight|tomorrow|yesterday)\b", flags), _relative
    yield re.compile(rf"\b(?:(?:next|this|coming)\s+)?({'|'.join(_DAYS)})\b", flags), _weekday


_RULES: tuple[tuple[re.Pattern[str], _Reader], ...] = tuple(_rules())
