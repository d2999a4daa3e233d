"""Aligning in a real browser: a constitution is amended; a training is ordered, watched, promoted and taken back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from browser.steps import answered, fits, idle, shot, versions
from running import Running, checked

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.model]

TEN = [
    f"Tell me about {what}."
    for what in ("bread", "rain", "owls", "chess", "tea", "glass", "maps", "salt", "ice", "wool")
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("home"), models_dir, command="up").start()
    yield running
    assert running.stop() == 0


def opened(page: Page, server: Running, view: str, part: str = "") -> None:
    page.goto(f"{server.ui_url}/align")
    page.get_by_text("Feedback and a written constitution train").wait_for()
    for name in filter(None, (view, part)):
        page.get_by_role("radio", name=name, exact=True).click()
        idle(page)


def in_force(server: Running) -> dict[str, Any]:
    with server.client as client:
        found: dict[str, Any] = checked(client.get("/v1/align/constitution"))
    return found


def rate_ten(page: Page, server: Running, base: str) -> None:
    for number, question in enumerate(TEN):
        assert base in answered(page, server, question)
        page.locator("[data-testid='stFeedback'] button").nth(number % 2).click()
        with server.client as client:
            for _ in range(100):
                if len(checked(client.get("/v1/feedback"))["feedback"]) > number:
                    break
                page.wait_for_timeout(100)
            assert len(checked(client.get("/v1/feedback"))["feedback"]) == number + 1


def put_in_force(page: Page, text: str) -> None:
    box = page.locator("[class*='st-key-constitution-text'] textarea")
    box.fill(text)
    page.locator(".st-key-constitution-save button").click()


def test_a_fault_is_shown_where_it_is_and_a_good_text_comes_in_force(page: Page, server: Running, shots: Path) -> None:
    first = in_force(server)
    opened(page, server, "Constitution")
    page.get_by_text("Declines what would harm").wait_for()
    page.get_by_text("not measured").first.wait_for()
    shot(page, shots, "align-principles", 1100)
    page.get_by_role("radio", name="Edit", exact=True).click()
    put_in_force(page, first["text"].replace("title: Declines what would harm", "heading: Declines"))
    page.get_by_text("line 13: a principle has no field 'heading'").wait_for()
    page.locator(".tt-fault mark").get_by_text("heading: Declines").wait_for()
    shot(page, shots, "align-fault", 1100)
    assert in_force(server) == first

    put_in_force(page, first["text"].replace("name: trimtab-default", "name: ours"))
    page.get_by_text("is in force.").wait_for()
    assert in_force(server)["name"] == "ours"
    page.get_by_role("radio", name="History", exact=True).click()
    page.locator(".st-key-constitution-chosen input").click()
    page.get_by_role("option", name=re.compile("came with Trimtab")).click()
    page.locator(".st-key-constitution-restore button").click()
    page.get_by_text("is in force again.").wait_for()
    assert in_force(server) == first
    shot(page, shots, "align-history")


def test_nothing_to_learn_from_is_told_before_anything_begins(page: Page, server: Running) -> None:
    opened(page, server, "New training")
    page.get_by_text("Nobody has rated an answer here yet").wait_for()
    page.get_by_text("The data that comes with Trimtab", exact=True).click()
    page.locator(".st-key-align-start button").click()
    page.get_by_text("There is nothing to learn from.").wait_for()
    with server.client as client:
        assert checked(client.get("/v1/jobs"))["jobs"] == []


def test_a_phone_has_room_for_the_form_and_the_constitution(page: Page, server: Running, shots: Path) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    opened(page, server, "New training")
    page.locator(".st-key-align-start button").wait_for()
    assert fits(page)
    shot(page, shots, "phone-align-form", 1300)
    for part in ("Principles", "Edit"):
        opened(page, server, "Constitution", part)
        assert fits(page)
    shot(page, shots, "phone-align-edit", 1000)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_ten_answers_are_rated_the_model_aligned_promoted_chatted_with_and_taken_back(
    page: Page, server: Running, shots: Path
) -> None:
    base = next(iter(versions(server)))
    rate_ten(page, server, base)
    opened(page, server, "New training")
    page.get_by_text("of 10 judgements given here would train").wait_for()
    shot(page, shots, "align-form", 1000)
    page.locator(".st-key-align-budget input").click()
    page.get_by_role("option", name=re.compile("Only to see it run")).click()
    idle(page)
    page.locator(".st-key-align-name input").fill("kinder")
    page.locator(".st-key-align-start button").click()
    page.locator(".st-key-align-state").get_by_text("kinder").wait_for()
    page.locator(".st-key-align-reward").wait_for(timeout=400_000)
    shot(page, shots, "align-reward", 1200)
    page.locator(".st-key-align-samples").wait_for(timeout=400_000)
    shot(page, shots, "align-policy", 1500)
    finish(page, server, shots, base)


def finish(page: Page, server: Running, shots: Path, base: str) -> None:
    """From a training that goes on to its verdict, to the version that answers, and back."""
    ended = page.locator(".st-key-align-to-models button").or_(page.get_by_text("This training failed."))
    ended.wait_for(timeout=600_000)
    assert page.locator(".st-key-align-to-models").count() == 1, page.locator(".tt-notice").all_inner_texts()
    page.get_by_text("Before and after").wait_for()
    idle(page)
    page.get_by_text("judgements", exact=True).first.wait_for()
    shot(page, shots, "align-verdict", 1800)
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(500)
    assert fits(page)
    shot(page, shots, "phone-align-verdict", 1600)
    page.set_viewport_size({"width": 1280, "height": 860})

    page.locator(".st-key-align-to-models button").click()
    page.locator(".st-key-promote button").click()
    page.get_by_text("Promote it anyway").click()
    page.locator(".st-key-promote-reason input").fill("To see it.")
    page.locator(".st-key-promote-reason input").press("Tab")
    idle(page)
    page.locator(".st-key-promote-yes button").click()
    page.get_by_text("kinder answers from the next question on.").wait_for(timeout=120_000)
    assert versions(server)["kinder"]["serving"]
    assert "kinder" in answered(page, server)

    page.goto(f"{server.ui_url}/models")
    page.locator(".st-key-roll-back button").click()
    page.locator(".st-key-roll-back-reason input").fill("Seen.")
    page.locator(".st-key-roll-back-yes button").click()
    page.get_by_text(f"{base} answers again.").wait_for()
    assert base in answered(page, server)
