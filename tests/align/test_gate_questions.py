"""What the gate asks of served versions is fair, and a version that lost what it takes is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from test_gate import good

from tiny_decoder import adapter
from trimtab.align import bundled
from trimtab.align.gate import Outcome, Share, decide
from trimtab.align.gate_questions import cited_questions, tool_declarations, tool_questions
from trimtab.llm import catalogue, shelf
from trimtab.llm.served import ServingOptions, serve
from trimtab.llm.unpacked import safetensors_folder
from trimtab.retrieval.embedding import MiniLmEmbeddings
from trimtab.works import turns

TOOLS = {one.question: one for one in tool_questions()}
CITED = {one.question: one for one in cited_questions()}
WEATHER = TOOLS["What's the weather in Utrecht?"]
GREETING = TOOLS["Good evening"]
BRIDGE = CITED["How long is the Orlen Bridge?"]
UNANSWERED = CITED["Who designed the Orlen Bridge?"]


def test_every_answer_stands_in_its_text_and_every_call_fits_its_tool() -> None:
    assert (len(TOOLS), len(CITED)) == (24, 30), "no question twice"
    assert len({one.id for one in (*TOOLS.values(), *CITED.values())}) == 54
    schemas = {one["name"]: Draft202012Validator(one["parameters"]) for one in tool_declarations()}
    for one in TOOLS.values():
        assert all(part in one.result for part in one.told), one.id
        if one.tool:
            schemas[one.tool].validate({name: values[0] for name, values in one.arguments.items()})
    for cited in CITED.values():
        assert all(part in cited.passage for part in cited.answer), cited.id
    assert sum(not one.tool for one in TOOLS.values()) == 8
    assert sum(not one.answer for one in CITED.values()) == 9


def test_part_of_a_set_still_asks_for_both_sides() -> None:
    assert {bool(one.tool) for one in tool_questions()[:6]} == {True, False}
    assert {bool(one.answer) for one in cited_questions()[:6]} == {True, False}


def test_none_of_it_is_trained_on() -> None:
    trained = {said.content for one in bundled.prompts() for said in one.prompt}
    assert not trained & (TOOLS.keys() | CITED.keys())


def test_a_call_is_right_with_the_right_tool_the_right_values_and_an_answer_that_tells_the_result() -> None:
    call = ("weather", {"place": "utrecht"})
    told = "Expect light rain in Utrecht."
    assert WEATHER.right([call], told)
    assert not WEATHER.right([], told), "it was to look it up"
    assert not WEATHER.right([("weather", {"place": "Oslo"})], told)
    assert not WEATHER.right([("weather", {"place": "Utrecht", "days": 3})], told)
    assert not WEATHER.right([call, call], told)
    assert not WEATHER.right([call], "Utrecht is a city."), "it was to say what the tool said"
    assert not WEATHER.right([call], told, invented=True)


def test_without_a_need_no_tool_is_called_and_a_plain_answer_is_given() -> None:
    assert GREETING.right([], "Good evening! What can I do for you?")
    assert not GREETING.right([("clock", {})], "It is six.")
    assert not GREETING.right([], "I can't help with that.")
    assert not GREETING.right([], "  ")


def test_an_answer_from_a_passage_says_it_cites_it_and_makes_nothing_up() -> None:
    assert BRIDGE.right({"Orlen Bridge"}, "It is 412 metres long. [1]")
    assert not BRIDGE.right({"Travel rules"}, "It is 412 metres long. [1]")
    assert not BRIDGE.right({"Orlen Bridge"}, "It is very long. [1]")
    assert not BRIDGE.right({"Orlen Bridge"}, "It is 412 metres long and 20 wide.", invented=True)
    assert UNANSWERED.right(set(), "The text does not say who designed it.")
    assert not UNANSWERED.right(set(), "It was designed by Ann Bell in 1930.", invented=True)
    assert not UNANSWERED.right({"Orlen Bridge"}, "The text does not say. [1]")


@pytest.mark.slow
@pytest.mark.model
async def test_a_version_that_forgot_how_to_use_what_it_reads_loses_both_sets(
    models_dir: Path, chat_model_path: Path, tmp_path: Path
) -> None:
    """Random weights beside the default model, on the engine that serves: the words are gone, the tools still fit."""
    base = safetensors_folder(chat_model_path, tmp_path / "base")
    broken = adapter(base, tmp_path / "broken", seed=0, rank=16)
    embedder = MiniLmEmbeddings(shelf.path(catalogue.entry(catalogue.DEFAULT_EMBEDDING), models_dir))
    served = await serve(ServingOptions(models_dir, log_path=tmp_path / "engine.log", context=2048), embedder)
    try:
        search = turns.FixedPassages(embedder, {one.title: one.passage for one in CITED.values()})
        sides = []
        for voice in (await served.voice("old", None), await served.voice("new", broken)):
            tools = await turns.tool_turns(served, voice, tool_questions())
            sides.append((tools, await turns.cited_turns(served, voice, cited_questions(), search)))
    finally:
        await served.aclose()
    (tools, cited), (worse_tools, worse_cited) = sides
    assert sum(tools) >= 12, "there is something to lose"
    assert sum(cited) >= 12
    sets = {"tool calls": Share(tools, worse_tools), "cited answers": Share(cited, worse_cited)}
    verdict = decide(replace(good(), sets=sets))
    assert verdict.outcome is Outcome.HOLD
    assert "tool calls" in verdict.reason
    assert "cited answers" in verdict.reason
    assert (
        decide(replace(good(), sets={name: Share(s.old, s.old) for name, s in sets.items()})).outcome is Outcome.PROMOTE
    )
