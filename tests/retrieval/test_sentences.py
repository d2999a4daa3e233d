"""Sentences: exact ranges, and the joints a reader would choose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.retrieval.sentences import sentence_spans


def split(text: str, *, lines: bool = False) -> list[str]:
    return [text[s.start : s.end] for s in sentence_spans(text, lines=lines)]


@given(st.text("aB.!? \n\"')1|-#`e\u2028", max_size=80), st.booleans())
def test_sentences_hold_every_visible_character_in_order(text: str, lines: bool) -> None:
    position = 0
    for span in sentence_spans(text, lines=lines):
        assert span.start >= position
        assert text[position : span.start].strip() == ""
        assert text[span.start : span.end].strip() == text[span.start : span.end] != ""
        position = span.end
    assert text[position:].strip() == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Dr. Smith met J. Doe at 3.5 km. They spoke.", ["Dr. Smith met J. Doe at 3.5 km.", "They spoke."]),
        ("Fruit, e.g. apples, is good. Eat.", ["Fruit, e.g. apples, is good.", "Eat."]),
        ("A line that is\nwrapped. Next.", ["A line that is\nwrapped.", "Next."]),
        ("Intro:\n- first\n- second item\n  goes on\n", ["Intro:", "- first", "- second item\n  goes on"]),
        ("1. Open it. Wait.\n2. Close it.", ["1. Open it.", "Wait.", "2. Close it."]),
        ("| a | b |\n| 1 | 2 |\n", ["| a | b |", "| 1 | 2 |"]),
        ("# Title\nBody text.", ["# Title", "Body text."]),
        ('He said "go." Then left.', ['He said "go."', "Then left."]),
        ("It began in 1969. It ended.", ["It began in 1969.", "It ended."]),
        ("```\nx = 1.\ny = 2\n```\nAfter.", ["```", "x = 1.", "y = 2", "```", "After."]),
    ],
)
def test_joints(text: str, expected: list[str]) -> None:
    assert split(text) == expected


def test_code_is_split_by_lines() -> None:
    assert split("def f():\n    return 1\n", lines=True) == ["def f():", "return 1"]
