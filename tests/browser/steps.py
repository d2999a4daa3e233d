"""What several stories do in the browser: wait, look, ask."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from running import Running, checked

if TYPE_CHECKING:
    from playwright.sync_api import Page

QUESTION = "Tell me about the sea."


def idle(page: Page) -> None:
    """The page is drawn to its end: what is clicked or typed into now stays."""
    page.locator("[data-test-script-state='notRunning']").wait_for()


def flip(page: Page, key: str, on: bool = True) -> None:
    """Tick a box or move a switch. A click on a page that is being drawn may be lost: then once more."""
    box = page.locator(f".st-key-{key} input")
    for _ in range(5):
        idle(page)
        if box.is_checked() == on:
            return
        page.locator(f".st-key-{key} label").click()
        page.wait_for_timeout(300)
    assert box.is_checked() == on, key


def shot(page: Page, shots: Path, name: str, height: int = 860) -> None:
    """A picture. The page scrolls inside itself, so one of all of it needs a tall window."""
    size = page.viewport_size or {"width": 1280, "height": 860}
    page.set_viewport_size({"width": size["width"], "height": height})
    page.wait_for_timeout(800)
    page.screenshot(path=shots / f"{name}.png")


def fits(page: Page) -> bool:
    """Nothing has to be scrolled sideways."""
    return bool(page.evaluate("() => document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def versions(server: Running) -> dict[str, dict[str, Any]]:
    """The versions of the model, by name."""
    with server.client as client:
        return {v["name"]: v for v in checked(client.get("/v1/versions"))["versions"]}


def answered(page: Page, server: Running, question: str = QUESTION) -> str:
    """Ask in a new chat; the line under the answer."""
    page.goto(server.ui_url)
    box = page.locator(".st-key-ask textarea")
    box.wait_for()
    box.fill(question)
    box.press("Enter")
    line = page.locator("[class*='st-key-answer-']").last.get_by_text(re.compile("How this was answered"))
    line.wait_for(timeout=120_000)
    return line.inner_text()
