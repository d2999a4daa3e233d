"""The Label page, run by Streamlit's own test driver against a stand-in server."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from ui.driven import EVIL, MAIN, click, shown
from ui.standin import Standin, an_answer, question


def item(name: str, *texts: str) -> dict[str, Any]:
    answers = [{"id": f"msg_{name}_{number}", "text": text} for number, text in enumerate(texts)]
    return {"id": name, "conversation": [{"role": "user", "text": f"What is {name}?"}], "answers": answers}


def label_page(view: str = "rate") -> AppTest:
    """The page itself: the driver can only switch to pages that are files."""

    def script() -> None:
        from trimtab_ui import label_page, look

        look.set_up()
        label_page.page()

    app = AppTest.from_function(script, default_timeout=20)
    app.session_state["label-view"] = view
    app.run()
    assert not app.exception, app.exception
    return app


def test_an_answer_is_rated_and_the_next_one_comes(server: Standin) -> None:
    server.items["label"] = [item("tea", "A drink."), item("coffee", "Beans.")]
    app = label_page()
    assert "What is tea?" in shown(app)
    server.items["label"].pop(0)
    click(app, "label-yes")
    assert server.posts("/v1/feedback") == [
        {"kind": "thumb", "message_id": "msg_tea_0", "value": 1, "label": "helpful", "consent": True}
    ]
    assert "What is coffee?" in shown(app)
    assert "What is tea?" not in shown(app)


def test_a_no_may_carry_a_reason_and_another_label(server: Standin) -> None:
    server.items["label"] = [item("tea", "A drink.")]
    app = label_page()
    app.session_state["label-name"] = "harmless"
    app.run()
    app.session_state["label-reason-rate-harmless-tea"] = "Wrong source"
    app.run()
    app.toggle(key="label-consent").set_value(False).run()
    click(app, "label-no")
    assert server.posts("/v1/feedback") == [
        {"kind": "thumb", "message_id": "msg_tea_0", "value": 0, "label": "harmless", "reason": "Wrong source",
         "consent": False}
    ]  # fmt: skip


def test_two_answers_stay_on_their_sides_until_one_is_chosen(server: Standin) -> None:
    server.items["compare"] = [item("tea", "Left one.", "Right one.")]
    app = label_page("compare")
    for _ in range(3):
        app.run()
    assert sum(path == "/v1/labelling/next" for _, path, _ in server.asked) == 1
    click(app, "label-b")
    assert server.posts("/v1/feedback") == [
        {"kind": "preference", "chosen_id": "msg_tea_1", "rejected_id": "msg_tea_0", "consent": True}
    ]


def test_skip_asks_something_else_and_undo_takes_the_last_word_back(server: Standin) -> None:
    server.items["label"] = [item("tea", "A drink."), item("coffee", "Beans.")]
    app = label_page()
    assert app.button(key="label-undo").disabled
    click(app, "label-skip")
    assert "What is coffee?" in shown(app)
    server.items["label"].pop()
    click(app, "label-no")
    assert "Nothing is left to ask" in shown(app)
    click(app, "label-undo")
    assert ("DELETE", "/v1/feedback/fb_1", b"") in server.asked
    assert "What is coffee?" in shown(app)


def test_progress_and_agreement_are_shown(server: Standin) -> None:
    server.items["label"] = [item("tea", "A drink.")]
    server.agreement = {"helpful": {"name": "kappa", "coefficient": 0.4, "percent": 0.7, "items": 50, "raters": 2}}
    app = label_page()
    assert "Cohen&#x27;s kappa 0.40, 70% the same, over 50" in shown(app)


def test_what_becomes_of_feedback_is_shown_and_can_be_changed(server: Standin) -> None:
    row = {"id": "fbk_1", "kind": "label", "label": "helpful", "value": 0, "question": EVIL, "completion": EVIL,
           "rejected": "", "by": "ann", "at": 0, "reason": "Wrong source", "blame": "retrieval", "blame_reason": "x",
           "consent": True, "tainted": False, "trains": False, "rule": "blame: retrieval", "why": "the person said so",
           "decision": None}  # fmt: skip
    good = {**row, "id": "fbk_2", "blame": "model", "trains": True, "rule": "", "why": "", "value": 1}
    server.outcomes = [row, good]
    app = label_page("given")
    assert "1 of 2 would train" in shown(app)
    assert "put down to the documents" in shown(app)
    assert "outcomes-more" not in [button.key for button in app.button]
    assert "left out: blame: retrieval" in shown(app)
    assert "<img" not in shown(app)
    click(app, "let-0")
    click(app, "leave-1")
    click(app, "refuse-1")
    sent = [(method, path, body) for method, path, body in server.asked if method == "PATCH" or "decision" in path]
    assert sent == [
        ("POST", "/v1/feedback/fbk_1/decision", {"decision": "include"}),
        ("POST", "/v1/feedback/fbk_2/decision", {"decision": "exclude"}),
        ("PATCH", "/v1/feedback/fbk_2", {"consent": False}),
    ]


def test_what_was_said_long_ago_is_counted_and_a_click_away(server: Standin) -> None:
    row = {"kind": "label", "label": "helpful", "value": 1, "completion": "A", "rejected": "", "by": "ann", "at": 0,
           "reason": "", "blame": "model", "blame_reason": "", "consent": True, "tainted": False, "trains": True,
           "rule": "", "why": "", "decision": None}  # fmt: skip
    server.outcomes = [{**row, "id": f"fbk_{n}", "question": f"Question {n}?"} for n in range(60)]
    app = label_page("given")
    assert "60 of 60 would train" in shown(app)
    assert "Question 59?" not in shown(app)
    click(app, "outcomes-more")
    assert "Question 59?" in shown(app)


def test_a_thumb_down_is_asked_again_with_the_right_text_and_everything_said_can_be_deleted(server: Standin) -> None:
    row = {"id": "fbk_1", "kind": "label", "label": "helpful", "value": 0, "question": "Q", "completion": "A",
           "rejected": "", "by": "ann", "at": 0, "reason": "", "blame": "model", "blame_reason": "1 of 3 kept to it",
           "consent": True, "tainted": True, "replayable": True, "trains": True, "rule": "", "why": "",
           "decision": None}  # fmt: skip
    server.outcomes = [row]
    app = label_page("given")
    assert "1 of 3 kept to it" in shown(app)
    app.text_area(key="replay-text-0").set_value("The warranty is seven years.")
    app.button(key="replay-yes-0").click().run()
    assert server.posts("/v1/feedback/fbk_1/replay") == [{"context": "The warranty is seven years."}]
    assert "It was the documents: 3 of 3 answers kept to it." in shown(app)
    assert app.button(key="forget-yes").disabled
    app.checkbox(key="forget-sure").check().run()
    click(app, "forget-yes")
    assert [path for method, path, _ in server.asked if method == "DELETE"] == ["/v1/feedback/of/local"]
    assert "2 judgements and 0 datasets are deleted." in shown(app)
    click(app, "retrain-ver_1")
    assert len(server.posts("/v1/versions/ver_1/retrain")) == 1


def chat_with(server: Standin, **down: object) -> AppTest:
    given = {"id": "fb_1", "kind": "thumb", "value": 0, "reason": "", **down}
    server.add_thread("thr_1", "Tea", question("msg_q", "Tea?"), an_answer("msg_a", "No.", feedback=[given]))
    app = AppTest.from_file(str(MAIN), default_timeout=20)
    app.query_params["thread"] = "thr_1"
    app.run()
    assert not app.exception, app.exception
    return app


def test_a_thumb_down_in_the_chat_offers_reasons(server: Standin) -> None:
    app = chat_with(server)
    (offered,) = [group for group in app.get("button_group") if "why-msg_a-choice" in group.proto.id]
    assert [option.content for option in offered.proto.options] == ["Wrong source", "Too long"]


@pytest.mark.parametrize(("reason", "trains"), [("Wrong source: page 3", False), ("Too long", True), ("Meh", True)])
def test_the_chat_says_when_a_thumb_down_does_not_train(server: Standin, reason: str, trains: bool) -> None:
    app = chat_with(server, reason=reason)
    assert f"Your reason: {reason}" in shown(app)
    assert ("does not train the model" in shown(app)) != trains
