"""The Plan page in a real browser: questions, a measurement begun and ended, a choice, served and taken back."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from browser.steps import answered, fits, idle, shot
from deploy.measured_rows import row
from running import Running, checked
from trimtab.deploy.machine import this_machine
from trimtab.deploy.results import Results
from trimtab.llm.shelf import resolve_model, sha256_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.model]

ROWS = [
    row("llamacpp/f16", memory=540, disk=271, first=2.31, rate=16),
    row("llamacpp/q8_0", memory=410, disk=145, first=1.62, rate=24, loss=0.004),
    row("llamacpp/q5_0", memory=350, disk=102, first=1.9, rate=21, loss=0.018),
    row("llamacpp/q4_0", memory=420, disk=92, first=0.95, rate=34, loss=0.15),
    row("openvino/int8", memory=620, disk=153, first=0.42, rate=41, loss=0.006),
    row("openvino/int4", memory=520, disk=97, first=0.5, rate=44, loss=0.11),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Running]:
    """With rows that were measured before, as far as it can tell."""
    home = tmp_path_factory.mktemp("home")
    running = Running(home, models_dir, command="up", parallel=2, context=2048, max_tokens=40)
    sha256 = sha256_of(resolve_model("smollm2-135m-instruct", home / "models"))
    for one in ROWS:
        where = {"model_sha256": sha256, "machine": this_machine(home).fingerprint, "at": time.time() - 3600}
        Results(home / "measurements").add(dataclasses.replace(one, **where))
    running.start()
    yield running
    assert running.stop() == 0


def opened(page: Page, server: Running, view: str) -> None:
    page.goto(f"{server.ui_url}/plan")
    page.get_by_text("What must it do, and what may it use").wait_for()
    page.get_by_role("radio", name=re.compile(view)).click()
    idle(page)


def set_number(page: Page, key: str, value: str) -> None:
    box = page.locator(f".st-key-{key} input")
    box.fill(value)
    box.press("Tab")
    idle(page)


def serving(server: Running) -> dict[str, Any]:
    with server.client as client:
        found: dict[str, Any] = checked(client.get("/v1/plans"))["serving"]
    return found


@pytest.mark.slow
def test_from_questions_to_a_variant_that_is_served_and_back(page: Page, server: Running, shots: Path) -> None:
    opened(page, server, "Questions")
    check = page.locator(".st-key-plan-check")
    check.get_by_text(re.compile("Yes: 10 of 10 variants have room")).wait_for()
    set_number(page, "plan-memory", "50")
    check.get_by_text(re.compile("No variant of .* fits the budget")).wait_for()
    set_number(page, "plan-memory", "600")
    check.get_by_text(re.compile("Yes: ")).wait_for()
    shot(page, shots, "plan-questions", 1500)
    page.locator(".st-key-plan-save button").click()
    page.get_by_text("The plan is kept.").wait_for()

    opened(page, server, "Choose")
    chosen = page.locator(".st-key-plan-chosen")
    chosen.get_by_text("llamacpp/q5_0").wait_for()
    page.locator("[data-testid='stVegaLiteChart'] svg").wait_for()
    assert page.get_by_text("15.0% above the reference").count() >= 1
    shot(page, shots, "plan-choice", 1900)

    page.locator(".st-key-plan-apply button").click()
    page.locator(".st-key-plan-apply-yes button").click()
    page.get_by_text("llamacpp/q5_0 answers from the next question on.").wait_for(timeout=120_000)
    assert serving(server)["variant"] == "llamacpp/q5_0"
    answered(page, server)
    page.goto(f"{server.ui_url}/plan")
    page.locator(".st-key-plan-serving").get_by_text("llamacpp/q5_0").first.wait_for()
    page.locator(".st-key-plan-undo button").click()
    page.locator(".st-key-plan-undo-yes button").click()
    page.get_by_text("openvino/int8 answers again.").wait_for(timeout=120_000)
    assert serving(server)["variant"] == "openvino/int8"


def test_a_measurement_is_watched_and_ended(page: Page, server: Running, shots: Path) -> None:
    opened(page, server, "Measure")
    page.get_by_text("Measured for this plan").wait_for()
    page.locator(".st-key-plan-measure button").click()
    page.locator(".st-key-plan-progress").get_by_text(re.compile(r"minutes left at most|Starting")).wait_for()
    shot(page, shots, "plan-measuring", 900)
    with server.client as client:
        assert client.post("/v1/plans/measurements", json={}).status_code == 409
    page.locator(".st-key-plan-cancel button").click()
    page.get_by_text("Ended. What was measured until then is kept.").wait_for(timeout=120_000)


def test_a_phone_has_room_for_the_whole_page(page: Page, server: Running, shots: Path) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for view in ("Questions", "Measure", "Choose"):
        opened(page, server, view)
        assert fits(page), view
        shot(page, shots, f"phone-plan-{view.lower()}", 1800)
        page.set_viewport_size({"width": 390, "height": 844})
