"""What of a long thread the model is shown."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from trimtab.orchestrator.context import MESSAGE_OVERHEAD, Past

Thread = list[tuple[str, str]]


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def thread_of(*lengths: int) -> Thread:
    """Questions and answers in turns, each of as many words."""
    roles = ("user", "assistant")
    return [(roles[n % 2], f"{n} " + "word " * (length - 1)) for n, length in enumerate(lengths)]


def numbers_shown(thread: Thread, budget: int) -> list[int]:
    return [int(m.text.split()[0]) for m in Past(thread, "someone", words).within(budget)]


def size(thread: Thread) -> int:
    return sum(words([text for _, text in thread])) + MESSAGE_OVERHEAD * len(thread)


def test_a_thread_that_fits_is_shown_whole() -> None:
    thread = thread_of(5, 20, 5, 20)
    assert numbers_shown(thread, size(thread)) == [0, 1, 2, 3]


@given(st.lists(st.integers(1, 200), max_size=120), st.integers(-10, 4000))
def test_what_is_shown_fits_begins_with_a_question_and_ends_with_the_newest(lengths: list[int], budget: int) -> None:
    thread = thread_of(*lengths)
    shown = numbers_shown(thread, budget)
    assert shown == list(range(len(thread)))[len(thread) - len(shown) :]
    assert not shown or shown[0] % 2 == 0
    assert size(thread[len(thread) - len(shown) :]) <= max(budget, 0)


def test_most_of_the_room_is_used() -> None:
    for pairs in range(1, 80):
        thread = thread_of(*(10, 30) * pairs)
        shown = numbers_shown(thread, 1000)
        assert size(thread[:2]) * len(shown) // 2 >= min(size(thread), 700)


def test_the_beginning_of_a_long_prompt_stays_for_some_turns() -> None:
    beginnings = [numbers_shown(thread_of(*(10, 30) * pairs), 4000)[0] for pairs in range(100, 200)]
    assert beginnings == sorted(beginnings)
    assert len(set(beginnings)) <= 100 // 8


def test_a_thread_of_any_length_costs_as_much_counting_as_fits() -> None:
    counted: list[str] = []

    def count(texts: Sequence[str]) -> list[int]:
        counted.extend(texts)
        return words(texts)

    past = Past(thread_of(*(10, 30) * 2000), "someone", count)
    past.within(1000)
    past.within(900)
    assert len(counted) < 100
