"""In a real browser: whatever a text says, the page asks nobody for anything."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trimtab_ui.characters import clean
from trimtab_ui.launch import MAIN, command
from ui.payloads import aimed_at

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs /usr/bin/chromium (Debian's package chromium)"),
]


class Sink(ThreadingHTTPServer):
    """Remembers every path it was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Listener)
        self.hits: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Listener(BaseHTTPRequestHandler):
    server: Sink

    def do_GET(self) -> None:
        self.server.hits.append(self.path)
        self.send_response(204)
        self.end_headers()

    do_POST = do_HEAD = do_OPTIONS = do_GET

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def sink() -> Iterator[Sink]:
    server = Sink()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def page_url(sink: Sink, tmp_path: Path) -> Iterator[str]:
    """The page with all payloads, served with the very options of the real UI."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = [str(HERE / "sink_page.py") if part == str(MAIN) else part for part in command(port, "127.0.0.1", sink.url)]
    environment = {**os.environ, "SINK": sink.url, "TESTS": str(HERE.parent), "HOME": str(tmp_path)}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, cwd=tmp_path)
    try:
        _wait_for(f"http://127.0.0.1:{port}/_stcore/health", process)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(120):
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            assert process.poll() is None, "Streamlit ended before it served anything"
        time.sleep(0.25)
    pytest.fail(f"Nothing answered at {url} within 30 seconds")


def test_sixty_texts_on_every_surface_fetch_nothing(sink: Sink, page_url: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_url)
        page.get_by_text("everything is drawn").wait_for(timeout=90_000)
        page.locator(".st-key-b1 button").first.hover()
        page.get_by_role("tooltip").first.wait_for(timeout=10_000)
        page.wait_for_timeout(1500)
        assert sink.hits == []
        own = page_url.removesuffix("/")
        assert [url for url in asked if not url.startswith((own, "data:", "blob:"))] == []
        # Nothing of it is a live element, either, nor a link one could be lured to click.
        assert page.locator("[data-testid=stMain] :is(iframe, object, embed, video, audio, script, base)").count() == 0
        links = page.locator("[data-testid=stMain] a").evaluate_all("all => all.map(a => a.href)")
        assert [link for link in links if sink.url in link] == []
        # A label shows the characters that were given: no icon, formula, colour, emoji.
        for number, text in enumerate(aimed_at(sink.url)):
            label = page.locator(f".st-key-b{number} button").first.inner_text()
            assert label.replace("\u2060", "").split() == clean(text).split()
        # The sink does listen: the same picture given to Streamlit's own Markdown is fetched at once.
        page.goto(f"{page_url}?control=1")
        page.locator("img[alt=control]").wait_for(state="attached", timeout=30_000)
        page.wait_for_timeout(500)
        assert "/control" in sink.hits
        browser.close()
    assert b"Traceback" not in (tmp_path / "log").read_bytes()


def test_the_app_is_served_with_a_policy_and_in_nobodys_frame(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    environment = {**os.environ, "HOME": str(tmp_path), "TRIMTAB_KEY": "a-key-of-tests"}
    argv = command(port, "127.0.0.1", "http://127.0.0.1:9")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log, cwd=tmp_path)
    try:
        _wait_for(f"{url}_stcore/health", process)
        from playwright.sync_api import sync_playwright

        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
            page = browser.new_page()
            refused: list[str] = []
            page.on(
                "console", lambda message: refused.append(message.text) if "Security Policy" in message.text else None
            )
            answer = page.goto(url)
            assert answer is not None
            assert "img-src 'self' data: blob:" in answer.headers["content-security-policy"]
            page.get_by_text("The server is not running").wait_for(timeout=30_000)
            assert refused == [], "the policy forbids something the app itself needs"
            framing = browser.new_page()
            framing.set_content(f"<iframe src='{url}'></iframe>")
            framing.wait_for_timeout(1500)
            assert framing.frames[1].get_by_text("The server is not running").count() == 0
            assert framing.frames[1].url.startswith("chrome-error")
            browser.close()
    finally:
        process.terminate()
        process.wait(10)
    assert b"Traceback" not in (tmp_path / "log").read_bytes()
