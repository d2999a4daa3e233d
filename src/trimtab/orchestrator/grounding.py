"""Does a sentence keep to its sources? Deterministic checks, no model.

A phrasing must not bring numbers or names that neither the sources nor the question contain, must not turn a "not"
around, and must be about the same things. This catches invented facts; it does not prove the answer right: a
phrasing that only reorders the source's own words wrongly passes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_WORD_NUMBERS = {
    w: str(n)
    for n, w in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty".split()
    )
} | {
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "seventy": "70",
    "eighty": "80",
    "ninety": "90",
    "hundred": "100",
    "thousand": "1000",
    "half": "0.5",
    "dozen": "12",
}
_NUMBER = re.compile(r"[-−]?\d[\d,.']*\d|[-−]?\d")
_CITATION = re.compile(r"\[\d{1,3}\]")
_WORD = re.compile(r"[^\W\d_][\w'’-]*")
_NEGATION = re.compile(r"\b(?:not|no|never|none|cannot|nor|without|neither)\b|n['’]t\b", re.IGNORECASE)
_COMMON = frozenset(
    "a an and are as at be been but by can could did do does for from had has have he her his how i if in into is it "
    "its may more most my of on one or our she should so such than that the their them then there these they this "
    "those to was we were what when where which who will with would yes you your using text above answer according "
    "based also about between over under per".split()
)
_DIGITS = re.compile(r"\d+(?:\.\d+)?")
_THOUSANDS = re.compile(r",(?=\d{3}(?:\D|$))")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\s\"'”)]+|\n+")


def unsupported(answer: str, sources: Iterable[str], question: str = "") -> tuple[str, ...]:
    """Numbers and names of `answer` found neither in `sources` nor in `question`, in order of appearance."""
    known = " ".join((*sources, question))
    numbers = _numbers(known)
    missing: dict[str, None] = {}
    text = _CITATION.sub("", answer)
    for written, value in _numbers_written(text):
        if value not in numbers and not _stands_in(written, known):
            missing[written] = None
    if names := _names(text):
        words = {_stem(w) for w in _WORD.findall(known)}
        missing |= dict.fromkeys(name for name in names if _stem(name) not in words)
    return tuple(missing)


def keeps_to(answer: str, sources: Sequence[str], question: str = "") -> str:
    """Why `answer` may not stand as a phrasing of `sources`; empty when it may.

    Strict on purpose: what is taken away is only a small model's wording; the source's own words stay.
    """
    if not answer.strip():
        return "it says nothing"
    if extra := unsupported(answer, sources, question):
        return f"{', '.join(extra[:3])} not in the source"
    source = " ".join(sources)
    if bool(_NEGATION.search(answer)) != bool(_NEGATION.search(source)):
        return "it turns a 'not' around"
    said, given, asked = _content(answer), _content(source), _content(question)
    strange = [w for w in said if w not in given and w not in asked]
    if len(strange) > len(said) // 6:
        return "it is about something else"
    if given - asked and not said & (given - asked):
        return "it only repeats the question"
    return ""


def _content(text: str) -> set[str]:
    """Stems of the words that carry meaning."""
    return {_stem(w) for w in _WORD.findall(text) if w.lower() not in _COMMON} | _numbers(text)


def sentences(text: str) -> list[str]:
    return [s.strip() for s in _SENTENCE_END.split(text) if s.strip()]


def cited_numbers(text: str) -> list[int]:
    """Citation numbers in order of first appearance."""
    return list(dict.fromkeys(int(m[1:-1]) for m in _CITATION.findall(text)))


def _stands_in(written: str, known: str) -> bool:
    """Word for word, as in "in 1842 12 boats", which is no single number but reads like one."""
    return re.search(rf"(?<!\d){re.escape(written)}(?!\d)", known) is not None


def _numbers_written(text: str) -> list[tuple[str, str]]:
    found = [(m.group().strip(), _normal(m.group())) for m in _NUMBER.finditer(text)]
    for word in _WORD.findall(text):
        value = _WORD_NUMBERS.get(word.lower())
        # "one" and "half" are mostly not numbers in running text.
        if value is not None and word.lower() not in ("one", "half", "zero"):
            found.append((word, value))
    return found


def _numbers(text: str) -> set[str]:
    # Parts too: dates and ranges, as 2024-05-01, 9:30, 3-5.
    written = {*_NUMBER.findall(text), *_DIGITS.findall(text)}
    words = {word.lower() for word in _WORD.findall(text)}
    return {_normal(number) for number in written} | {_WORD_NUMBERS[word] for word in words & _WORD_NUMBERS.keys()}


def _normal(number: str) -> str:
    """``1,200`` and ``1200.0`` are one number; the sign counts, the thousands separator does not."""
    plain = number.replace("−", "-").replace(" ", "").replace("'", "").rstrip(".,")
    if "," in plain:
        plain = _THOUSANDS.sub("", plain).replace(",", ".")
    try:
        return f"{float(plain):g}" if abs(float(plain)) < 1e15 else plain
    except ValueError:
        return plain


def _names(text: str) -> list[str]:
    """Capitalised words that are not merely the first of a sentence."""
    found = []
    for sentence in sentences(text):
        words = _WORD.findall(sentence)
        for position, word in enumerate(words):
            if not word[0].isupper() or word.lower() in _COMMON:
                continue
            followed = position + 1 < len(words) and words[position + 1][0].isupper()
            if position > 0 or (followed and len(words) > 2):
                found.append(word)
    return found


def _stem(word: str) -> str:
    """Crude on purpose: plural, possessive and common verb endings off, so that inflection is no difference."""
    low = word.lower().replace("’", "'").removesuffix("'s").strip("'-")
    for ending in ("ingly", "edly", "ing", "ies", "ed", "es", "ly", "s"):
        if low.endswith(ending) and len(low) - len(ending) >= 3:
            return low[: -len(ending)]
    return low
