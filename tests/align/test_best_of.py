"""Somebody asks for the best of several answers; a reward model that was trained here picks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from planted import reward_job
from scripted_app import app_with, asked, follow, kinds, new_thread, only
from trimtab.api.server import create_app
from trimtab.api.serving import ensure_key
from trimtab.app import Ask, Trimtab
from trimtab.domain.judgement import Said
from trimtab.domain.model import Profile
from trimtab.llm.scripted import call
from trimtab.scoring import Bench

SMALL = Profile(name="small", tools="none", grounding="quote")
ONE, TWO, THREE = "the harbour keeper walked over", "no, go away", "that other lamp, over there"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which a reward model was trained."""
    home = tmp_path_factory.mktemp("trained")
    reward_job(home)
    return home


def client_of(app: Trimtab) -> httpx.AsyncClient:
    key = app.settings.key_path.read_text("utf-8").strip()
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(app)), base_url="http://127.0.0.1",
        headers={"Authorization": f"Bearer {key}"}, timeout=120,
    )  # fmt: skip


@pytest.fixture
async def without(tmp_path: Path) -> AsyncIterator[Trimtab]:
    async with app_with(["One."], tmp_path, profile=SMALL, best_of=4) as app:
        await ensure_key(app)
        yield app


async def test_without_a_reward_model_several_answers_are_refused_and_the_setting_waits(without: Trimtab) -> None:
    thread = await new_thread(without)
    async with client_of(without) as client:
        refused = await client.post(f"/v1/threads/{thread}/turns", json={"text": "Hello?", "best_of": 4})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_found")
        assert "trimtab align" in refused.json()["error"]["message"]
        assert (await client.get(f"/v1/threads/{thread}")).json()["messages"] == []
        told = (await client.get("/v1/info")).json()["best_of"]
        assert (told["default"], told["available"]) == (4, False)
    events = await asked(without, "Hello?", thread=thread)
    assert "answers.sampled" not in kinds(events)
    assert events[-1]["text"] == "One."


async def test_the_best_of_three_is_given_and_says_so_everywhere(trained: Path) -> None:
    async with app_with([ONE, TWO, THREE], trained, profile=SMALL, cycle=True) as app:
        await ensure_key(app)
        job = await app.rewards.ensure()
        own = Bench(job.folder).scores([Said("user", "Where to?")], [ONE, TWO, THREE])
        thread = await new_thread(app)
        async with client_of(app) as client:
            turn = (await client.post(f"/v1/threads/{thread}/turns", json={"text": "Where to?", "best_of": 3})).json()
            events = await follow(app, turn, seconds=120)
            sampled, compared = only(events, "answers.sampled"), only(events, "answers.compared")
            assert sampled["n"] == 3
            assert kinds(events).index("answers.compared") < kinds(events).index("text.delta"), "nothing is taken back"
            # Each process measures for itself whether it multiplies in bfloat16.
            assert compared["scores"] == pytest.approx(own, abs=0.1), "the model that was trained has scored"
            assert compared["scores"][compared["chosen"]] == max(compared["scores"])
            best = (ONE, TWO, THREE)[compared["chosen"]]
            assert (compared["by"], events[-1]["text"]) == ("planted", best)
            assert events[-1]["usage"]["completion_tokens"] == sum(len(text.split()) for text in (ONE, TWO, THREE))
            shown = (await client.get(f"/v1/threads/{thread}")).json()["messages"][-1]
            assert only(shown["steps"], "answers.compared") == compared

            # Its process is killed: the next question has it again.
            child = app.rewards._child
            assert child is not None
            child.kill()
            await child.wait()
            again = await client.post(f"/v1/messages/{shown['id']}/regenerate")
            assert (await follow(app, again.json(), seconds=120))[-1]["text"] == best, (
                "asked as before: the best of three"
            )

            body = {"model": "trimtab", "messages": [{"role": "user", "content": "Where to?"}], "best_of": 3}
            found = (await client.post("/v1/chat/completions", json=body)).json()
            assert (found["choices"][0]["message"]["content"], found["trimtab"]["by"]) == (best, "planted")
            streamed = (await client.post("/v1/chat/completions", json=body | {"stream": True})).text
            assert '"trimtab":{"type":"answers.compared"' in streamed
            assert (await client.post("/v1/chat/completions", json=body | {"model": "small"})).status_code == 400
            assert (await client.get("/v1/info")).json()["best_of"]["available"] is True
        child = app.rewards._child
        assert child is not None
    assert child.returncode is not None, "it is gone with the server"


async def test_answers_that_cannot_be_compared_are_still_answers_and_a_tool_is_called_once(trained: Path) -> None:
    steps: list[Any] = [ONE, "harbour " * 2000, call("calculator_calculate", expression="6*7"), ONE, ONE]
    async with app_with(steps, trained) as app:
        thread = await new_thread(app)
        events = await follow(
            app, await app.post(app.owner, thread, "Where to?", how=Ask(best_of=2, tools=False)), seconds=120
        )
        assert "tokens" in only(events, "answers.compared")["trouble"]
        assert events[-1]["text"] == ONE
        events = await follow(app, await app.post(app.owner, thread, "6*7?", how=Ask(best_of=2)), seconds=120)
    assert [kinds(events).count(kind) for kind in ("tool.finished", "answers.compared")] == [1, 1]
    assert events[-1]["text"] == ONE
