"""Whether a sentence keeps to its sources: numbers, names, negation, subject."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.orchestrator.grounding import cited_numbers, keeps_to, unsupported

SOURCE = (
    "The Vellmouth lighthouse was built in 1842 by Ada Quill. It is 31.5 metres high, cost 12,500 pounds and is not "
    "open on Mondays. The keeper's boat holds twelve people; in winter it is -4 degrees there."
)


@pytest.mark.parametrize(
    ("answer", "missing"),
    [
        ("It was built in 1842.", ()),
        ("It was built in 1843.", ("1843",)),
        ("It cost 12500 pounds.", ()),
        ("It cost 12 500 pounds.", ()),
        ("It cost 125 pounds.", ("125",)),
        ("It is 31.50 metres high.", ()),
        ("It is 31,5 metres high.", ()),
        ("It is 32.5 metres high.", ("32.5",)),
        ("The boat holds 12 people.", ()),
        ("The boat holds thirteen people.", ("thirteen",)),
        ("In winter it is -4 degrees.", ()),
        ("In winter it is \u22124 degrees.", ()),
        ("In winter it is -40 degrees.", ("-40",)),
        ("It was built by Ada Quill.", ()),
        ("It was built by Bram Quill.", ("Bram",)),
        ("Quill's lighthouse stands in Vellmouth [1].", ()),
        ("It stands in Paris [1].", ("Paris",)),
        ("It was built in 1842 [7].", ()),
        ("", ()),
    ],
)
def test_numbers_and_names_must_stand_in_the_source(answer: str, missing: tuple[str, ...]) -> None:
    assert unsupported(answer, [SOURCE]) == missing


def test_what_the_question_brought_needs_no_source() -> None:
    assert unsupported("You are Okafor and asked about 2031.", [SOURCE], "I am Okafor, what about 2031?") == ()


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("It is not open on Mondays.", True),
        ("It is open on Mondays.", False),
        ("Bananas ripen quickly when stored beside apples.", False),
        ("It is 99 metres high.", False),
        ("   ", False),
    ],
)
def test_a_phrasing_stands_only_when_it_keeps_to_the_source(answer: str, kept: bool) -> None:
    assert (keeps_to(answer, ["The lighthouse is 31 metres high. It is not open on Mondays."]) == "") is kept


def test_citation_numbers_come_in_order_of_appearance_and_once() -> None:
    assert cited_numbers("So [2], and so [1], and so [2]. Not [1234] or [a].") == [2, 1]


WORDS = st.lists(
    st.one_of(
        st.from_regex(r"[A-Z]?[a-z]{1,9}", fullmatch=True),
        st.from_regex(r"[-]?[0-9]{1,6}([.,][0-9]{1,3})?", fullmatch=True),
        st.sampled_from(
            ["not", "never", "twelve", "O'Neill", "12:30", "2024-05-01", "3-5", "1,200", "CO2", "Åsa", "don't"]
        ),
    ),
    min_size=1,
    max_size=25,
)


@given(WORDS, st.lists(WORDS, max_size=3))
def test_a_sentence_copied_from_the_source_is_always_supported(words: list[str], around: list[list[str]]) -> None:
    sentence = " ".join(words) + "."
    source = " ".join([*(" ".join(w) + "." for w in around[:1]), sentence, *(" ".join(w) + "." for w in around[1:])])
    assert unsupported(sentence, [source]) == ()


@given(WORDS)
def test_a_source_is_a_fair_phrasing_of_itself(words: list[str]) -> None:
    sentence = " ".join(words) + "."
    assert keeps_to(sentence, [sentence]) == ""


@given(WORDS, st.integers(10**7, 10**9))
def test_a_number_from_nowhere_is_always_found(words: list[str], number: int) -> None:
    sentence = " ".join(words)
    assert str(number) in unsupported(f"So it is {number}", [sentence])


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=50))
def test_no_text_breaks_the_checks(answer: str, source: str, question: str) -> None:
    unsupported(answer, [source], question)
    keeps_to(answer, [source], question)
