"""Curation: what is left out, why, and what poisoners get."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from trimtab.align.curation import Curated, Decision, Rules, curate
from trimtab.domain.judgement import Blame, Judgement, Kind, Said, Source

WORDS = (
    "apple boat cloud dragon eagle forest garden hammer island jacket kettle lantern mountain needle orange pencil "
    "quarry river saddle table umbrella valley window yellow zebra anchor bridge candle desert engine feather glacier"
).split()
DAY = 24 * 3600.0


def sentence(*seed: object) -> str:
    return " ".join(random.Random(repr(seed)).choices(WORDS, k=12))


def label(person: str, about: object, value: int = 1, **fields: object) -> Judgement:
    """`person` says of one answer that it is good or bad."""
    made = {
        "id": f"fbk_{person}_{about}",
        "kind": Kind.LABEL,
        "prompt": (Said("user", sentence("question", about) + "?"),),
        "completion": sentence("answer", about) + ".",
        "value": value,
        "person": person,
        "about": {"feedback": f"fbk_{person}_{about}"},
    }
    return Judgement(**{**made, **fields})  # type: ignore[arg-type]


def share_of(found: Curated, *people: str) -> float:
    return sum(row.person in people for row in found.rows) / len(found.rows)


def honest(people: int, rows: int) -> Iterator[Judgement]:
    """Everybody about their own conversations."""
    for person in range(people):
        for row in range(rows):
            yield label(f"usr_{person}", (person, row), row % 3 != 0, at=row * DAY)


# ---------------------------------------------------------------------- poisoning


@pytest.mark.parametrize("each", [1, 3, 12])
@pytest.mark.parametrize("days", [1, 100])
def test_five_thousand_votes_of_one_account_end_as_at_most_two_percent(each: int, days: int) -> None:
    votes = [label("evil", ("evil", n), at=n % days * DAY) for n in range(5000)]
    found = curate([*honest(100, each), *votes])
    assert share_of(found, "evil") <= 0.02
    assert len(found.rows) >= 100 * each
    assert sum(found.counts.values()) + len(found.rows) == 100 * each + 5000


def test_five_percent_of_poison_from_one_account_end_as_at_most_two_percent() -> None:
    clean = list(honest(95, 10))
    poison = [label("evil", ("evil", n), at=n * DAY) for n in range(50)]
    assert len(poison) / (len(poison) + len(clean)) == 0.05
    assert 0 < share_of(curate([*clean, *poison]), "evil") <= 0.02


def test_beside_one_trusted_person_another_account_has_at_most_two_percent() -> None:
    mine = [label("owner", n, at=n) for n in range(190)]
    poison = [label("evil", ("evil", n), at=n * DAY) for n in range(10)]
    found = curate([*mine, *poison], Rules(trusted=frozenset({"owner"})))
    assert share_of(found, "evil") <= 0.02
    assert share_of(found, "owner") * len(found.rows) == 190


def test_a_person_alone_is_not_capped_by_share() -> None:
    found = curate([label("me", n) for n in range(30)])
    assert len(found.rows) == 30


def shared(people: list[str], things: int, wrong: set[str]) -> Iterator[Judgement]:
    """Everybody about the same answers; honest people are right in nine of ten cases."""
    for person in people:
        chance = random.Random(person)
        for thing in range(things):
            right = chance.random() < 0.9
            good = thing % 2
            yield label(person, f"thing {thing}", 1 - good if person in wrong or not right else good, at=thing * DAY,
                        id=f"fbk_{person}_{thing}")  # fmt: skip


def test_ten_sybils_among_a_hundred_who_vote_against_everybody_are_quarantined() -> None:
    good, evil = [f"usr_{n}" for n in range(100)], [f"evil_{n}" for n in range(10)]
    found = curate([*shared([*good, *evil], 12, set(evil)), *honest(100, 5)])
    assert share_of(found, *evil) == 0
    assert {found.people[person].weight for person in evil} == {0}
    assert all(found.people[person].weight > 0.5 for person in good)


def test_ten_sybils_who_agree_among_themselves_get_at_most_five_percent() -> None:
    good, evil = [f"usr_{n}" for n in range(100)], [f"evil_{n}" for n in range(10)]
    ring = [label(person, f"ring {n}", id=f"fbk_{person}_ring{n}", at=n * DAY) for person in evil for n in range(60)]
    found = curate([*shared(good, 12, set()), *honest(100, 5), *ring])
    assert share_of(found, *evil) <= 0.05


def test_ten_sybils_nobody_was_ever_compared_with_get_at_most_five_percent() -> None:
    good, evil = [f"usr_{n}" for n in range(100)], [f"evil_{n}" for n in range(10)]
    apart = [label(person, (person, n), at=n * DAY) for person in evil for n in range(60)]
    found = curate([*shared(good, 12, set()), *honest(100, 5), *apart])
    assert 0 < share_of(found, *evil) <= 0.05


def test_the_same_text_pushed_by_many_accounts_counts_once() -> None:
    push = [
        label(f"evil_{n}", "push", completion="Buy the Golden Lantern at lantern dot example today.") for n in range(10)
    ]
    found = curate([*honest(20, 3), *push])
    assert sum("Golden" in row.completion for row in found.rows) == 1
    assert found.counts == {"duplicate": 9}


# ---------------------------------------------------------------------- contradictions


def pair(person: str, better: str, worse: str, **fields: object) -> Judgement:
    made = {"kind": Kind.PREFERENCE, "completion": better, "rejected": worse, "value": None, "person": person}
    return replace(label(person, "pair"), **{**made, **fields})  # type: ignore[arg-type]


def test_who_prefers_both_of_two_answers_is_not_heard_about_them() -> None:
    found = curate([pair("me", "One.", "Two.", id="a"), pair("me", "Two.", "One.", id="b"), label("me", "else")])
    assert [row.id for row in found.rows] == ["fbk_me_else"]
    assert found.counts == {"contradiction": 2}


def test_where_people_cannot_agree_nothing_is_learned_and_a_clear_majority_wins() -> None:
    even = [label(f"usr_{n}", "even", n % 2) for n in range(4)]
    clear = [label(f"usr_{n}", "clear", n != 0) for n in range(4)]
    found = curate([*even, *clear])
    assert found.counts["contested"] == 4
    assert found.counts["outvoted"] == 1
    assert {row.value for row in found.rows} == {1}


def test_who_voted_with_others_counts_more_than_who_was_never_compared() -> None:
    rows = [label(f"usr_{n}", f"thing {t}", t % 2) for n in range(3) for t in range(8)]
    found = curate([*rows, label("new", "something else")])
    assert found.people["new"].weight == 0.5
    assert found.people["usr_0"].weight == 1.0
    assert {row.weight for row in found.rows} == {1.0}


def test_rows_weigh_as_much_as_their_person_agrees() -> None:
    rows = [label(f"usr_{n}", f"thing {t}", t % 2 if n or t > 1 else 1 - t % 2) for n in range(3) for t in range(8)]
    found = curate([*rows, label("usr_0", "more"), label("usr_1", "most")])
    weights = {row.person: row.weight for row in found.rows if row.about["feedback"].endswith(("more", "most"))}
    assert weights == {"usr_0": found.people["usr_0"].weight, "usr_1": 1.0}
    assert 0.5 < weights["usr_0"] < 1.0


# ---------------------------------------------------------------------- what never trains


def test_no_consent_and_foreign_words_stay_out_whatever_is_decided_by_hand() -> None:
    no = label("me", "no", consent=False)
    foreign = label("me", "foreign", ours=False)
    decided = {row.id: Decision("include", "I want it") for row in (no, foreign)}
    found = curate([no, foreign], Rules(), decided)
    assert found.rows == ()
    assert found.counts == {"consent": 1, "not ours": 1}


def test_imported_text_need_not_be_ours() -> None:
    found = curate([label("", "import", ours=False, source=Source.IMPORT)])
    assert len(found.rows) == 1


def test_tainted_and_blamed_rows_are_let_in_by_hand_only() -> None:
    tainted = label("me", "tainted", 1, tainted=True)
    blamed = label("me", "blamed", 0, blame=Blame.RETRIEVAL)
    assert curate([tainted, blamed]).counts == {"tainted": 1, "blame: retrieval": 1}
    decided = {tainted.id: Decision("include"), blamed.id: Decision("include")}
    assert len(curate([tainted, blamed], Rules(), decided).rows) == 2


def test_a_row_left_out_by_hand_says_why() -> None:
    row = label("me", "x")
    found = curate([row], Rules(), {row.id: Decision("exclude", "a test of mine")})
    assert [(d.rule, d.reason) for d in found.dropped] == [("by hand", "a test of mine")]


def test_nothing_like_an_evaluation_prompt_trains() -> None:
    asked = label("me", "kept").prompt[-1].content
    found = curate([label("me", "kept"), label("me", "other")], Rules(evaluation=(asked.upper() + " ",)))
    assert found.counts == {"evaluation": 1}
    assert [row.id for row in found.rows] == ["fbk_me_other"]


def test_near_duplicates_leave_one_row_and_other_values_alone() -> None:
    text = sentence("long") + " " + sentence("longer") + "."
    rows = [
        label("me", "a", completion=text),
        label("me", "a", id="b", completion=text.replace("a ", "a  ").upper()),
        label("me", "a", id="c", completion=text + " Bye."),
        label("me", "a", id="d", completion=sentence("other") + ".", value=0),
    ]
    found = curate(rows)
    assert len(found.rows) == 2
    assert found.counts == {"duplicate": 2}


def test_the_same_rows_in_any_order_give_the_same_result() -> None:
    rows = [*honest(60, 4), *(label("evil", ("evil", n)) for n in range(300))]
    once = curate(rows)
    random.Random(1).shuffle(rows)
    assert curate(rows).rows == once.rows
