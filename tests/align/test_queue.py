"""People are asked first where their word teaches most."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from trimtab.align.queue import EVERY, Candidate, at_odds, ordered, unsure, without
from trimtab.domain.judgement import Said


def candidate(name: str, judged: int = 0) -> Candidate:
    return Candidate(name, (Said("user", name),), ("Yes.",), judged)


def test_where_the_reward_model_is_unsure_comes_first() -> None:
    sure = {"a": 0.99, "b": 0.52, "c": 0.2}

    def uncertainty(candidates: Sequence[Candidate]) -> list[float]:
        return [unsure(sure[one.id]) for one in candidates]

    found = ordered([candidate(name) for name in "abc"], "ann", 0, uncertainty)
    assert [one.id for one in found] == ["b", "c", "a"]


def test_without_scores_those_with_few_labels_come_first() -> None:
    found = ordered([candidate("a", 3), candidate("b", 0), candidate("c", 1)], "ann", 0)
    assert [one.id for one in found] == ["b", "c", "a"]


def test_every_fifth_was_judged_by_somebody_else() -> None:
    some = [candidate("a", 1), *(candidate(f"b{n}") for n in range(20))]
    firsts = [ordered(some, "ann", done)[0].judged for done in range(EVERY * 2)]
    assert firsts == [0, 0, 0, 0, 1] * 2
    assert ordered(some[1:], "ann", EVERY - 1)


def test_two_people_do_not_go_through_the_same_list_in_step() -> None:
    some = [candidate(f"c{n}") for n in range(50)]
    ann, bob = ordered(some, "ann", 0), ordered(some, "bob", 0)
    assert ann != bob
    assert ann == ordered(some, "ann", 0)


def test_scores_are_between_nothing_and_all() -> None:
    assert [unsure(p) for p in (0, 0.5, 1)] == [0, 1, 0]
    assert at_odds(0.9, 0.1) == pytest.approx(0.8)
    assert without([candidate("a"), candidate("b")], {"a"}) == [candidate("b")]
