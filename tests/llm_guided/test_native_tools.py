"""Calls that models write as text, and calls that do not fit their schema."""

from __future__ import annotations

import contextlib
import json
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage

from trimtab.llm.lenient import Broken, Call, read_calls
from trimtab.llm.loose_json import Unreadable, parse
from trimtab.llm.native import INVALID, NativeToolModel
from trimtab.llm.scripted import ScriptedModel, call

OFFERED = ("weather", "add")
OSLO = Call("weather", {"place": "Oslo"})
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["place"],
        },
    },
}


@pytest.mark.parametrize(
    "written",
    [
        '```json\n{"name": "weather", "arguments": {"place": "Oslo"}}\n```',
        'I will look.\n```\n{"name": "weather", "parameters": {"place": "Oslo"}}',
        '<tool_call>\n{"name": "weather", "arguments": {"place": "Oslo"}}\n</tool_call>',
        '<tool_call>{"name": "weather", "arguments": "{\\"place\\": \\"Oslo\\"}"}',
        '<function=weather>{"place": "Oslo"}</function>',
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"place": "Oslo"}}]',
        '[TOOL_CALLS]weather[ARGS]{"place": "Oslo"}',
        "{'name': 'weather', 'arguments': {'place': 'Oslo',},}",
        '{name: "weather", arguments: {place: "Oslo"}} // there',
        '{"name": "weather", "arguments": {"place": "Oslo"',
        '{"tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"place": "Oslo"}}}]}',
        '{"weather": {"place": "Oslo"}}',
        '{"tool": "weather", "place": "Oslo"}',
        "weather(place='Oslo')",
        '[weather(place="Oslo")]',
        '```python\nweather(place="Oslo")\n```',
    ],
)
def test_a_call_is_read_in_every_dress_models_give_it(written: str) -> None:
    assert read_calls(written, OFFERED).calls == (OSLO,)


def test_several_calls_are_read_in_order() -> None:
    tags = '<tool_call>{"name":"weather","arguments":{"place":"Oslo"}}</tool_call>' * 2
    assert read_calls(tags, OFFERED).calls == (OSLO, OSLO)
    assert read_calls("[weather(place='Oslo'), add(a=1, b=[2])]", OFFERED).calls == (
        OSLO,
        Call("add", {"a": 1, "b": [2]}),
    )


@pytest.mark.parametrize(
    "written",
    [
        "The weather (in Oslo) is fine.",
        "You can call weather(place) with a place.",
        '```json\n{"name": "Ann", "age": 3}\n```',
        '{"name": "delete_everything", "arguments": {}}',
        "[1, 2, 3]",
        "",
    ],
)
def test_prose_data_and_tools_that_were_not_offered_are_no_calls(written: str) -> None:
    assert not read_calls(written, OFFERED).calls


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ('{"name": "weather", "arguments": {"place": "Os', "cut off"),
        ('{"name": "weather", "arguments": {"days": NaN}}', "not a value"),
        ('{"name": "weather", "arguments": {"days": 1e400}}', "too large"),
        ('{"name": "weather", "arguments": ' + '{"a":' * 10_000, "deep"),
        ('{"name": "weather", "arguments": [1]}', "not an object"),
        ("weather('Oslo')", "no names"),
        ("weather(place=__import__('os').system('x'))", "cannot be read"),
    ],
)
def test_a_call_that_cannot_be_read_is_named_with_the_reason(written: str, why: str) -> None:
    reading = read_calls(written, OFFERED)
    assert reading.calls == ()
    assert [(b.name, why in b.reason) for b in reading.broken] == [("weather", True)]


def test_a_lone_surrogate_becomes_a_character_that_can_be_stored() -> None:
    (read,) = read_calls('{"name": "weather", "arguments": {"place": "\\ud83d\\ude00 \\ud800"}}', OFFERED).calls
    assert read.arguments["place"].encode() == "😀 �".encode()


def test_a_thousand_damaged_calls_give_a_thousand_typed_results_in_bounded_time() -> None:
    rng = random.Random(7)
    seeds = [
        '```json\n{"name": "weather", "arguments": {"place": "Oslo", "days": 3}}\n```',
        '<tool_call>{"name": "weather", "arguments": {"place": "Oslo"}}</tool_call>' * 3,
        "[weather(place='Oslo'), add(a=1)]",
        '[TOOL_CALLS] [{"name": "add", "arguments": {"a": [1, {"b": NaN}]}}]',
    ]
    noise = [
        '"',
        "{",
        "}",
        "[",
        "]",
        "\\u",
        "\\ud800",
        "\ud800",
        "NaN",
        "1e999",
        "-" * 500,
        "[" * 3000,
        "\x00",
        "'",
        "(" * 300,
    ]
    began = time.process_time()
    for _ in range(1000):
        text = rng.choice(seeds)
        for _ in range(rng.randint(1, 4)):
            at = rng.randint(0, len(text))
            text = text[:at] + rng.choice(["", *noise]) + text[at + rng.randint(0, 9) :]
        reading = read_calls(text, OFFERED)
        assert all(isinstance(c, Call) and c.name in OFFERED for c in reading.calls)
        assert all(isinstance(b, Broken) and b.reason for b in reading.broken)
    assert time.process_time() - began < 20


@pytest.mark.parametrize(
    "unit", ["<tool_call>", "```", "{", '{"a":[', "weather(", "[TOOL_CALLS]", "/*", "\\", "<", "'"]
)
def test_huge_repetitive_text_takes_seconds_at_most(unit: str) -> None:
    began = time.process_time()
    read_calls(unit * (200_000 // len(unit)), OFFERED)
    assert time.process_time() - began < 5


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(_JSON)
def test_real_json_is_read_as_json_reads_it(value: Any) -> None:
    written = json.dumps(value)
    assert parse(written) == (json.loads(written), len(written))


@settings(max_examples=300)
@given(st.text(alphabet="{}[]:,'\"\\abnuefltrs0123.-+eE/*# \n", max_size=80))
def test_any_text_is_data_or_unreadable_and_nothing_else(text: str) -> None:
    with contextlib.suppress(Unreadable):
        parse(text)


async def test_a_written_call_becomes_a_call_and_its_text_is_not_shown() -> None:
    step = 'Sure. <tool_call>{"name": "weather", "arguments": {"place": "Oslo"}}</tool_call>'
    model = NativeToolModel(inner=ScriptedModel([step, step])).bind_tools([WEATHER])
    message = await model.ainvoke("weather in oslo")
    assert (message.text, [c["args"] for c in message.tool_calls]) == ("Sure.", [{"place": "Oslo"}])
    whole = await _streamed(model)
    assert (whole.text.strip(), [c["args"] for c in whole.tool_calls]) == ("Sure.", [{"place": "Oslo"}])


async def test_ordinary_text_streams_as_it_comes_even_with_code_in_it() -> None:
    text = "Use this:\n```python\nprint({1: 2})\n```\nIt is < 3 lines."
    inner = ScriptedModel([text, "Hello there, how are you today?"])
    model = NativeToolModel(inner=inner).bind_tools([WEATHER])
    assert (await _streamed(model)).text == text
    pieces = [c.text async for c in model.astream("hi") if c.text]
    assert pieces[0] == "Hello th"
    assert len(pieces) > 3


async def test_arguments_that_do_not_fit_are_sent_back_once_and_mended() -> None:
    inner = ScriptedModel([call("weather", days="soon"), call("weather", place="Oslo")])
    message = await NativeToolModel(inner=inner).bind_tools([WEATHER]).ainvoke("weather?")
    assert [c["args"] for c in message.tool_calls] == [{"place": "Oslo"}]
    assert message.invalid_tool_calls == []
    told = inner.asked[1].messages[-1]
    assert isinstance(told, ToolMessage)
    assert "place" in told.text or "days" in told.text


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_call_that_stays_wrong_is_reported_and_never_run(streamed: bool) -> None:
    inner = ScriptedModel([call("weather", days=1), call("weather", days=2), "unused"])
    model = NativeToolModel(inner=inner).bind_tools([WEATHER])
    message: AIMessage = await _streamed(model) if streamed else await model.ainvoke("weather?")
    assert message.tool_calls == []
    (broken,) = message.invalid_tool_calls
    assert broken["name"] == "weather"
    assert "'place' is a required property" in message.response_metadata[INVALID][broken["id"]]
    assert len(inner.asked) == 2


async def test_a_tool_that_was_not_offered_is_an_invalid_call() -> None:
    inner = ScriptedModel([call("delete_everything"), call("delete_everything")])
    message = await NativeToolModel(inner=inner).bind_tools([WEATHER]).ainvoke("go")
    assert message.tool_calls == []
    assert "no tool named" in message.invalid_tool_calls[0]["error"]


async def test_without_tools_it_is_the_inner_model() -> None:
    inner = ScriptedModel(['{"name": "weather", "arguments": {}}'])
    message = await NativeToolModel(inner=inner).ainvoke([HumanMessage("say json")])
    assert message.text == '{"name": "weather", "arguments": {}}'


async def _streamed(model: Any) -> AIMessageChunk:
    whole: AIMessageChunk | None = None
    async for chunk in model.astream("hi"):
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    return whole
