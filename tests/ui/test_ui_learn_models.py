"""The Learn and Models pages, run by Streamlit's own test driver against a stand-in server."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from ui.driven import EVIL, MAIN, click, shown
from ui.standin import Standin, a_version, an_answer, problem, question

POINT = {
    "id": "job_1/000005", "update": 5, "games": 20_480, "seconds": 1.5, "reward": 0.4, "entropy": 1.2,
    "value_loss": 0.1, "lost_as_x": 0, "lines_as_x": 80, "lost_as_o": 31, "lines_as_o": 500, "given_away": 60,
    "not_lost": 3888, "lost_to_random": 0.02, "lost_to_perfect": 0.4, "value_correlation": 0.8, "never_loses": False,
    "done": False,
}  # fmt: skip
PROVED = {**POINT, "id": "job_1/000010", "update": 10, "games": 40_960, "lost_as_o": 0, "given_away": 0, "done": True}


def a_training(status: str = "done", *points: dict[str, Any]) -> dict[str, Any]:
    recipe = {"algorithm": "ppo", "seed": 3, "opponent": "self"}
    return {"id": "job_1", "job": "job_1", "status": status, "recipe": recipe, "at": 0, "checkpoints": list(points)}


def opened(page: str, **state: Any) -> AppTest:
    def learn() -> None:
        from trimtab_ui import learn_page, look

        look.set_up()
        learn_page.page()

    def models() -> None:
        from trimtab_ui import look, models_page

        look.set_up()
        models_page.page()

    app = AppTest.from_function({"learn": learn, "models": models}[page], default_timeout=20)
    for name, value in state.items():
        app.session_state[name.replace("_", "-")] = value
    app.run()
    assert not app.exception, app.exception
    return app


def keys(app: AppTest) -> list[str]:
    return [b.key for b in app.button if b.key]


# ---------------------------------------------------------------------- learn


def test_without_a_player_one_is_offered_the_training_with_defaults_that_work(server: Standin) -> None:
    app = opened("learn")
    assert "No player has been trained yet" in shown(app)
    assert "the next token" in shown(app)
    server.trainings = [a_training("queued")]
    app.button(key="order-start").click().run()
    recipe = {"algorithm": "ppo", "opponent": "self", "games": 600_000, "seed": 0}
    assert server.posts("/v1/jobs") == [{"kind": "tictactoe", "recipe": recipe}]


def test_who_may_not_train_is_told_who_may(server: Standin) -> None:
    server.refuse["POST /v1/jobs"] = problem(403, "forbidden", "Only whoever runs this Trimtab may do this.")
    app = opened("learn")
    app.button(key="order-start").click().run()
    assert "Only whoever runs this Trimtab may do this." in shown(app)


def test_without_the_extra_the_page_says_what_to_install(server: Standin) -> None:
    server.trainings = [a_training("done", POINT, PROVED)]
    said = "The classroom needs an extra that is not installed. Run: pip install 'trimtab[align]'"
    server.refuse["POST /v1/learn/think"] = problem(503, "missing_extra", said)
    app = opened("learn", learn_thinking=True)
    assert "The classroom is not installed" in shown(app)
    assert [code.value for code in app.code] == ["pip install 'trimtab[align]'"]


def test_a_move_is_answered_shown_and_taken_back(server: Standin) -> None:
    server.trainings = [a_training("done", POINT, PROVED)]
    app = opened("learn")
    assert "nobody can beat it" in shown(app)
    click(app, "cell-4-free")
    assert server.posts("/v1/learn/play") == [{"checkpoint": "job_1/000010", "board": "....X...."}]
    assert {"cell-4-stone-x", "cell-0-stone-o"} <= set(keys(app))
    app.toggle(key="learn-thinking").set_value(True).run()
    assert "It took position 1" in shown(app)
    assert "cell-8-free-h1" in keys(app)
    click(app, "learn-undo")
    assert not {"cell-4-stone-x", "cell-0-stone-o"} & set(keys(app))
    assert len(server.posts("/v1/learn/play")) == 1


def test_whoever_plays_o_is_second(server: Standin) -> None:
    server.trainings = [a_training("done", POINT, PROVED)]
    app = opened("learn", learn_side="O")
    assert server.posts("/v1/learn/play")[0]["board"] == "........."
    assert "cell-0-stone-x" in keys(app)


def test_a_move_that_is_refused_can_be_taken_back(server: Standin) -> None:
    server.trainings = [a_training("done", POINT)]
    app = opened("learn")
    server.refuse["POST /v1/learn/play"] = problem(503, "model_file", "The checkpoint is damaged.")
    click(app, "cell-4-free")
    assert "The checkpoint is damaged." in shown(app)
    click(app, "learn-undo")
    assert "Your move" in shown(app)


def test_a_game_is_watched_in_the_words_of_both_worlds(server: Standin) -> None:
    server.trainings = [a_training("done", POINT, PROVED)]
    app = opened("learn", learn_view="watch")
    assert "position 1" in shown(app)
    click(app, "next-step")
    assert "none: the environment answers with position 2" in shown(app)
    click(app, "next-step")
    click(app, "next-step")
    assert "It won: the reward is +1." in shown(app)
    click(app, "learn-again")
    assert [body["seed"] for body in server.posts("/v1/learn/rollout")] == [0, 1]


def test_a_training_in_the_making_is_followed_and_can_be_paused(server: Standin) -> None:
    server.trainings = [a_training("running")]
    stale = {**POINT, "stage": "point", "games": 99_999}
    server.progress = [{"stage": "begin"}, stale, {"stage": "begin"}, {**POINT, "stage": "point"}]
    app = opened("learn")
    assert "20,480" in shown(app)
    assert "99,999" not in shown(app), "of an attempt that was cut off"
    click(app, "learn-pause")
    assert ("POST", "/v1/jobs/job_1/pause", b"") in server.asked


# ---------------------------------------------------------------------- models


BASE = a_version("base_1", "smol", kind="base", verdict="", method="", serving=True)
SERVING = {"version_id": "base_1", "previous_id": None, "canary_id": None, "canary_share": 0.0, "changed_at": 0}


def with_versions(server: Standin, *versions: dict[str, Any], **serving: Any) -> None:
    server.versions = [BASE, *versions]
    server.serving = SERVING | serving


def test_a_hosted_model_has_no_versions_and_that_is_said(server: Standin) -> None:
    assert "served elsewhere" in shown(opened("models"))


def test_the_installed_model_alone_explains_how_a_version_comes_to_be(server: Standin) -> None:
    with_versions(server)
    assert "How a version comes to be" in shown(opened("models"))


def test_a_fault_stands_above_everything(server: Standin) -> None:
    with_versions(server)
    server.fault = f"Version ver_9 cannot answer. {EVIL}"
    app = opened("models")
    assert "Version ver_9 cannot answer." in shown(app)
    assert "<img" not in shown(app)


def test_what_a_version_says_is_text(server: Standin) -> None:
    checks = [{"name": EVIL, "passed": False, "found": EVIL, "wanted": EVIL, "needed": False}]
    evidence = {"verdict": "hold", "verdict_reason": EVIL, "checks": checks,
                "samples": [{"prompt": EVIL, "before": EVIL, "after": EVIL}]}  # fmt: skip
    version = a_version("ver_1", EVIL, evidence=evidence, metrics={EVIL: EVIL}, base=EVIL, verdict_reason=EVIL)
    with_versions(server, version)
    for part in ("evidence", "samples", "lineage", "card", "feedback"):
        assert "<img" not in shown(opened("models", models_part=part)), part


def test_promoting_asks_first(server: Standin) -> None:
    with_versions(server, a_version("ver_1", "salty"))
    app = opened("models")
    click(app, "promote")
    assert server.posts("/v1/versions/ver_1/promote") == []
    click(app, "promote-yes")
    assert server.posts("/v1/versions/ver_1/promote") == [{"reason": "", "anyway": False}]
    assert "salty answers from the next question on." in shown(app)


def test_against_the_gate_it_takes_a_tick_and_a_reason(server: Standin) -> None:
    with_versions(server, a_version("ver_1", "wordy", status="held", verdict="hold", verdict_reason="too long"))
    app = opened("models")
    click(app, "promote")
    click(app, "promote-yes")
    app.checkbox(key="promote-anyway").set_value(True).run()
    click(app, "promote-yes")
    assert server.posts("/v1/versions/ver_1/promote") == []
    app.text_input(key="promote-reason").set_value("we want it long").run()
    click(app, "promote-yes")
    assert server.posts("/v1/versions/ver_1/promote") == [{"reason": "we want it long", "anyway": True}]


@pytest.mark.parametrize(("button", "path"), [("promote", "ver_1/promote"), ("roll-back", "rollback")])
def test_who_may_not_change_it_is_told_why(server: Standin, button: str, path: str) -> None:
    with_versions(server, a_version("ver_1", "salty"), previous_id="ver_1")
    server.refuse[f"POST /v1/versions/{path}"] = problem(403, "forbidden", "Only whoever runs this may do this.")
    app = opened("models")
    click(app, button)
    click(app, f"{button}-yes")
    assert "Only whoever runs this may do this." in shown(app)
    assert "It changes what everybody gets." in shown(app)


def test_a_trial_is_begun_shown_and_ended(server: Standin) -> None:
    with_versions(server, a_version("ver_1", "salty"))
    app = opened("models")
    click(app, "canary")
    click(app, "canary-yes")
    with_versions(server, a_version("ver_1", "salty"), canary_id="ver_1", canary_share=0.1)
    app.run()
    assert "10% of the conversations" in shown(app)
    click(app, "end-canary")
    assert [body["version"] for body in server.posts("/v1/versions/canary")] == ["ver_1", None]


def test_my_thumb_is_shown_with_what_it_changed(server: Standin) -> None:
    said = {"id": "fb_1", "message_id": "m", "kind": "thumb", "label": "helpful", "value": 0, "text": "", "reason": "",
            "question": "What is tea?", "completion": "No idea.", "updated_at": 0}  # fmt: skip
    samples = [{"prompt": "What is tea?", "before": "No idea.", "after": "A drink."}]
    version = a_version("ver_1", "salty", parent_id="base_1", evidence={"verdict": "promote", "samples": samples})
    with_versions(server, version)
    server.shaped = {"feedback": [said, {**said, "id": "fb_2", "question": "What is milk?"}], "rows": 5}
    app = opened("models", models_part="feedback")
    assert "2 of your judgements shaped this version, and 3 of others" in shown(app)
    assert "A drink." in shown(app)
    assert "again-0" not in keys(app)
    click(app, "again-1")
    assert server.posts("/v1/versions/compare") == [{"prompt": "What is milk?", "versions": ["base_1", "ver_1"]}]
    assert "ver_1 says so." in shown(app)


def test_what_the_version_says_now_stands_beside_and_what_was_deleted_is_offered_to_be_left_out(
    server: Standin,
) -> None:
    said = {"id": "fb_1", "message_id": "m", "kind": "thumb", "label": "helpful", "value": 0, "text": "", "reason": "",
            "question": "What is tea?", "completion": "No idea.", "updated_at": 0, "shaped": False,
            "after": "It is a drink."}  # fmt: skip
    with_versions(server, a_version("ver_1", "salty", parent_id="base_1", rows=3, rows_deleted=3, fell="20% of 30 up"))
    server.shaped = {"feedback": [said], "rows": 3}
    app = opened("models", models_part="feedback")
    assert "0 of your judgements shaped this version, and 3 of others or withdrawn" in shown(app)
    assert "It is a drink." in shown(app)
    assert "3 of the judgements this version learnt from were deleted since." in shown(app)
    click(app, "retrain-ver_1")
    assert len(server.posts("/v1/versions/ver_1/retrain")) == 1
    assert "A training by the recipe of salty is ordered." in shown(app)
    assert "rolled back by itself" in shown(app)


def test_an_answer_names_the_version_that_gave_it(server: Standin) -> None:
    with_versions(server, a_version("ver_1", "salty"))
    lineage = {"model": "smol", "version": "ver_1"}
    server.add_thread("thr_1", "Tea", question("msg_q", "Tea?"), an_answer("msg_a", "A drink.", lineage=lineage))
    app = AppTest.from_file(str(MAIN), default_timeout=20)
    app.query_params["thread"] = "thr_1"
    app.run()
    assert "How this was answered · salty" in shown(app)
    for _ in range(3):
        app.run()
    assert sum(path == "/v1/versions" for _, path, _ in server.asked) == 1, "names are asked for once"
