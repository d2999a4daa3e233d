"""A stand-in for the server, for tests of the pages: answers the documented routes from a few dictionaries.

It knows no model. A turn posted to it runs through the events a test gave it, one page of them at each look.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx

from trimtab_ui.client import Client

CALCULATOR = {
    "name": "calculator",
    "version": "1.0.0",
    "description": "Works out arithmetic.",
    "hosts": [],
    "auth": "none",
    "enabled": True,
    "error": "",
    "calls": 2,
    "failures": 1,
    "last_errors": [{"at": time.time() - 60, "tool": "calculator.calculate", "message": "![x](http://evil.example/x)"}],
    "tools": [
        {
            "name": "calculator.calculate",
            "description": "Works out one expression.",
            "effect": "read",
            "untrusted": False,
            "examples": ["What is 15% of 80?"],
            "schema": {
                "type": "object",
                "properties": {"expression": {"type": "string"}, "digits": {"type": "integer", "default": 3}},
                "required": ["expression"],
            },
        }
    ],
}
MAIL = {
    **CALCULATOR,
    "name": "mail",
    "hosts": ["mail.example"],
    "last_errors": [],
    "tools": [
        {
            "name": "mail.send",
            "description": "Sends a mail.",
            "effect": "irreversible",
            "untrusted": True,
            "examples": [],
            "schema": {
                "properties": {"to": {"type": "string"}, "text": {"type": "string"}},
                "required": ["to", "text"],
            },
        }
    ],
}


CHOICES = {
    "labels": ["helpful", "harmless"],
    "reasons": [{"words": "Wrong source", "blame": "retrieval"}, {"words": "Too long", "blame": "model"}],
    "consent": True,
}


class Standin:
    """`client()` talks to it. `asked` lists what it was sent; `refuse` makes the next matching request fail."""

    def __init__(self) -> None:
        self.best_of: dict[str, Any] = {"default": 1, "available": False, "why": "No reward model."}
        self.threads: dict[str, dict[str, Any]] = {}
        self.messages: dict[str, list[dict[str, Any]]] = {}
        self.active: dict[str, str] = {}
        self.events: list[list[dict[str, Any]]] = []
        """What a turn shows at each look; when it is used up, the turn has ended."""
        self.seen: list[dict[str, Any]] = []
        self.approvals: list[dict[str, Any]] = []
        self.documents: list[dict[str, Any]] = []
        self.connectors: list[dict[str, Any]] = [CALCULATOR, MAIL]
        self.document = ""
        self.items: dict[str, list[dict[str, Any]]] = {"label": [], "compare": []}
        """What there is to label, in the order in which it is asked."""
        self.outcomes: list[dict[str, Any]] = []
        self.agreement: dict[str, Any] = {}
        self.versions: list[dict[str, Any]] = []
        self.serving: dict[str, Any] = {}
        self.fault = ""
        self.shaped: dict[str, Any] = {"feedback": [], "rows": 0}
        self.trainings: list[dict[str, Any]] = []
        self.progress: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str, Any]] = []
        self.keys: list[str] = []
        self.refuse: dict[str, httpx.Response | Exception] = {}

    def client(self) -> Client:
        return Client("http://server.test", "secret-key-of-tests", transport=httpx.MockTransport(self._answer))

    def add_thread(self, thread_id: str, title: str, *messages: dict[str, Any]) -> None:
        self.threads[thread_id] = {"id": thread_id, "title": title, "head_id": None, "created_at": 0, "updated_at": 0}
        self.messages[thread_id] = list(messages)

    def posts(self, path: str) -> list[Any]:
        return [body for method, where, body in self.asked if method != "GET" and where == path]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        is_json = request.headers.get("content-type") == "application/json"
        body = json.loads(request.content) if request.content and is_json else request.content
        self.asked.append((request.method, path, body))
        if key := request.headers.get("idempotency-key"):
            self.keys.append(key)
        if (refusal := self.refuse.pop(f"{request.method} {path}", None)) is not None:
            if isinstance(refusal, Exception):
                raise refusal
            return refusal
        for prefix, answer in self._routes().items():
            method, _, start = prefix.partition(" ")
            if request.method == method and path.startswith(start):
                return answer(request, path.removeprefix(start).split("/"), body)
        return problem(404, "not_found", f"No route {path}.")

    def _outcomes(self, limit: int) -> dict[str, Any]:
        trains = Counter(row["kind"] for row in self.outcomes if row["trains"])
        left_out = Counter(row["rule"] for row in self.outcomes if not row["trains"])
        counts = {"given": len(self.outcomes), "trains": trains, "left_out": left_out}
        return {"feedback": self.outcomes[:limit], "counts": counts, "curates": True}

    def _page(self, params: httpx.QueryParams) -> dict[str, Any]:
        first, limit = int(params.get("before", 0)), int(params["limit"])
        more = len(self.threads) > first + limit
        found = list(self.threads.values())[first : first + limit]
        return {"threads": found, "next": str(first + limit) if more else None}

    def _routes(self) -> dict[str, Callable[[httpx.Request, list[str], Any], httpx.Response]]:
        def ok(data: Any) -> httpx.Response:
            return httpx.Response(200, json=data)

        return {
            "GET /v1/threads/": self._thread,
            "POST /v1/threads/": self._turn,
            "PATCH /v1/threads/": lambda r, p, b: ok(self.threads[p[0]] | b),
            "DELETE /v1/threads/": lambda r, p, b: (self.threads.pop(p[0]), httpx.Response(204))[1],
            "GET /v1/threads": lambda r, p, b: ok(self._page(r.url.params)),
            "POST /v1/threads": self._new_thread,
            "GET /v1/events": self._events,
            "GET /v1/approvals/remembered": lambda r, p, b: ok({"remembered": []}),
            "GET /v1/approvals": lambda r, p, b: ok({"approvals": self.approvals}),
            "POST /v1/approvals/": self._decide,
            "POST /v1/feedback/": lambda r, p, b: ok(
                {"feedback_id": p[0], "blame": "retrieval", "why": "3 of 3 answers kept to it", **b}
            ),
            "POST /v1/feedback": lambda r, p, b: ok({"id": "fb_1", "reason": "", **b}),
            "DELETE /v1/feedback/of/": lambda r, p, b: ok(
                {
                    "feedback": 2,
                    "datasets": [],
                    "versions": [{"id": "ver_1", "name": "salty", "status": "ready", "rows": 2}],
                }
            ),
            "DELETE /v1/feedback/": lambda r, p, b: httpx.Response(204),
            "PATCH /v1/feedback/": lambda r, p, b: ok({"id": p[0], **b}),
            "GET /v1/feedback/choices": lambda r, p, b: ok(CHOICES),
            "GET /v1/feedback/outcomes": lambda r, p, b: ok(self._outcomes(int(r.url.params["limit"]))),
            "GET /v1/labelling/next": self._next,
            "GET /v1/labelling/agreement": lambda r, p, b: ok({"agreement": self.agreement}),
            "POST /v1/turns/": lambda r, p, b: ok({"id": p[0]}),
            "GET /v1/documents/": lambda r, p, b: ok(self._text(r)),
            "GET /v1/documents": lambda r, p, b: ok({"documents": self.documents}),
            "GET /v1/connectors": lambda r, p, b: ok({"connectors": self.connectors}),
            "PATCH /v1/connectors/": lambda r, p, b: ok({"name": p[0], **b}),
            "POST /v1/connectors/": lambda r, p, b: ok({"text": "12", "answer": "It is 12.", "seconds": 0.01}),
            "GET /v1/versions/": self._version,
            "POST /v1/versions/compare": lambda r, p, b: ok({"answers": [answer_by(v) for v in b["versions"]]}),
            "POST /v1/versions/": lambda r, p, b: ok(self.serving),
            "GET /v1/versions": lambda r, p, b: ok(
                {"versions": self.versions, "serving": self.serving, "fault": self.fault}
            ),
            "GET /v1/learn/words": lambda r, p, b: ok({"words": WORDS}),
            "GET /v1/learn/checkpoints": lambda r, p, b: ok({"trainings": self.trainings}),
            "POST /v1/learn/": lambda r, p, b: ok(classroom(p[0], b)),
            "GET /v1/jobs/": lambda r, p, b: ok(
                {"progress": self.progress, "next": len(self.progress), "job": self._job(p[0])}
            ),
            "POST /v1/jobs/": lambda r, p, b: ok(self._job(p[0])),
            "POST /v1/jobs": lambda r, p, b: ok({"id": "job_1", **b}),
            "GET /v1/info": lambda r, p, b: ok(
                {"version": "0.1.0", "model": "m", "best_of": self.best_of, "parts": {"engine": {"ok": True}}}
            ),
            "GET /v1/me": lambda r, p, b: ok({"id": "usr_1", "name": "local"}),
        }

    def _version(self, request: httpx.Request, parts: list[str], body: Any) -> httpx.Response:
        if parts[0] == "history":
            return httpx.Response(200, json={"history": []})
        found = next(v for v in self.versions if v["id"] == parts[0])
        answers: dict[str, Any] = {
            "feedback": self.shaped, "card": {"card": f"# {found['name']}"}, "diff": {"differs": {"name": ["a", "b"]}},
        }  # fmt: skip
        return httpx.Response(200, json=answers[parts[1]] if len(parts) > 1 else found)

    def _job(self, job_id: str) -> dict[str, Any]:
        (status,) = {t["status"] for t in self.trainings if t["job"] == job_id}
        return {"id": job_id, "status": status, "done": 1, "total": 2, "message": ""}

    def _new_thread(self, request: httpx.Request, parts: list[str], body: Any) -> httpx.Response:
        self.add_thread("thr_new", "New chat")
        return httpx.Response(201, json=self.threads["thr_new"])

    def _thread(self, request: httpx.Request, parts: list[str], body: Any) -> httpx.Response:
        if parts[0] not in self.threads:
            return problem(404, "not_found", f"No thread {parts[0]}.")
        active = self.active.get(parts[0])
        found = {"thread": self.threads[parts[0]], "messages": self.messages[parts[0]], "active_turn": active}
        return httpx.Response(200, json={**found, "cursor": 0})

    def _turn(self, request: httpx.Request, parts: list[str], body: Any) -> httpx.Response:
        self.messages[parts[0]].append(question("msg_q", body["text"]))
        self.active[parts[0]] = "trn_1"
        return httpx.Response(202, json={"id": "trn_1", "thread_id": parts[0]})

    def _events(self, request: httpx.Request, parts: list[str], body: Any) -> httpx.Response:
        if self.events:
            self.seen += self.events.pop(0)
        after = int(request.url.params["after"])
        fresh = [{"seq": n, "turn_id": "trn_1", "event": e} for n, e in enumerate(self.seen, 1) if n > after]
        if self.seen and self.seen[-1]["type"] == "turn.finished":
            for thread_id in list(self.active):
                del self.active[thread_id]
                self.messages[thread_id].append(an_answer("msg_a", self.seen[-1]["text"], steps=self.seen))
        return httpx.Response(200, json={"events": fresh, "cursor": len(self.seen)})

    def _next(self, request: httpx.Request, parts: list[str], body: Any) -> httpx.Response:
        skipped = request.url.params.get_list("skip")
        left = [one for one in self.items[request.url.params["mode"]] if one["id"] not in skipped]
        done = len(self.posts("/v1/feedback"))
        item = left[0] if left else None
        return httpx.Response(200, json={"item": item, "progress": {"done": done, "left": len(left)}})

    def _decide(self, request: httpx.Request, parts: list[str], body: Any) -> httpx.Response:
        self.approvals = [a for a in self.approvals if a["id"] != parts[0]]
        self.events.append([{"type": "approval.decided", "approval_id": parts[0], "call_id": "c1", **body}])
        return httpx.Response(200, json={})

    def _text(self, request: httpx.Request) -> dict[str, Any]:
        start, end = int(request.url.params["start"]), int(request.url.params["end"])
        text = self.document[start:end]
        return {"text": text, "start": start, "end": start + len(text), "length": len(self.document)}


def problem(status: int, code: str, message: str) -> httpx.Response:
    return httpx.Response(status, json={"error": {"code": code, "message": message, "type": code, "detail": {}}})


WORDS = [
    {"word": "state", "tictactoe": "the board", "language_model": "the text now in the context"},
    {"word": "action", "tictactoe": "a position", "language_model": "the next token"},
]


def a_version(version_id: str, name: str, **more: Any) -> dict[str, Any]:
    base = {"id": version_id, "name": name, "kind": "adapter", "status": "ready", "parent_id": None, "created_at": 0}
    shown = {"serving": False, "rows": 0, "base": "smol", "method": "ppo", "metrics": {}, "verdict": "promote"}
    whole = {"manifest": {"lineage": {}}, "evidence": {}, "verdict_reason": ""}
    return {**base, **shown, **whole, **more}


def answer_by(version: str) -> dict[str, str]:
    return {"version": version, "name": version, "text": f"{version} says so."}


def thought(board: str) -> dict[str, Any]:
    free = [i for i, stone in enumerate(board) if stone == "."]
    chances = [1 / len(free) if i in free else 0.0 for i in range(9)]
    mover = "X" if len(free) % 2 else "O"
    return {
        "board": board,
        "mover": mover,
        "free": free,
        "probabilities": chances,
        "value": 0.25,
        "truth": 0,
        "best": free,
    }


def classroom(what: str, body: Any) -> dict[str, Any]:
    """A player that takes the first free position."""
    if what == "think":
        return thought(body["board"])
    if what == "rollout":
        moves = [
            {"by": ("agent", "opponent")[n % 2], "position": n, "thought": thought(board), "reward": 0.0}
            for n, board in enumerate((".........", "X........", "XO......."))
        ]
        return {"side": body["side"], "moves": moves, "board": "XOX......", "reward": 1.0}
    board, at = body["board"], body["board"].find(".")
    if at < 0:
        return {"board": board, "position": None, "thought": None, "over": True, "winner": "", "row": []}
    stone = "X" if board.count(".") % 2 else "O"
    after = board[:at] + stone + board[at + 1 :]
    return {"board": after, "position": at, "thought": thought(board), "over": False, "winner": "", "row": []}


def question(message_id: str, text: str) -> dict[str, Any]:
    return {"id": message_id, "role": "user", "text": text, "status": "done", "siblings": [message_id], "steps": []}


def an_answer(message_id: str, text: str, **more: Any) -> dict[str, Any]:
    base = {"id": message_id, "role": "assistant", "text": text, "status": "done", "siblings": [message_id]}
    base["turn_id"] = f"trn_{message_id}"
    return {**base, "citations": [], "usage": {}, "timing": {}, "lineage": {}, "steps": [], "feedback": [], **more}
