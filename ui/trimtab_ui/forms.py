"""Fields for a tool's arguments, made from its JSON schema.

Strings, numbers, integers, booleans and choices get a field of their kind; anything else is typed as JSON. The server
validates; this only makes it easy to write something valid. An optional field left empty is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import streamlit as st

from .characters import clean
from .client import UiError
from .untrusted import plain


def fields(schema: Mapping[str, Any], key: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Draw a field for each property and return the arguments as filled in.

    Raises:
        UiError: a JSON field does not hold JSON.
    """
    given = given or {}
    required = set(schema.get("required", ()))
    arguments: dict[str, Any] = {}
    for name, kind in (schema.get("properties") or {}).items():
        rule = _resolve(kind, schema)
        value = _field(name, rule, f"{key}-{name}", given.get(name, rule.get("default")), name in required)
        if value is not None:
            arguments[name] = value
    return arguments


def missing(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> list[str]:
    """Required arguments that are not filled in."""
    return [name for name in schema.get("required", ()) if arguments.get(name) in (None, "")]


def _resolve(kind: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The rule itself: through one `$ref`, and without the `null` of an optional."""
    rule = dict(kind)
    if isinstance(ref := rule.get("$ref"), str):
        rule |= (schema.get("$defs") or {}).get(ref.rsplit("/", 1)[-1], {})
    options = [o for o in rule.get("anyOf", ()) if isinstance(o, Mapping) and o.get("type") != "null"]
    return {**rule, **options[0]} if len(options) == 1 else rule


def _field(name: str, rule: Mapping[str, Any], key: str, value: Any, required: bool) -> Any:
    label = plain(name + (" (required)" if required else ""))
    about = plain(rule.get("description", ""), 300) or None
    if choices := rule.get("enum"):
        index = choices.index(value) if value in choices else (0 if required else None)
        return st.selectbox(label, choices, index=index, key=key, help=about, format_func=_option)
    match rule.get("type"):
        case "boolean":
            return st.checkbox(label, value=bool(value), key=key, help=about)
        case "integer":
            whole = value if isinstance(value, int) and not isinstance(value, bool) else None
            return st.number_input(label, value=whole, step=1, key=key, help=about)
        case "number":
            start = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
            exact = st.number_input(label, value=start, step=None, format="%.10g", key=key, help=about)
            return int(exact) if exact is not None and exact == int(exact) else exact
        case "string":
            text = st.text_input(label, value="" if value is None else str(value), key=key, help=about)
            return text if text or required else None
        case _:
            return _json_field(label, key, value, about)


def _option(choice: Any) -> str:
    """A choice as the drop-down shows it. Drop-downs show plain text, so nothing needs escaping."""
    return clean(str(choice))[:200]


def _json_field(label: str, key: str, value: Any, about: str | None) -> Any:
    shown = "" if value is None else json.dumps(value, ensure_ascii=False)
    text = st.text_area(f"{label} as JSON", value=shown, key=key, help=about, height=80)
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except ValueError as error:
        raise UiError(f"This is not JSON: {error}", 'For a list write for example ["a", "b"].') from error
