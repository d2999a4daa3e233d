"""What a structured answer may look like: rules built from JSON schemas, llama.cpp's grammars or regular expressions,
and written in the notation that the pipeline compiles.

A grammar that the pipeline's compiler refuses would break the step of everyone who is being served, and a huge one
would hold everyone up. So no text from outside reaches the compiler: it is read here, and what is written out is right
by construction and bounded in size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .refusal import Refusal

_MOST = 20_000
"""Cost of a grammar, see `Rules.check`. About 5 ms of compilation for each unit that is a repetition."""
_REPEATS = 2_000


@dataclass(frozen=True)
class Literal:
    text: str


@dataclass(frozen=True)
class Chars:
    ranges: tuple[tuple[int, int], ...]
    negated: bool = False


@dataclass(frozen=True)
class Ref:
    name: str


@dataclass(frozen=True)
class All:
    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Any:
    choices: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    part: Node
    low: int
    high: int | None


Node = Literal | Chars | Ref | All | Any | Repeat
EMPTY = All(())


def optional(node: Node) -> Node:
    return Repeat(node, 0, 1)


class Rules:
    """Named rules; `root` is the whole answer."""

    def __init__(self) -> None:
        self.rules: dict[str, Node] = {}

    def text(self) -> str:
        """The rules in the compiler's notation (GBNF's, too).

        Raises:
            Refusal: a rule is missing, begins with itself, or the whole is too big.
        """
        self.check()
        order = ["root", *sorted(n for n in self.rules if n != "root")]
        return "\n".join(f"{_name(n)} ::= {_write(self.rules[n])}" for n in order)

    def check(self) -> None:
        if "root" not in self.rules:
            raise Refusal(400, "the grammar has no rule `root`")
        for node in self.rules.values():
            for name in _refs(node):
                if name not in self.rules:
                    raise Refusal(400, "the grammar uses a rule that it does not have")
        if sum(_cost(n) for n in self.rules.values()) > _MOST:
            raise Refusal(400, "the grammar or schema is too big; use fewer parts or smaller limits")
        self._refuse_left_recursion()

    def _refuse_left_recursion(self) -> None:
        empty = self._may_be_empty()
        firsts = {n: set(_firsts(node, empty)) for n, node in self.rules.items()}
        seen: dict[str, int] = {}
        for start in firsts:
            stack = [(start, iter(firsts[start]))] if start not in seen else []
            seen.setdefault(start, 1)
            while stack:
                name, rest = stack[-1]
                following = next(rest, None)
                if following is None:
                    seen[name] = 2
                    stack.pop()
                elif seen.get(following) == 1:
                    raise Refusal(400, "the grammar or schema has a rule that begins with itself")
                elif following not in seen:
                    seen[following] = 1
                    stack.append((following, iter(firsts[following])))

    def _may_be_empty(self) -> set[str]:
        empty: set[str] = set()
        while True:
            found = {n for n, node in self.rules.items() if _is_empty(node, empty)}
            if found == empty:
                return empty
            empty = found


def _refs(node: Node) -> list[str]:
    if isinstance(node, Ref):
        return [node.name]
    if isinstance(node, All | Any):
        return [r for p in _parts(node) for r in _refs(p)]
    return _refs(node.part) if isinstance(node, Repeat) else []


def _parts(node: All | Any) -> Sequence[Node]:
    return node.parts if isinstance(node, All) else node.choices


def _cost(node: Node) -> int:
    if isinstance(node, Literal):
        return 1 + len(node.text)
    if isinstance(node, All | Any):
        return 1 + sum(map(_cost, _parts(node)))
    if isinstance(node, Repeat):
        if max(node.low, node.high or 0) > _REPEATS:
            raise Refusal(400, f"a grammar or schema may repeat a part {_REPEATS} times at most")
        return 1 + _cost(node.part) * max(1, node.low, node.high or 0)
    return 2


def _is_empty(node: Node, empty: set[str]) -> bool:
    if isinstance(node, Literal):
        return not node.text
    if isinstance(node, Ref):
        return node.name in empty
    if isinstance(node, All):
        return all(_is_empty(p, empty) for p in node.parts)
    if isinstance(node, Any):
        return any(_is_empty(p, empty) for p in node.choices)
    return isinstance(node, Repeat) and (node.low == 0 or _is_empty(node.part, empty))


def _firsts(node: Node, empty: set[str]) -> list[str]:
    """Rules that can stand at the very beginning of a node."""
    if isinstance(node, Ref):
        return [node.name]
    if isinstance(node, Any):
        return [f for c in node.choices for f in _firsts(c, empty)]
    if isinstance(node, Repeat):
        return _firsts(node.part, empty)
    found: list[str] = []
    for part in node.parts if isinstance(node, All) else ():
        found += _firsts(part, empty)
        if not _is_empty(part, empty):
            break
    return found


def _name(name: str) -> str:
    """Rule names as every notation takes them, however they were called."""
    return (
        name if name == "root" else "r_" + "".join(c if c.isascii() and c.isalnum() else f"_{ord(c):x}_" for c in name)
    )


def _write(node: Node) -> str:
    if isinstance(node, Literal):
        return '"' + "".join(map(_escaped, node.text)) + '"'
    if isinstance(node, Chars):
        inner = "".join(_code(a) if a == b else f"{_code(a)}-{_code(b)}" for a, b in node.ranges)
        return f"[{'^' if node.negated else ''}{inner}]"
    if isinstance(node, Ref):
        return _name(node.name)
    if isinstance(node, All):
        return " ".join(_bracketed(p) for p in node.parts) or '""'
    if isinstance(node, Any):
        return " | ".join(_write(c) for c in node.choices) or '""'
    count = {(0, 1): "?", (0, None): "*", (1, None): "+"}.get((node.low, node.high))
    return _bracketed(node.part) + (count or f"{{{node.low},{'' if node.high is None else node.high}}}")


def _bracketed(node: Node) -> str:
    text = _write(node)
    return text if isinstance(node, Literal | Chars | Ref) else f"({text})"


def _escaped(char: str) -> str:
    return char if char.isascii() and char.isprintable() and char not in '"\\' else _code(ord(char))


def _code(point: int) -> str:
    if point < 0x80 and chr(point).isalnum():
        return chr(point)
    # Not \x: the compiler takes every following hexadecimal digit as part of that.
    return f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
