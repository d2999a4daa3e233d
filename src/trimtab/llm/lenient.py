"""Tool calls that a model wrote as text, read leniently.

Models write calls in many dresses: JSON in a code fence, ``<tool_call>`` tags, ``[TOOL_CALLS]``, Python's own syntax,
with trailing commas, single quotes, comments, or cut off in the middle. `read_calls` finds them and always answers
with values: a `Call`, or a `Broken` that says why not. It raises nothing, looks at the first `MAX_CHARS` characters,
and goes at most `MAX_DEPTH` deep, so its time is bounded whatever is written.

A call counts only when its name is one of those offered, so prose about functions stays prose.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from .loose_json import Unreadable, parse

MAX_CHARS = 200_000
MAX_CALLS = 32
_NAME_KEYS = ("name", "tool", "tool_name", "function", "function_name", "action")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "input", "action_input", "params", "kwargs")
_TAGGED = re.compile(
    r"<(tool_call|function_call|tool|function|tools?_calls?)(?:[=\s]+[\"']?([\w.-]{1,128})[\"']?)?\s*>(.*?)(?:</\1>|(?=<\1\b)|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_FENCED = re.compile(r"```[ \t]*([\w+-]*)[ \t]*\r?\n?(.*?)(?:```|\Z)", re.DOTALL)
_MISTRAL = re.compile(r"\[TOOL_CALLS\]\s*", re.IGNORECASE)
_PYTHON = re.compile(r"\b([A-Za-z_][\w.]{0,127})\s*\(")


@dataclass(frozen=True)
class Call:
    """A call that can be read. Its arguments were not checked against a schema."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Broken:
    """Something that was meant as a call of `name` and cannot be read; `raw` is what was written, cut to 2,000."""

    name: str
    raw: str
    reason: str


@dataclass(frozen=True)
class Reading:
    """`calls` and `broken` in the order they stand; `prose` is the text around them."""

    calls: tuple[Call, ...] = ()
    broken: tuple[Broken, ...] = ()
    prose: str = ""

    @property
    def found(self) -> bool:
        return bool(self.calls or self.broken)


def read_calls(text: str, offered: Collection[str]) -> Reading:
    """Find calls of `offered` tools in what a model wrote."""
    text = text[:MAX_CHARS]
    if not offered or not text.strip():
        return Reading(prose=text)
    for blocks in (_tagged, _mistral, _fenced, _bare):
        calls: list[Call] = []
        broken: list[Broken] = []
        spans: list[tuple[int, int]] = []
        for start, end, name, body in blocks(text):
            found = _read_block(name, body, offered)
            if found:
                spans.append((start, end))
                calls += [f for f in found if isinstance(f, Call)]
                broken += [f for f in found if isinstance(f, Broken)]
            if len(calls) + len(broken) >= MAX_CALLS:
                break
        if spans:
            return Reading(tuple(calls[:MAX_CALLS]), tuple(broken[:MAX_CALLS]), _outside(text, spans))
    found = _python_calls(text, offered)
    if found:
        whole = [f for f in found if isinstance(f, Call)]
        return Reading(tuple(whole), tuple(f for f in found if isinstance(f, Broken)), "")
    return Reading(prose=text)


_Block = tuple[int, int, str, str]


def _tagged(text: str) -> Iterator[_Block]:
    if "<" not in text:
        return
    for m in _TAGGED.finditer(text):
        yield m.start(), m.end(), m.group(2) or "", m.group(3)


def _mistral(text: str) -> Iterator[_Block]:
    for m in _MISTRAL.finditer(text):
        named = re.match(r"([\w.-]{1,128})(?:\[ARGS\])?\s*(?=\{)", text[m.end() : m.end() + 200])
        start = m.end() + (named.end() if named else 0)
        yield m.start(), len(text), named.group(1) if named else "", text[start:]
        return


def _fenced(text: str) -> Iterator[_Block]:
    for m in _FENCED.finditer(text):
        yield m.start(), m.end(), "", m.group(2)


def _bare(text: str) -> Iterator[_Block]:
    """The message itself, when it begins like data. Prose with braces somewhere is left alone."""
    stripped = text.strip()
    if stripped[:1] in "{[":
        yield 0, len(text), "", stripped


def _read_block(name: str, body: str, offered: Collection[str]) -> list[Call | Broken]:
    body = body.strip()
    if not body:
        return []
    if body[0] not in "{[":
        return _python_calls(body, offered)
    results: list[Call | Broken] = []
    at = 0
    while at < len(body) and len(results) < MAX_CALLS:
        while at < len(body) and body[at] not in "{[":
            at += 1
        if at >= len(body):
            break
        try:
            value, at = parse(body, at)
        except Unreadable as error:
            guess = name or _named_in(body[at:], offered)
            if guess in offered:
                results.append(Broken(guess, body[at : at + 2000], str(error)))
            break
        results += _from_value(name, value, offered)
    if not results and body[0] == "[":
        return _python_calls(body, offered)
    return results


def _from_value(name: str, value: Any, offered: Collection[str]) -> list[Call | Broken]:
    if isinstance(value, list):
        return [r for v in value[:MAX_CALLS] for r in _from_value("", v, offered)]
    if not isinstance(value, dict):
        return []
    for wrapper in ("tool_calls", "function_calls", "calls"):
        if isinstance(value.get(wrapper), list):
            return _from_value("", value[wrapper], offered)
    inner = value.get("function")
    if isinstance(inner, dict):
        return _from_value("", inner, offered)
    if name in offered and not any(isinstance(value.get(k), str) and value[k] in offered for k in _NAME_KEYS):
        return [_call(name, value, offered)]
    for key in _NAME_KEYS:
        said = value.get(key)
        if isinstance(said, str) and said in offered:
            rest = {k: v for k, v in value.items() if k not in (key, "id", "type", "thought")}
            for arguments in _ARGUMENT_KEYS:
                if arguments in rest:
                    return [_call(said, rest[arguments], offered)]
            return [_call(said, rest, offered)]
    if len(value) == 1:
        (only, arguments_) = next(iter(value.items()))
        if only in offered and isinstance(arguments_, dict):
            return [_call(only, arguments_, offered)]
    return []


def _call(name: str, arguments: Any, offered: Collection[str]) -> Call | Broken:
    if isinstance(arguments, str):
        try:
            arguments = parse(arguments.strip() or "{}", 0)[0]
        except Unreadable as error:
            return Broken(name, str(arguments)[:2000], str(error))
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        return Broken(name, repr(arguments)[:2000], "the arguments are not an object")
    return Call(name, arguments)


def _named_in(text: str, offered: Collection[str]) -> str:
    m = re.search(r"[\"']?(?:name|tool|function|action)[\"']?\s*:\s*[\"']([^\"']{1,128})[\"']", text[:4000])
    return m.group(1) if m and m.group(1) in offered else ""


def _python_calls(text: str, offered: Collection[str]) -> list[Call | Broken]:
    """``weather(place="Oslo")``, alone on a line or in a list, where nothing but calls is written."""
    stripped = text.strip().strip("[]`; \n")
    first = _PYTHON.match(stripped.removeprefix("await ").removeprefix("print("))
    if first is None or first.group(1).split(".")[-1] not in offered:
        return []
    results: list[Call | Broken] = []
    at = 0
    while len(results) < MAX_CALLS and (m := _PYTHON.search(stripped, at)):
        name = m.group(1).split(".")[-1]
        close = _closing(stripped, m.end() - 1)
        if name in offered:
            source = stripped[m.end() : close] if close >= 0 else stripped[m.end() :]
            results.append(_python_call(name, source))
        at = close + 1 if close >= 0 else len(stripped)
    return results


def _closing(text: str, opening: int) -> int:
    """Where the bracket at `opening` is closed, -1 when it is not. Strings are stepped over."""
    depth, quote, at = 0, "", opening
    while at < len(text):
        c = text[at]
        if quote:
            if c == "\\":
                at += 1
            elif c == quote:
                quote = ""
        elif c in "\"'":
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    return -1


def _python_call(name: str, source: str) -> Call | Broken:
    source = source[:20_000]
    if max(source.count("("), source.count("["), source.count("{"), source.count("-")) > 200:
        return Broken(name, source[:2000], "the arguments are nested too deeply")
    if source.strip().startswith("{"):
        return _call(name, source, (name,))
    try:
        node = ast.parse(f"f({source})", mode="eval").body
        if not isinstance(node, ast.Call) or node.args:
            return Broken(name, source[:2000], "the arguments have no names")
        arguments = {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg}
        json.dumps(arguments, allow_nan=False)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        return Broken(name, source[:2000], f"the arguments cannot be read: {type(error).__name__}")
    return Call(name, arguments)


def _outside(text: str, spans: list[tuple[int, int]]) -> str:
    parts, at = [], 0
    for start, end in spans:
        parts.append(text[at:start])
        at = end
    return "".join([*parts, text[at:]]).strip()


def finite(value: Any) -> bool:
    """Whether every number in it can be written as JSON."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(finite(v) for v in value.values())
    return all(finite(v) for v in value) if isinstance(value, list) else True
