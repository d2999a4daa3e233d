"""The best of several answers in a real browser, and being rid of what one said about it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browser.steps import QUESTION, idle, shot
from planted import reward_job
from running import Running, checked

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.model]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Running]:
    trained, home = tmp_path_factory.mktemp("trained"), tmp_path_factory.mktemp("home")
    reward_job(trained)
    shutil.copytree(trained / "jobs", home / "jobs")
    running = Running(home, models_dir, command="up", max_tokens=40).start()
    yield running
    assert running.stop() == 0


@pytest.mark.slow
def test_the_best_of_two_is_asked_for_and_the_answer_tells_the_scores(page: Page, server: Running, shots: Path) -> None:
    page.goto(server.ui_url)
    page.locator(".st-key-best-of input").click()
    page.get_by_role("option", name="Best of 2", exact=True).click()
    page.get_by_role("option").first.wait_for(state="detached")
    idle(page)
    box = page.locator(".st-key-ask textarea")
    box.fill(QUESTION)
    box.press("Enter")
    page.get_by_text("Writing 2 answers; the best is shown").wait_for(timeout=120_000)
    shot(page, shots, "best-of-writing")
    line = page.get_by_text("best of 2")
    line.wait_for(timeout=120_000)
    line.click()
    page.get_by_text("by the reward model of").wait_for()
    page.get_by_text("this one", exact=True).wait_for()
    shot(page, shots, "best-of", 1100)

    page.locator("[data-testid='stFeedback'] button").last.click()
    page.locator("[class*='st-key-reason-'] input").first.wait_for()
    page.goto(f"{server.ui_url}/label")
    page.get_by_role("radio", name="What you said", exact=True).click()
    page.get_by_text("Delete everything I said").first.click()
    page.get_by_text("Delete it for good").click()
    idle(page)
    shot(page, shots, "label-forget", 1100)
    page.locator(".st-key-forget-yes button").click()
    page.get_by_text("1 judgements and 0 datasets are deleted.").wait_for()
    with server.client as client:
        assert checked(client.get("/v1/feedback"))["feedback"] == []
