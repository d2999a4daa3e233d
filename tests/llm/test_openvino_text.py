"""Tokens become text when it is sure what they are; stop strings never show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from trimtab.llm.openvino_server.prefix import BLOCK, PrefixBook, chain
from trimtab.llm.openvino_server.text import Vocabulary, Writer

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENIZER = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(LETTERS)}, merges=[]))
TOKENIZER.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
TOKENIZER.decoder = decoders.ByteLevel()
BYTES = Vocabulary(TOKENIZER, special_ids=(), ends=())
"""A token a byte: the hardest case."""


def pieces(text: str, stops: list[str]) -> tuple[list[str], bool]:
    writer = Writer(BYTES, stops)
    ids = TOKENIZER.encode(text).ids
    shown = [writer.write([token]) for token in ids]
    return [*shown, writer.write([], last=True)], writer.stopped


@given(st.text(max_size=40))
def test_text_comes_out_as_it_went_in_and_never_half_a_character(text: str) -> None:
    shown, _ = pieces(text, [])
    assert "".join(shown) == text
    assert not any("\ufffd" in piece for piece in shown if "\ufffd" not in text)


@given(st.text("ab🙂é", max_size=30), st.lists(st.text("ab🙂é", min_size=1, max_size=4), max_size=3))
def test_what_is_shown_ends_before_the_first_stop_string(text: str, stops: list[str]) -> None:
    shown, stopped = pieces(text, stops)
    # The stop that is complete first ends the answer, wherever a longer one began.
    ends = [min(at for s in stops if (at := text[:n].find(s)) >= 0) for n in range(len(text) + 1)
            if any(s in text[:n] for s in stops)]  # fmt: skip
    assert "".join(shown) == (text[: ends[0]] if ends else text)
    assert stopped == bool(ends)


def test_half_a_character_at_the_very_end_is_marked() -> None:
    writer = Writer(BYTES, [])
    ids = TOKENIZER.encode("é").ids
    assert writer.write(ids[:1]) == ""
    assert writer.write([], last=True) == "\ufffd"


def test_a_book_knows_whole_blocks_and_forgets_the_oldest() -> None:
    book = PrefixBook(room=4)
    first, second = list(range(3 * BLOCK + 5)), list(range(1000, 1000 + 3 * BLOCK))
    assert book.known(chain(first)) == 0
    book.learn(chain(first))
    assert book.known(chain(first)) == 3
    book.learn(chain(second))
    assert book.known(chain(second)) == 3
    assert book.known(chain(first)) == 0, "its first two blocks had to go"
    book.learn(chain(first)[:1])
    assert book.known(chain(first[:BLOCK] + second)) == 1


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1])
def test_a_mark_stands_for_everything_before_it(size: int) -> None:
    ids = list(range(size))
    assert len(chain(ids)) == size // BLOCK
    if size >= BLOCK:
        assert chain(ids)[0] != chain([5, *ids[1:]])[0]
