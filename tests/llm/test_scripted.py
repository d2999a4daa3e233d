"""The scripted model behaves like a chat model, so that what is tested with it holds for one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.tools import tool

from trimtab.domain.errors import EngineDied
from trimtab.llm.scripted import Say, ScriptedModel, call


async def test_steps_are_replayed_in_order_and_streamed_in_small_pieces() -> None:
    model = ScriptedModel(["The first answer of all.", "Second."], chunk_chars=5)
    pieces = [c async for c in model.astream("one")]
    assert "".join(p.text for p in pieces) == "The first answer of all."
    assert max(len(p.text) for p in pieces) == 5
    assert pieces[-1].response_metadata["finish_reason"] == "stop"
    assert (await model.ainvoke("two")).text == "Second."
    with pytest.raises(IndexError, match="number 3"):
        await model.ainvoke("three")


async def test_what_it_was_shown_is_recorded_with_the_bound_tools() -> None:
    @tool
    def weather(place: str) -> str:
        """The weather at a place."""
        return place

    model = ScriptedModel([call("weather", place="Oslo")])
    answer = await model.bind_tools([weather]).ainvoke("Weather in Oslo?", stop=["x"])
    assert answer.tool_calls[0]["name"] == "weather"
    assert answer.tool_calls[0]["args"] == {"place": "Oslo"}
    assert answer.response_metadata["finish_reason"] == "tool_calls"
    (asked,) = model.asked
    assert asked.messages[0].text == "Weather in Oslo?"
    assert asked.tools[0]["function"]["name"] == "weather"
    assert asked.options["stop"] == ["x"]


async def test_a_streamed_tool_call_adds_up_to_the_call() -> None:
    whole: AIMessageChunk | None = None
    async for chunk in ScriptedModel([call("add", a=1, b=[2, "three"])]).astream("go"):
        assert isinstance(chunk, AIMessageChunk)
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    assert whole.tool_calls[0]["args"] == {"a": 1, "b": [2, "three"]}
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] > 0


async def test_an_error_comes_after_what_was_said_before_it() -> None:
    model = ScriptedModel([Say("half an ans", error=EngineDied("gone")), EngineDied("at once")])
    heard = []

    async def listen() -> None:
        async for chunk in model.astream("x"):
            heard.append(chunk.text)

    with pytest.raises(EngineDied, match="gone"):
        await listen()
    assert "".join(heard) == "half an ans"
    with pytest.raises(EngineDied, match="at once"):
        await model.ainvoke("x")


async def test_a_delayed_stream_can_be_cancelled() -> None:
    async def read() -> None:
        async for _ in ScriptedModel([Say("a" * 800, delay=60)]).astream("x"):
            pass

    start = time.monotonic()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(read(), 0.2)
    assert time.monotonic() - start < 30


def test_the_synchronous_ways_say_the_same() -> None:
    model = ScriptedModel(["Hello there."], cycle=True)
    assert model.invoke("x").text == "Hello there."
    assert "".join(c.text for c in model.stream("x")) == "Hello there."


def test_importing_it_brings_in_langchain_core_only() -> None:
    program = (
        "import sys, trimtab.llm.scripted\n"
        "heavy = {'httpx', 'openai', 'langchain_openai', 'xllamacpp', 'numpy', 'tokenizers', 'gguf'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
