"""The table of settings in docs/operations.md, written from the code: `python tests/docs/settings_table.py`."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any, Literal

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from trimtab.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
BEGIN = "<!-- settings: written by `python tests/docs/settings_table.py` -->\n"
END = "<!-- end of settings -->"


def table() -> str:
    rows = ["| setting | default | what it does |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        rows.append(f"| `{name}` | {_default(field)} | {field.description}{_allowed(field)} |")
    return "\n".join(rows) + "\n"


def in_page(text: str) -> str:
    """What stands between the marks now."""
    return text.partition(BEGIN)[2].partition(END)[0]


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "the platform's folder for user data"
    value: Any = field.default
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if value in ("", None, [], {}):
        return "none"
    return f"`{value}`"


def _allowed(field: FieldInfo) -> str:
    """Choices and bounds, where there are some."""
    choices = _choices(field.annotation)
    if choices:
        return f" One of {', '.join(f'`{choice}`' for choice in choices)}."
    bounds = {word: getattr(m, word) for m in _metadata(field) for word in ("ge", "gt", "le") if hasattr(m, word)}
    low = bounds.get("ge", bounds.get("gt"))
    over = "more than " if "gt" in bounds else "at least "
    if low is not None and "le" in bounds:
        return f" {low:g} to {bounds['le']:g}."
    return f" {over.capitalize()}{low:g}." if low is not None else ""


def _metadata(field: FieldInfo) -> list[Any]:
    inner = [m for arg in typing.get_args(field.annotation) for m in getattr(arg, "__metadata__", ())]
    return [*field.metadata, *(m for found in inner for m in getattr(found, "metadata", [found]))]


def _choices(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) is Literal:
        return typing.get_args(annotation)
    if typing.get_origin(annotation) is types.UnionType:
        return tuple(c for arg in typing.get_args(annotation) for c in _choices(arg))
    return ()


def main() -> None:
    before = PAGE.read_text("utf-8")
    head, begin, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{PAGE} has lost the marks around the table")
    PAGE.write_text(head + begin + table() + end + tail, "utf-8")


if __name__ == "__main__":
    main()
