"""Rewards are plain functions that add up; each part says what it saw."""

from __future__ import annotations

import pytest

from trimtab.align import rewards
from trimtab.align.rewards import Part, Weighted
from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Said

ASK = (Said("user", "What is the weather in Paris for 3 days, from -2.0 degrees?"),)
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "low": {"type": "number"},
        "unit": {"enum": ["celsius", "fahrenheit"]},
    },
    "required": ["city"],
    "additionalProperties": False,
}


def shout(prompts, completions, context) -> list[float]:  # type: ignore[no-untyped-def]
    """A person's own reward, named by its path in a test below."""
    return [float(text.isupper()) for text in completions]


def test_parts_are_weighted_and_reported_by_themselves() -> None:
    reward = Weighted(
        [
            Part("loud", 2.0, rewards.named("test_rewards_add_up:shout")),
            Part("short", 0.5, rewards.length(limit=2, unit=1)),
        ]
    )
    scored = reward([ASK] * 3, ["YES", "no", "NO NO NO NO"], [{}] * 3)
    assert scored.parts == {"loud": [1.0, 0.0, 1.0], "short": [0.0, 0.0, -2.0]}
    assert scored.totals == [2.0, 0.0, 1.0]
    assert scored.means() == {"loud": pytest.approx(2 / 3), "short": pytest.approx(-2 / 3)}


@pytest.mark.parametrize("bad", [lambda p, c, k: [1.0], lambda p, c, k: [float("nan")] * len(c)])
def test_a_reward_that_does_not_answer_for_each_completion_is_refused(bad: rewards.Reward) -> None:
    with pytest.raises(InvalidInput, match="mine"):
        Weighted([Part("mine", 1.0, bad)])([ASK] * 2, ["a", "b"], [{}] * 2)


@pytest.mark.parametrize(
    "path", ["nowhere.at.all:f", "trimtab.align.rewards:absent", "trimtab.align.rewards", ":x", "json:__name__"]
)
def test_a_reward_that_is_not_there_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput):
        rewards.named(path)


def test_names_are_needed_and_must_differ() -> None:
    with pytest.raises(InvalidInput):
        Weighted([])
    with pytest.raises(InvalidInput):
        Weighted([Part("a", 1.0, shout), Part("a", 1.0, shout)])


def test_json_is_worth_half_until_it_fits() -> None:
    reward = rewards.valid_json(SCHEMA)
    texts = ['{"city": "Paris"}', '{"days": 3}', "[1]", "Paris", '{"city": "Pa', "[" * 100_000]
    assert reward([ASK] * 6, texts, [{}] * 6) == [1.0, 0.5, 0.5, 0.0, 0.0, 0.0]


def test_a_pattern_is_matched_whole() -> None:
    assert rewards.matches(r"yes|no")([ASK] * 3, ["yes", " no\n", "yes, sure"], [{}] * 3) == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ('{"city": "Paris", "days": 3, "low": -2, "unit": "celsius"}', 1.0),
        ('{"city": "Paris", "days": 4}', 0.6),
        ('{"city": "Paris", "low": 2}', 0.6),
        ('{"city": "London"}', 0.6),
        ('{"city": 3}', 0.3),
        ('{"town": "Paris"}', 0.3),
        ('"Paris"', 0.0),
        ("the weather in Paris", 0.0),
    ],
)
def test_a_tool_call_is_worth_more_the_more_of_it_is_right(text: str, worth: float) -> None:
    assert rewards.tool_call()([ASK], [text], [{"schema": SCHEMA}]) == [worth]


def test_of_grounded_calls_the_right_one_is_worth_most() -> None:
    context = [{"schema": SCHEMA, "arguments": {"city": "Paris", "days": 3}}] * 2
    assert rewards.tool_call()([ASK] * 2, ['{"days": 3, "city": "Paris"}', '{"city": "Paris"}'], context) == [1.0, 0.8]
