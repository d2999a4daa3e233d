"""What a newcomer does in the first ten minutes, in a real browser, from `trimtab up` on."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from running import Running, checked
from services import LoopbackServices

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.model]

GUIDE = """# Lantern X200

## Warranty

The Lantern X200 carries a warranty of three years. It does not cover broken glass.

## Battery

The battery lasts eleven hours on full brightness and charges in two hours over USB-C.

## Care

Wipe the lens with a dry cloth. Replace the battery every 18 months.
"""
STORY = "Write a long story about a lighthouse keeper and the sea."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Running]:
    with LoopbackServices() as services:
        running = Running(tmp_path_factory.mktemp("home"), models_dir, services, command="up", max_tokens=320).start()
        yield running
        assert running.stop() == 0


FREE = "() => { const box = document.querySelector('.st-key-ask textarea'); return box && !box.disabled; }"
"""One can ask; while a page is being drawn anew there is nothing to ask with."""


def opened(page: Page, server: Running, path: str = "") -> None:
    page.goto(f"{server.ui_url}/{path}")
    page.get_by_role("link", name="Knowledge").first.wait_for()


def ask(page: Page, text: str) -> None:
    box = page.locator(".st-key-ask textarea")
    box.wait_for()
    page.wait_for_function(FREE)
    box.fill(text)
    box.press("Enter")


def answers(page: Page) -> Locator:
    """Finished answers, in order."""
    return page.locator("[class*='st-key-answer-']")


def see(within: Locator, text: str | re.Pattern[str]) -> None:
    """Wait until this stands there for a person to read; the same words in a closed card do not count."""
    within.get_by_text(text).locator("visible=true").first.wait_for()


def idle(page: Page) -> None:
    """The answer is finished and drawn."""
    page.locator(".st-key-live-answer").wait_for(state="detached")
    page.wait_for_function(FREE)


def shot(page: Page, shots: Path, name: str) -> None:
    page.wait_for_timeout(600)
    page.screenshot(path=shots / f"{name}.png")


def test_a_document_is_uploaded_and_quoted_with_its_span(
    page: Page, server: Running, shots: Path, tmp_path: Path
) -> None:
    (tmp_path / "lantern.md").write_text(GUIDE)
    opened(page, server)
    page.get_by_role("link", name="Knowledge").first.click()
    page.locator(".st-key-upload-files input[type=file]").set_input_files(tmp_path / "lantern.md")
    page.locator(".st-key-upload-send button").click()
    page.locator(".st-key-documents").get_by_text("lantern.md").wait_for()
    shot(page, shots, "knowledge")

    page.get_by_role("link", name="Chat").first.click()
    ask(page, "How long is the warranty of the Lantern X200?")
    answer = answers(page).first
    see(answer, "three years")
    idle(page)
    answer.get_by_text(re.compile("Sources")).click()
    marked = answer.locator("mark").first
    marked.wait_for()
    assert "warranty of three years" in marked.inner_text()
    assert "Warranty" in answer.locator(".tt-where").first.inner_text()
    shot(page, shots, "chat-document")


def test_a_sum_is_calculated(page: Page, server: Running, shots: Path) -> None:
    opened(page, server)
    ask(page, "What is 15% of 80?")
    see(answers(page).first, "15% of 80 = 12")
    idle(page)
    answers(page).first.get_by_text(re.compile("How this was answered")).click()
    page.get_by_text("Chosen:").wait_for()
    shot(page, shots, "chat-calculator")


def test_the_weather_comes_from_a_connector_with_its_source(page: Page, server: Running, shots: Path) -> None:
    opened(page, server)
    ask(page, "What's the weather in Oslo today?")
    see(answers(page).first, re.compile("Oslo.*°C"))
    idle(page)
    answers(page).first.get_by_text(re.compile("Sources")).click()
    see(answers(page).first, "open-meteo.com")
    shot(page, shots, "chat-connector")


def test_an_answer_is_stopped_and_keeps_what_it_had(page: Page, server: Running, shots: Path) -> None:
    opened(page, server)
    ask(page, STORY)
    page.locator(".tt-live-text").first.wait_for()
    page.locator(".st-key-stop button").click()
    answers(page).first.get_by_text("You stopped this answer").wait_for()
    shot(page, shots, "chat-stopped")


def test_a_reload_a_second_tab_and_a_page_switch_lose_nothing(page: Page, server: Running, shots: Path) -> None:
    opened(page, server)
    ask(page, STORY + " Begin with the storm.")
    page.locator(".tt-live-text").first.wait_for()
    address = page.url
    assert "thread=" in address
    page.reload()
    page.locator(".tt-live-text, [class*='st-key-answer-']").first.wait_for()
    shot(page, shots, "chat-reloaded")
    second = page.context.new_page()
    second.goto(address)
    page.get_by_role("link", name="Knowledge").first.click()
    page.locator(".st-key-upload-files").wait_for()
    page.go_back()
    page.goto(address)
    for tab in (page, second):
        answers(tab).first.wait_for(timeout=120_000)
        idle(tab)
    texts = [answers(tab).first.locator("p").first.inner_text() for tab in (page, second)]
    assert texts[0] == texts[1]
    assert len(texts[0]) > 40
    with server.client as client:
        thread = re.search(r"thread=(\w+)", address)
        assert thread is not None
        messages = checked(client.get(f"/v1/threads/{thread[1]}"))["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant"], "one question, asked once"
    assert messages[-1]["status"] == "done"


def test_answers_are_rated_and_the_database_knows(page: Page, server: Running, shots: Path) -> None:
    from playwright.sync_api import expect

    opened(page, server)
    for question, thumb in (("What is 12*12?", 1), ("What is 9 plus 8?", 0)):
        before = answers(page).count()
        ask(page, question)
        answers(page).nth(before).wait_for()
        idle(page)
        thumbs = answers(page).nth(before).locator("[data-testid='stFeedback'] button")
        expect(thumbs.first).to_be_in_viewport()  # without anybody having scrolled
        thumbs.nth(1 - thumb).click()
        page.locator("[class*='st-key-reason-'] input").nth(before).wait_for()
    shot(page, shots, "chat-rated")
    with sqlite3.connect(server.home / "trimtab.db") as database:
        values = [v for (v,) in database.execute("SELECT value FROM feedback WHERE kind = 'thumb' ORDER BY created_at")]
    assert values == [1, 0]


def test_a_write_asks_first_and_runs_after_approval(page: Page, server: Running, shots: Path) -> None:
    opened(page, server)
    ask(page, "Add a note that says buy milk")
    page.get_by_role("button", name=re.compile("Approve|Allow")).first.wait_for()
    shot(page, shots, "chat-approval")
    page.get_by_role("button", name=re.compile("Approve|Allow")).first.click()
    see(answers(page).first, "buy milk")


def test_connectors_are_shown_with_what_they_reach(page: Page, server: Running, shots: Path) -> None:
    opened(page, server)
    page.get_by_role("link", name="Connectors").first.click()
    page.get_by_text("api.open-meteo.com").first.wait_for()
    shot(page, shots, "connectors")


def test_a_phone_shows_the_chat_without_scrolling_sideways(page: Page, server: Running, shots: Path) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(server.ui_url)
    ask(page, "What is 7*8?")
    see(answers(page).first, "56")
    idle(page)
    shot(page, shots, "phone")
    wide = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0
