"""The HTTP API from Python, for the pages: one method a route, dictionaries back, typed errors.

Pages are drawn by short synchronous scripts, so this is synchronous `httpx`. It never retries by itself: a write
carries an `Idempotency-Key`, and sending it again is the person's decision (or the page's, with the same key). Proxies
from the environment are ignored: the server is a machine the person chose, by default this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

QUICK = httpx.Timeout(20.0, connect=3.0)
SLOW = httpx.Timeout(300.0, connect=3.0)
"""Uploads are read, cut and embedded before the answer comes."""
PAGE = 500
"""The most rows that the server gives at once."""


class UiError(Exception):
    """Something a person should be told. `message` says what happened, `advice` what to do (may be empty)."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


class ServerDown(UiError):
    """Nothing listens at the address."""


class ServerSlow(UiError):
    """No answer in time. A write may or may not have happened: send it again with the same key."""


class ApiError(UiError):
    """The server said no. `code` and `status` are the API's own."""

    def __init__(
        self,
        message: str,
        code: str,
        status: int,
        retry_after: float | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, _advice(status, retry_after))
        self.code = code
        self.status = status
        self.detail = dict(detail or {})


class KeyRefused(ApiError):
    """The key is missing or not known to this server."""


def _advice(status: int, retry_after: float | None) -> str:
    if status == 401:
        return "Start the UI with `trimtab ui`, which uses the server's own key, or set TRIMTAB_KEY."
    if status == 429:
        return f"Try again in {retry_after:.0f} seconds." if retry_after else "Try again in a moment."
    return ""


class Client:
    """One server, one key. Safe to share between sessions: it keeps no state but the connection pool."""

    def __init__(self, url: str, key: str, *, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(
            base_url=self.url, headers=headers, timeout=QUICK, transport=transport, trust_env=False
        )

    # --- about the server

    def info(self) -> dict[str, Any]:
        return self._json("GET", "/v1/info")

    def ready(self) -> dict[str, Any]:
        """Each part's state; also when the server is not ready, which is a 503 with the same shape."""
        return self._json("GET", "/readyz", accept=(503,))

    def me(self) -> dict[str, Any]:
        return self._json("GET", "/v1/me")

    # --- threads and turns

    def threads(self, query: str, count: int) -> tuple[list[dict[str, Any]], bool]:
        """The latest `count`, and whether there are more."""
        found: list[dict[str, Any]] = []
        params: dict[str, Any] = {"q": query} if query else {}
        while True:
            page = self._json("GET", "/v1/threads", params={**params, "limit": min(count - len(found), PAGE)})
            found += page["threads"]
            if len(found) >= count or not page["next"]:
                return found, bool(page["next"])
            params["before"] = page["next"]

    def new_thread(self, key: str) -> dict[str, Any]:
        return self._json("POST", "/v1/threads", json={}, idempotency=key)

    def thread(self, thread_id: str) -> dict[str, Any]:
        return self._json("GET", f"/v1/threads/{thread_id}")

    def rename(self, thread_id: str, title: str) -> dict[str, Any]:
        return self._json("PATCH", f"/v1/threads/{thread_id}", json={"title": title})

    def show(self, thread_id: str, message_id: str) -> dict[str, Any]:
        """Make the shown path go through this answer."""
        return self._json("PATCH", f"/v1/threads/{thread_id}", json={"head_id": message_id})

    def delete_thread(self, thread_id: str) -> None:
        self._send("DELETE", f"/v1/threads/{thread_id}")

    def export(self, thread_id: str) -> str:
        return self._send("GET", f"/v1/threads/{thread_id}/export").text

    def ask(self, thread_id: str, text: str, documents: str, key: str, best_of: int | None = None) -> dict[str, Any]:
        body = {"text": text, "documents": documents, **({"best_of": best_of} if best_of else {})}
        return self._json("POST", f"/v1/threads/{thread_id}/turns", json=body, idempotency=key)

    def regenerate(self, message_id: str, key: str) -> dict[str, Any]:
        return self._json("POST", f"/v1/messages/{message_id}/regenerate", idempotency=key)

    def message(self, message_id: str) -> dict[str, Any]:
        return self._json("GET", f"/v1/messages/{message_id}")

    def cancel(self, turn_id: str) -> dict[str, Any]:
        return self._json("POST", f"/v1/turns/{turn_id}/cancel")

    def events(self, turn_id: str, after: int) -> dict[str, Any]:
        """What the turn logged after `after`: ``{"events": [{"seq", "turn_id", "event"}], "cursor"}``; never waits."""
        return self._json("GET", "/v1/events", params={"turn": turn_id, "after": after})

    # --- approvals and feedback

    def approvals(self) -> list[dict[str, Any]]:
        return list(self._json("GET", "/v1/approvals")["approvals"])

    def decide(
        self,
        approval_id: str,
        decision: str,
        digest: str,
        arguments: dict[str, Any] | None = None,
        remember: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """`remember` is ``{"free"}``, the arguments that may be anything from now on, or nothing for this once."""
        body: dict[str, Any] = {"decision": decision, "digest": digest}
        if arguments is not None:
            body["arguments"] = arguments
        if remember is not None:
            body["remember"] = remember
        return self._json("POST", f"/v1/approvals/{approval_id}", json=body)

    def remembered(self) -> list[dict[str, Any]]:
        """What runs without asking this person, the newest first."""
        return list(self._json("GET", "/v1/approvals/remembered")["remembered"])

    def revoke_remembered(self, consent_id: str) -> dict[str, Any]:
        return self._json("DELETE", _at("approvals", "remembered", consent_id))

    def feedback(self, **judgement: Any) -> dict[str, Any]:
        return self._json("POST", "/v1/feedback", json=judgement)

    def withdraw(self, feedback_id: str) -> None:
        self._send("DELETE", f"/v1/feedback/{feedback_id}")

    # --- labelling

    def choices(self) -> dict[str, Any]:
        """Labels, reasons of a thumb down, and whether feedback trains unless one says otherwise."""
        return self._json("GET", "/v1/feedback/choices")

    def next_to_label(self, mode: str, label: str, skip: Sequence[str]) -> dict[str, Any]:
        return self._json("GET", "/v1/labelling/next", params={"mode": mode, "label": label, "skip": list(skip)})

    def agreement(self) -> dict[str, Any]:
        return dict(self._json("GET", "/v1/labelling/agreement")["agreement"])

    def outcomes(self, *, everybody: bool = False, limit: int) -> dict[str, Any]:
        return self._json("GET", "/v1/feedback/outcomes", params={"everybody": everybody, "limit": limit})

    def decide_feedback(self, feedback_id: str, decision: str) -> dict[str, Any]:
        return self._json("POST", f"/v1/feedback/{feedback_id}/decision", json={"decision": decision})

    def replay(self, feedback_id: str, context: str) -> dict[str, Any]:
        """Ask again with the right text: ``{"blame", "why", "context", "answers", "score"}``."""
        return self._json("POST", f"/v1/feedback/{feedback_id}/replay", json={"context": context}, timeout=SLOW)

    def set_consent(self, feedback_id: str, consent: bool) -> dict[str, Any]:
        return self._json("PATCH", f"/v1/feedback/{feedback_id}", json={"consent": consent})

    def forget(self, person: str) -> dict[str, Any]:
        """Delete all that a person said: ``{"feedback", "datasets", "versions"}``, the versions it had shaped."""
        return self._json("DELETE", f"/v1/feedback/of/{quote(person, safe='')}", timeout=SLOW)

    # --- versions of the model

    def versions(self) -> dict[str, Any]:
        """``{"versions", "serving", "fault"}``."""
        return self._json("GET", "/v1/versions")

    def version(self, version_id: str) -> dict[str, Any]:
        """One, with its whole manifest and the gate's evidence."""
        return self._json("GET", f"/v1/versions/{version_id}")

    def version_card(self, version_id: str) -> str:
        return str(self._json("GET", f"/v1/versions/{version_id}/card")["card"])

    def version_feedback(self, version_id: str) -> dict[str, Any]:
        return self._json("GET", f"/v1/versions/{version_id}/feedback")

    def version_diff(self, old: str, new: str) -> dict[str, Any]:
        return self._json("GET", f"/v1/versions/{old}/diff/{new}")

    def version_history(self) -> list[dict[str, Any]]:
        return list(self._json("GET", "/v1/versions/history")["history"])

    def promote(self, version_id: str, reason: str, *, anyway: bool = False) -> dict[str, Any]:
        body = {"reason": reason, "anyway": anyway}
        return self._json("POST", f"/v1/versions/{version_id}/promote", json=body, timeout=SLOW)

    def retrain(self, version_id: str) -> dict[str, Any]:
        """Order a training by its recipe on what is left: ``{"job", "name"}``."""
        return self._json("POST", f"/v1/versions/{version_id}/retrain", timeout=SLOW)

    def roll_back(self, reason: str) -> dict[str, Any]:
        return self._json("POST", "/v1/versions/rollback", json={"reason": reason}, timeout=SLOW)

    def canary(self, version_id: str | None, share: float, reason: str = "") -> dict[str, Any]:
        body = {"version": version_id, "share": share, "reason": reason}
        return self._json("POST", "/v1/versions/canary", json=body, timeout=SLOW)

    def compare(self, prompt: str, versions: Sequence[str]) -> list[dict[str, Any]]:
        body = {"prompt": prompt, "versions": list(versions)}
        return list(self._json("POST", "/v1/versions/compare", json=body, timeout=SLOW)["answers"])

    # --- the plan

    def plan(self) -> dict[str, Any]:
        """``{"plan", "digest", "kept", "schema", "machine", "refusal", "serving", "measuring"}``."""
        return self._json("GET", "/v1/plans")

    def keep_plan(self, plan: Mapping[str, Any]) -> dict[str, Any]:
        return self._json("PUT", "/v1/plans", json={"plan": dict(plan)})

    def check_plan(self, plan: Mapping[str, Any]) -> dict[str, Any]:
        """``{"machine", "fits", "refusal"}`` of a plan that need not be kept."""
        return self._json("POST", "/v1/plans/check", json={"plan": dict(plan)})

    def measurements(self) -> dict[str, Any]:
        """``{"chosen", "nearest", "rows", "refusal", "plan", "measuring"}``, judged by the plan that is kept."""
        return self._json("GET", "/v1/plans/measurements")

    def measure_plan(self, **asked: Any) -> dict[str, Any]:
        """Order a measurement; the job is watched with `job_progress`."""
        return self._json("POST", "/v1/plans/measurements", json=asked)

    def apply_plan(self, plan: Mapping[str, Any], reason: str) -> dict[str, Any]:
        """Keep the plan with its choice, and serve that: ``{"changed", "serving"}``."""
        self.keep_plan(plan)
        return self._json("POST", "/v1/plans/apply", json={"reason": reason}, timeout=SLOW)

    def undo_plan(self, reason: str) -> dict[str, Any]:
        return self._json("POST", "/v1/plans/undo", json={"reason": reason}, timeout=SLOW)

    # --- the classroom, and jobs

    def words(self) -> list[dict[str, Any]]:
        return list(self._json("GET", "/v1/learn/words")["words"])

    def trainings(self) -> list[dict[str, Any]]:
        return list(self._json("GET", "/v1/learn/checkpoints")["trainings"])

    def think(self, checkpoint: str, board: str) -> dict[str, Any]:
        return self._json("POST", "/v1/learn/think", json={"checkpoint": checkpoint, "board": board}, timeout=SLOW)

    def play(self, checkpoint: str, board: str) -> dict[str, Any]:
        return self._json("POST", "/v1/learn/play", json={"checkpoint": checkpoint, "board": board}, timeout=SLOW)

    def rollout(self, **game: Any) -> dict[str, Any]:
        return self._json("POST", "/v1/learn/rollout", json=game, timeout=SLOW)

    def jobs(self) -> list[dict[str, Any]]:
        """The latest first."""
        return list(self._json("GET", "/v1/jobs")["jobs"])

    def job(self, job_id: str) -> dict[str, Any]:
        """One, with its recipe."""
        return self._json("GET", f"/v1/jobs/{job_id}")

    def job_log(self, job_id: str) -> str:
        return str(self._json("GET", f"/v1/jobs/{job_id}/log")["log"])

    def start_job(self, kind: str, recipe: dict[str, Any]) -> dict[str, Any]:
        return self._json("POST", "/v1/jobs", json={"kind": kind, "recipe": recipe})

    def job_progress(self, job_id: str, after: int) -> dict[str, Any]:
        """``{"progress", "next", "job"}``: what it reported from its `after`-th report on."""
        return self._json("GET", f"/v1/jobs/{job_id}/progress", params={"after": after})

    def change_job(self, job_id: str, wish: str) -> dict[str, Any]:
        """`wish` is ``pause``, ``resume`` or ``cancel``."""
        return self._json("POST", f"/v1/jobs/{job_id}/{wish}")

    # --- alignment

    def align_recipe(self) -> dict[str, Any]:
        """``{"schema", "defaults"}`` of what `start_job("align", …)` takes."""
        return self._json("GET", "/v1/align/recipe")

    def constitution(self) -> dict[str, Any]:
        """The one in force: ``{"version", "name", "text", "bundled", "principles"}``."""
        return self._json("GET", "/v1/align/constitution")

    def constitution_version(self, version: str) -> dict[str, Any]:
        return self._json("GET", f"/v1/align/constitution/versions/{version}")

    def amend_constitution(self, text: str, after: str, note: str = "") -> dict[str, Any]:
        """`after` is the version that was edited. A fault's line is in the refusal's `detail`."""
        return self._json("PUT", "/v1/align/constitution", json={"text": text, "after": after, "note": note})

    def restore_constitution(self, version: str) -> dict[str, Any]:
        return self._json("POST", "/v1/align/constitution/restore", json={"version": version})

    def constitution_history(self) -> dict[str, Any]:
        """``{"history", "bundled"}``, the latest first."""
        return self._json("GET", "/v1/align/constitution/history")

    def judges(self) -> dict[str, Any] | None:
        """How far the model's judgement agreed with people's when that was last measured."""
        found: dict[str, Any] | None = self._json("GET", "/v1/align/constitution/judges")["judges"]
        return found

    # --- documents

    def documents(self) -> list[dict[str, Any]]:
        return list(self._json("GET", "/v1/documents")["documents"])

    def upload(self, files: Sequence[tuple[str, bytes, str]]) -> list[dict[str, Any]]:
        """`files` are (name, content, MIME type). One result a file; one that fails does not stop the others."""
        parts = [("file", (name, content, mime or "application/octet-stream")) for name, content, mime in files]
        return list(self._json("POST", "/v1/documents", files=parts, timeout=SLOW)["documents"])

    def document_text(self, document_id: str, start: int, end: int) -> dict[str, Any]:
        return self._json("GET", f"/v1/documents/{document_id}/text", params={"start": start, "end": end})

    def delete_document(self, document_id: str) -> None:
        self._send("DELETE", f"/v1/documents/{document_id}")

    def search(self, question: str, k: int = 8) -> dict[str, Any]:
        return self._json("POST", "/v1/search", json={"question": question, "k": k})

    # --- connectors

    def connectors(self) -> list[dict[str, Any]]:
        return list(self._json("GET", "/v1/connectors")["connectors"])

    def switch(self, name: str, enabled: bool) -> dict[str, Any]:
        return self._json("PATCH", _at("connectors", name), json={"enabled": enabled})

    def call(self, name: str, tool: str, arguments: dict[str, Any], confirm: bool) -> dict[str, Any]:
        body = {"tool": tool, "arguments": arguments, "confirm": confirm}
        return self._json("POST", _at("connectors", name, "call"), json=body, timeout=SLOW)

    def connector(self, name: str) -> dict[str, Any]:
        return self._json("GET", _at("connectors", name))

    def connector_calls(self, name: str, last: int = 50) -> list[dict[str, Any]]:
        """The newest calls, oldest first."""
        return list(self._json("GET", _at("connectors", name, "calls"), params={"last": last})["calls"])

    def sign_in(self, name: str) -> dict[str, Any]:
        """``{"auth", "waiting", "problem"}``."""
        return self._json("GET", _at("connectors", name, "sign-in"))

    def begin_sign_in(self, name: str) -> str:
        """The address for the person's browser."""
        return str(self._json("POST", _at("connectors", name, "sign-in"))["url"])

    def forget_sign_in(self, name: str) -> dict[str, Any]:
        return self._json("DELETE", _at("connectors", name, "sign-in"))

    def openapi_imports(self) -> list[dict[str, Any]]:
        return list(self._json("GET", "/v1/connectors/openapi")["imports"])

    def preview_openapi(self, **wanted: Any) -> dict[str, Any]:
        """What an import of a `document` or `url` would make; nothing is kept."""
        return self._json("POST", "/v1/connectors/openapi/preview", json=wanted, timeout=SLOW)

    def import_openapi(self, **wanted: Any) -> dict[str, Any]:
        return self._json("POST", "/v1/connectors/openapi", json=wanted, timeout=SLOW)

    def remove_import(self, name: str) -> None:
        self._send("DELETE", _at("connectors", "openapi", name))

    def mcp_servers(self) -> list[dict[str, Any]]:
        return list(self._json("GET", "/v1/mcp-servers")["servers"])

    def look_at_mcp(self, **reached: Any) -> dict[str, Any]:
        """Start or reach a server once; nothing is kept. Its `sha256` is what is approved."""
        return self._json("POST", "/v1/mcp-servers/look", json=reached, timeout=SLOW)

    def add_mcp(self, **approved: Any) -> dict[str, Any]:
        return self._json("POST", "/v1/mcp-servers", json=approved, timeout=SLOW)

    def look_again_at_mcp(self, name: str) -> dict[str, Any]:
        return self._json("POST", _at("mcp-servers", name, "look"), timeout=SLOW)

    def approve_mcp(self, name: str, seen: str, reads: Sequence[str]) -> dict[str, Any]:
        body = {"seen": seen, "reads": list(reads)}
        return self._json("POST", _at("mcp-servers", name, "approve"), json=body, timeout=SLOW)

    def remove_mcp(self, name: str) -> None:
        self._send("DELETE", _at("mcp-servers", name))

    # --- the wire

    def _json(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        response = self._send(method, path, **how)
        try:
            found = response.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise UiError(f"{self.url} answered, but not like a Trimtab server.", "Check the address (TRIMTAB_URL).")
        return found

    def _send(
        self, method: str, path: str, *, idempotency: str = "", accept: Sequence[int] = (), **how: Any
    ) -> httpx.Response:
        if idempotency:
            how["headers"] = {"Idempotency-Key": idempotency}
        try:
            response = self._http.request(method, path, **how)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ServerDown(f"No Trimtab server answers at {self.url}.", "Start it with `trimtab serve`.") from error
        except httpx.TimeoutException as error:
            raise ServerSlow("The server took too long to answer.", "Try again; nothing is done twice.") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerDown(f"The connection to {self.url} broke off.", "Try again in a moment.") from error
        if response.is_success or response.status_code in accept:
            return response
        raise _refusal(response)


def _at(*parts: str) -> str:
    """A route's path; what a person or a server named is one part of it, whatever it says."""
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def _refusal(response: httpx.Response) -> ApiError:
    try:
        error = response.json()["error"]
        message, code = str(error["message"]), str(error.get("code", ""))
        detail = error.get("detail") if isinstance(error.get("detail"), dict) else {}
    except (ValueError, KeyError, TypeError):
        message, code = f"The server answered {response.status_code} without saying why.", "unknown"
        detail = {}
    try:
        retry_after = float(response.headers.get("retry-after", ""))
    except ValueError:
        retry_after = None
    kind = KeyRefused if response.status_code == 401 else ApiError
    return kind(message, code, response.status_code, retry_after, detail)
