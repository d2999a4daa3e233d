"""JSON as models write it: single quotes, bare keys, trailing commas, comments, Python's constants, a missing end.

Written without recursion, so depth costs a counter and not the stack. What ends too early is closed where it ends,
as long as nothing would have to be invented: a string that was cut off is refused, an object without its closing
brace is not.
"""

from __future__ import annotations

import re
from typing import Any

MAX_DEPTH = 64
_SPACE = re.compile(r"(?:\s+|//[^\n]*|#[^\n]*|/\*.*?\*/)*", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_BARE = re.compile(r"[A-Za-z_$][\w$.-]*")
_CONSTANTS: dict[str, Any] = {
    "true": True, "True": True, "false": False, "False": False, "null": None, "None": None, "undefined": None,
}  # fmt: skip
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_MAX_NUMBER = 400
_END = object()


class Unreadable(ValueError):
    """It cannot be read as data; the message says why."""


def parse(text: str, at: int = 0) -> tuple[Any, int]:
    """The value that begins at `at`, and where it ends.

    Raises:
        Unreadable: there is none, it is too deep, or its meaning would have to be guessed.
    """
    stack: list[tuple[Any, Any]] = []  # (container, pending key)
    while True:
        at = _skip(text, at)
        if stack:
            container, _ = stack[-1]
            closing = "}" if isinstance(container, dict) else "]"
            while at < len(text) and text[at] == ",":
                at = _skip(text, at + 1)
            if at >= len(text) or text[at] in "}]":
                if at < len(text) and text[at] != closing:
                    raise Unreadable("a bracket is closed by one of another kind")
                at = min(at + 1, len(text))
                value: Any = container
                stack.pop()
                done = _store(stack, value)
                if done is _END:
                    return value, at
                continue
            if isinstance(container, dict):
                key, at = _key(text, at)
                stack[-1] = (container, key)
                at = _skip(text, at)
                if at >= len(text):
                    raise Unreadable("it ends before a value")
        if at >= len(text):
            raise Unreadable("it ends before a value")
        if text[at] in "{[":
            if len(stack) >= MAX_DEPTH:
                raise Unreadable(f"it is nested more than {MAX_DEPTH} deep")
            stack.append(({} if text[at] == "{" else [], None))
            at += 1
            continue
        value, at = _scalar(text, at)
        if _store(stack, value) is _END:
            return value, at


def _store(stack: list[tuple[Any, Any]], value: Any) -> Any:
    """Put a finished value where it belongs; `_END` when it is the outermost."""
    if not stack:
        return _END
    container, key = stack[-1]
    if isinstance(container, dict):
        container[key] = value
    else:
        container.append(value)
    return None


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _key(text: str, at: int) -> tuple[str, int]:
    if text[at] in "\"'":
        key, at = _string(text, at)
    else:
        match = _BARE.match(text, at)
        if match is None:
            raise Unreadable("a name was expected")
        key, at = match.group(), match.end()
    at = _skip(text, at)
    if at >= len(text) or text[at] not in ":=":
        raise Unreadable("a name without a value")
    return key, at + 1


def _scalar(text: str, at: int) -> tuple[Any, int]:
    if text[at] in "\"'":
        return _string(text, at)
    number = _NUMBER.match(text, at)
    if number:
        return _number(number.group()), number.end()
    bare = _BARE.match(text, at) if text[at] not in "-+" else None
    if bare and bare.group() in _CONSTANTS:
        return _CONSTANTS[bare.group()], bare.end()
    raise Unreadable(f"'{text[at : at + 20]}' is not a value")


def _number(written: str) -> int | float:
    written = written.replace("_", "").removeprefix("+")
    if len(written) > _MAX_NUMBER:
        raise Unreadable("a number is too long")
    value: int | float = float(written) if any(c in ".eE" for c in written) else int(written)
    if value in (float("inf"), float("-inf")):
        raise Unreadable("a number is too large")
    return value


def _string(text: str, at: int) -> tuple[str, int]:
    quote = text[at]
    parts: list[str] = []
    at += 1
    while at < len(text):
        stop = at
        while stop < len(text) and text[stop] not in (quote, "\\"):
            stop += 1
        parts.append(text[at:stop])
        if stop >= len(text):
            break
        if text[stop] == quote:
            return _without_surrogates("".join(parts)), stop + 1
        piece, at = _escape(text, stop)
        parts.append(piece)
    raise Unreadable("a string is cut off")


def _escape(text: str, at: int) -> tuple[str, int]:
    """The character that a backslash at `at` means. An unknown escape is the character itself."""
    if at + 1 >= len(text):
        raise Unreadable("a string is cut off")
    kind = text[at + 1]
    if kind == "u":
        digits = text[at + 2 : at + 6]
        if not re.fullmatch(r"[0-9a-fA-F]{4}", digits):
            raise Unreadable("a character escape is incomplete")
        return chr(int(digits, 16)), at + 6
    return _ESCAPES.get(kind, kind), at + 2


def _without_surrogates(text: str) -> str:
    """Pairs of escaped surrogates as the character they mean; a lone one as U+FFFD, so that it can be stored."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
