"""Numbers in a message, as digits or as English words, with their place and sign.

find_numbers("fifteen boxes of 1,200 at -3.5")  ->  15, 1200, -3.5
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
SMALL = {word: n for n, word in enumerate(_UNITS.split())}
TENS = {w: (n + 2) * 10 for n, w in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split())}
SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
FIXED = {"dozen": 12, "couple": 2}

_DIGITS = re.compile(
    r"(?<![\w.,])([-−+]?)(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)(?![\d])(?:(k|m)\b)?", re.IGNORECASE
)
_WORD = re.compile(r"[a-z]+", re.IGNORECASE)
_MAX_DIGITS = 300


@dataclass(frozen=True)
class Quantity:
    """A number and the characters of the message that say it."""

    value: int | float
    start: int
    end: int


def find_numbers(text: str) -> list[Quantity]:
    """Every number of `text`, in order. A minus counts when nothing but a space or a bracket stands before it."""
    return sorted([*_from_digits(text), *_from_words(text)], key=lambda q: q.start)


def _from_digits(text: str) -> Iterator[Quantity]:
    for match in _DIGITS.finditer(text):
        sign, digits, scale = match.groups()
        if len(digits) > _MAX_DIGITS:
            continue
        start = match.start()
        # "10-5" is a difference, and "7 - 3" too: a sign stands alone at the left and touches its number
        value: int | float = float(digits.replace(",", "")) if "." in digits else int(digits.replace(",", ""))
        if scale:
            value = value * (1000 if scale.lower() == "k" else 10**6)
        if sign in ("-", "−"):
            value = -value
        elif not sign:
            before = text[:start].rstrip().lower()
            if before.endswith(("minus", "negative")):
                start = len(before) - (5 if before.endswith("minus") else 8)
                if not re.search(r"\d\s*$", text[:start]):
                    value = -value
                else:
                    start = match.start()
        yield Quantity(value, start, match.end())


def _from_words(text: str) -> Iterator[Quantity]:
    words = list(_WORD.finditer(text))
    i = 0
    while i < len(words):
        found = _spelled(text, words, i)
        if found is None:
            i += 1
            continue
        value, stop = found
        yield Quantity(value, words[i].start(), words[stop - 1].end())
        i = stop


def _spelled(text: str, words: list[re.Match[str]], i: int) -> tuple[int, int] | None:
    """The number that begins at word `i`, and the index after its last word."""
    low = words[i].group().lower()
    if low in FIXED:
        return FIXED[low], i + 1
    if low not in SMALL and low not in TENS:
        return None
    total = current = 0
    last = ""
    while i < len(words):
        low = words[i].group().lower()
        if last and not re.fullmatch(r"[\s-]*(?:and\s+)?", text[words[i - 1].end() : words[i].start()]):
            break
        if low == "and" and last in SCALES and i + 1 < len(words) and _is_number_word(words[i + 1]):
            i += 1
            continue
        if low in SMALL and last not in SMALL and not (last in TENS and not 0 < SMALL[low] < 10):
            current += SMALL[low]
        elif low in TENS and last not in SMALL and last not in TENS:
            current += TENS[low]
        elif low in SCALES and last:
            current *= SCALES[low]
            if SCALES[low] > 100:
                total, current = total + current, 0
        else:
            break
        last = low
        i += 1
    return total + current, i


def _is_number_word(match: re.Match[str]) -> bool:
    low = match.group().lower()
    return low in SMALL or low in TENS
