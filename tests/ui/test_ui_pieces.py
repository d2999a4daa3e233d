"""The parts that need no page: a turn folded from its events, forms' rules, colours, the command line, spans."""

from __future__ import annotations

import pytest

from trimtab_ui import forms, palette
from trimtab_ui.answer import marked, where
from trimtab_ui.knowledge import matching
from trimtab_ui.launch import command
from trimtab_ui.live import Live, calls
from trimtab_ui.threads import file_name
from trimtab_ui.welcome import examples
from ui.standin import CALCULATOR, MAIL


def page(*events: dict, start: int = 1) -> dict:
    return {"events": [{"seq": n, "turn_id": "t", "event": e} for n, e in enumerate(events, start)], "cursor": 0}


REQUESTED = {
    "type": "tool.requested",
    "call_id": "c",
    "tool": "mail.send",
    "connector": "mail",
    "arguments": {"to": "a"},
}
NEEDED = {**REQUESTED, "type": "approval.needed", "approval_id": "p", "expires_at": 0}


def test_a_growing_answer_is_its_deltas_and_a_replacement_wins() -> None:
    live = Live("t")
    live.take(page({"type": "text.delta", "text": "It is "}, {"type": "text.delta", "text": "13."}))
    assert live.text == "It is 13."
    live.take(page({"type": "text.replaced", "text": "It is 12.", "reason": "13 is in no source"}, start=3))
    assert live.text == "It is 12."
    assert not live.ended


def test_seeing_events_twice_changes_nothing() -> None:
    live = Live("t")
    for _ in range(2):
        live.take(page({"type": "text.delta", "text": "once"}))
    assert live.text == "once"


def test_an_answer_that_failed_keeps_what_it_had() -> None:
    live = Live("t")
    live.take(page({"type": "text.delta", "text": "half"}, {"type": "turn.failed", "text": "", "message": "died"}))
    assert live.ended
    assert live.text == "half"


def test_a_call_that_waits_is_told_from_one_that_runs_and_one_that_ended() -> None:
    assert calls([REQUESTED])[0].state == "running"
    assert calls([REQUESTED, NEEDED])[0].state == "waiting"
    decided = {"type": "approval.decided", "approval_id": "p", "call_id": "c", "arguments": {"to": "b"}}
    finished = {"type": "tool.finished", "call_id": "c", "status": "ok"}
    call = calls([REQUESTED, NEEDED, decided, finished])[0]
    assert (call.state, call.arguments) == ("ok", {"to": "b"})


def test_a_turn_that_waits_for_a_person_says_so() -> None:
    live = Live("t")
    live.take(page(REQUESTED, NEEDED))
    assert live.doing() == "Waiting for your decision."
    assert [a["approval_id"] for a in live.undecided] == ["p"]


def test_the_cited_span_is_marked_where_it_stands() -> None:
    found = {"start": 10, "end": 30, "length": 100}
    assert marked("before <cited> after", 7, 14, found) == "… before <mark>&lt;cited&gt;</mark> after …"


def test_a_search_marks_the_words_that_were_asked_for() -> None:
    assert matching("The <office> opens.", "when is the Office open") == (
        "<mark>The</mark> &lt;<mark>office</mark>&gt; opens."
    )


def test_a_citation_names_file_and_headings() -> None:
    assert where({"title": "a.md", "heading": ["One", "Two"]}) == "a.md › One › Two"


def test_what_is_required_and_empty_is_named() -> None:
    assert forms.missing(MAIL["tools"][0]["schema"], {"to": "a", "text": ""}) == ["text"]


def test_examples_come_from_what_is_on() -> None:
    assert examples([CALCULATOR, MAIL]) == ["What is 15% of 80?"]
    assert examples([{**CALCULATOR, "enabled": False}]) == []


def test_a_title_becomes_a_file_name_that_can_do_no_harm() -> None:
    assert file_name("../../etc/passwd\x00") == "etc passwd.md"
    assert file_name("???") == "chat.md"


@pytest.mark.parametrize("colours", [palette.LIGHT, palette.DARK], ids=["light", "dark"])
def test_text_can_be_read_on_every_ground(colours: dict[str, str]) -> None:
    for ground in ("backgroundColor", "secondaryBackgroundColor", "codeBackgroundColor"):
        for text in ("textColor", "linkColor", "greenColor", "orangeColor", "redColor"):
            assert palette.contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert palette.contrast("#ffffff", colours["primaryColor"]) >= 4.5


def test_the_command_line_is_safe_by_default_and_carries_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_KEY", "very-secret-key")
    argv = command(8501, "127.0.0.1", "http://127.0.0.1:8765")
    for option in (
        "--server.enableXsrfProtection=true",
        "--server.enableCORS=true",
        "--browser.gatherUsageStats=false",
        "--server.fileWatcherType=none",
        "--server.headless=true",
        "--client.toolbarMode=minimal",
        "--server.allowedHosts=127.0.0.1",
    ):
        assert option in argv
    assert argv[-2:] == ["--api", "http://127.0.0.1:8765"]
    assert "very-secret-key" not in " ".join(argv)


def test_every_option_on_the_command_line_is_one_streamlit_knows() -> None:
    from streamlit import config

    known = set(config.get_config_options())
    given = {flag[2:].split("=")[0] for flag in command(1, "127.0.0.1", "u") if flag.startswith("--") and "=" in flag}
    assert given <= known
