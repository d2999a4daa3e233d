"""Labelling in a real browser, by keyboard: imported answers, so that nothing depends on what a model says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from browser.steps import idle, shot
from running import Running, checked

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.model]

PAIRS = [
    ("What is tea?", "Tea is a drink made from the leaves of a plant, poured over with hot water.", "No idea. Next."),
    ("How do I boil an egg?", "Put it into boiling water. After six minutes it is soft.", "Ask a cook."),
    ("Can you help me with a letter?", "Of course. Who is it for, and what should it say?", "Write it yourself."),
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("home"), models_dir, command="up").start()
    lines = [{"prompt": prompt, "chosen": good, "rejected": bad} for prompt, good, bad in PAIRS]
    file = running.home / "pairs.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "-m", "trimtab.cli.main", "feedback", "import", str(file)]
    subprocess.run(command, env=running.environment, check=True)
    yield running
    assert running.stop() == 0


def given(server: Running) -> list[dict[str, Any]]:
    with server.client as client:
        found: list[dict[str, Any]] = checked(client.get("/v1/feedback"))["feedback"]
    return found


def opened(page: Page, server: Running, view: str) -> None:
    page.goto(f"{server.ui_url}/label")
    page.get_by_role("radio", name=view).or_(page.get_by_role("button", name=view, exact=True)).first.click()


def side(page: Page, name: str) -> str:
    return page.locator(f".st-key-label-side-{name}").inner_text()


def asked(page: Page) -> str:
    return page.locator(".st-key-label-conversation").inner_text()


def press(page: Page, key: str, before: str) -> None:
    """Press a key and wait until something else is asked, with all that belongs to it."""
    idle(page)
    page.keyboard.press(key)
    page.wait_for_function(
        "before => document.querySelector('.st-key-label-conversation')?.innerText !== before", arg=before
    )
    idle(page)  # the question is there before its answers are


def test_answers_are_compared_blind_with_two_keys_and_a_word_can_be_taken_back(
    page: Page, server: Running, shots: Path
) -> None:
    good = {better for _, better, _ in PAIRS}
    opened(page, server, "Compare")
    page.locator(".st-key-label-pair").wait_for()
    assert page.locator(".st-key-label-consent input").is_checked(), (
        "what is said trains, and the page says it does not"
    )
    shot(page, shots, "label-compare")
    first = asked(page)
    press(page, "a" if any(text in side(page, "a") for text in good) else "b", first)
    assert len(given(server)) == 1
    second = asked(page)
    press(page, "u", second)
    assert asked(page) == first
    assert given(server) == []
    for _ in PAIRS:
        page.locator(".st-key-label-pair").wait_for()
        press(page, "a" if any(text in side(page, "a") for text in good) else "b", asked(page))
    page.get_by_text("Nothing is left to ask you here").wait_for()
    rows = given(server)
    with server.client as client:
        chosen = {checked(client.get("/v1/feedback/outcomes"))["feedback"][n]["completion"] for n in range(3)}
    assert len(rows) == 3
    assert chosen == good


def test_an_answer_is_rated_by_key_skipped_and_mended(page: Page, server: Running, shots: Path) -> None:
    before = len(given(server))
    opened(page, server, "Rate")
    page.locator(".st-key-label-answer").wait_for()
    idle(page)
    shown = page.locator(".st-key-label-answer").inner_text()
    page.keyboard.press("s")
    page.wait_for_function("was => document.querySelector('.st-key-label-answer')?.innerText !== was", arg=shown)
    idle(page)
    page.get_by_text("Write what it should have been").click()
    box = page.locator("[class*='st-key-label-text-'] textarea")
    box.fill("My own words:")
    box.press_sequentially(" yes, no, skip it, undo")  # keys that mean something elsewhere
    shot(page, shots, "label-rate")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Your version is kept").wait_for()
    shown = page.locator(".st-key-label-answer").inner_text()
    page.locator(".st-key-label-no button").wait_for()
    idle(page)
    page.locator(".tt-hero").first.click()  # away from the text field
    page.keyboard.press("n")
    page.wait_for_function("was => document.querySelector('.st-key-label-answer')?.innerText !== was", arg=shown)
    rows = given(server)[: len(given(server)) - before]
    assert {(row["kind"], row["value"], row["text"]) for row in rows} == {
        ("thumb", 0, ""),
        ("edit", None, "My own words: yes, no, skip it, undo"),
    }


def test_what_becomes_of_it_is_shown_and_undone(page: Page, server: Running, shots: Path) -> None:
    opened(page, server, "What you said")
    page.get_by_text("would train the next version").wait_for()
    shot(page, shots, "label-given")
    page.locator("[class*='st-key-leave-'] button").first.click()
    page.get_by_text("left out: by hand").first.wait_for()
    page.locator("[class*='st-key-undecide-'] button").first.click()
    page.get_by_text("left out: by hand").first.wait_for(state="detached")
