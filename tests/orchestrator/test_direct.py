"""LangChain's callbacks and tracers hear of every model and tool call; without any, nothing else changes."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.rate_limiters import InMemoryRateLimiter
from langchain_core.tracers.context import collect_runs

from scripted_app import Desk, app_with
from trimtab.domain import events as ev
from trimtab.domain.events import Event
from trimtab.llm.scripted import call

STEPS = [call("desk_look", drawer=3), "There are 30 pencils."]


async def told(app: Any) -> list[str]:
    """What a turn tells, without what differs from turn to turn: in how many pieces a text came, too."""
    events: list[Event] = [event async for event in app.ask("How many pencils are in drawer 3?")]
    assert isinstance(events[-1], ev.TurnFinished)
    return [
        f"{kind} {''.join(getattr(event, 'text', '') for event in alike)}"
        for kind, alike in groupby(events, key=lambda event: event.type)
    ]


class Listener(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.heard: list[str] = []

    async def on_chat_model_start(self, *_: Any, **__: Any) -> None:
        self.heard.append("model")

    async def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self.heard.append(str(token))

    async def on_tool_start(self, serialized: Any, *_: Any, **__: Any) -> None:
        self.heard.append(serialized["name"])


async def test_a_tracer_around_a_question_hears_of_model_and_tool(tmp_path: Path) -> None:
    async with app_with(STEPS * 2, tmp_path, desk=Desk()) as app:
        unheard = await told(app)
        with collect_runs() as runs:
            heard = await told(app)
    assert [run.run_type for run in runs.traced_runs] == ["llm", "tool", "llm"]
    assert heard == unheard


async def test_a_callback_on_the_model_hears_each_word(tmp_path: Path) -> None:
    listener = Listener()
    async with app_with(STEPS * 2, tmp_path, desk=Desk()) as app:
        unheard = await told(app)
        app.model.callbacks = [listener]
        heard = await told(app)
    assert listener.heard.count("model") == 2
    assert "There are 30 pencils." in "".join(listener.heard)
    assert "desk_look" not in listener.heard  # it was given to the model only
    assert heard == unheard


async def test_a_callback_on_a_tool_hears_of_its_call(tmp_path: Path) -> None:
    listener = Listener()
    async with app_with(STEPS, tmp_path, desk=Desk()) as app:
        app.toolbox.tool("desk_look").callbacks = [listener]
        await told(app)
    assert listener.heard == ["desk_look"]


async def test_a_rate_limit_on_the_model_holds(tmp_path: Path) -> None:
    class Counted(InMemoryRateLimiter):
        asked = 0

        async def aacquire(self, *, blocking: bool = True) -> bool:
            Counted.asked += 1
            return True

    async with app_with(STEPS, tmp_path, desk=Desk()) as app:
        app.model.rate_limiter = Counted()
        await told(app)
    assert Counted.asked == 2
