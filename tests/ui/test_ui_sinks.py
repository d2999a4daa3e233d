"""No way onto the page but the safe ones: read from the UI's own source.

Streamlit renders Markdown nearly everywhere, and Markdown fetches images. So every call of Streamlit's that draws
Markdown may be given literals, or what `plain` made; anything else has to go through `markup.draw`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import trimtab_ui

SOURCES = sorted(Path(trimtab_ui.__file__).parent.glob("*.py"))
FORBIDDEN = {"write", "write_stream", "markdown", "exception", "latex", "image", "graphviz_chart", "iframe", "table"}
FORBIDDEN |= {"error", "warning", "info", "success", "caption", "toast", "title", "header", "badge", "metric"}
FORBIDDEN |= {"dataframe", "data_editor", "echo", "help", "json", "page_link", "audio", "video", "pdf"}
UNDRAWN = {"text", "code", "html", "text_area"}
"""Draw their first argument as it is (`html` has its own test); still no free label."""
LABELLED = {
    "button", "expander", "popover", "checkbox", "toggle", "text_input", "text_area", "number_input", "selectbox",
    "segmented_control", "file_uploader", "form_submit_button", "download_button", "subheader", "dialog",
    "link_button", "chat_input", "status", "spinner", "tabs", "radio", "pills", "multiselect",
}  # fmt: skip
SHOWN_AS_MARKDOWN = {"help", "title", "placeholder", "label", "text", "caption", "captions"}


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """Every `st.name(...)` of a module, and `anything.name(...)` for names that only Streamlit has."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            whose = node.func.value
            streamlit = isinstance(whose, ast.Name) and whose.id in ("st", "bar", "panel", "column")
            streamlit |= isinstance(whose, ast.Attribute) and whose.attr in ("sidebar", "bottom")
            if streamlit:
                found.append((node.func.attr, node))
    return found


def harmless(node: ast.expr | None, names: frozenset[str]) -> bool:
    """A literal, something `plain` made, numbers in an f-string, or a choice of such."""
    match node:
        case None | ast.Constant():
            return True
        case ast.JoinedStr(values=parts):
            return all(harmless(part, names) for part in parts)
        case ast.FormattedValue(value=value):
            return harmless(value, names) or _number(value)
        case ast.Call(func=ast.Name(id="plain")):
            return True
        case ast.Call(func=ast.Attribute(attr="join"), args=[argument]):
            return isinstance(argument, ast.GeneratorExp) or harmless(argument, names)
        case ast.BinOp(left=ast.Constant(), op=ast.Mult()):
            return True
        case ast.BinOp(left=left, right=right):
            return harmless(left, names) and harmless(right, names)
        case ast.IfExp(body=body, orelse=other):
            return harmless(body, names) and harmless(other, names)
        case ast.BoolOp(values=values):
            return all(harmless(value, names) for value in values)
        case ast.Name(id=name):
            return name in names
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return all(harmless(item, names) for item in items)
        case ast.Subscript(value=inner):
            return harmless(inner, names)
    return False


def _number(node: ast.expr) -> bool:
    """An expression that can only be a number."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _number(node.left) or _number(node.right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("len", "int", "round", "sum")
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


ALLOWED_NAMES = {
    "cards.py": frozenset({"label"}),
    "answer.py": frozenset({"label"}),
    "opinion.py": frozenset({"label", "asked"}),
    "forms.py": frozenset({"label", "about"}),
    "knowledge.py": frozenset({"pages", "number", "score"}),
}
"""Variables that were read by a person and hold only literals, numbers and what `plain` made."""


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_nothing_draws_free_text_as_markdown(path: Path) -> None:
    names = ALLOWED_NAMES.get(path.name, frozenset())
    for name, call in calls(path):
        where = f"{path.name}:{call.lineno} st.{name}"
        assert name not in FORBIDDEN, f"{where} renders Markdown; use markup.draw, notice or note"
        if name in LABELLED:
            first = call.args[0] if call.args else None
            assert harmless(first, names), f"{where}: the label is not a literal and not plain(...)"
        for keyword in call.keywords:
            if keyword.arg in SHOWN_AS_MARKDOWN:
                assert harmless(keyword.value, names), f"{where}: {keyword.arg}= is not a literal and not plain(...)"
            assert keyword.arg not in ("unsafe_allow_html", "unsafe_allow_javascript"), where


def test_an_address_is_opened_only_to_sign_a_connector_in() -> None:
    used = {path.name for path in SOURCES for name, _ in calls(path) if name == "link_button"}
    assert used == {"connectors_sign_in.py"}, "text from outside must not become something to click"


def test_html_is_put_on_the_page_in_one_place_and_the_stylesheet_in_another() -> None:
    used = {path.name for path in SOURCES for name, _ in calls(path) if name == "html"}
    assert used == {"markup.py", "look.py"}


def test_html_is_declared_safe_only_where_it_is_escaped() -> None:
    for path in SOURCES:
        made = [
            node
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Safe"
        ]
        assert not made or path.name == "markup.py", f"{path.name} wraps text in Safe() itself"


def test_this_test_sees_a_sink(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("import streamlit as st\nst.markdown(x)\nst.button(title)\nst.button(plain(title))\n")
    found = calls(bad)
    assert [name for name, _ in found] == ["markdown", "button", "button"]
    assert not harmless(found[1][1].args[0], frozenset())
    assert harmless(found[2][1].args[0], frozenset())
