"""llama.cpp's grammar notation, read."""

from __future__ import annotations

import re

from .grammar import EMPTY, All, Any, Chars, Literal, Node, Ref, Repeat, Rules
from .refusal import Refusal

_MOST_CHARS = 64_000
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_SPACE = re.compile(r"(?:[ \t]|#[^\n]*)*")
_LINES = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_COUNT = re.compile(r"\{\s*(\d{1,6})\s*(,?)\s*(\d{1,6})?\s*\}")
_HEX = {"x": 2, "u": 4, "U": 8}
_PLAIN = {"n": "\n", "r": "\r", "t": "\t"}
_DEEP = 60


def read(text: str) -> Rules:
    """The rules of a grammar.

    Raises:
        Refusal: it is no grammar; says where.
    """
    if len(text) > _MOST_CHARS:
        raise Refusal(400, f"a grammar may have {_MOST_CHARS} characters at most")
    return _Reader(text).rules()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def rules(self) -> Rules:
        found = Rules()
        self._skip(_LINES)
        while self._at < len(self._text):
            name = self._take(_NAME, "the name of a rule")
            self._skip(_SPACE)
            self._expect("::=")
            found.rules[name] = self._choices(0)
            self._skip(_LINES)
        return found

    def _choices(self, depth: int) -> Node:
        if depth > _DEEP:
            raise Refusal(400, "the grammar is nested too deeply")
        choices = [self._sequence(depth)]
        while self._peek("|"):
            self._expect("|")
            choices.append(self._sequence(depth))
        return choices[0] if len(choices) == 1 else Any(tuple(choices))

    def _sequence(self, depth: int) -> Node:
        parts: list[Node] = []
        while (part := self._item(depth)) is not None:
            parts.append(self._counted(part))
        return All(tuple(parts)) if parts else EMPTY

    def _item(self, depth: int) -> Node | None:
        self._skip(_LINES if depth or self._goes_on() else _SPACE)
        char = self._text[self._at : self._at + 1]
        if char == '"':
            return Literal(self._literal())
        if char == "[":
            return self._chars()
        if char == ".":
            self._at += 1
            return Chars(((0, 0x10FFFF),))
        if char == "(":
            self._at += 1
            inner = self._choices(depth + 1)
            self._skip(_LINES)
            self._expect(")")
            return inner
        found = _NAME.match(self._text, self._at)
        if found is None or self._begins_rule(found.end()):
            return None
        self._at = found.end()
        return Ref(found[0])

    def _goes_on(self) -> bool:
        """Whether the next line still belongs to this rule."""
        end = self._ahead(_LINES)
        found = _NAME.match(self._text, end)
        return found is None or not self._begins_rule(found.end())

    def _begins_rule(self, end: int) -> bool:
        after = _SPACE.match(self._text, end)
        return after is not None and self._text.startswith("::=", after.end())

    def _counted(self, part: Node) -> Node:
        while True:
            self._skip(_SPACE)
            char = self._text[self._at : self._at + 1]
            if char in ("*", "+", "?") and char:
                self._at += 1
                part = Repeat(part, int(char == "+"), 1 if char == "?" else None)
            elif char == "{":
                found = _COUNT.match(self._text, self._at)
                if found is None:
                    raise self._wrong("a number of repetitions")
                low = int(found[1])
                high = int(found[3]) if found[3] else None if found[2] else low
                if high is not None and high < low:
                    raise self._wrong("a number of repetitions that is not less than the first")
                part = Repeat(part, low, high)
                self._at = found.end()
            else:
                return part

    def _literal(self) -> str:
        self._at += 1
        text = ""
        while (char := self._char('"')) is not None:
            text += char
        return text

    def _chars(self) -> Node:
        self._at += 1
        negated = self._text.startswith("^", self._at)
        self._at += negated
        ranges: list[tuple[int, int]] = []
        while (char := self._char("]")) is not None:
            last = char
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                last = self._char("]") or char
            if last < char:
                raise self._wrong("a range that rises")
            ranges.append((ord(char), ord(last)))
        if not ranges:
            raise self._wrong("a character between [ and ]")
        return Chars(tuple(ranges), negated)

    def _char(self, end: str) -> str | None:
        """The next character, escapes resolved; None at the closing one."""
        char = self._text[self._at : self._at + 1]
        if not char or char == "\n":
            raise self._wrong(f"a closing {end}")
        self._at += 1
        if char == end:
            return None
        if char != "\\":
            return char
        kind = self._text[self._at : self._at + 1]
        self._at += 1
        if size := _HEX.get(kind):
            return self._hex(size)
        if kind in _PLAIN:
            return _PLAIN[kind]
        if kind and kind in '"\\[]-^/':
            return kind
        raise self._wrong("an escape that is known")

    def _hex(self, size: int) -> str:
        digits = self._text[self._at : self._at + size]
        self._at += size
        if len(digits) == size and all(c in "0123456789abcdefABCDEF" for c in digits):
            point = int(digits, 16)
            if point <= 0x10FFFF and not 0xD800 <= point < 0xE000:
                return chr(point)
        raise self._wrong("the number of a character")

    def _peek(self, text: str) -> bool:
        end = self._ahead(_LINES)
        if self._text.startswith(text, end):
            self._at = end
            return True
        return False

    def _ahead(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self._text, self._at)
        return found.end() if found else self._at

    def _skip(self, pattern: re.Pattern[str]) -> None:
        self._at = self._ahead(pattern)

    def _take(self, pattern: re.Pattern[str], what: str) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self._wrong(what)
        self._at = found.end()
        return found[0]

    def _expect(self, text: str) -> None:
        if not self._text.startswith(text, self._at):
            raise self._wrong(f"`{text}`")
        self._at += len(text)

    def _wrong(self, expected: str) -> Refusal:
        line = self._text.count("\n", 0, self._at) + 1
        return Refusal(400, f"the grammar cannot be read: line {line} should have {expected}")
