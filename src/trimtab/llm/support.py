"""Whether the conversation supports a value that a model wrote.

Text must occur in what the person said, numbers too (normalised, so "fifteen" supports 15), dates may be said in
words. A choice must be named. What is not supported is taken out; what is left may no longer be complete, and the
schema says so afterwards.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any, Final

from .dates import find_dates, find_times
from .quantities import find_numbers
from .wording import spaced


class _Unsupported:
    pass


UNSUPPORTED: Final = _Unsupported()
_MAX_DEPTH = 24


def supported(value: Any, schema: Any, text: str, today: dt.date) -> Any:
    """`value` without the parts that `text` does not support, or `UNSUPPORTED` when nothing is left."""
    return _pruned(value, schema if isinstance(schema, Mapping) else {}, text, today, 0)


def _pruned(value: Any, schema: Mapping[str, Any], text: str, today: dt.date, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return UNSUPPORTED
    if isinstance(value, Mapping):
        properties = schema.get("properties")
        nodes = properties if isinstance(properties, Mapping) else {}
        kept = {k: _pruned(v, _node(nodes.get(k)), text, today, depth + 1) for k, v in value.items()}
        kept = {k: v for k, v in kept.items() if v is not UNSUPPORTED}
        return kept or UNSUPPORTED
    if isinstance(value, list):
        items = _node(schema.get("items"))
        kept_items = [v for v in (_pruned(v, items, text, today, depth + 1) for v in value) if v is not UNSUPPORTED]
        return kept_items or UNSUPPORTED
    return value if _said(value, schema, text, today) else UNSUPPORTED


def _node(schema: Any) -> Mapping[str, Any]:
    return schema if isinstance(schema, Mapping) else {}


def _said(value: Any, schema: Mapping[str, Any], text: str, today: dt.date) -> bool:
    if value is None or isinstance(value, bool):
        return False  # a yes or no is found by rule or not at all
    if isinstance(value, int | float):
        return any(q.value == value for q in find_numbers(text))
    if not isinstance(value, str) or not value.strip():
        return False
    if any(when.iso == value for when in [*find_dates(text, today), *find_times(text)]):
        return True
    return _plain(value) in _plain(text) or ("enum" in schema and _plain(spaced(value)) in _plain(text))


def _plain(text: str) -> str:
    """Words only, with a space on both sides, so that "car" does not occur in "scar"."""
    return " " + " ".join(re.findall(r"[^\W_]+(?:[.'’@+-][^\W_]+)*", text.lower())) + " "
