"""A thumb down, asked again with the right text: then it is known whose fault it was."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from test_labelling_stories import Someone, person

from scripted_app import Desk, app_with
from trimtab.app import Trimtab
from trimtab.domain.model import Profile
from trimtab.domain.passage import Passage, Span
from trimtab.llm.scripted import call
from trimtab.replays import Replays

CAPABLE = Profile(name="capable", tools="native", grounding="write")
RIGHT = "The warranty lasts seven years."
KEPT, OFF = "It lasts seven years.", "Perhaps a hundred years."


class Shelf:
    """One document; a second is put beside it later."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    def search(self, question: str, owner: str, k: int = 4) -> Sequence[Passage]:
        return [
            Passage(f"p{n}", f"doc_{n}", f"{n}.md", text, Span(0, len(text)), score=0.9)
            for n, text in enumerate(self.texts)
        ][:k]

    def best_sentences(self, question: str, passages: Sequence[Passage], n: int = 3) -> Sequence[Any]:
        return [(p, p.span, p.text, p.score) for p in passages][:n]


async def down(me: Someone, question: str) -> dict[str, Any]:
    answer = await me.answer(question)
    return await me.say(kind="thumb", message_id=answer["id"], value=0)


async def told(me: Someone) -> dict[str, Any]:
    (row,) = (await me.get("/v1/feedback/outcomes"))["feedback"]
    return dict(row)


async def replayed(me: Someone, feedback_id: str, context: str = "", status: int = 200) -> dict[str, Any]:
    response = await me.http.post(f"/v1/feedback/{feedback_id}/replay", json={"context": context})
    assert response.status_code == status, response.text
    return dict(response.json())


def with_shelf(app: Trimtab, shelf: Shelf) -> None:
    app.orchestrator.search = shelf
    app.replays = Replays(app.database, app.versions, shelf)


async def test_what_the_tool_said_was_wrong_and_with_the_right_result_the_model_answers_well(tmp_path: Path) -> None:
    script = [call("desk_look", drawer=3), "It holds 30 pencils.", "It holds 12 pens.", "12 pens.", "Drawers are nice."]
    async with app_with(script, tmp_path, desk=Desk(), profile=CAPABLE) as app, person(app) as me:
        said = await down(me, "What does drawer 3 hold?")
        before = await told(me)
        assert (before["blame"], before["replayable"]) == ("model", True)
        found = await replayed(me, said["id"], "Drawer 3 holds 12 pens.")
        after = await told(me)
        async with person(app, "bob") as bob:
            await replayed(bob, said["id"], "Something of mine.", status=404)
    assert found["answers"] == script[2:]
    assert (found["blame"], round(found["score"], 2)) == ("tool", 0.67)
    assert (after["blame"], after["rule"]) == ("tool", "blame: tool")
    assert "2 of 3 answers kept to it" in after["blame_reason"]


async def test_without_a_text_the_documents_are_searched_for_one_that_was_not_shown(tmp_path: Path) -> None:
    script = ["Two years, I think.", KEPT, OFF, KEPT, OFF, OFF, OFF]
    async with app_with(script, tmp_path, profile=CAPABLE) as app, person(app) as me:
        shelf = Shelf("Boats are blue.")
        with_shelf(app, shelf)
        said = await down(me, "How long does the warranty last?")
        refused = await replayed(me, said["id"], status=400)
        assert "Say what the right text is" in refused["error"]["message"]
        shelf.texts.append(RIGHT)
        found = await replayed(me, said["id"])
        assert (found["blame"], found["context"]) == ("retrieval", RIGHT)
        assert (await told(me))["blame"] == "retrieval"
        again = await replayed(me, said["id"], RIGHT)
        assert again["blame"] == "model", "the last replay counts"
        assert (await told(me))["blame"] == "model"


async def test_an_answer_from_the_model_alone_has_nothing_to_replay(tmp_path: Path) -> None:
    async with app_with(["Go away."], tmp_path, profile=CAPABLE) as app, person(app) as me:
        said = await down(me, "Can you help me?")
        assert (await told(me))["replayable"] is False
        refused = await replayed(me, said["id"], RIGHT, status=400)
    assert "nothing to replay" in refused["error"]["message"]
