"""Laws of chunking: ranges are exact, nothing is lost, nothing is too long."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from trimtab.retrieval.chunking import ChunkOptions, Piece, chunk
from trimtab.retrieval.extracted import CODE, MARKDOWN, PROSE, TABLE, Extracted, Title


def small_tokenizer() -> Tokenizer:
    """A BERT tokenizer over single characters and a few words: more tokens a word than the real one has."""
    words = ["[UNK]", "the", "river", "value", "return", "##s", "def", "class"]
    letters = [chr(c) for c in range(33, 127)]
    vocabulary = {w: i for i, w in enumerate([*words, *letters, *("##" + c for c in letters)])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer


TOKENIZER = small_tokenizer()
LIMIT = ChunkOptions(max_tokens=24, context_tokens=8)

word = st.text("abcdefg.ü漢'\"", min_size=1, max_size=12) | st.sampled_from(
    ["the", "e.g.", "river", "x" * 150, "return"]
)
line = st.lists(word, max_size=9).map(" ".join)
markup = st.sampled_from(
    [
        "# Title",
        "## Part",
        "###### Deep",
        "Set\n===",
        "```",
        "- item",
        "| a | b |",
        "",
        "  ",
        "\t",
        "def f(x):",
        "class A:",
    ]
) | st.sampled_from(
    ["    def g(self):", "@property", "name,age", '"a\nb",2', "1. one", "fn main() {", "\x0c", "\u2028"]
)
document_text = st.lists(line | markup, max_size=25).map("\n".join) | st.text(max_size=200)


@settings(max_examples=300)
@given(text=document_text, kind=st.sampled_from([PROSE, MARKDOWN, CODE, TABLE]))
def test_pieces_are_ordered_hold_every_visible_character_and_fit(text: str, kind: str) -> None:
    pieces = chunk(Extracted(text, kind), TOKENIZER, LIMIT)
    position = 0
    for piece in pieces:
        assert piece.start >= position, "pieces overlap"
        assert text[position : piece.start].strip() == "", "text between pieces was lost"
        body = text[piece.start : piece.end]
        assert body.strip(), "a piece is blank"
        assert len(TOKENIZER.encode(body).ids) <= LIMIT.max_tokens
        assert len(TOKENIZER.encode(piece.context).ids) <= LIMIT.context_tokens
        position = piece.end
    assert text[position:].strip() == ""


def headings(text: str, kind: str, limit: int = 24) -> list[tuple[tuple[str, ...], str]]:
    pieces = chunk(Extracted(text, kind), TOKENIZER, ChunkOptions(max_tokens=limit))
    return [(p.heading, text[p.start : p.end]) for p in pieces]


def test_markdown_pieces_carry_their_title_path() -> None:
    text = "# River\n\n## Source\nthe source\n\n## Mouth\nthe mouth\n\n# Sea\nthe sea"
    assert headings(text, MARKDOWN, 80) == [
        (("River", "Source"), "# River\n\n## Source\nthe source"),
        (("River", "Mouth"), "## Mouth\nthe mouth"),
        (("Sea",), "# Sea\nthe sea"),
    ]


def test_a_hash_inside_a_code_fence_is_not_a_title() -> None:
    text = "# Use\n```\n# not a title\n```\nafter"
    assert [h for h, _ in headings(text, MARKDOWN, 80)] == [("Use",)]


def test_underlined_titles_count_too() -> None:
    found = headings("River\n=====\nwater\n\nMouth\n-----\nsea", MARKDOWN, 80)
    assert [h for h, _ in found] == [("River",), ("River", "Mouth")]


def test_code_is_cut_at_functions_and_keeps_decorators_and_indentation() -> None:
    text = "import os\n\n\n@cache\ndef one(x):\n    return x\n\n\nclass A:\n    def two(self):\n        return 2\n"
    found = headings(text, CODE, 80)
    assert [h for h, _ in found] == [(), ("def one",), ("class A",), ("class A", "def two")]
    assert found[1][1].startswith("@cache\ndef one")
    assert found[3][1].startswith("    def two")


def test_rows_of_a_table_keep_together_and_repeat_the_header_outside_the_range() -> None:
    text = "name,note\n" + "\n".join(f'a{i},"one\ntwo"' for i in range(6))
    pieces = chunk(Extracted(text, TABLE), TOKENIZER, ChunkOptions(24, 20))
    assert len(pieces) > 1
    assert pieces[0].context == ""
    for piece in pieces[1:]:
        assert piece.context == "name,note"
        assert text[piece.start : piece.end].startswith("a")
        assert text[piece.start : piece.end].endswith('two"')


def test_titles_of_the_loader_are_used() -> None:
    text = "page one\npage two"
    document = Extracted(text, PROSE, titles=(Title(0, 1, "Page 1"), Title(9, 1, "Page 2")))
    assert chunk(document, TOKENIZER) == [
        Piece(0, 8, ("Page 1",), "Page 1"),
        Piece(9, 17, ("Page 2",), "Page 2"),
    ]


@pytest.mark.parametrize("text", ["x" * 5000, "漢" * 3000, '"' * 2000, "a" * 99 + " " + "b" * 101, "\n" * 5000])
def test_text_without_joints_is_still_cut(text: str) -> None:
    for piece in chunk(Extracted(text, TABLE), TOKENIZER, LIMIT):
        assert len(TOKENIZER.encode(text[piece.start : piece.end]).ids) <= LIMIT.max_tokens
