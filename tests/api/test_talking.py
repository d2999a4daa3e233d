"""What the terminal shows of a running server's answer."""

from __future__ import annotations

from pathlib import Path

from api.clients import client_of
from scripted_app import app_with
from trimtab.cli.talk import Remote

ODD = "One line.\u2028Another.\u2029And\x85a third.\x0bDone."


async def test_an_answer_with_unusual_ends_of_lines_is_shown_whole(tmp_path: Path) -> None:
    async with app_with([ODD], tmp_path) as app, client_of(app) as client:
        remote = Remote(client)
        thread = await remote.new_thread()
        events = [event async for event in remote.ask(thread, "Hello?", "off")]
    assert events[-1]["type"] == "turn.finished"
    assert "".join(event.get("text", "") for event in events if event["type"] == "text.delta") == ODD
