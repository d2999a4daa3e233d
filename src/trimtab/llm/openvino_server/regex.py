"""Regular expressions as rules, as far as they are regular: no look-around, no back-references."""

from __future__ import annotations

import re
import warnings
from re import _constants as ops  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any as Anything

from .grammar import All, Any, Chars, Literal, Node, Repeat
from .refusal import Refusal

_MOST_CHARS = 2_000
_DIGIT = ((0x30, 0x39),)
_WORD = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE = ((0x09, 0x0D), (0x20, 0x20))
_SETS: dict[Anything, tuple[tuple[tuple[int, int], ...], bool]] = {
    ops.CATEGORY_DIGIT: (_DIGIT, False),
    ops.CATEGORY_NOT_DIGIT: (_DIGIT, True),
    ops.CATEGORY_WORD: (_WORD, False),
    ops.CATEGORY_NOT_WORD: (_WORD, True),
    ops.CATEGORY_SPACE: (_SPACE, False),
    ops.CATEGORY_NOT_SPACE: (_SPACE, True),
}
_LINE = Chars(((0x0A, 0x0A),), negated=True)
_EDGES = (ops.AT_BEGINNING, ops.AT_BEGINNING_STRING, ops.AT_END, ops.AT_END_STRING)


def read(pattern: str, free: Node | None = None) -> Node:
    """What matches all of `pattern`. With `free` (a JSON schema's reading), what contains a match: that may stand
    before and after it where it is not anchored.

    Raises:
        Refusal: it is no regular expression, or one with parts that we cannot build.
    """
    if len(pattern) > _MOST_CHARS:
        raise Refusal(400, f"a regular expression may have {_MOST_CHARS} characters at most")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed = list(parser.parse(pattern))
        node = _all(parsed, 0)
    except (re.error, RecursionError, OverflowError, ValueError):
        raise Refusal(400, "the regular expression cannot be read") from None
    if free is None:
        return node
    before = [] if _anchored(parsed[:1]) else [Repeat(free, 0, None)]
    after = [] if _anchored(parsed[-1:]) else [Repeat(free, 0, None)]
    return All((*before, node, *after))


def _anchored(items: list[Anything]) -> bool:
    return bool(items) and items[0][0] is ops.AT


def _all(items: Anything, depth: int) -> Node:
    if depth > 40:
        raise RecursionError
    return All(tuple(_one(op, value, depth) for op, value in items if op is not ops.AT or value not in _EDGES))


def _one(op: Anything, value: Anything, depth: int) -> Node:
    if op is ops.LITERAL:
        return Literal(chr(value))
    if op is ops.NOT_LITERAL:
        return Chars(((value, value),), negated=True)
    if op is ops.ANY:
        return _LINE
    if op is ops.IN:
        return _set(value)
    if op is ops.BRANCH:
        return Any(tuple(_all(b, depth + 1) for b in value[1]))
    if op is ops.SUBPATTERN and not value[1] and not value[2]:
        return _all(value[3], depth + 1)
    if op in (ops.MAX_REPEAT, ops.MIN_REPEAT):
        low, high, inner = value
        return Repeat(_all(inner, depth + 1), low, None if high is ops.MAXREPEAT else high)
    raise Refusal(400, "the regular expression uses a part (look-around, back-reference, flag) that is not supported")


def _set(items: Anything) -> Node:
    negated = items[0][0] is ops.NEGATE
    ranges: list[tuple[int, int]] = []
    for op, value in items[negated:]:
        if op is ops.LITERAL:
            ranges.append((value, value))
        elif op is ops.RANGE:
            ranges.append(value)
        elif op is ops.CATEGORY and value in _SETS:
            found, inverse = _SETS[value]
            if inverse and len(items) == 1:
                return Chars(found, negated=True)
            if inverse:
                found = _rest(found)
            ranges += found
    return Chars(tuple(ranges), negated)


def _rest(ranges: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Every character that is not in these ranges."""
    found, at = [], 0
    for low, high in ranges:
        if low > at:
            found.append((at, low - 1))
        at = high + 1
    return (*found, (at, 0x10FFFF))
