"""The Align page, run by Streamlit's own test driver against a stand-in server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from streamlit.testing.v1 import AppTest

from trimtab.align.recipe import Recipe, checked
from trimtab_ui import align_form
from trimtab_ui.align_seen import Seen
from ui.driven import EVIL, click, shown
from ui.standin import Standin, problem

TEXT = "name: ours\nprinciples:\n  - id: kind\n    heading: Is kind\n"


def job(status: str, **more: Any) -> dict[str, Any]:
    base = {"id": "job_1", "kind": "align", "name": "kinder", "method": "ppo", "by": "local", "status": status}
    times = {"created_at": time.time() - 7200, "eta": None, "done": 0, "total": 0, "message": "", "result": {}}
    return {**base, **times, **more}


def said(kind: str, rule: str = "") -> dict[str, Any]:
    return {"kind": kind, "trains": not rule, "rule": rule}


class Aligning(Standin):
    """With trainings, and a constitution."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[dict[str, Any]] = []
        self.progress: list[dict[str, Any]] = []
        self.recipe: dict[str, Any] = Recipe().model_dump(mode="json")
        self.judges: dict[str, Any] | None = None
        self.constitution = {"version": "a" * 16, "name": "ours", "text": TEXT, "bundled": True, "principles": [
            {"id": "kind", "title": "Is kind", "text": "Be kind.", "for": ["answer"], "judge": "auto"}]}  # fmt: skip

    def _routes(self) -> dict[str, Callable[[httpx.Request, list[str], Any], httpx.Response]]:
        def ok(data: Any) -> httpx.Response:
            return httpx.Response(200, json=data)

        about = {"schema": Recipe.model_json_schema(), "defaults": Recipe().model_dump(mode="json")}
        mine = {
            "GET /v1/align/recipe": lambda r, p, b: ok(about),
            "GET /v1/align/constitution/judges": lambda r, p, b: ok({"judges": self.judges}),
            "GET /v1/align/constitution": lambda r, p, b: ok(self.constitution),
            "PUT /v1/align/constitution": lambda r, p, b: ok(self.constitution | {"text": b["text"]}),
            "GET /v1/jobs/": self._training,
            "GET /v1/jobs": lambda r, p, b: ok({"jobs": self.jobs}),
            "POST /v1/jobs/": lambda r, p, b: ok(self.jobs[0]),
            "POST /v1/jobs": self._ordered,
        }
        return {**mine, **{route: answer for route, answer in super()._routes().items() if route not in mine}}

    def _training(self, request: httpx.Request, parts: list[str], body: Any) -> httpx.Response:
        found = next(one for one in self.jobs if one["id"] == parts[0])
        if parts[1:] == ["progress"]:
            after = int(request.url.params["after"])
            told = {"progress": self.progress[after:], "next": len(self.progress), "job": found}
            return httpx.Response(200, json=told)
        if parts[1:] == ["log"]:
            return problem(403, "forbidden", "Only whoever runs this Trimtab may do this.")
        return httpx.Response(200, json=found | {"recipe": {"recipe": self.recipe}})

    def _ordered(self, request: httpx.Request, parts: list[str], body: Any) -> httpx.Response:
        self.jobs.insert(0, job("queued", name=body["recipe"]["name"]))
        return httpx.Response(201, json=self.jobs[0])


@pytest.fixture
def standin() -> Aligning:
    return Aligning()


def align_page(view: str = "", part: str = "") -> AppTest:
    """The page itself: the driver can only switch to pages that are files."""

    def script() -> None:
        from trimtab_ui import align_page, look

        look.set_up()
        align_page.page()

    app = AppTest.from_function(script, default_timeout=30)
    if view:
        app.session_state["align-view"] = view
    if part:
        app.session_state["constitution-part"] = part
    app.run()
    assert not app.exception, app.exception
    return app


def ordered(server: Aligning) -> dict[str, Any]:
    (body,) = server.posts("/v1/jobs")
    assert body["kind"] == "align"
    recipe: dict[str, Any] = body["recipe"]
    return recipe


def test_the_defaults_are_an_order_that_the_server_takes(server: Aligning) -> None:
    app = click(align_page(), "align-start")
    recipe = checked(ordered(server))
    assert (recipe.method, recipe.policy.steps, recipe.data.bundled, recipe.data.feedback) == ("ppo", 12, True, False)
    assert recipe.rewards == Recipe().rewards
    assert app.session_state["align-view"] == "trainings"
    assert "One training at a time" in shown(app)


@pytest.mark.parametrize("budget", list(align_form.BUDGETS))
def test_every_budget_is_a_recipe_and_what_is_turned_counts(server: Aligning, budget: str) -> None:
    app = align_page()
    app.selectbox(key="align-budget").set_value(budget).run()
    app.checkbox(key="align-constitution").set_value(True)
    app.selectbox(key="align-method").set_value("kto")
    app.number_input(key=f"align-policy-kl_cap-{budget}").set_value(3.5)
    click(app, "align-start")
    recipe = checked(ordered(server))
    assert (recipe.method, recipe.policy.kl_cap, recipe.data.constitution) == ("kto", 3.5, True)
    assert recipe.gate.probes == (budget != "try")


def test_one_sees_what_would_train_what_is_left_out_and_that_it_is_too_little(server: Aligning) -> None:
    server.outcomes = [said("label"), said("preference"), said("label", "duplicate"), said("label", "consent")]
    app = align_page()
    assert "2 of 4 judgements given here would train" in shown(app)
    assert "1 0/1 labels, 1 preferences" in shown(app)
    assert "<td>duplicate</td><td>1</td>" in shown(app)
    assert "2 judgements are too few" in shown(app)
    click(app, "align-start")
    assert ordered(server)["data"]["feedback"] is True


def test_a_training_that_could_not_begin_is_not_ordered(server: Aligning) -> None:
    server.outcomes = [said("preference")]
    app = align_page()
    app.checkbox(key="align-bundled").set_value(False)
    app.checkbox(key="align-labels-only").set_value(True)
    click(app, "align-start")
    assert "There are no 0/1 labels of people&#x27;s here" in shown(app)
    assert server.posts("/v1/jobs") == []


def test_who_does_not_curate_sees_their_own_count(server: Aligning) -> None:
    server.outcomes = [said("label")]
    server.refuse["GET /v1/feedback/outcomes"] = problem(403, "forbidden", "Only who curates sees everybody's.")
    assert "1 of 1 judgements" in shown(align_page())


def test_a_running_training_shows_its_curves_samples_and_what_is_left(server: Aligning) -> None:
    server.jobs = [job("running", done=400, total=1000, eta=125.0)]
    server.progress = [
        {"stage": "base", "text": "Unpacking the base model"},
        *(step(n, reward=0.1 * n, kl_sequence=0.5 * n) for n in (1, 2, 3)),
    ]
    app = align_page()
    assert app.session_state["align-view"] == "trainings", "one that is going on is what people come for"
    for words in ("about 2 minutes left", "Step 3 of 30", "reward 0.3", "KL 1.5", "in step 3"):
        assert words in shown(app), words
    assert len(app.get("arrow_vega_lite_chart")) + len(app.get("vega_lite_chart")) == 4
    assert "<img" not in shown(app), "text of a model became a picture"
    assert "evil.example" in shown(app), "it is shown as what it is"
    click(app, "align-pause")
    assert server.posts("/v1/jobs/job_1/pause") == [b""]
    assert "at its next checkpoint" in shown(app)


def test_a_method_that_reports_other_figures_is_drawn_too(server: Aligning) -> None:
    server.jobs = [job("running", done=400, total=1000, method="dpo")]
    server.progress = [{"stage": "policy", "step": n, "steps": 9, "loss": 1 / n, "rewards/margins": n} for n in (1, 2)]
    assert "rewards/margins" in shown(align_page())


def test_the_verdict_its_checks_and_both_answers_are_read(server: Aligning) -> None:
    checks = [{"name": "judgements", "passed": False, "found": "20", "wanted": "about 270", "needed": True}]
    samples = [{"prompt": "What is tea?", "before": "A drink.", "after": f"A warm drink. {EVIL}"}]
    reason = "about 250 more judgements are needed"
    evidence = {"verdict": "not_enough", "verdict_reason": reason, "checks": checks, "samples": samples}
    server.jobs = [job("done", result={"version": "ver_1", "evidence": evidence})]
    server.progress = [{"stage": "reward", "step": 1, "steps": 1, "loss": 0.7, "accuracy": 0.5},
                       {"stage": "reward report", **REPORT}]  # fmt: skip
    app = align_page("trainings")
    for words in ("It is too early to tell.", "About 250 more", "about 270", "A drink.", "A warm drink.", "82%"):
        assert words in shown(app), words
    assert "<img" not in shown(app)
    app.toggle(key="align-mistakes-r").set_value(True).run()
    assert "It was wrong by 2.0 nats." in shown(app)
    app.toggle(key="align-log").set_value(True).run()
    assert "Only whoever runs this" in shown(app)


def test_a_failed_training_says_why_and_can_go_on(server: Aligning) -> None:
    server.jobs = [job("failed", message="There is too little to learn from: 3 judgements.")]
    app = align_page("trainings")
    assert "There is too little to learn from" in shown(app)
    click(app, "align-resume")
    assert server.posts("/v1/jobs/job_1/resume") == [b""]


def test_a_principle_without_a_judge_is_shown_as_not_used(server: Aligning) -> None:
    why = "The best form, contrast, agrees with people in 50% of pairs: no better than chance."
    agreement = [{"principle": "kind", "form": "", "usable": False, "why": why}]
    server.judges = {"job": "job_1", "name": "first", "at": time.time(), "version": "b" * 16, "agreement": agreement}
    app = align_page("constitution")
    assert "not used" in shown(app)
    assert why in shown(app)
    assert "measured on another version" in shown(app)


def test_a_fault_is_shown_in_its_line_and_the_text_is_kept(server: Aligning) -> None:
    app = align_page("constitution", "edit")
    (box,) = app.text_area
    wrong = TEXT + f"    {EVIL}\n"
    fault = httpx.Response(400, json={"error": {"code": "invalid_input", "type": "invalid_input",
                           "message": "constitution, line 5: this is not YAML.", "detail": {"line": 5}}})  # fmt: skip
    server.refuse["PUT /v1/align/constitution"] = fault
    box.set_value(wrong)
    click(app, "constitution-save")
    assert "line 5: this is not YAML" in shown(app)
    assert "<mark>   5      ![x](http://evil" in shown(app)
    assert "<img" not in shown(app)
    assert app.text_area[0].value == wrong
    app.text_area[0].set_value(TEXT + "    title: Kind\n")
    click(app, "constitution-save")
    assert [sent["after"] for sent in server.posts("/v1/align/constitution")] == ["a" * 16] * 2
    assert "is in force." in shown(app)


def test_a_text_that_nobody_changed_is_not_saved_again(server: Aligning) -> None:
    app = click(align_page("constitution", "edit"), "constitution-save")
    assert "Nothing was changed." in shown(app)
    assert server.posts("/v1/align/constitution") == []


def test_steps_that_are_reported_again_after_a_crash_count_once() -> None:
    seen = Seen("job_1")
    seen.take([step(n, reward=0.0) for n in (1, 2, 3)], 3)
    seen.take([step(n, reward=1.0) for n in (2, 3)], 5)
    assert [(one["step"], one["reward"]) for one in seen.curves["policy"]] == [(1, 0.0), (2, 1.0), (3, 1.0)]
    assert (seen.next, seen.doing) == (5, "Training the policy")


def step(number: int, **more: Any) -> dict[str, Any]:
    base = {"stage": "policy", "step": number, "steps": 30, "reward": 0.0, "kl_sequence": 0.0, "kl_coefficient": 0.1,
            "policy_loss": 0.1, "value_loss": 0.2, "entropy": 2.0, "tokens": 20.0, "ended": 0.5, "distinct": 0.9,
            "held_out": 0.1 if number % 2 else None, "stopped": "",
            "samples": [{"prompt": "What is tea?", "completion": EVIL, "reward": 0.5}]}  # fmt: skip
    return {**base, **more}


REPORT = {
    "rows": 11, "accuracy": 0.82, "preference_accuracy": 0.8, "label_accuracy": None, "calibration_error": 0.1,
    "bins": [{"confidence": 0.6, "accuracy": 0.5, "rows": 4}, {"confidence": 0.9, "accuracy": 1.0, "rows": 7}],
    "length_correlation": 0.12, "accuracy_shorter_better": 0.7, "accuracy_longer_better": 0.9,
    "mistakes": [{"prompt": "What is tea?", "better": "A drink.", "worse": "No.", "margin": -2.0}],
}  # fmt: skip
