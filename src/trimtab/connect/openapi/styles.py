"""Values into the parts of a request, in the ways OpenAPI names: ``style`` and ``explode``.

Whatever a value holds, it is quoted: it cannot end a path segment, begin a query, add a parameter or break a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from trimtab.domain.errors import InvalidInput

from .parameters import Parameter

RESERVED = ":/?@!$'()*,;"
"""What `allowReserved` leaves as it is: RFC 6570's reserved characters less those that would end a value."""
_DELIMITERS = {"spaceDelimited": "%20", "pipeDelimited": "%7C", "tabDelimited": "%09", "form": ","}

Pair = tuple[str, str]
"""A quoted name and a quoted value."""


def text(value: Any) -> str:
    """A plain value as the text of a parameter."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, dict | list):
        return compact(value)
    return str(value)


def compact(value: Any) -> str:
    """JSON on one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def path_text(parameter: Parameter, value: Any) -> str:
    """What takes the place of ``{name}`` in a path.

    Raises:
        InvalidInput: it would be empty.
    """
    name = quoted(parameter.name)
    if parameter.json:
        made = quoted(compact(value))
    elif parameter.style == "label":
        made = "." + _joined(value, "." if parameter.explode else ",", parameter.explode)
    elif parameter.style == "matrix" and parameter.explode and isinstance(value, list):
        made = "".join(f";{name}={quoted(text(item))}" for item in value)
    elif parameter.style == "matrix" and parameter.explode and isinstance(value, dict):
        made = "".join(f";{quoted(key)}={quoted(text(item))}" for key, item in value.items())
    elif parameter.style == "matrix":
        made = f";{name}={_joined(value, ',', False)}"
    else:
        made = _joined(value, ",", parameter.explode)
    if not made.strip(".,;"):
        raise InvalidInput(f"{parameter.argument} must not be {text(value)[:40]!r}: it is part of an address.")
    return made


def query_pairs(parameter: Parameter, value: Any) -> list[Pair]:
    """The ``name=value`` pairs of a query parameter."""
    name = quoted(parameter.name)

    def shown(item: Any) -> str:
        return quote(text(item), safe=RESERVED, errors="replace") if parameter.reserved else quoted(text(item))

    if parameter.json:
        return [(name, quoted(compact(value)))]
    if parameter.style == "deepObject" and isinstance(value, dict | list):
        return list(deep(name, value))
    if isinstance(value, list):
        if parameter.explode:
            return [(name, shown(item)) for item in value]
        return [(name, _DELIMITERS.get(parameter.style, ",").join(shown(item) for item in value))] if value else []
    if isinstance(value, dict):
        if parameter.explode:
            return [(quoted(key), shown(item)) for key, item in value.items()]
        flat = [part for pair in value.items() for part in pair]
        return [(name, _DELIMITERS.get(parameter.style, ",").join(shown(item) for item in flat))] if flat else []
    return [(name, shown(value))]


def header_text(parameter: Parameter, value: Any) -> str:
    """A header's value, unquoted as HTTP wants it; the client refuses what a header cannot carry."""
    if parameter.json:
        return json.dumps(value, separators=(",", ":"))
    return _joined(value, ",", parameter.explode, quote_items=False)


def cookie_pairs(parameter: Parameter, value: Any) -> list[Pair]:
    if parameter.json:
        return [(parameter.name, quoted(compact(value)))]
    if parameter.explode and isinstance(value, list):
        return [(parameter.name, quoted(text(item))) for item in value]
    if parameter.explode and isinstance(value, dict):
        return [(quoted(key), quoted(text(item))) for key, item in value.items()]
    return [(parameter.name, _joined(value, ",", False).replace(",", "%2C"))]


def deep(name: str, value: Any) -> Iterable[Pair]:
    """``name[key][0]=...`` for whatever is nested; names are quoted already."""
    items: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        yield name, quoted(text(value))
        return
    for key, item in items:
        yield from deep(f"{name}%5B{quoted(str(key))}%5D", item)


def joined(pairs: Iterable[Pair]) -> str:
    return "&".join(f"{name}={value}" for name, value in pairs)


def quoted(value: str) -> str:
    return quote(value, safe="", errors="replace")


def _joined(value: Any, delimiter: str, explode: bool, *, quote_items: bool = True) -> str:
    def shown(item: Any) -> str:
        return quoted(text(item)) if quote_items else text(item)

    if isinstance(value, list):
        return delimiter.join(shown(item) for item in value)
    if isinstance(value, Mapping):
        if explode:
            return delimiter.join(f"{shown(key)}={shown(item)}" for key, item in value.items())
        return delimiter.join(shown(part) for pair in value.items() for part in pair)
    return shown(value)
