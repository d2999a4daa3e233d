"""A calculation inside a message: "15% of 80", "12 times 7", "(18 - 4) / 2"."""

from __future__ import annotations

import re

from .quantities import find_numbers
from .spans import Area

_OPERATION = (
    r"(?:plus|minus|times|divided by|multiplied by|multiply|divide|subtract|add|over|to the(?: power(?: of)?)?"
    r"|power(?: of)?|squared|cubed|square root of|cube root of|root of|percent of|percent|of|by|from|and|to|the"
    r"|mod(?:ulo)?|half of|(?:a )?(?:third|quarter|fifth|tenth) of|(?:product|sum|average|mean) of|twice|double|triple|"
    r"sqrt|log|sin|cos|tan|factorial)"
)
_STRETCH = re.compile(
    rf"(?:\d(?:[\d,]*\d)?(?:\.\d+)?(?:st|nd|rd|th)?(?![\w])|[-+*/^()=×÷%√π!]|\b{_OPERATION}\b|\s)+", re.IGNORECASE
)
_SIGN = re.compile(
    r"[-+*/^×÷%√!]|\b(?:plus|minus|times|divided|multipl\w+|divide|subtract|add|power|squared|cubed|root|percent|mod"
    r"|modulo|sqrt|log|sin|cos|tan|factorial|half|third|quarter|fifth|tenth|product|sum|average|mean"
    r"|twice|double|triple)\b|\bto the \d",
    re.IGNORECASE,
)
_LEAD = re.compile(r"(?:\s|\b(?:of|by|from|and|to|the)\b|[=)])*", re.IGNORECASE)
_TAIL = re.compile(r"(?:\s|\b(?:of|by|from|and|to|the|add|over|subtract)\b|[=(+*/×÷-])*$", re.IGNORECASE)


def arithmetic(text: str) -> Area | None:
    """The longest stretch that is a calculation: numbers, and at least one sign or word for an operation."""
    shadow = _with_digits(text)
    best: Area | None = None
    for match in _STRETCH.finditer(shadow):
        area = _trimmed(shadow, *match.span())
        piece = shadow[area.start : area.end]
        numbers = len(re.findall(r"\d[\d.,]*", piece))
        signed = _SIGN.search(piece if numbers > 1 else piece.lstrip("+-"))  # "-5" alone is no calculation
        if numbers and signed and (best is None or area.end - area.start > best.end - best.start):
            best = area
    return best


def _with_digits(text: str) -> str:
    """`text` with ones for the letters of number words, so that "fifteen" is seen as digits in the same place."""
    for quantity in find_numbers(text):
        said = text[quantity.start : quantity.end]
        if said.isascii() and said[:1].isalpha() and not said.lower().startswith(("minus", "negative")):
            text = text[: quantity.start] + "1" * len(said) + text[quantity.end :]
    return text


def _trimmed(text: str, start: int, end: int) -> Area:
    lead = _LEAD.match(text[start:end])
    start += lead.end() if lead else 0
    tail = _TAIL.search(text[start:end])
    return Area(start, start + tail.start() if tail else end)
