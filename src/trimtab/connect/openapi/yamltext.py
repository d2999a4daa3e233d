"""YAML to plain JSON values, with limits on what a small file may unfold into.

Read as YAML 1.2's JSON schema: ``yes`` and ``2020-01-01`` are text, keys are text (``200:`` in `responses`). Aliases
are followed, so the size is counted as if each were written out; nothing is made of any tag of YAML's or Python's.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from .fault import Fault

_INT = re.compile(r"^[-+]?(0|[1-9][0-9]{0,18})$")
_FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,4})?$")
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_PLAIN = "tag:yaml.org,2002:"
_KNOWN = frozenset({_PLAIN + name for name in ("null", "bool", "int", "float", "str", "timestamp", "value", "binary")})
_CONTAINERS = frozenset({_PLAIN + "seq", _PLAIN + "map"})

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(text: str, *, max_depth: int, max_nodes: int) -> Any:
    """The only document of a YAML text.

    Raises:
        Fault: it is not YAML, holds something with no JSON form, or is deeper or larger than the limits.
    """
    try:
        _measure(text, max_depth, max_nodes)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise Fault(
            "#", f"is neither JSON nor YAML{where}: {getattr(error, 'problem', None) or 'it is damaged'}"
        ) from None
    return None if node is None else _Builder(max_nodes).value(node)[0]


def _measure(text: str, max_depth: int, max_nodes: int) -> None:
    """Refuse what is too deep or long before anything is built: building is recursive."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=_Loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > max_depth:
            raise Fault("#", f"is nested deeper than {max_depth} levels ({_line(event)})")
        if number > 2 * max_nodes:
            raise Fault("#", f"holds more than {max_nodes:,} values")


class _Builder:
    """Values from nodes. An alias is the same node again: built once, counted each time."""

    def __init__(self, max_nodes: int) -> None:
        self._max = max_nodes
        self._built: dict[int, tuple[Any, int]] = {}
        self._open: set[int] = set()

    def value(self, node: Any) -> tuple[Any, int]:
        """The value and how many values it holds with every alias written out."""
        known = self._built.get(id(node))
        if known is None:
            if id(node) in self._open:
                raise Fault("#", f"an alias refers to what it is inside of ({_line(node)})")
            self._open.add(id(node))
            known = self._built[id(node)] = self._make(node)
            self._open.discard(id(node))
        if known[1] > self._max:
            raise Fault("#", f"its aliases unfold into more than {self._max:,} values ({_line(node)})")
        return known

    def _make(self, node: Any) -> tuple[Any, int]:
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node), 1
        _check_tag(node, _CONTAINERS)
        if isinstance(node, yaml.SequenceNode):
            built = [self.value(item) for item in node.value]
            return [value for value, _ in built], 1 + sum(size for _, size in built)
        made: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        total = 1
        for key, item in node.value:
            value, size = self.value(item)
            total += size
            if key.tag == _PLAIN + "merge":
                for part in value if isinstance(value, list) else [value]:
                    merged |= part if isinstance(part, dict) else {}
            elif isinstance(key, yaml.ScalarNode):
                made[key.value] = value
            else:
                raise Fault("#", f"a key is not text ({_line(key)})")
        return merged | made, total


def _check_tag(node: Any, known: frozenset[str]) -> None:
    if node.tag not in known:
        raise Fault("#", f"the tag {node.tag[:60]} is not plain YAML ({_line(node)})")


def _line(at: Any) -> str:
    return f"line {at.start_mark.line + 1}"


def _scalar(node: Any) -> Any:
    text: str = node.value
    _check_tag(node, _KNOWN)
    if node.style in ("'", '"', "|", ">") or node.tag == _PLAIN + "str":
        return text
    if text in _NULLS:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INT.match(text):
        return int(text)
    if _FLOAT.match(text):
        number = float(text)
        return number if math.isfinite(number) else text
    return text
