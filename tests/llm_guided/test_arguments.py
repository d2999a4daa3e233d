"""Arguments come from what was said, or not at all."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.llm.arguments import fill
from trimtab.llm.dates import find_dates, find_times
from trimtab.llm.quantities import find_numbers
from trimtab.llm.sums import arithmetic
from trimtab.llm.support import UNSUPPORTED, supported
from trimtab.llm.toolspec import ToolSpec

MONDAY = dt.date(2026, 11, 23)


def spec(required: list[str], **properties: Any) -> ToolSpec:
    return ToolSpec("do_it", "Do it.", {"type": "object", "properties": properties, "required": required})


@pytest.mark.parametrize(
    ("said", "numbers"),
    [
        ("fifteen boxes of 1,200 at -3.5", [15, 1200, -3.5]),
        ("two hundred and five, twenty-one", [205, 21]),
        ("10-5", [10, 5]),
        ("three thousand four hundred", [3400]),
        ("20k and a dozen", [20000, 12]),
        ("minus 4", [-4]),
        ("no numbers", []),
    ],
)
def test_numbers_are_read_however_they_are_written(said: str, numbers: list[float]) -> None:
    assert [q.value for q in find_numbers(said)] == numbers


@pytest.mark.parametrize(
    ("said", "iso"),
    [
        ("tomorrow", "2026-11-24"),
        ("next Friday", "2026-11-27"),
        ("on monday", "2026-11-30"),
        ("5th of December", "2026-12-05"),
        ("March 3", "2027-03-03"),
        ("in two weeks", "2026-12-07"),
        ("2027-02-28", "2027-02-28"),
    ],
)
def test_days_are_told_from_today(said: str, iso: str) -> None:
    assert [d.iso for d in find_dates(said, MONDAY)] == [iso]


def test_a_day_that_does_not_exist_or_is_ambiguous_is_not_read() -> None:
    assert find_dates("2026-02-31 or 03/04/2026 or 31 November", MONDAY) == []


def test_times_are_read_with_and_without_am() -> None:
    assert [t.iso for t in find_times("at 3 pm, 07:45 or noon")] == ["15:00", "07:45", "12:00"]


@pytest.mark.parametrize(
    ("said", "sum_"),
    [
        ("hey what is 15% of 80 please", "15% of 80"),
        ("(18 - 4) / 2?", "(18 - 4) / 2"),
        ("I have 3 boxes with 24 eggs, what is 3 * 24", "3 * 24"),
        ("twelve times seven", "twelve times seven"),
    ],
)
def test_a_calculation_is_cut_out_of_its_sentence(said: str, sum_: str) -> None:
    area = arithmetic(said)
    assert area is not None
    assert said[area.start : area.end] == sum_


def test_a_sentence_with_numbers_but_no_operation_is_no_calculation() -> None:
    assert arithmetic("I have 2 cats and 1 dog") is None
    assert arithmetic("-5 degrees") is None


def test_nested_values_lists_choices_and_switches_are_found_where_they_belong() -> None:
    tool = spec(
        ["trip", "tags"],
        trip={
            "type": "object",
            "properties": {"destination": {"type": "string"}, "nights": {"type": "integer", "minimum": 1}},
            "required": ["destination"],
        },
        tags={"type": "array", "items": {"type": "string", "enum": ["beach", "city", "hiking"]}},
        breakfast={"type": "boolean"},
    )
    filled = fill(tool, "A trip to Lisbon for 4 nights, beach and hiking, with breakfast", MONDAY)
    assert filled.arguments == {
        "trip": {"destination": "Lisbon", "nights": 4},
        "tags": ["beach", "hiking"],
        "breakfast": True,
    }
    assert fill(tool, "A trip to Lisbon, beach, no breakfast", MONDAY).arguments["breakfast"] is False
    assert "breakfast" not in fill(tool, "A trip to Lisbon, beach", MONDAY).arguments


def test_a_value_outside_the_schemas_limits_is_asked_for_instead_of_sent() -> None:
    tool = spec(["people"], people={"type": "integer", "minimum": 1, "maximum": 8})
    assert [s.name for s in fill(tool, "a table for 40 people", MONDAY).missing] == ["people"]


def test_an_optional_value_that_was_not_said_is_left_out() -> None:
    tool = spec([], days={"type": "integer", "default": 3}, place={"type": "string"})
    assert fill(tool, "do it", MONDAY).arguments == {}


def test_durations_come_in_the_unit_that_was_asked_for() -> None:
    tool = spec([], days={"type": "integer", "description": "Number of days"})
    assert fill(tool, "for the next two weeks", MONDAY).arguments == {"days": 14}


_WORDS = st.lists(
    st.sampled_from(
        "send convert 12 -3.5 fifteen euros to from in at Paris new york tomorrow next friday kitchen on off , . ? "
        "'quoted words' a@b.example https://x.example/a saying that hello the of and € 日本 \u200b".split(" ")
    ),
    max_size=25,
).map(" ".join)


@settings(max_examples=300)
@given(_WORDS | st.text(max_size=200))
def test_no_value_is_ever_invented(text: str) -> None:
    """Whatever is said: each text value occurs in it, each number is one of its numbers, each day one of its days."""
    tool = spec(
        ["to", "amount"],
        to={"type": "string", "description": "City"},
        amount={"type": "number"},
        body={"type": "string"},
        day={"type": "string", "format": "date"},
        state={"enum": ["on", "off"]},
        url={"type": "string", "format": "uri"},
        sum={"type": "string", "description": "expression"},
        names={"type": "array", "items": {"type": "string"}},
    )
    filled = fill(tool, text, MONDAY)
    got = filled.arguments
    assert set(got) | {s.name for s in filled.missing} >= {"to", "amount"}
    for name in ("to", "body", "sum"):
        assert name not in got or (got[name] in text and got[name].strip())
    assert "amount" not in got or got["amount"] in [q.value for q in find_numbers(text)]
    assert "day" not in got or got["day"] in [d.iso for d in find_dates(text, MONDAY)]
    assert "state" not in got or got["state"] in text.lower()
    assert "url" not in got or got["url"].removeprefix("https://") in text
    assert all(n in text for n in got.get("names", []))


def test_what_a_model_made_up_is_taken_out_of_what_it_decoded() -> None:
    value = {"people": [{"name": "Ann", "age": 31}, {"name": "Zed", "age": 12}], "when": "2026-11-24", "vip": True}
    kept = supported(value, {}, "Invite Ann, who is thirty one, for tomorrow", MONDAY)
    assert kept == {"people": [{"name": "Ann", "age": 31}], "when": "2026-11-24"}
    assert supported({"name": "scar"}, {}, "a car", MONDAY) is UNSUPPORTED


def test_an_optional_value_does_not_take_the_words_of_a_required_one() -> None:
    tool = spec(
        ["query"], query={"type": "string"}, language={"type": "string", "pattern": "^[a-z]{2}$", "default": "en"}
    )
    assert fill(tool, "What does it say about Alan Turing?", MONDAY).arguments == {"query": "Alan Turing"}


def test_two_names_in_one_question_each_find_their_own_words() -> None:
    """Whatever their case and order, and although the words of the examples are the tool's own where they recur."""
    place, person = {"type": "string", "description": "The station"}, {"type": "string", "description": "Who rides"}
    bikes = ToolSpec(
        "bikes_reserve",
        "Reserve a bicycle at a station for a person.",
        {"type": "object", "properties": {"station": place, "person": person}, "required": ["station", "person"]},
        ("Reserve a bike at the harbour for Anna", "Book a bicycle at the mill for Bob", "Reserve one at Quay for Eve"),
    )
    for said, station, who in (
        ("Reserve a bike at the harbour for Anna", "harbour", "Anna"),
        ("Please book a bicycle for Tom at the old mill", "old mill", "Tom"),
        ("Reserve a bike at Castle Road for Dana", "Castle Road", "Dana"),
    ):
        assert fill(bikes, said, MONDAY).arguments == {"station": station, "person": who}
    only_there = fill(bikes, "Reserve a bike at the library", MONDAY)
    assert (only_there.arguments, [slot.name for slot in only_there.missing]) == ({"station": "library"}, ["person"])
