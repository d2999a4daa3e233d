"""`trimtab measure --workload last:N`: conversations as they were, with what tools said; nothing is called again."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripted_app import Desk, app_with, asked, new_thread
from trimtab.deployment import workload_named
from trimtab.domain.errors import InvalidInput
from trimtab.llm.scripted import call
from trimtab.own_database import own_database
from trimtab.settings import Settings

STEPS = [call("desk_look", drawer=3), "There are 30 pencils.", "You are welcome."]


async def test_what_a_tool_said_is_in_the_question_that_is_measured(tmp_path: Path) -> None:
    desk = Desk()
    async with app_with(STEPS, tmp_path, desk=desk) as app:
        thread = await new_thread(app)
        await asked(app, "What is in drawer 3?", thread=thread)
        await asked(app, "Thanks!", thread=thread)
    settings, ran = Settings.load(home=tmp_path), list(desk.ran)
    found = workload_named("last:5", lambda: own_database(settings))
    first, second = found.requests
    shown = "\n".join(text for _, text in first.messages)
    assert "What is in drawer 3?" in shown
    assert "30 pencils" in shown  # from the log
    assert second.messages[-1] == ("user", "Thanks!")
    assert ("assistant", "There are 30 pencils.") in second.messages
    assert desk.ran == ran
    assert workload_named("last:5", lambda: own_database(settings)).digest == found.digest


async def test_without_conversations_it_says_what_else_to_measure_with(tmp_path: Path) -> None:
    async with app_with([], tmp_path):
        pass
    settings = Settings.load(home=tmp_path)
    with pytest.raises(InvalidInput, match="No conversation was held here yet"):
        workload_named("last:5", lambda: own_database(settings))
