"""The Plan page, run by Streamlit's own test driver against a stand-in server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from streamlit.testing.v1 import AppTest

from trimtab.deploy.plan import checked
from trimtab_ui.plan_choice import spec
from ui.driven import EVIL, click, shown
from ui.standin import Standin, problem

MACHINE = {
    "name": "a laptop",
    "cores": 2,
    "memory": 8e9,
    "disk": 5e10,
    "accelerators": [],
    "model": "m",
    "context": 8192,
}


def row(variant: str, *, chosen: bool = False, why: str = "", **more: Any) -> dict[str, Any]:
    figures = {"users": 1, "slots": 1, "context": 2048, "threads": 2, "batch": 256, "memory": 350e6, "disk": 100e6}
    speed = {"first_p95": 1.5, "tokens_per_second": 20.0, "total": 20.0, "at": time.time(), "busy": False}
    quality = {"loss": [0.004, 0.001, 0.007], "divergence": [0.002, 0.001, 0.003]}
    told = {"key": variant, "variant": variant, "chosen": chosen, "why_not": why, "on_front": True, "misses": []}
    return {
        **figures,
        **speed,
        **told,
        "quality": quality,
        "answers": None,
        "command": f"trimtab measure {variant}",
        **more,
    }


class Planning(Standin):
    """With a plan, rows, and what is served."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = checked({}).model_dump(mode="json")
        self.rows: list[dict[str, Any]] = []
        self.refusal: dict[str, Any] | None = None
        self.fits = [{"variant": "llamacpp/q8_0", "memory": 4e8, "disk": 1e8, "basis": "measured", "obstacles": []}]
        self.measuring: dict[str, Any] | None = None
        self.serves: dict[str, Any] = {"variant": "openvino/int8", "model": "m", "context": 2048, "parallel": 4,
                                       "threads": 0, "batch": 256, "last": None, "leaving": 0}  # fmt: skip

    def _routes(self) -> dict[str, Callable[[httpx.Request, list[str], Any], httpx.Response]]:
        def ok(data: Any) -> httpx.Response:
            return httpx.Response(200, json=data)

        def judged() -> dict[str, Any]:
            chosen = next((one["key"] for one in self.rows if one["chosen"]), None)
            nearest = self.rows[0]["key"] if self.rows and chosen is None else None
            found = {"chosen": chosen, "nearest": nearest, "rows": self.rows, "refusal": self.refusal}
            return found | {"plan": self.plan, "measuring": self.measuring}

        mine = {
            "POST /v1/plans/check": lambda r, p, b: ok(
                {"machine": MACHINE, "fits": self.fits, "refusal": self.refusal}
            ),
            "GET /v1/plans/measurements": lambda r, p, b: ok(judged()),
            "POST /v1/plans/measurements": lambda r, p, b: problem(403, "forbidden", "Only whoever runs this may."),
            "POST /v1/plans/apply": lambda r, p, b: problem(409, "impossible_budget", f"No room. {EVIL}"),
            "PUT /v1/plans": lambda r, p, b: ok({"plan": b["plan"], "digest": "d"}),
            "GET /v1/plans": lambda r, p, b: ok(
                {
                    "plan": self.plan,
                    "kept": True,
                    "machine": MACHINE,
                    "refusal": None,
                    "serving": self.serves,
                    "measuring": self.measuring,
                    "digest": "d",
                    "schema": {},
                }
            ),
            "GET /v1/mcp-servers": lambda r, p, b: ok({"servers": [{"name": "files"}]}),
        }
        return {**mine, **{route: answer for route, answer in super()._routes().items() if route not in mine}}


@pytest.fixture
def standin() -> Planning:
    return Planning()


def plan_page(view: str) -> AppTest:
    def script() -> None:
        from trimtab_ui import look, plan_page

        look.set_up()
        plan_page.page()

    app = AppTest.from_function(script, default_timeout=30)
    app.session_state["plan-view"] = view
    app.run()
    assert not app.exception, app.exception
    return app


def test_what_the_questions_hold_is_a_plan_that_the_server_takes(server: Planning) -> None:
    app = plan_page("questions")
    assert "Yes: 1 of 1 variants have room." in shown(app)
    app.number_input(key="plan-users").set_value(8).run()
    app.multiselect(key="plan-connectors").set_value(["calculator"]).run()
    click(app, "plan-save")
    (body,) = server.posts("/v1/plans")
    found = checked(body["plan"])
    assert (found.targets.users, found.quality.largest_loss) == (8, 0.03)
    assert [(one.name, one.authentication) for one in found.resources.connectors] == [("calculator", "none")]


def test_a_refusal_and_a_nearest_offer_are_shown_as_text_whatever_they_say(server: Planning) -> None:
    server.refusal = {"message": f"In the way: {EVIL}", "code": "unreachable_target", "detail": {}}
    server.rows = [row("openvino/int8", why=EVIL, misses=[{"words": EVIL}])]
    said = shown(plan_page("choose"))
    assert "No measured variant meets every target." in said
    assert "nearest" in said
    assert "<img" not in said
    assert "&lt;img src=http://evil.example/y&gt;" in said
    server.rows = []
    assert "In the way" in shown(plan_page("questions"))


def test_the_chosen_one_is_served_after_a_question_and_a_refusal_leaves_the_dialog_open(server: Planning) -> None:
    server.rows = [row("llamacpp/q5_0", chosen=True), row("llamacpp/q8_0", why="meets every target, and takes more")]
    app = click(plan_page("choose"), "plan-apply")
    assert not server.posts("/v1/plans/apply")
    app.text_input(key="plan-apply-reason").set_value("smaller").run()
    click(app, "plan-apply-yes")
    assert server.posts("/v1/plans/apply") == [{"reason": "smaller"}]
    assert "No room." in shown(app)
    assert "<img" not in shown(app)


def test_the_picture_names_the_front_and_rings_the_chosen_one() -> None:
    found = spec([row("a", chosen=True), row("b", on_front=False, total=40.0), row("c", total=60.0, quality=None)])
    points = {point["name"]: point for point in found["data"]["values"]}
    assert [points[name]["chosen"] for name in "abc"] == [True, False, False]
    assert [bool(points[name]["named"]) for name in "abc"] == [True, False, True]
