"""Guided tool calling as its users see it. The embeddings are the real ones; the inner model is scripted."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool

from trimtab.domain.errors import InvalidInput
from trimtab.domain.model import EVIDENCE_KEY, QUESTION_KEY
from trimtab.domain.tool import METADATA_KEY, ToolInfo
from trimtab.llm import catalogue, shelf
from trimtab.llm.guided import ASKS, ROUTING, GuidedChatModel
from trimtab.llm.scripted import ScriptedModel

pytestmark = pytest.mark.model
NOW = dt.datetime(2026, 11, 23, 10, 0)


@pytest.fixture(scope="module")
def embedder(models_dir: Path) -> Any:
    from trimtab.retrieval.embedding import MiniLmEmbeddings

    return MiniLmEmbeddings(shelf.path(catalogue.entry(catalogue.DEFAULT_EMBEDDING), models_dir))


@tool
def weather(place: str, days: int | None = None) -> str:
    """Weather forecast for a place."""
    return f"sunny in {place}"


@tool
def calculator(expression: str) -> str:
    """Work out an arithmetic expression exactly."""
    return expression


weather.metadata = {
    METADATA_KEY: ToolInfo(
        "weather",
        weather.description,
        "weather",
        examples=("What's the weather in Paris?", "Will it rain in London tomorrow?", "Forecast for Berlin for 5 days"),
    )
}
calculator.metadata = {
    METADATA_KEY: ToolInfo(
        "calculator",
        calculator.description,
        "calculator",
        examples=("What is 12 * 7?", "How much is 15% of 80?", "Calculate the square root of 144", "90 divided by 4"),
    )
}
TOOLS = [weather, calculator]


def assistant(embedder: Any, *steps: Any) -> tuple[GuidedChatModel, ScriptedModel]:
    inner = ScriptedModel(steps)
    return GuidedChatModel(inner=inner, embedder=embedder, clock=lambda: NOW), inner


def calls_of(message: AIMessage) -> list[tuple[str, dict[str, Any]]]:
    return [(c["name"], c["args"]) for c in message.tool_calls]


async def test_a_question_for_a_tool_becomes_a_call_without_asking_the_model(embedder: Any) -> None:
    model, inner = assistant(embedder)
    message = await model.bind_tools(TOOLS).ainvoke("Will it rain in Oslo over the next 3 days?")
    assert calls_of(message) == [("weather", {"place": "Oslo", "days": 3})]
    assert inner.asked == []


@pytest.mark.parametrize(
    "text", ["Who are you?", "Write a poem", "What is the capital of France?", "Hello!", "What is a square root?"]
)
async def test_an_ordinary_message_is_answered_by_the_inner_model(embedder: Any, text: str) -> None:
    model, inner = assistant(embedder, "An answer.")
    message = await model.bind_tools(TOOLS).ainvoke(text)
    assert (message.text, message.tool_calls) == ("An answer.", [])
    assert len(inner.asked) == 1
    assert inner.asked[0].tools == ()


async def test_the_decision_tells_of_every_tool_what_it_scored_and_why_it_was_not_chosen(embedder: Any) -> None:
    model, _ = assistant(embedder)
    message = await model.bind_tools(TOOLS).ainvoke("What is 12 times 9?")
    routing = message.response_metadata[ROUTING]
    assert routing["strategy"] == "guided"
    assert routing["chosen"] == ["calculator"]
    reasons = {o["name"]: o["reason"] for o in routing["offered"]}
    assert set(reasons) == {"weather", "calculator"}
    assert "below the threshold" in reasons["weather"]
    assert 0 < routing["threshold"] < 1


async def test_a_missing_value_is_asked_for_and_the_answer_completes_the_call(embedder: Any) -> None:
    model, inner = assistant(embedder)
    bound = model.bind_tools(TOOLS)
    question = await bound.ainvoke("What's the weather like?")
    assert question.tool_calls == []
    assert question.response_metadata[ASKS] is True
    assert "the place" in question.text
    assert question.text.count("?") == 1
    reply = await bound.ainvoke(
        [HumanMessage("What's the weather like?"), AIMessage(question.text), HumanMessage("Cape Town.")]
    )
    assert calls_of(reply) == [("weather", {"place": "Cape Town"})]
    assert inner.asked == []


async def test_changing_the_subject_instead_of_answering_drops_the_pending_call(embedder: Any) -> None:
    model, _ = assistant(embedder, "I am an assistant.")
    bound = model.bind_tools(TOOLS)
    question = await bound.ainvoke("What's the weather like?")
    history = [HumanMessage("What's the weather like?"), AIMessage(question.text)]
    reply = await bound.ainvoke([*history, HumanMessage("Never mind, who are you?")])
    assert reply.text == "I am an assistant."


async def test_two_things_asked_at_once_are_two_calls(embedder: Any) -> None:
    model, _ = assistant(embedder)
    message = await model.bind_tools(TOOLS).ainvoke("What's the weather in Paris and what is 12 * 7?")
    assert calls_of(message) == [("weather", {"place": "Paris"}), ("calculator", {"expression": "12 * 7"})]
    one = await model.bind_tools(TOOLS, parallel_tool_calls=False).ainvoke(
        "What's the weather in Paris and what is 12 * 7?"
    )
    assert len(one.tool_calls) == 1


async def test_after_a_result_the_model_answers_from_it_instead_of_calling_again(embedder: Any) -> None:
    model, inner = assistant(embedder, "It is sunny in Oslo.")
    bound = model.bind_tools(TOOLS)
    first = await bound.ainvoke("What's the weather in Oslo?")
    result = ToolMessage("sunny, 12 degrees", tool_call_id=first.tool_calls[0]["id"], name="weather")
    message = await bound.ainvoke([HumanMessage("What's the weather in Oslo?"), first, result])
    assert message.text == "It is sunny in Oslo."
    shown = inner.asked[0].messages
    assert len(shown) == 1
    assert "sunny, 12 degrees" in shown[0].text
    assert shown[0].text.endswith("answer: What's the weather in Oslo?")


async def test_the_second_of_two_calls_is_made_after_the_first_when_they_may_not_run_together(embedder: Any) -> None:
    model, _ = assistant(embedder)
    bound = model.bind_tools(TOOLS, parallel_tool_calls=False)
    text = "What's the weather in Paris and what is 12 * 7?"
    first = await bound.ainvoke(text)
    result = ToolMessage("sunny", tool_call_id=first.tool_calls[0]["id"], name="weather")
    second = await bound.ainvoke([HumanMessage(text), first, result])
    assert calls_of(second) == [("calculator", {"expression": "12 * 7"})]


async def test_a_clients_own_tools_and_choices_are_obeyed(embedder: Any) -> None:
    theirs = {
        "type": "function",
        "function": {
            "name": "book_flight",
            "description": "Book a flight between two cities.",
            "parameters": {
                "type": "object",
                "properties": {
                    "origin": {"type": "string", "description": "City to leave from"},
                    "destination": {"type": "string", "description": "City to arrive in"},
                    "date": {"type": "string", "format": "date"},
                },
                "required": ["origin", "destination", "date"],
            },
        },
    }
    text = "Book me a flight from Vienna to Dublin tomorrow"
    wanted = [("book_flight", {"origin": "Vienna", "destination": "Dublin", "date": "2026-11-24"})]
    model, _ = assistant(embedder, "No tool was used.")
    for choice in ("auto", "required", "book_flight", {"type": "function", "function": {"name": "book_flight"}}):
        assert calls_of(await model.bind_tools([theirs, *TOOLS], tool_choice=choice).ainvoke(text)) == wanted, choice
    message = await model.bind_tools([theirs], tool_choice="none").ainvoke(text)
    assert message.text == "No tool was used."
    with pytest.raises(InvalidInput, match="not among the tools"):
        await model.bind_tools([theirs], tool_choice="other").ainvoke(text)


async def test_required_chooses_a_tool_but_still_invents_nothing(embedder: Any) -> None:
    model, _ = assistant(embedder)
    message = await model.bind_tools([weather], tool_choice="required").ainvoke("Good morning")
    assert message.tool_calls == []
    assert message.response_metadata[ASKS] is True


async def test_a_streamed_answer_arrives_in_pieces_and_a_streamed_call_whole(embedder: Any) -> None:
    model, _ = assistant(embedder, "A long enough answer to need several chunks.")
    pieces = [c async for c in model.bind_tools(TOOLS).astream("Who are you?")]
    assert len([p for p in pieces if p.text]) > 3
    assert pieces[0].response_metadata[ROUTING]["chosen"] == []
    whole: AIMessageChunk | None = None
    async for chunk in model.bind_tools(TOOLS).astream("What is 3 + 4?"):
        whole = chunk if whole is None else whole + chunk  # type: ignore[assignment]
    assert whole is not None
    assert calls_of(whole) == [("calculator", {"expression": "3 + 4"})]
    assert whole.response_metadata["finish_reason"] == "tool_calls"


def test_it_works_without_an_event_loop_too(embedder: Any) -> None:
    model, _ = assistant(embedder, "Fine.")
    assert calls_of(model.bind_tools(TOOLS).invoke("What is 3 + 4?")) == [("calculator", {"expression": "3 + 4"})]
    assert "".join(c.text for c in model.bind_tools(TOOLS).stream("How are you?")) == "Fine."


async def test_passages_around_the_question_do_not_mislead_the_router(embedder: Any) -> None:
    model, _ = assistant(embedder, "Ten days.")
    stuffed = HumanMessage(
        "The weather in Paris is 12 * 7 degrees.\n\nUsing the text above, answer: How long is the holiday?",
        additional_kwargs={QUESTION_KEY: "How long is the holiday?", EVIDENCE_KEY: 0.7},
    )
    assert (await model.bind_tools(TOOLS).ainvoke([stuffed])).text == "Ten days."


async def test_documents_that_answer_better_win_over_a_tool(embedder: Any) -> None:
    text = "How warm does it get in the machine room?"
    model, _ = assistant(embedder, "35 degrees.", "35 degrees.")
    sure = HumanMessage(text, additional_kwargs={QUESTION_KEY: text, EVIDENCE_KEY: 0.95})
    message = await model.bind_tools(TOOLS).ainvoke([sure])
    assert message.text == "35 degrees."


async def test_what_no_rule_fits_is_decoded_by_the_model_and_kept_only_as_far_as_it_was_said(embedder: Any) -> None:
    order = {
        "name": "order_food",
        "description": "Order dishes from the restaurant.",
        "parameters": {
            "type": "object",
            "properties": {
                "dishes": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"dish": {"type": "string"}, "count": {"type": "integer"}},
                        "required": ["dish"],
                    },
                }
            },
            "required": ["dishes"],
        },
    }
    text = "Order two margherita pizzas from the restaurant"
    true = {"dishes": [{"dish": "margherita", "count": 2}]}
    model, inner = assistant(embedder, json.dumps(true), json.dumps({"dishes": [{"dish": "sushi", "count": 9}]}))
    bound = model.bind_tools([order], tool_choice="order_food")
    ordered = await bound.ainvoke(text)
    assert calls_of(ordered) == [("order_food", true)]
    assert ordered.usage_metadata is not None
    assert ordered.usage_metadata["output_tokens"] > 0, "decoding is counted"
    wanted = inner.asked[0].options["response_format"]
    assert wanted["type"] == "json_schema"
    dish = wanted["json_schema"]["schema"]["properties"]["dishes"]["items"]["properties"]["dish"]
    assert "margherita pizzas" in dish["enum"]
    assert "sushi" not in dish["enum"], "the model can write nothing that nobody said"
    invented = await bound.ainvoke(text)
    assert invented.tool_calls == []
    assert "the dishes" in invented.text


async def test_a_hundred_and_more_tools_are_embedded_once_and_then_only_what_is_asked(embedder: Any) -> None:
    from trimtab.llm.router import Router, VectorCache
    from trimtab.llm.toolspec import ToolSpec

    specs = [ToolSpec(f"tool_{i}", f"Does thing number {i} with a {i % 7} of kind {i % 11}.") for i in range(120)]
    asked: list[str] = []

    class Counting:
        def embed_documents(self, texts: list[str]) -> Any:
            asked.extend(texts)
            return embedder.embed_documents(texts)

    router = Router(specs, VectorCache(Counting()))
    router.route("warm up")
    asked.clear()
    for _ in range(20):
        router.route("Do thing number five")
    assert len(asked) == 1, "the tools are known, and the message after the first time"


def test_a_set_of_no_tools_or_one_tool_works(embedder: Any) -> None:
    model, _ = assistant(embedder, "Hello.", "Hi.")
    assert model.bind_tools([]).invoke("Hello").text == "Hello."
    assert model.bind_tools([calculator]).invoke("Hi there").text == "Hi."


def test_two_tools_of_one_name_or_a_broken_schema_are_refused(embedder: Any) -> None:
    model, _ = assistant(embedder)
    with pytest.raises(InvalidInput, match="Two tools are named"):
        model.bind_tools([weather, weather])
    bad = {"name": "x", "description": "y", "parameters": {"type": "object", "properties": {"a": {"type": "nonsense"}}}}
    with pytest.raises(InvalidInput, match="not a JSON schema"):
        model.bind_tools([bad])
    remote = {
        "name": "x",
        "description": "y",
        "parameters": {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1/s"}}},
    }
    with pytest.raises(InvalidInput):
        model.bind_tools([remote])
