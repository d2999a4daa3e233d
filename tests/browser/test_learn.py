"""Learning in a real browser: a player is trained while one watches, played against, and watched thinking."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browser.steps import fits, idle, shot
from running import Running

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.browser, pytest.mark.model]

SLOW = 120_000
WHOLE = 1500
"""The height of a window that shows all of a page."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("home"), models_dir, command="up").start()
    yield running
    assert running.stop() == 0


def opened(page: Page, server: Running, view: str = "") -> None:
    page.goto(f"{server.ui_url}/learn")
    page.get_by_text("A player learns Tic-Tac-Toe").wait_for()
    if view:
        page.get_by_role("radio", name=view, exact=True).click()


def square(page: Page, number: int) -> Locator:
    return page.locator(f"[class*='st-key-cell-{number - 1}-'] button")


def stones(page: Page) -> str:
    return "".join(text if text in "XO" else "." for n in range(1, 10) for text in [square(page, n).inner_text()])


def test_a_newcomer_trains_a_player_and_watches_its_curve_grow(page: Page, server: Running, shots: Path) -> None:
    opened(page, server)
    page.get_by_text("No player has been trained yet").wait_for()
    page.locator(".st-key-order-start button").click()
    page.locator("[data-testid='stVegaLiteChart']").wait_for(timeout=SLOW)
    shot(page, shots, "learn-train")
    page.locator(".tt-badge").get_by_text("passed", exact=True).wait_for(timeout=SLOW)
    page.get_by_text("the reward model's score of a completion").first.wait_for()
    shot(page, shots, "learn-curve", WHOLE)


def test_a_game_is_played_taken_back_and_never_won(page: Page, server: Running, shots: Path) -> None:
    opened(page, server)
    page.locator(".st-key-learn-board").wait_for(timeout=SLOW)
    page.get_by_text("Show what it thinks").click()
    page.locator("[class*='-free-h']").first.wait_for()
    idle(page)
    square(page, 5).click()
    page.get_by_text("It took position").wait_for()
    idle(page)
    assert sorted(stones(page)) == sorted("X" + "O" + "." * 7)
    shot(page, shots, "learn-play")
    page.locator(".st-key-learn-undo button").click()
    page.get_by_text("It took position").wait_for(state="detached")
    idle(page)
    assert stones(page) == "." * 9
    for _ in range(5):
        idle(page)
        before = stones(page)
        square(page, before.index(".") + 1).click()
        page.wait_for_function(
            "before => [...document.querySelectorAll('.st-key-learn-board button')]"
            ".filter(b => /^[XO]$/.test(b.innerText)).length > before",
            arg=9 - before.count("."),
        )
        idle(page)
        if page.get_by_text(re.compile("A draw|The player wins")).count():
            break
    page.get_by_text(re.compile("A draw|The player wins")).first.wait_for()
    assert page.get_by_text("You win").count() == 0


def test_an_early_checkpoint_is_another_player_and_the_other_side_begins(page: Page, server: Running) -> None:
    opened(page, server)
    page.locator(".tt-badge").get_by_text("passed", exact=True).wait_for(timeout=SLOW)
    page.get_by_role("slider").first.focus()
    page.keyboard.press("Home")
    page.locator(".tt-badge").get_by_text("can be beaten").wait_for()
    page.get_by_role("radio", name="O", exact=True).click()
    page.wait_for_function("() => /X/.test(document.querySelector('.st-key-learn-board').innerText)")
    idle(page)
    assert sorted(stones(page)) == sorted("X" + "." * 8)


def test_a_rollout_is_watched_step_by_step_in_the_words_of_both_worlds(
    page: Page, server: Running, shots: Path
) -> None:
    opened(page, server, "Watch")
    page.get_by_text("step 0 of").wait_for(timeout=SLOW)
    for number in (1, 2):
        page.locator(".st-key-next-step button").click()
        page.get_by_text(f"step {number} of").wait_for()
    page.get_by_text("the next token").first.wait_for()
    shot(page, shots, "learn-watch")
    idle(page)
    page.get_by_role("slider").last.focus()
    page.keyboard.press("End")
    page.get_by_text(re.compile("the reward is")).wait_for()
    page.get_by_text("nothing more to expect").wait_for()


def test_a_phone_has_room_for_the_board(page: Page, server: Running, shots: Path) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    opened(page, server)
    page.locator(".st-key-learn-board").wait_for(timeout=SLOW)
    idle(page)
    shot(page, shots, "phone-learn-play", WHOLE)
    assert fits(page)
    lefts = [square(page, n).bounding_box()["x"] for n in (1, 4, 7)]  # type: ignore[index]
    assert max(lefts) - min(lefts) < 2
    page.get_by_role("radio", name="Watch", exact=True).click()
    page.get_by_text("step 0 of").wait_for()
    shot(page, shots, "phone-learn-watch", WHOLE)
    assert fits(page)
