"""Threads, turns, events, approvals, feedback and documents over HTTP, against the running server."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from running import Running, checked
from services import LoopbackServices

pytestmark = pytest.mark.model

GUIDE = """# Lantern X200

## Warranty

The Lantern X200 carries a warranty of three years. It does not cover broken glass.

## Care

Wipe the lens with a dry cloth. Replace the battery every 18 months.
"""


def say(status: str, response: httpx.Response) -> None:
    assert response.status_code >= 400, response.text
    assert response.json()["error"]["code"] == status, response.text


@pytest.fixture(scope="module")
def guide(server: Running) -> dict[str, Any]:
    with server.client as client:
        (taken,) = checked(client.post("/v1/documents", files={"file": ("guide.md", GUIDE)}))["documents"]
    assert taken["status"] == "added"
    return dict(taken)


def test_a_question_is_answered_from_a_document_with_its_span(server: Running, guide: dict[str, Any]) -> None:
    answer = server.ask("How long is the warranty of the Lantern X200?")
    (citation, *_) = answer["citations"]
    assert "three years" in citation["quote"]
    assert citation["title"] == "guide.md"
    assert citation["heading"][-1] == "Warranty"
    span = citation["span"]
    with server.client as client:
        shown = checked(client.get(f"/v1/documents/{guide['document_id']}/text", params=span))
    assert shown["text"] == citation["quote"]
    assert "three years" in answer["text"]


def test_a_question_near_the_documents_that_they_do_not_answer_is_told_so(
    server: Running, guide: dict[str, Any]
) -> None:
    answer = server.ask("Who invented the trumpet?", documents="only")
    assert "did not find" in answer["text"]
    assert not answer["citations"]


def test_a_sum_is_calculated_and_not_guessed(server: Running) -> None:
    answer = server.ask("What is 15% of 80?")
    assert "12" in answer["text"]
    calls = [s for s in answer["steps"] if s["type"] == "tool.finished"]
    assert calls[0]["connector"] == "calculator"
    considered = next(s for s in answer["steps"] if s["type"] == "tools.considered")
    assert considered["chosen"] == ["calculator_calculate"]
    assert all(o["reason"] for o in considered["offered"])


def test_the_weather_comes_from_its_service_with_a_source(server: Running, services: LoopbackServices) -> None:
    answer = server.ask("What's the weather in Oslo today?")
    assert "Oslo" in answer["text"]
    assert answer["citations"][0]["url"].startswith("https://open-meteo.com")
    assert any("latitude" in r.query for r in services.requests)


def test_a_service_that_is_down_is_told_and_costs_only_itself(server: Running, services: LoopbackServices) -> None:
    services.down = True
    try:
        answer = server.ask("What's the weather in Berlin today?")
    finally:
        services.down = False
    assert answer["status"] == "done"
    assert "did not work" in answer["text"]


def test_a_note_waits_for_approval_and_is_then_kept_once(server: Running, services: LoopbackServices) -> None:
    before = dict(services.notes)
    thread = server.thread()
    with server.client as client:
        turn = checked(client.post(f"/v1/threads/{thread}/turns", json={"text": "Add a note that says buy milk"}))
        needed = [e for e in server.events(turn["id"]) if e["type"] == "approval.needed"]
        assert services.notes == before, "nothing runs before a person agrees"
        waiting = next(a for a in checked(client.get("/v1/approvals"))["approvals"] if a["turn_id"] == turn["id"])
        assert waiting["id"] == needed[0]["approval_id"]
        body = {"decision": "approve", "digest": waiting["digest"]}
        say("conflict", client.post(f"/v1/approvals/{waiting['id']}", json=body | {"digest": "0" * 64}))
        checked(client.post(f"/v1/approvals/{waiting['id']}", json=body))
        say("conflict", client.post(f"/v1/approvals/{waiting['id']}", json=body))
        list(server.events(turn["id"], after=needed[0]["seq"]))
        final = checked(client.get(f"/v1/turns/{turn['id']}"))
    assert final["status"] == "done"
    added = {i: t for i, t in services.notes.items() if i not in before}
    assert list(added.values()) == ["buy milk"]


def test_a_rejected_note_is_not_kept(server: Running, services: LoopbackServices) -> None:
    before = dict(services.notes)
    thread = server.thread()
    with server.client as client:
        turn = checked(client.post(f"/v1/threads/{thread}/turns", json={"text": "Add a note that says sell the boat"}))
        seq = max(e["seq"] for e in server.events(turn["id"]))
        waiting = next(a for a in checked(client.get("/v1/approvals"))["approvals"] if a["turn_id"] == turn["id"])
        checked(client.post(f"/v1/approvals/{waiting['id']}", json={"decision": "reject", "digest": waiting["digest"]}))
        list(server.events(turn["id"], after=seq))
    assert services.notes == before


def test_stopping_ends_the_engines_work_and_keeps_what_there_was(server: Running) -> None:
    thread = server.thread()
    with server.client as client:
        question = {"text": "Write a very long story about the sea.", "documents": "off", "tools": False}
        turn = checked(client.post(f"/v1/threads/{thread}/turns", json=question))
        for event in server.events(turn["id"]):
            if event["type"] == "text.delta":
                break
        stopped = checked(client.post(f"/v1/turns/{turn['id']}/cancel"))
        assert stopped["status"] == "cancelled"
        messages = checked(client.get(f"/v1/threads/{thread}"))["messages"]
    assert messages[-1]["text"]
    assert messages[-1]["status"] == "cancelled"


def test_two_watchers_and_a_late_one_see_the_same_answer(server: Running) -> None:
    thread = server.thread()
    with server.client as client:
        turn = checked(client.post(f"/v1/threads/{thread}/turns", json={"text": "Say hello.", "documents": "off"}))
    seen: list[list[dict[str, Any]]] = []
    watchers = [threading.Thread(target=lambda: seen.append(list(server.events(turn["id"])))) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join(60)
    late = list(server.events(turn["id"]))
    assert seen[0] == seen[1] == late
    deltas = "".join(e["text"] for e in late if e["type"] == "text.delta")
    assert late[-1]["text"] == deltas


def test_a_retried_question_is_asked_once(server: Running) -> None:
    thread = server.thread()
    with server.client as client:
        post = {"url": f"/v1/threads/{thread}/turns", "headers": {"Idempotency-Key": "k-1"}}
        first = checked(client.post(**post, json={"text": "What is 2+2?"}))  # type: ignore[arg-type]
        again = checked(client.post(**post, json={"text": "What is 2+2?"}))  # type: ignore[arg-type]
        assert again["id"] == first["id"]
        say("conflict", client.post(**post, json={"text": "What is 3+3?"}))  # type: ignore[arg-type]
        list(server.events(first["id"]))
        assert len(checked(client.get(f"/v1/threads/{thread}"))["messages"]) == 2


def test_another_answer_is_a_sibling_and_one_can_be_preferred(server: Running) -> None:
    first = server.ask("What is 6*7?")
    with server.client as client:
        turn = checked(client.post(f"/v1/messages/{first['id']}/regenerate"))
        list(server.events(turn["id"]))
        shown = checked(client.get(f"/v1/threads/{first['thread_id']}"))["messages"][-1]
        assert shown["siblings"] == [first["id"], turn["answer_id"]]
        kept = {"kind": "preference", "chosen_id": first["id"], "rejected_id": turn["answer_id"]}
        checked(client.post("/v1/feedback", json=kept))
        opposite = {"kind": "preference", "chosen_id": turn["answer_id"], "rejected_id": first["id"]}
        checked(client.post("/v1/feedback", json=opposite))
        mine = [f for f in checked(client.get("/v1/feedback"))["feedback"] if f["kind"] == "preference"]
        assert [f["message_id"] for f in mine] == [turn["answer_id"]], "the opposite judgement replaces the first"
        checked(client.patch(f"/v1/threads/{first['thread_id']}", json={"head_id": first["id"]}))
        assert checked(client.get(f"/v1/threads/{first['thread_id']}"))["messages"][-1]["id"] == first["id"]


def test_a_thumb_an_edit_and_taking_it_back(server: Running) -> None:
    answer = server.ask("What is 5+5?")
    with server.client as client:
        thumb = {"kind": "thumb", "message_id": answer["id"], "value": 0, "reason": "too short"}
        checked(client.post("/v1/feedback", json=thumb))
        kept = checked(client.post("/v1/feedback", json=thumb | {"value": 1, "reason": ""}))
        edit = {"kind": "edit", "message_id": answer["id"], "text": "Five and five are ten."}
        checked(client.post("/v1/feedback", json=edit))
        shown = checked(client.get(f"/v1/threads/{answer['thread_id']}"))["messages"][-1]["feedback"]
        assert {(f["kind"], f["value"]) for f in shown} == {("thumb", 1), ("edit", None)}
        assert client.delete(f"/v1/feedback/{kept['id']}").status_code == 204
        say("not_found", client.delete(f"/v1/feedback/{kept['id']}"))
        say("invalid_input", client.post("/v1/feedback", json=thumb | {"value": 2}))


def test_threads_are_named_found_renamed_exported_and_deleted(server: Running) -> None:
    answer = server.ask("What is 9*9, captain?")
    thread = answer["thread_id"]
    with server.client as client:
        assert checked(client.get(f"/v1/threads/{thread}"))["thread"]["title"] == "What is 9*9, captain?"
        assert thread in [t["id"] for t in checked(client.get("/v1/threads", params={"q": "CAPTAIN"}))["threads"]]
        assert checked(client.get("/v1/threads", params={"q": "100%_nothing"}))["threads"] == []
        checked(client.patch(f"/v1/threads/{thread}", json={"title": "Sums"}))
        exported = client.get(f"/v1/threads/{thread}/export")
        assert exported.headers["content-type"].startswith("text/markdown")
        assert exported.text.startswith("# Sums")
        assert "81" in exported.text
        assert client.delete(f"/v1/threads/{thread}").status_code == 204
        say("not_found", client.get(f"/v1/threads/{thread}"))


def test_a_document_is_replaced_searched_and_deleted(server: Running) -> None:
    with server.client as client:

        def give(text: str) -> dict[str, Any]:
            return dict(checked(client.post("/v1/documents", files={"file": ("tides.txt", text)}))["documents"][0])

        first = give("High water at Dover is at noon.")
        assert give("High water at Dover is at noon.")["status"] in ("unchanged", "duplicate")
        assert give("High water at Dover is at midnight.")["status"] == "replaced"
        found = checked(client.post("/v1/search", json={"question": "When is high water at Dover?"}))["passages"]
        assert "midnight" in found[0]["text"]
        assert "noon" not in " ".join(p["text"] for p in found)
        assert found[0]["vector_rank"] is not None
        assert client.delete(f"/v1/documents/{first['document_id']}").status_code == 204
        found = checked(client.post("/v1/search", json={"question": "When is high water at Dover?"}))["passages"]
        assert not any(p["name"] == "tides.txt" for p in found)


def test_a_file_that_cannot_be_read_does_not_stop_the_others(server: Running) -> None:
    files = [("file", ("broken.pdf", b"%PDF-1.7 nonsense")), ("file", ("fine.md", b"# Fine\n\nAll is well aboard."))]
    with server.client as client:
        bad, good = checked(client.post("/v1/documents", files=files))["documents"]
    assert (bad["status"], good["status"]) == ("failed", "added")
    assert bad["error"]


def test_connectors_are_listed_switched_and_tried(server: Running) -> None:
    with server.client as client:
        entry = next(c for c in checked(client.get("/v1/connectors"))["connectors"] if c["name"] == "notes")
        assert {t["effect"] for t in entry["tools"]} >= {"read", "write"}
        off = checked(client.patch("/v1/connectors/calculator", json={"enabled": False}))
        assert off["enabled"] is False
        assert "tool.requested" not in [s["type"] for s in server.ask("What is 12*12?", documents="off")["steps"]]
        checked(client.patch("/v1/connectors/calculator", json={"enabled": True}))
        call = {"tool": "calculate", "arguments": {"expression": "2+3"}}
        assert checked(client.post("/v1/connectors/calculator/call", json=call))["data"]["result"] == "5"
        say("forbidden", client.post("/v1/connectors/notes/call", json={"tool": "add", "arguments": {"text": "x"}}))
        say("not_found", client.get("/v1/connectors/nothing"))
        health = checked(client.get("/v1/connectors/calculator"))["health"]
        assert (health["breaker"], health["error_rate"], health["rate_left"]) == ("closed", 0, None)
        last = checked(client.get("/v1/connectors/calculator/calls?last=1"))["calls"]
        assert [(c["tool"], c["ok"], c["effect"]) for c in last] == [("calculator.calculate", True, "read")]
        assert "2+3" not in str(last)
        assert checked(client.get("/v1/connectors/calculator/sign-in"))["auth"] == "none"
        say("invalid_input", client.post("/v1/connectors/calculator/sign-in"))


def test_every_route_but_health_needs_a_key(server: Running) -> None:
    spec = httpx.get(f"{server.url}/openapi.json", trust_env=False).json()
    for path, methods in spec["paths"].items():
        for method in methods:
            url = server.url + path.replace("{", "").replace("}", "")
            status = httpx.request(method.upper(), url, trust_env=False).status_code
            assert (status != 401) == (path in ("/healthz", "/readyz")), (method, path, status)


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": "KEY"},
        {"Authorization": "Basic KEY"},
        {"Authorization": "KEY"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer  KEY extra"},
        {"Cookie": "Authorization=Bearer KEY"},
        {"Authorization": "Bearer " + "x" * 5000},
        {"X-Forwarded-Authorization": "Bearer KEY"},
    ],
)
def test_a_key_anywhere_else_is_no_key(server: Running, headers: dict[str, str]) -> None:
    sent = {name: value.replace("KEY", server.key) for name, value in headers.items()}
    assert httpx.get(f"{server.url}/v1/me?key={server.key}", headers=sent, trust_env=False).status_code == 401


def test_what_belongs_to_another_is_not_there(server: Running, guide: dict[str, Any]) -> None:
    answer = server.ask("What is 3*3?")
    other_key = _make_key(server, "someone else")
    routes = [
        ("GET", f"/v1/threads/{answer['thread_id']}"),
        ("PATCH", f"/v1/threads/{answer['thread_id']}"),
        ("DELETE", f"/v1/threads/{answer['thread_id']}"),
        ("GET", f"/v1/threads/{answer['thread_id']}/export"),
        ("POST", f"/v1/threads/{answer['thread_id']}/turns"),
        ("GET", f"/v1/turns/{answer['turn_id']}"),
        ("POST", f"/v1/turns/{answer['turn_id']}/cancel"),
        ("POST", f"/v1/messages/{answer['id']}/regenerate"),
        ("GET", f"/v1/events?turn={answer['turn_id']}"),
        ("GET", f"/v1/events?thread={answer['thread_id']}"),
        ("POST", "/v1/feedback"),
        ("GET", f"/v1/documents/{guide['document_id']}"),
        ("GET", f"/v1/documents/{guide['document_id']}/text"),
        ("DELETE", f"/v1/documents/{guide['document_id']}"),
    ]
    bodies = {
        "PATCH": {"title": "mine now"},
        "POST": {"text": "x"},
        "/v1/feedback": {"kind": "thumb", "message_id": answer["id"], "value": 1},
    }
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {other_key}"}, trust_env=False) as other:
        for method, path in routes:
            body = bodies.get(path, bodies.get(method))
            if path.endswith(("cancel", "regenerate")):
                body = None
            response = other.request(method, path, json=body)
            assert response.status_code == 404, (method, path, response.text)
        assert checked(other.get("/v1/documents"))["documents"] == []
        assert checked(other.post("/v1/search", json={"question": "warranty of the Lantern"}))["passages"] == []
        assert checked(other.get("/v1/threads"))["threads"] == []


def test_a_revoked_key_stops_working(server: Running) -> None:
    key = _make_key(server, "short-lived")
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{server.url}/v1/me", headers=headers, trust_env=False).status_code == 200
    keys = _cli(server, "config", "keys", "--json")
    key_id = next(k["id"] for k in keys if k["user"] == "short-lived")
    _cli(server, "config", "revoke", key_id, parse=False)
    for _ in range(80):
        if httpx.get(f"{server.url}/v1/me", headers=headers, trust_env=False).status_code == 401:
            return
        time.sleep(0.1)
    pytest.fail("the revoked key still worked after 8 s")


def test_too_much_is_refused_at_once(server: Running) -> None:
    thread = server.thread()
    with server.client as client:
        say("too_large", client.post(f"/v1/threads/{thread}/turns", json={"text": "x" * 70_000}))
        say("too_large", client.post(f"/v1/threads/{thread}/turns", json={"text": "x" * 1_100_000}))
        say("invalid_input", client.post(f"/v1/threads/{thread}/turns", json={"text": "   "}))
        say("invalid_input", client.post(f"/v1/threads/{thread}/turns", json={"txt": "misspelt"}))


def test_a_foreign_host_header_is_refused(server: Running) -> None:
    response = httpx.get(f"{server.url}/healthz", headers={"Host": "evil.example:80"}, trust_env=False)
    assert response.status_code == 421


def test_every_answer_has_a_request_id_and_is_not_sniffed(server: Running) -> None:
    response = httpx.get(f"{server.url}/healthz", headers={"X-Request-Id": "abc-1"}, trust_env=False)
    assert response.headers["x-request-id"] == "abc-1"
    assert response.headers["x-content-type-options"] == "nosniff"


def _make_key(server: Running, user: str) -> str:
    return str(_cli(server, "config", "key", "--user", user, parse=False)).strip()


def _cli(server: Running, *arguments: str, parse: bool = True) -> Any:
    import json
    import subprocess
    import sys

    command = [sys.executable, "-m", "trimtab.cli.main", *arguments]
    out = subprocess.run(command, env=server.environment, capture_output=True, text=True, check=True, timeout=60).stdout
    return json.loads(out) if parse else out


def test_the_key_file_is_for_its_owner_alone(server: Running) -> None:
    assert (Path(server.home) / "key").stat().st_mode & 0o777 == 0o600
