"""The Connectors page: a list, one connector opened, and two wizards, against a server that stands in."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest
from streamlit.testing.v1 import AppTest

from ui.driven import EVIL, click, shown
from ui.standin import CALCULATOR, MAIL, Standin, problem

PAGE = "from trimtab_ui import connectors_page\nconnectors_page.page()"
HEALTH = {"breaker": "closed", "error_rate": 0.25, "p95": 0.4, "rate_left": 58, "rate_limit": 60, "rate_per": 60.0,
          "requests": 8, "retries": 1, "running": 0}  # fmt: skip
CALL = {"at": time.time() - 5, "tool": "tides.tide", "effect": "read", "ok": False, "reason": "circuit_open",
        "message": EVIL, "seconds": 0.2, "requests": 0, "cached": False, "stale": False}  # fmt: skip
TIDES: dict[str, Any] = {
    **CALCULATOR,
    "name": "tides",
    "kind": "openapi",
    "hosts": ["api.harbour.example"],
    "auth": "not connected",
    "sign_in": "browser",
    "badge": {"state": "approved", "reason": "A person imported it.", "checked_at": "", "vouched": True},
    "health": HEALTH,
    "calls": 8,
    "failures": 2,
    "last_errors": [],
}
UNCHECKED = {"state": "missing", "reason": "It has no badge: nobody has checked it here.", "vouched": False}
PREVIEW = {
    "name": "petstore", "document": "d" * 64, "title": EVIL, "version": "1", "hosts": ["pets.example"],
    "secrets": ["PETSTORE_KEY"], "security_scheme": "key", "operations": 2, "effects": {"read": 1, "write": 1},
    "searched": False, "tools": ["petstore.list_pets", "petstore.add_pet"], "left_out_count": 1,
    "left_out": [{"what": "POST /stalls", "pointer": "#/paths/~1stalls", "why": EVIL}],
}  # fmt: skip
LOOK = {
    "name": "files", "argv": ["files-server", "/home/ada/my notes"], "says": EVIL, "protocol": "2025-11-25",
    "sha256": "a" * 64, "hinted": ["read_file"], "refused": {"odd": "its schema refers to itself"}, "gone": [],
    "unchanged": False, "has_resources": False, "prompts": [],
    "tools": [
        {"name": "read_file", "called": "read_file", "description": EVIL, "schema": {"properties": {"path": {}}},
         "hints": {"only_reads": True, "destroys": False}, "effect": "", "change": "new", "was": ""},
        {"name": "erase", "called": "erase", "description": "Erases.", "schema": {"properties": {}},
         "hints": {"only_reads": False, "destroys": True}, "effect": "", "change": "new", "was": ""},
    ],
}  # fmt: skip


class Services(Standin):
    """A server with connectors of every kind. `found` is what a look at an MCP server finds."""

    def __init__(self) -> None:
        super().__init__()
        self.connectors = [CALCULATOR, MAIL, TIDES]
        self.calls: list[dict[str, Any]] = [CALL]
        self.signing = {"auth": "not connected", "waiting": True, "problem": ""}
        self.address = "https://login.harbour.example/authorize?state=x"
        self.found = LOOK
        self.servers: list[dict[str, Any]] = []
        self.remembered: list[dict[str, Any]] = []

    def _routes(self) -> dict[str, Any]:
        def ok(data: Any) -> httpx.Response:
            return httpx.Response(200, json=data)

        own = {
            "POST /v1/connectors/openapi/preview": lambda r, p, b: ok(PREVIEW),
            "POST /v1/connectors/openapi": lambda r, p, b: ok(self._put(PREVIEW["name"], "openapi")),
            "DELETE /v1/connectors/openapi/": lambda r, p, b: httpx.Response(204),
            "GET /v1/connectors/openapi": lambda r, p, b: ok(
                {"imports": [{**PREVIEW, "name": "tides", "imported_at": "2026-05-01T00:00:00Z", "choices": {}}]}
            ),
            "POST /v1/mcp-servers/look": lambda r, p, b: ok(self.found),
            "POST /v1/mcp-servers/files/look": lambda r, p, b: ok(self.found),
            "POST /v1/mcp-servers/files/approve": lambda r, p, b: ok(self.found),
            "POST /v1/mcp-servers": lambda r, p, b: ok(self._put(b["name"], "mcp")),
            "DELETE /v1/mcp-servers/": lambda r, p, b: self._gone(p[0]),
            "GET /v1/mcp-servers": lambda r, p, b: ok({"servers": self.servers}),
            "GET /v1/connectors/": self._of_one,
            "POST /v1/connectors/tides/sign-in": lambda r, p, b: ok({"url": self.address}),
            "DELETE /v1/connectors/tides/sign-in": lambda r, p, b: ok(self.signing),
            "GET /v1/approvals/remembered": lambda r, p, b: ok({"remembered": self.remembered}),
            "DELETE /v1/approvals/remembered/": self._revoked,
        }
        return {**own, **super()._routes(), **own}  # the first that fits answers

    def _of_one(self, request: httpx.Request, parts: list[str], body: Any) -> httpx.Response:
        return httpx.Response(200, json=self.signing if parts[1] == "sign-in" else {"calls": self.calls})

    def _revoked(self, request: httpx.Request, parts: list[str], body: Any) -> httpx.Response:
        (gone,) = [one for one in self.remembered if one["id"] == parts[0]]
        self.remembered.remove(gone)
        return httpx.Response(200, json=gone)

    def _put(self, name: str, kind: str) -> dict[str, Any]:
        self.connectors = [*self.connectors, {**CALCULATOR, "name": name, "kind": kind}]
        if kind == "mcp":
            self.servers = [{**LOOK, "name": name, "running": False}]
        return {"name": name}

    def _gone(self, name: str) -> httpx.Response:
        self.connectors = [one for one in self.connectors if one["name"] != name]
        return httpx.Response(204)


@pytest.fixture
def standin() -> Standin:
    return Services()


def opened(**address: str) -> AppTest:
    app = AppTest.from_string(PAGE, default_timeout=20)
    for name, value in address.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception, app.exception
    return app


def test_the_list_says_of_each_what_it_is_and_whether_it_wants_something(server: Services) -> None:
    broken = {**CALCULATOR, "name": "broken", "error": EVIL, "tools": [], "enabled": False}
    server.connectors = [CALCULATOR, {**MAIL, "badge": UNCHECKED}, TIDES, broken]
    page = shown(opened())
    for text in ("calculator", "mail.example", "api.harbour.example", "read-only", "approved by you", "sign in"):
        assert text in page
    assert page.count("broken</span>") == 2, "its name, and its state"
    assert "&lt;img src=http://evil.example/y&gt;" in page


def test_one_is_opened_switched_and_closed_again(server: Services) -> None:
    app = click(opened(), "open-tides")
    page = shown(app)
    assert app.query_params["connector"] == "tides"
    for text in ("58 of 60", "every minute", "25%", "400 ms", "service spared", "api.harbour.example"):
        assert text in page
    assert "&lt;img src=http://evil.example/y&gt;" in page, "the message of the last call"
    app.toggle(key="toggle-one-tides").set_value(False).run()
    assert server.asked.count(("PATCH", "/v1/connectors/tides", {"enabled": False})) == 1
    assert "Import an API" in shown(click(app, "connectors-back"))


def test_a_tool_that_changes_something_is_not_tried_without_the_tick(server: Services) -> None:
    app = AppTest.from_string(PAGE, default_timeout=20)
    app.query_params["connector"] = "mail"
    app.session_state["tool-mail.send"] = True
    app.run()
    app.text_input(key="try-mail.send-to").set_value("a@b.example")
    app.text_input(key="try-mail.send-text").set_value("hi")
    click(app, "run-mail.send")
    assert "Tick the box first" in shown(app)
    assert not server.posts("/v1/connectors/mail/call")
    app.checkbox(key="confirm-mail.send").check()
    click(app, "run-mail.send")
    sent = {"tool": "mail.send", "arguments": {"to": "a@b.example", "text": "hi"}, "confirm": True}
    assert server.posts("/v1/connectors/mail/call") == [sent]


def test_without_a_badge_what_changes_something_is_not_offered_to_be_tried(server: Services) -> None:
    server.connectors = [{**MAIL, "badge": UNCHECKED}]
    app = AppTest.from_string(PAGE, default_timeout=20)
    app.query_params["connector"] = "mail"
    app.session_state["tool-mail.send"] = True
    page = shown(app.run())
    assert "nobody has checked it here" in page
    assert "trimtab connectors check mail" in page
    assert "run-mail.send" not in [button.key for button in app.button]


def test_signing_in_leads_to_the_service_and_says_how_it_ended(server: Services) -> None:
    app = click(opened(connector="tides"), "sign-in-begin")
    (link,) = app.get("link_button")
    assert link.proto.url == server.address
    assert "login.harbour.example" in shown(app)
    assert "Waiting for you" in shown(app)
    server.signing = {"auth": "not connected", "waiting": False, "problem": "The service refused."}
    assert "The service refused." in shown(app.run())
    server.connectors = [{**TIDES, "auth": "reconnect"}]
    app = click(opened(connector="tides"), "sign-in-forget")
    assert ("DELETE", "/v1/connectors/tides/sign-in", b"") in server.asked


def test_a_sign_in_address_that_is_not_https_is_not_opened(server: Services) -> None:
    server.address = "javascript:alert(1)"
    app = click(opened(connector="tides"), "sign-in-begin")
    assert not app.get("link_button")
    assert "not an https address" in shown(app)


def test_a_missing_key_says_how_to_set_it(server: Services) -> None:
    server.connectors = [{**TIDES, "auth": "missing TIDES_KEY", "sign_in": "key"}]
    app = opened(connector="tides")
    assert "TIDES_KEY" in shown(app)
    assert [one.value for one in app.code] == ["trimtab connectors auth tides"]


def test_what_is_to_be_set_up_is_shown_with_the_command_that_sets_it(server: Services) -> None:
    def option(name: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "about": EVIL, "required": False, "set": False, "default": "", **more}

    options = [option("host", required=True), option("sender", required=True, set=True), option("port", default="587")]
    server.connectors = [{**MAIL, "options": [*options, option("ca_file")], "speaks": ["SMTP"]}]
    assert "to set up" in shown(opened())
    app = opened(connector="mail")
    page = shown(app)
    for text in ("not offered its tools", "SMTP", "to be set", ">set<", "587 unless set", ">optional<"):
        assert text in page
    assert "<img src=http://evil.example" not in page
    assert [one.value for one in app.code] == ["trimtab config set connectors.mail.options.host VALUE"]

    server.connectors[0]["options"][0]["set"] = True
    app = opened(connector="mail")
    assert not app.code
    assert "trimtab config set connectors.mail.options.host VALUE" in shown(app), "how to change it"


def test_an_api_is_looked_at_before_it_is_added(server: Services) -> None:
    app = click(opened(), "new-openapi")
    app.segmented_control(key="openapi-source").set_value("url").run()
    click(app, "openapi-look-at")
    assert "There is no document yet." in shown(app)
    app.text_input(key="openapi-url").set_value("https://pets.example/openapi.json")
    app.text_input(key="openapi-include").set_value("pets, orders/*")
    fault = problem(400, "invalid_input", "#/paths: is not an object")
    server.refuse["POST /v1/connectors/openapi/preview"] = fault
    assert "#/paths: is not an object" in shown(click(app, "openapi-look-at"))
    page = shown(click(app, "openapi-look-at"))
    for text in ("petstore", "pets.example", "PETSTORE_KEY", "#/paths/~1stalls", "1 operation cannot be used"):
        assert text in page
    assert not server.posts("/v1/connectors/openapi"), "nothing is added before it was looked at"
    server.refuse["POST /v1/connectors/openapi"] = problem(409, "conflict", "There is a connector 'petstore' already.")
    assert "with another name" in shown(click(app, "openapi-add"))
    app = click(app, "openapi-add")
    sent = server.posts("/v1/connectors/openapi")[-1]
    assert (sent["seen"], sent["name"], sent["include"]) == ("d" * 64, "petstore", ["pets", "orders/*"])
    assert app.query_params["connector"] == "petstore"
    assert "petstore is added" in shown(app)


def test_an_import_is_removed_after_a_tick(server: Services) -> None:
    app = opened(connector="tides")
    assert app.button(key="openapi-remove-tides").disabled
    app.checkbox(key="openapi-sure-tides").check().run()
    app = click(app, "openapi-remove-tides")
    assert ("DELETE", "/v1/connectors/openapi/tides", b"") in server.asked
    assert "tides is removed" in shown(app)


def test_of_an_mcp_server_only_what_is_ticked_counts_as_reading(server: Services) -> None:
    app = click(opened(), "new-mcp")
    app.text_input(key="mcp-name").set_value("files")
    app.text_input(key="mcp-command").set_value("files-server '/home/ada/my notes")
    assert "quotation marks do not match" in shown(click(app, "mcp-look-at"))
    app.text_input(key="mcp-command").set_value("files-server '/home/ada/my notes'")
    app.text_area(key="mcp-env").set_value("LEVEL=info\nTEAM_TOKEN")
    page = shown(click(app, "mcp-look-at"))
    reached = server.posts("/v1/mcp-servers/look")[-1]
    assert reached["argv"] == ["files-server", "/home/ada/my notes"]
    assert (reached["env"], reached["secrets"]) == ({"LEVEL": "info"}, ["TEAM_TOKEN"])
    for text in ("it says: destroys", "its schema refers to itself", "&lt;img src=http://evil.example/y&gt;"):
        assert text in page
    assert not any(box.value for box in app.checkbox), "a hint is not believed unasked"
    assert not server.posts("/v1/mcp-servers")
    app = click(click(app, "mcp-believe"), "mcp-add")
    sent = server.posts("/v1/mcp-servers")[-1]
    assert (sent["seen"], sent["reads"], sent["argv"]) == ("a" * 64, ["read_file"], reached["argv"])
    assert "files is added" in shown(app)


def test_what_an_mcp_server_has_changed_is_shown_and_approved(server: Services) -> None:
    server._put("files", "mcp")
    now = [{**LOOK["tools"][0], "change": "changed", "was": "Reads a file."}]  # type: ignore[index]
    server.found = {**LOOK, "tools": now, "gone": ["erase"]}
    app = AppTest.from_string(PAGE, default_timeout=20)
    app.query_params["connector"] = "files"
    app.session_state["mcp-server-files"] = True
    page = shown(click(app.run(), "mcp-changes-files"))
    assert "Reads a file." in page
    assert "No longer there: erase" in page
    click(app, "mcp-approve-files")
    assert server.posts("/v1/mcp-servers/files/approve") == [{"seen": "a" * 64, "reads": []}]
    app.checkbox(key="mcp-sure-files").check().run()
    assert "files is removed" in shown(click(app, "mcp-remove-files"))


def test_a_remembered_approval_says_what_it_covers_and_is_taken_back(server: Services) -> None:
    pattern = {"id": "con_1", "connector": "mail", "tool": "mail_send", "effect": "write", "fixed": {"to": EVIL},
               "free": ["text"], "when_tainted": False, "expires_at": time.time() + 86_400 * 3, "uses": 2}  # fmt: skip
    server.remembered = [pattern, {**pattern, "id": "con_2", "connector": "desk", "tool": "desk_stamp"}]
    page = shown(opened())
    assert "desk_stamp" in page, "on the list, of all of them"
    app = opened(connector="mail")
    page = shown(app)
    assert "desk_stamp" not in page
    for text in ("mail_send", "72 hours left", "Used 2 times", "&lt;img src=http://evil.example/y&gt;"):
        assert text in page
    app = click(app, "revoke-con_1")
    assert "You will be asked again." in shown(app)
    assert "mail_send" not in shown(app)
