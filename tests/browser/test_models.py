"""Versions of the model in a real browser: looked at, promoted, chatted with, compared, rolled back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sqlalchemy import Connection

from browser.steps import QUESTION, answered, fits, idle, shot
from browser.steps import versions as versions_of
from running import Running, checked
from tiny_adapter import adapter
from trimtab.llm import catalogue, shelf
from trimtab.own_database import open_database
from trimtab.registry.manifest import Lineage, Manifest
from trimtab.registry.registry import Registry
from trimtab.settings import Settings
from trimtab.store import people, versions

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.model]

EVIL = "![x](http://evil.example/x.png) <img src=http://evil.example/y>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("home"), models_dir, command="up", max_tokens=40).start()
    yield running
    assert running.stop() == 0


def add(server: Running, name: str, seed: int, evidence: dict[str, Any], shaped_by: list[str]) -> str:
    """A version as a training would leave it: files in the registry, evidence and rows in the database."""
    (base,) = (v for v in versions_of(server).values() if v["kind"] == "base")
    settings = Settings.load(home=server.home)
    weights = shelf.resolve_model(catalogue.DEFAULT_CHAT, settings.models_dir)
    with server.client as client:
        sha256 = checked(client.get(f"/v1/versions/{base['id']}"))["manifest"]["base_sha256"]
    lineage = Lineage("ppo", base["id"], {"feedback": "ab" * 32}, len(shaped_by), {"steps": 3}, 7, "0.1.0", "job_1")
    manifest = Manifest(name, base["base"], sha256, {}, lineage=lineage, metrics={"reward": 0.61, "kl": 3.2})
    made = Registry(settings.versions_dir).add(adapter(server.home / name, seed, weights), manifest)
    status = versions.READY if evidence["verdict"] == "promote" else versions.HELD
    with written(settings) as connection:
        versions.add(connection, made.id, name, made.manifest.to_json(), digest=made.manifest.digest,
                     parent=base["id"], shaped_by=shaped_by)  # fmt: skip
        versions.judge(connection, made.id, status, evidence)
    return made.id


@contextmanager
def written(settings: Settings) -> Iterator[Connection]:
    """The database of the running server; what happens inside is one transaction."""
    database = open_database(settings)
    try:
        with database.engine.begin() as connection:
            yield connection
    finally:
        database.close()


def check(name: str, passed: bool, found: str, wanted: str) -> dict[str, Any]:
    return {"name": name, "passed": passed, "found": found, "wanted": wanted, "needed": True}


GOOD = {
    "verdict": "promote",
    "verdict_reason": "every check passed",
    "checks": [
        check("preferred", True, "74% [66%, 81%] of 120", "surely more than half, by an independent judge"),
        check("divergence", True, "3.20 nats a completion", "at most 20"),
    ],
    "samples": [
        {"prompt": QUESTION, "before": "The sea is wet.", "after": "The sea covers most of the Earth."},
        {"prompt": "Hello", "before": "Hi.", "after": EVIL},
    ],
}
BAD = {
    "verdict": "hold",
    "verdict_reason": "length: 2.10 times, wanted 0.25 to 1.5 times",
    "checks": [check("length", False, "2.10 times", "0.25 to 1.5 times")],
}


def opened(page: Page, server: Running) -> None:
    page.goto(f"{server.ui_url}/models")
    page.locator(".tt-badge").get_by_text("answers", exact=True).first.wait_for()


def choose(page: Page, name: str) -> None:
    page.locator(".st-key-models-chosen input").click()
    page.get_by_role("option", name=name, exact=True).click()
    page.get_by_role("option").first.wait_for(state="detached")
    idle(page)


def part(page: Page, name: str) -> None:
    page.get_by_role("radio", name=name, exact=True).click()
    idle(page)


def test_one_reads_how_a_version_comes_to_be_while_there_is_none(page: Page, server: Running, shots: Path) -> None:
    opened(page, server)
    page.get_by_text("How a version comes to be").wait_for()
    shot(page, shots, "models-empty")
    assert page.locator(".st-key-promote").count() == 0


def test_a_version_is_promoted_chatted_with_and_rolled_back(page: Page, server: Running, shots: Path) -> None:
    base = next(iter(versions_of(server)))
    assert base in answered(page, server)
    page.locator("[data-testid='stFeedback'] button").last.click()
    page.locator("[class*='st-key-reason-'] input").first.wait_for()
    with server.client as client:
        (thumb,) = checked(client.get("/v1/feedback"))["feedback"]
    made = add(server, "salty", 1, GOOD, [thumb["id"]])
    with server.client as client:
        (shaped,) = checked(client.get(f"/v1/feedback/{thumb['id']}/versions"))["versions"]
    assert (shaped["id"], shaped["name"], shaped["serving"]) == (made, "salty", False)

    opened(page, server)
    page.get_by_text("74% [66%, 81%] of 120").wait_for()
    shot(page, shots, "models-evidence", 1200)
    part(page, "What you said")
    page.get_by_text("1 of your judgements shaped this version").wait_for()
    page.get_by_text("The sea is wet.").wait_for()
    shot(page, shots, "models-thumb", 1200)
    part(page, "Before and after")
    page.get_by_text("image removed").wait_for()
    assert page.locator("[data-testid=stMain] img").count() == 0, "text of a model became a picture"

    page.locator(".st-key-promote button").click()
    page.locator(".st-key-promote-yes button").click()
    page.get_by_text("salty answers from the next question on.").wait_for(timeout=120_000)
    assert "salty" in answered(page, server)
    shot(page, shots, "chat-version")

    opened(page, server)
    page.locator(".st-key-roll-back button").click()
    page.locator(".st-key-roll-back-reason input").fill("It speaks of nothing but salt.")
    page.locator(".st-key-roll-back-yes button").click()
    page.get_by_text(f"{base} answers again.").wait_for()
    assert base in answered(page, server)
    opened(page, server)
    page.get_by_role("radio", name="History", exact=True).click()
    page.get_by_text("It speaks of nothing but salt.").wait_for()
    page.get_by_text("rolled back to").first.wait_for()


def test_a_held_version_takes_a_tick_and_a_reason(page: Page, server: Running, shots: Path) -> None:
    made = add(server, "wordy", 2, BAD, [])
    opened(page, server)
    choose(page, "wordy")
    page.get_by_text("2.10 times", exact=True).wait_for()
    page.locator(".st-key-promote button").click()
    page.locator(".st-key-promote-yes button").click()
    page.get_by_text("it takes the tick and a reason").wait_for()
    assert not versions_of(server)["wordy"]["serving"]
    page.get_by_text("Promote it anyway").click()
    page.locator(".st-key-promote-reason input").fill("We like it long.")
    page.locator(".st-key-promote-reason input").press("Tab")
    idle(page)
    shot(page, shots, "models-anyway")
    page.locator(".st-key-promote-yes button").click()
    page.get_by_text("wordy answers from the next question on.").wait_for(timeout=120_000)
    assert versions_of(server)["wordy"]["serving"]
    with sqlite3.connect(server.home / "trimtab.db") as database:
        (reason,) = database.execute("SELECT reason FROM promotions ORDER BY seq DESC LIMIT 1").fetchone()
    assert reason == "against the gate (held). We like it long."
    assert made == versions_of(server)["wordy"]["id"]


def test_two_versions_are_asked_the_same_and_stand_side_by_side(page: Page, server: Running, shots: Path) -> None:
    opened(page, server)
    page.get_by_role("radio", name="Compare answers", exact=True).click()
    page.locator(".st-key-compare-prompt textarea").fill(QUESTION)
    page.locator(".st-key-compare-ask button").click()
    page.locator("[class*='st-key-side-compared-']").nth(1).wait_for(timeout=120_000)
    idle(page)
    one, two = (page.locator(f".st-key-side-compared-{n}").inner_text() for n in (0, 1))
    assert one != two
    shot(page, shots, "models-compare")


def test_a_version_is_tried_on_a_share_and_the_trial_ends(page: Page, server: Running) -> None:
    opened(page, server)
    choose(page, "salty")
    page.locator(".st-key-canary button").click()
    page.locator(".st-key-canary-yes button").click()
    page.get_by_text("10% of the conversations are answered by").wait_for(timeout=120_000)
    page.locator(".st-key-end-canary button").click()
    page.get_by_text("The trial has ended").wait_for()


def test_the_card_and_the_lineage_are_read(page: Page, server: Running, shots: Path) -> None:
    opened(page, server)
    choose(page, "salty")
    part(page, "Lineage")
    page.get_by_role("cell", name="job_1").wait_for()
    part(page, "Card")
    page.get_by_text("Where it comes from").wait_for()
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(500)
    assert fits(page)
    shot(page, shots, "phone-models", 1400)


def test_somebody_else_is_told_who_may_promote(server: Running) -> None:
    with written(Settings.load(home=server.home)) as connection:
        people.ensure_user(connection, "ann")
        key = people.create_key(connection, "ann", "test")
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False, timeout=60) as ann:
        made = versions_of(server)["salty"]["id"]
        refused = ann.post(f"/v1/versions/{made}/promote", json={})
        assert refused.status_code == 403
        assert "Only whoever runs this" in json.loads(refused.text)["error"]["message"]
        said = checked(ann.get(f"/v1/versions/{made}/feedback"))
        assert said == {"feedback": [], "rows": 1}, "of other people's judgements only the number is told"
        with server.client as client:
            (thumb,) = checked(client.get("/v1/feedback"))["feedback"]
        assert ann.get(f"/v1/feedback/{thumb['id']}/versions").status_code == 404
