"""The promise in figures: the test split of the question set, with the real embedding model."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from trimtab.llm import catalogue, shelf
from trimtab.llm.scripted import ScriptedModel

pytestmark = pytest.mark.model
REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tool_calling", REPOSITORY / "benchmarks" / "tool_calling.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tool_calling"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def embedder(models_dir: Path) -> Any:
    from trimtab.retrieval.embedding import MiniLmEmbeddings

    return MiniLmEmbeddings(shelf.path(catalogue.entry(catalogue.DEFAULT_EMBEDDING), models_dir))


@pytest.mark.parametrize(
    ("many", "selection", "abstention", "arguments", "wrong"),
    [(False, 0.84, 0.85, 0.80, 0.07), (True, 0.76, 0.75, 0.72, 0.11)],
    ids=["the sets as they are", "117 tools"],
)
async def test_guided_calling_keeps_its_figures_on_questions_nobody_tuned_for(
    bench: ModuleType, embedder: Any, many: bool, selection: float, abstention: float, arguments: float, wrong: float
) -> None:
    asked = bench.questions("test")
    assert len(asked) >= 120
    # No question here needs the inner model to decide; a script without steps proves it.
    score = await bench.run(bench.guided(ScriptedModel([]), embedder), asked, bench.tool_sets(), many)
    assert score.share(score.selection) >= selection
    assert score.share(score.abstention) >= abstention
    assert score.share(score.arguments) >= arguments
    assert score.wrong / len(score.seconds) <= wrong


def test_no_question_of_the_test_split_is_among_what_was_tuned_on(bench: ModuleType) -> None:
    from trimtab.llm.ordinary import ORDINARY

    known = {q.text.lower() for q in bench.questions("tune")} | {line.lower() for line in ORDINARY}
    sets = bench.tool_sets()
    examples = {name: {e.lower() for s in specs for e in s.examples} for name, specs in sets.items()}
    seen = [q.text for q in bench.questions("test") if q.text.lower() in known | examples[q.tools]]
    assert seen == []
