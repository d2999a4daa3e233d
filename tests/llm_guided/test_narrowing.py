"""What a small model may write for a value: only what the message says."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from trimtab.llm.narrowing import ITEMS, OPTIONS, narrowed

TODAY = dt.date(2026, 11, 30)
DISH = {
    "type": "object",
    "properties": {"dish": {"type": "string"}, "count": {"type": "integer", "minimum": 1}},
    "required": ["dish", "count"],
    "additionalProperties": False,
}
ORDER = {
    "type": "object",
    "properties": {"dishes": {"type": "array", "items": DISH}},
    "required": ["dishes"],
    "additionalProperties": False,
}


def allows(schema: dict[str, Any], value: Any) -> bool:
    Draft202012Validator.check_schema(schema)
    return bool(Draft202012Validator(schema).is_valid(value))


def test_only_what_was_said_can_be_ordered_and_no_more_of_it() -> None:
    schema = narrowed(ORDER, "How much are 3 burgers and one green salad?", TODAY, "price: say what dishes cost")
    right = {"dishes": [{"dish": "burgers", "count": 3}, {"dish": "green salad", "count": 1}]}
    assert allows(schema, right)
    assert not allows(schema, {"dishes": [{"dish": "sushi", "count": 3}]}), "nobody said that"
    assert not allows(schema, {"dishes": [{"dish": "burgers", "count": 9}]}), "nor that number"
    assert not allows(schema, {"dishes": [{"dish": "burgers and one", "count": 3}]}), "no dish begins or ends like that"
    assert not allows(schema, {"dishes": [{"dish": "3 burgers", "count": 3}]}), "the number has a place of its own"
    assert not allows(schema, {"dishes": [*right["dishes"], {"dish": "salad", "count": 3}]}), "three things of two"


def test_words_that_ask_for_the_tool_are_no_values() -> None:
    one = {"type": "object", "properties": {"topic": {"type": "string"}}}
    schema = narrowed(one, "Look up whales in the encyclopedia", TODAY, "lookup: look up a topic in the encyclopedia")
    assert allows(schema, {"topic": "whales"})
    assert not allows(schema, {"topic": "encyclopedia"})


def test_dates_can_be_written_as_the_tool_wants_them_and_not_as_they_were_said() -> None:
    stay = {"day": {"type": "string", "format": "date"}, "guests": {"type": "integer"}}
    when = {
        "type": "object",
        "properties": {"stays": {"type": "array", "items": {"type": "object", "properties": stay}}},
    }
    schema = narrowed(when, "from tomorrow on for 2", TODAY)
    assert allows(schema, {"stays": [{"day": "2026-12-01", "guests": 2}]})
    assert not allows(schema, {"stays": [{"day": "2026-12-24", "guests": 2}]})
    assert not allows(schema, {"stays": [{"day": "tomorrow", "guests": 2}]})


def test_what_stands_in_quotes_is_a_value_as_it_is() -> None:
    assert allows(narrowed({"type": "string"}, 'Play "Let it be" by the Beatles', TODAY), "Let it be")


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, 7),
        ({"type": "boolean"}, True),
        ({"enum": ["warm", "cold"]}, "cold"),
        ({"type": "string", "pattern": "^[A-Z]{3}$"}, "ABC"),
        ({"type": ["string", "null"]}, None),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, None),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "integer"}}}, 4),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3}, [1, 2, 3]),
    ],
)
def test_where_nothing_fits_that_was_said_the_tool_s_own_schema_stays(schema: dict[str, Any], value: Any) -> None:
    assert allows(narrowed(schema, "Please tell me.", TODAY), value)


def test_a_text_that_nobody_said_is_short_because_it_is_thrown_away() -> None:
    schema = narrowed({"type": "string"}, "Please tell me.", TODAY)
    assert allows(schema, "anything")
    assert not allows(schema, "a" * 400)


def test_a_long_message_offers_shorter_runs_and_one_without_end_offers_none() -> None:
    words = " ".join(f"word{number}" for number in range(200))
    schema = narrowed({"type": "string"}, words, TODAY)
    assert allows(schema, "word7")
    assert len(schema["enum"]) <= OPTIONS
    assert "enum" not in narrowed({"type": "string"}, words * 5 + words.replace("word", "other"), TODAY)
    listed = narrowed({"type": "array", "items": {"type": "integer"}}, " ".join(map(str, range(99))), TODAY)
    assert listed["maxItems"] == ITEMS
