"""Connectors in a real browser: looked at, tried, switched, imported from OpenAPI, added over MCP, taken away."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browser.steps import fits, flip, idle, shot
from running import Running, checked
from services import LoopbackServices

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.model]

PETSTORE = {
    "openapi": "3.1.0",
    "info": {"title": "Petstore", "version": "1.4", "summary": "Pets that look for a home."},
    "servers": [{"url": "https://api.petstore.example/v1"}],
    "paths": {
        "/pets": {
            "get": {"operationId": "list_pets", "summary": "List the pets", "responses": {}},
            "post": {"operationId": "add_pet", "summary": "Add a pet", "responses": {}},
        },
        "/pets/{id}": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
            "get": {"operationId": "show_pet", "summary": "Show one pet", "responses": {}},
            "delete": {"operationId": "remove_pet", "summary": "Remove a pet", "responses": {}},
        },
        "/stalls": {
            "post": {"requestBody": {"$ref": "#/components/requestBodies/Stall"}, "responses": {}},
        },
    },
    "components": {"securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-Key"}}},
    "security": [{"key": []}],
}
HARBOUR = '''
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations

server = MCPServer("Harbour office", version="2.1.0")

@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def high_water(port: str) -> str:
    """Say when high water is at a port."""
    return f"High water in {port} is at 06:12."

@server.tool()
def reserve_berth(port: str, ship: str) -> str:
    """Reserve a berth for a ship."""
    return f"A berth in {port} is reserved for the {ship}."

@server.tool(annotations=ToolAnnotations(destructive_hint=True))
def cancel_berth(number: int) -> str:
    """Give a berth back. It cannot be had again."""
    return f"Berth {number} is free."

server.run("stdio")
'''


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Running]:
    programs = tmp_path_factory.mktemp("bin")
    program = programs / "harbour-office"
    program.write_text(f"#!{sys.executable}\n{HARBOUR}")
    program.chmod(0o755)
    with LoopbackServices() as services, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(programs), prepend=os.pathsep)
        running = Running(tmp_path_factory.mktemp("home"), models_dir, services, command="up").start()
        yield running
        assert running.stop() == 0


def opened(page: Page, server: Running, address: str = "") -> None:
    page.goto(f"{server.ui_url}/connectors{address}")
    page.locator(".tt-hero").first.wait_for()
    idle(page)


def press(page: Page, key: str) -> None:
    """The button of this key; one with a tooltip stands there twice, for the mouse and for the finger."""
    idle(page)
    page.locator(f".st-key-{key} button").first.click()


def names(server: Running) -> dict[str, bool]:
    with server.client as client:
        return {one["name"]: one["enabled"] for one in checked(client.get("/v1/connectors"))["connectors"]}


def test_a_connector_is_opened_tried_and_switched_off(page: Page, server: Running, shots: Path) -> None:
    opened(page, server)
    page.get_by_text("api.open-meteo.com").first.wait_for()
    shot(page, shots, "connectors", 1000)
    press(page, "open-weather")
    page.get_by_text("not asked yet").wait_for()
    idle(page)
    page.get_by_text("forecast · only reads").click()
    page.get_by_role("textbox", name=re.compile("place")).fill("Oslo")
    page.locator("[class*='st-key-run-weather'] button").first.click()
    page.get_by_text(re.compile("Oslo.*°C")).first.wait_for()
    idle(page)
    page.get_by_text("answering").wait_for()
    shot(page, shots, "connectors-one", 1500)
    flip(page, "toggle-one-weather", on=False)
    page.get_by_text("Switch the connector on to try it.").wait_for()
    assert names(server)["weather"] is False
    page.reload()
    page.locator(".st-key-toggle-one-weather input:not(:checked)").wait_for(state="attached")
    flip(page, "toggle-one-weather")
    page.locator(".st-key-toggle-one-weather input:checked").wait_for(state="attached")
    idle(page)
    assert names(server)["weather"] is True
    press(page, "connectors-back")
    page.locator(".st-key-open-weather").wait_for()


def test_an_api_is_imported_after_a_look_and_taken_away(
    page: Page, server: Running, shots: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.json").write_text('{"openapi": "3.1.0", "info": {}, "paths": []}')
    (tmp_path / "petstore.json").write_text(json.dumps(PETSTORE))
    opened(page, server)
    press(page, "new-openapi")
    page.locator(".st-key-openapi-file input[type=file]").set_input_files(tmp_path / "broken.json")
    page.get_by_text("broken.json").wait_for()
    press(page, "openapi-look-at")
    page.get_by_text(re.compile("#/paths")).first.wait_for()
    page.locator(".st-key-openapi-file input[type=file]").set_input_files(tmp_path / "petstore.json")
    page.get_by_text("petstore.json").wait_for()
    press(page, "openapi-look-at")
    page.get_by_text("api.petstore.example").wait_for()
    idle(page)
    page.get_by_text(re.compile("Left out: 1")).click()
    page.get_by_text("POST /stalls").wait_for()
    shot(page, shots, "connectors-openapi", 1000)
    assert "petstore" not in names(server), "nothing is added before it was looked at"
    press(page, "openapi-add")
    page.get_by_text("petstore is added").wait_for()
    page.get_by_text("PETSTORE_KEY").first.wait_for()
    assert names(server)["petstore"] is True
    shot(page, shots, "connectors-key", 1300)
    idle(page)
    page.get_by_text("The import", exact=True).click()
    flip(page, "openapi-sure-petstore")
    press(page, "openapi-remove-petstore")
    page.get_by_text("petstore is removed").wait_for()
    assert "petstore" not in names(server)


def test_an_mcp_server_is_added_as_it_was_shown_used_and_taken_away(page: Page, server: Running, shots: Path) -> None:
    opened(page, server, "?new=mcp")
    page.locator(".st-key-mcp-name input").fill("harbour")
    page.locator(".st-key-mcp-command input").fill("no-such-program")
    press(page, "mcp-look-at")
    page.locator(".tt-notice.tt-bad").wait_for()
    idle(page)
    shot(page, shots, "connectors-mcp-wrong", 900)
    page.locator(".st-key-mcp-command input").fill("harbour-office")
    press(page, "mcp-look-at")
    page.get_by_text("Harbour office").first.wait_for(timeout=90_000)
    idle(page)
    press(page, "mcp-believe")
    page.locator(".st-key-mcp-tool-high_water input:checked").wait_for(state="attached")
    idle(page)
    shot(page, shots, "connectors-mcp", 1400)
    assert "harbour" not in names(server)
    press(page, "mcp-add")
    page.get_by_text("harbour is added").wait_for(timeout=90_000)
    idle(page)
    page.get_by_text("high_water · only reads").click()
    page.get_by_role("textbox", name=re.compile("port")).fill("Dover")
    page.locator("[class*='st-key-run-harbour'] button").first.click()
    page.get_by_text("High water in Dover is at 06:12.").first.wait_for(timeout=90_000)
    idle(page)
    page.get_by_text("The MCP server", exact=True).click()
    press(page, "mcp-changes-harbour")
    page.get_by_text("It offers what you approved.").wait_for(timeout=90_000)
    flip(page, "mcp-sure-harbour")
    press(page, "mcp-remove-harbour")
    page.get_by_text("harbour is removed").wait_for()
    assert "harbour" not in names(server)


def test_a_phone_shows_them_without_scrolling_sideways(page: Page, server: Running, shots: Path) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for name, address, said in (
        ("list", "", "only"),
        ("one", "?connector=notes", "notes.example.org"),
        ("options", "?connector=email", "trimtab config set connectors.email.options.host VALUE"),
        ("openapi", "?new=openapi", "OpenAPI"),
        ("mcp", "?new=mcp", "MCP"),
    ):
        opened(page, server, address)
        page.get_by_text(said).first.wait_for()
        shot(page, shots, f"connectors-phone-{name}", 1300)
        assert fits(page), name
