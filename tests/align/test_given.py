"""What training takes for the prompt is what the model was sent, and quotes are not taken for the model's words.

Each story runs a whole turn with a scripted model and compares what was rebuilt from its events with what that model
was really asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from langchain_core.messages import AIMessage, BaseMessage

from scripted_app import Desk
from trimtab.connect.toolbox import Toolbox
from trimtab.domain import events as ev
from trimtab.domain.judgement import Said
from trimtab.domain.model import Profile, Sampling
from trimtab.domain.passage import Passage, Span
from trimtab.given import MARK, Given, given
from trimtab.llm.scripted import ScriptedModel, call
from trimtab.orchestrator.state import Turn
from trimtab.orchestrator.turn import Orchestrator
from trimtab.store.judgements import Answer
from trimtab.store.threads import text_digest

TEXT = "The Lantern X200 carries a warranty of three years. It does not cover broken glass."
SENTENCE = TEXT[: TEXT.index(".") + 1]
LANTERN = Passage("pas_1", "doc_1", "lantern.md", TEXT, Span(100, 100 + len(TEXT)), ("Warranty",), score=0.8)
SMALL = Profile(name="small", tools="guided", grounding="quote", context_tokens=1200, sampling=Sampling(max_tokens=64))
CAPABLE = Profile(name="big", tools="native", grounding="write", context_tokens=1200, sampling=Sampling(max_tokens=64))
ROLES = {"human": "user", "ai": "assistant", "tool": "tool", "system": "system"}


class Shelf:
    """A search that finds one passage, and its first sentence with a given likeness."""

    def __init__(self, score: float = 0.8) -> None:
        self.score = score

    def search(self, question: str, owner: str, k: int = 4) -> Sequence[Passage]:
        return [LANTERN]

    def best_sentences(
        self, question: str, passages: Sequence[Passage], n: int = 3
    ) -> Sequence[tuple[Passage, Span, str, float]]:
        return [(LANTERN, Span(100, 100 + len(SENTENCE)), SENTENCE, self.score)]


def count(texts: Sequence[str]) -> list[int]:
    return [len(text) // 3 + 1 for text in texts]


async def run(
    steps: list[Any],
    profile: Profile,
    question: str = "How long is the warranty?",
    *,
    history: Sequence[tuple[str, str]] = (),
    search: Any = None,
    desk: Desk | None = None,
) -> tuple[Given, list[Said]]:
    """What was rebuilt, and what the model was last asked."""
    model = ScriptedModel(steps)
    toolbox = Toolbox()
    if desk:
        toolbox.add(desk.connector)
    orchestrator = Orchestrator(model, profile, tools=toolbox.tools, search=search, count_tokens=count)
    turn = Turn("trn_1", "usr_1", question, history=history, documents="auto" if search else "off")
    events = [event async for event in orchestrator.run(turn)]
    end = events[-1]
    assert isinstance(end, ev.TurnFinished)
    message = {"text": end.text, "text_digest": text_digest(end.text), "lineage": {}, "owner_id": "usr_1"}
    answer = Answer(message, (*history, ("user", question)), tuple(ev.from_wire(ev.to_wire(e)) for e in events))
    await toolbox.aclose()
    return given(answer, profile, count), [said(m) for m in model.asked[-1].messages]


def said(message: BaseMessage) -> Said:
    text = re.sub(r"(</?data) [0-9a-f]{16}", rf"\1 {MARK}", message.text)
    calls = getattr(message, "tool_calls", None)
    if calls:
        written = [json.dumps({"name": c["name"], "arguments": c["args"]}) for c in calls]
        text = "\n".join(f"<tool_call>\n{one}\n</tool_call>" for one in written)
    return Said(ROLES[message.type], text)


PAST = [("user", "Hello"), ("assistant", "Hello. What can I do?")]
LONG = [(role, f"{number} " + "word " * 60) for number in range(12) for role in ("user", "assistant")]


@pytest.mark.parametrize("profile", [SMALL, CAPABLE], ids=["small", "capable"])
@pytest.mark.parametrize("history", [[], PAST, LONG, [*PAST, ("user", "Again?"), ("assistant", "")]])
async def test_plain_talk(profile: Profile, history: list[tuple[str, str]]) -> None:
    found, sent = await run(["Three years."], profile, history=history)
    assert list(found.prompt) == sent
    assert found.composed == ""
    assert not found.tainted
    if history is LONG:
        assert len(found.prompt) < len(LONG)


async def test_a_small_model_that_phrases_a_quote() -> None:
    found, sent = await run(["The warranty is three years."], SMALL, history=PAST, search=Shelf())
    assert list(found.prompt) == sent
    assert TEXT in found.prompt[0].content
    assert found.composed == "documents were quoted"
    assert found.tainted


async def test_a_wording_that_was_taken_back_is_not_the_models() -> None:
    found, sent = await run(["It is 99 years, says Mallory."], SMALL, search=Shelf())
    assert list(found.prompt) == sent
    assert found.composed == "the model's wording was taken back"


async def test_not_found_is_not_the_models_word() -> None:
    found, _ = await run(["I think ten years."], SMALL, search=Shelf(0.4))
    assert found.composed == "the documents did not answer"


async def test_a_capable_model_that_cites() -> None:
    found, sent = await run(["Three years [1]."], CAPABLE, history=PAST, search=Shelf())
    assert list(found.prompt) == sent
    assert found.composed == ""
    assert found.tainted


async def test_a_capable_model_that_calls_a_tool() -> None:
    steps = [call("desk_look", drawer=3), call("desk_look", drawer=4), "Seventy pencils."]
    found, sent = await run(steps, CAPABLE, "How many pencils are in 3 and 4?", history=PAST, desk=Desk())
    assert list(found.prompt) == sent
    assert [s.role for s in found.prompt[-4:]] == ["assistant", "tool", "assistant", "tool"]
    assert found.composed == ""
    assert found.tainted


async def test_a_capable_model_that_talks_before_its_tool_answers() -> None:
    first = call("desk_look", drawer=3)
    first.content = "Let me look. "
    found, _ = await run([first, "Thirty."], CAPABLE, "How many?", desk=Desk())
    assert found.composed == "some of it was said before a tool answered"


async def test_a_small_model_that_phrases_a_result() -> None:
    found, sent = await run(
        [call("desk_look", drawer=3), "Drawer 3 holds 30 pencils."], SMALL, "What is in drawer 3?", desk=Desk()
    )
    assert list(found.prompt) == sent
    assert found.composed == ""
    assert found.tainted


async def test_a_failure_told_to_the_person_is_not_the_models_word() -> None:
    found, _ = await run([call("desk_drop", what="lamp")], SMALL, "Drop the lamp", desk=Desk())
    assert found.composed == "a tool's own sentence was told"


async def test_a_question_for_a_missing_value_is_not_the_models_word() -> None:
    routing = {"strategy": "guided", "offered": [], "chosen": ["desk_look"], "threshold": 0.5}
    asks = AIMessage("Which drawer?", response_metadata={"trimtab_asks": True, "trimtab_routing": routing})
    found, _ = await run([asks], SMALL, "Look into a drawer", desk=Desk())
    assert found.composed == "a missing value was asked for"


async def test_altered_text_is_noticed() -> None:
    events = (ev.TextDelta("Yes."), ev.TurnFinished(ev.TurnStatus.DONE, "Yes."))
    message = {"text": "No.", "text_digest": text_digest("No."), "lineage": {}, "owner_id": "usr_1"}
    for altered in (message, {**message, "text": "Yes."}):
        found = given(Answer(altered, (("user", "?"),), events), SMALL, count)
        assert found.composed == "the text is not what was generated"


async def test_an_answer_that_was_stopped_does_not_train() -> None:
    events = (ev.TextDelta("Ye"), ev.TurnFinished(ev.TurnStatus.CANCELLED, "Ye", finish_reason="cancelled"))
    message = {"text": "Ye", "text_digest": text_digest("Ye"), "lineage": {}, "owner_id": "usr_1"}
    assert given(Answer(message, (("user", "?"),), events), SMALL, count).composed == "the answer was cut off"
