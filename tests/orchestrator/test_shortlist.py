"""With hundreds of tools a model is shown those that fit the question, and the turn says which and why."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from scripted_app import app_with, asked, follow, only, post
from trimtab.connect import Connector, Effect
from trimtab.llm import catalogue, shelf
from trimtab.llm.scripted import call
from trimtab.orchestrator.shortlist import MOST, Shortlist
from trimtab.retrieval.embedding import MiniLmEmbeddings

REPOSITORY = Path(__file__).parents[2]


def _benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tool_choice", REPOSITORY / "benchmarks" / "tool_choice.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


tool_choice = _benchmark()
PLANETS = (
    "mercury venus earth mars jupiter saturn uranus neptune pluto ceres eris haumea makemake sedna quaoar orcus vesta "
    "pallas juno hygiea europa titan rhea dione mimas triton charon phobos deimos io".split()
)


def sky() -> Connector:
    """Thirty tools that differ in a name."""
    connector = Connector(name="sky", version="1", description="Where planets and moons are.")
    for planet in PLANETS:

        async def where() -> str:
            return "It is up."

        where.__doc__ = f"Say where {planet.title()} stands tonight."
        connector.tool(effect=Effect.READ, name=planet)(where)
    return connector


async def test_a_model_is_shown_the_tools_that_fit_and_the_turn_says_which(tmp_path: Path) -> None:
    script = [call("sky_saturn"), call("sky_io"), "Saturn is up, and so is Io."]
    async with app_with(script, tmp_path) as app:
        app.toolbox.add(sky())
        installed = len(app.tools())
        turn = await post(app, "Where is Saturn tonight?")
        events = await follow(app, turn)
        shown = [{tool["function"]["name"] for tool in request.tools} for request in app.model.asked]  # type: ignore[attr-defined]
    assert len(shown[0]) == MOST
    assert "sky_saturn" in shown[0]
    # What it called stays; the same set is shown throughout, and a tool it was not shown it may still know of.
    assert shown[0] <= shown[1] <= shown[2] <= shown[0] | {"sky_io"}
    told = next(e for e in events if e["type"] == "tools.considered")
    assert told["installed"] == installed
    assert {one["name"] for one in told["offered"]} == shown[0]
    assert {one["name"] for one in told["offered"] if one["reason"] == "called by the model"} == {"sky_saturn"}
    assert all("farther from the question" in one["reason"] for one in told["left_out"])
    assert not {one["name"] for one in told["left_out"]} & shown[0]


async def test_few_tools_are_all_shown(tmp_path: Path) -> None:
    async with app_with(["Hello."], tmp_path) as app:
        events = await asked(app, "Hello")
        assert len(app.model.asked[0].tools) == len(app.tools())  # type: ignore[attr-defined]
        assert only(events, "tools.considered")["left_out"] == []


def test_nothing_a_person_types_breaks_the_search() -> None:
    shortlist, tools = Shortlist(None), tool_choice.installed(60)
    for message in ("", '"', "NEAR(a b)", "name:*", "\x00", "a AND OR NOT", "(" * 500, "word " * 5000, "你好"):
        assert len(shortlist.pick(tools, message).names) == MOST


@pytest.fixture(scope="module")
def embedder(models_dir: Path) -> Iterator[MiniLmEmbeddings]:
    opened = MiniLmEmbeddings(shelf.path(catalogue.entry(catalogue.DEFAULT_EMBEDDING), models_dir))
    yield opened
    opened.close()


@pytest.mark.model
def test_of_hundreds_of_tools_the_right_one_is_among_those_offered(embedder: MiniLmEmbeddings) -> None:
    tools = tool_choice.installed(582)
    row = tool_choice.measure(embedder, tools, MOST)
    assert len(tools) >= 500
    assert row.asked >= 200
    assert row.recall >= 0.95, row.missed
