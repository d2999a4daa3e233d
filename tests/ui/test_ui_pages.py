"""The pages as a person meets them, run by Streamlit's own test driver against a stand-in server."""

from __future__ import annotations

import time

import httpx
from streamlit.testing.v1 import AppTest

from ui.driven import MAIN, shown
from ui.standin import Standin, an_answer, question


def opened(thread: str = "", page: str = "") -> AppTest:
    app = AppTest.from_file(str(MAIN), default_timeout=20)
    if thread:
        app.query_params["thread"] = thread
    app.run()
    if page:
        app.switch_page(page).run()
    assert not app.exception, app.exception
    return app


def test_the_first_page_offers_questions_that_can_be_answered(server: Standin) -> None:
    app = opened()
    assert "What would you like to know?" in shown(app)
    app.button(key="example-0").click().run()
    assert server.posts("/v1/threads/thr_new/turns") == [{"text": "What is 15% of 80?", "documents": "auto"}]
    assert app.query_params["thread"] in ("thr_new", ["thr_new"])


def test_chats_of_long_ago_are_a_click_away(server: Standin) -> None:
    for n in range(90):
        server.add_thread(f"thr_{n}", f"Chat {n}")

    def chats(app: AppTest) -> int:
        return sum(str(button.key).startswith("thread-") for button in app.sidebar.button)

    app = opened()
    assert chats(app) == 40
    app.button(key="older-chats").click().run()
    assert chats(app) == 80
    app.button(key="older-chats").click().run()
    assert chats(app) == 90
    assert "older-chats" not in [button.key for button in app.button]


def test_a_long_chat_begins_with_its_latest_messages_and_earlier_ones_are_a_click_away(server: Standin) -> None:
    said = [(question(f"q{n}", f"Question {n}?"), an_answer(f"a{n}", f"Answer {n}.")) for n in range(40)]
    server.add_thread("thr_1", "Long", *(message for pair in said for message in pair))

    def numbers(app: AppTest) -> list[int]:
        return [n for n in range(40) if f"Question {n}?" in shown(app)]

    app = opened("thr_1")
    assert numbers(app) == list(range(25, 40))
    app.button(key="earlier-thr_1").click().run()
    assert numbers(app) == list(range(10, 40))
    app.button(key="earlier-thr_1").click().run()
    assert numbers(app) == list(range(40))
    assert "earlier-thr_1" not in [button.key for button in app.button]


def test_a_question_is_posted_once_however_often_the_page_runs(server: Standin) -> None:
    app = opened()
    app.chat_input(key="ask").set_value("When is high water?").run()
    for _ in range(3):
        app.run()
    assert len(server.posts("/v1/threads/thr_new/turns")) == 1


def test_the_best_of_four_is_asked_for_where_a_reward_model_can_tell(server: Standin) -> None:
    assert not opened().selectbox, "nothing could tell which is best"
    server.best_of = {"default": 2, "available": True, "why": "reward model of kinder"}
    app = opened()
    assert app.selectbox(key="best-of").value == 2
    app.selectbox(key="best-of").select(4).run()
    sampled = {"type": "answers.sampled", "n": 4}
    compared = {
        "type": "answers.compared",
        "scores": [0.1, -1.0, 1.25, 0.0],
        "chosen": 2,
        "by": "kinder",
        "trouble": "",
    }
    server.events = [[sampled], []]
    app.chat_input(key="ask").set_value("When is high water?").run()
    (asked,) = server.posts("/v1/threads/thr_new/turns")
    assert asked["best_of"] == 4
    assert "Writing 4 answers; the best is shown" in shown(app)
    server.events = [[compared, {"type": "turn.finished", "status": "done", "text": "At six."}]]
    app.run()
    app.run()
    assert "best of 4" in app.expander[-1].label
    app.session_state["how-msg_a"] = True
    app.run()
    assert "kinder" in shown(app)
    assert "+1.25" in shown(app)


def test_a_question_the_server_never_confirmed_is_sent_again_with_the_same_key(server: Standin) -> None:
    server.add_thread("thr_1", "Tides")
    server.refuse["POST /v1/threads/thr_1/turns"] = httpx.ReadTimeout("slow")
    app = opened("thr_1")
    app.chat_input(key="ask").set_value("When is high water?").run()
    assert "Not sent yet" in shown(app)
    app.button(key="send-again").click().run()
    assert len(server.posts("/v1/threads/thr_1/turns")) == 2
    assert len(set(server.keys)) == 1
    assert "Not sent yet" not in shown(app)


def test_an_answer_in_the_making_is_followed_by_whoever_opens_the_page(server: Standin) -> None:
    server.add_thread("thr_1", "Tides", question("msg_q", "When?"))
    server.active["thr_1"] = "trn_1"
    server.events = [[{"type": "text.delta", "text": "High water is"}], []]
    app = opened("thr_1")
    assert "High water is" in shown(app)
    assert app.chat_input(key="ask").disabled
    server.events = [[{"type": "turn.finished", "status": "done", "text": "High water is at 6."}]]
    app.run()
    assert "High water is at 6." in shown(app)
    assert not app.chat_input(key="ask").disabled
    assert not [b for b in app.button if b.key == "stop"]


def test_stop_reaches_the_server(server: Standin) -> None:
    server.add_thread("thr_1", "Tides", question("msg_q", "When?"))
    server.active["thr_1"] = "trn_1"
    app = opened("thr_1")
    app.button(key="stop").click().run()
    assert ("POST", "/v1/turns/trn_1/cancel", b"") in server.asked


def waiting(server: Standin, effect: str = "irreversible") -> AppTest:
    arguments = {"to": "ann@example.org", "text": "hello"}
    call = {"call_id": "c1", "tool": "mail.send", "connector": "mail", "arguments": arguments, "effect": effect}
    server.add_thread("thr_1", "Mail", question("msg_q", "Write to Ann"))
    server.active["thr_1"] = "trn_1"
    expires = time.time() + 600
    needed = {"type": "approval.needed", "approval_id": "apr_1", "reason": "It sends", "expires_at": expires, **call}
    server.events = [[{"type": "tool.requested", **call}, needed]]
    server.approvals = [{**needed, "id": "apr_1", "turn_id": "trn_1", "thread_id": "thr_1", "digest": "d1"}]
    return opened("thr_1")


def test_what_has_an_effect_waits_for_a_yes_bound_to_what_was_shown(server: Standin) -> None:
    app = waiting(server)
    assert "May I do this?" in shown(app)
    assert "cannot be undone" in shown(app)
    app.button(key="yes-apr_1").click().run()
    assert server.posts("/v1/approvals/apr_1") == [{"decision": "approve", "digest": "d1"}]


def test_arguments_can_be_edited_before_saying_yes(server: Standin) -> None:
    app = waiting(server)
    app.text_input(key="argument-apr_1-text").set_value("hello Ann")
    app.button(key="yes-apr_1").click().run()
    edited = {"to": "ann@example.org", "text": "hello Ann"}
    assert server.posts("/v1/approvals/apr_1") == [{"decision": "approve", "digest": "d1", "arguments": edited}]


def test_a_yes_is_remembered_for_calls_like_it_when_one_says_so(server: Standin) -> None:
    app = waiting(server, "write")
    app.checkbox(key="remember-apr_1").check()
    app.multiselect(key="remember-free-apr_1").set_value(["text"])
    app.button(key="yes-apr_1").click().run()
    said = {"decision": "approve", "digest": "d1", "remember": {"free": ["text"]}}
    assert server.posts("/v1/approvals/apr_1") == [said]


def test_what_cannot_be_undone_is_remembered_for_exactly_this_call_only(server: Standin) -> None:
    app = waiting(server)
    assert not app.multiselect
    app.checkbox(key="remember-apr_1").check()
    app.button(key="yes-apr_1").click().run()
    assert server.posts("/v1/approvals/apr_1") == [{"decision": "approve", "digest": "d1", "remember": {"free": []}}]


def test_no_means_no(server: Standin) -> None:
    app = waiting(server)
    app.button(key="no-apr_1").click().run()
    assert server.posts("/v1/approvals/apr_1") == [{"decision": "reject", "digest": "d1"}]


def test_a_finished_answer_shows_its_tools_doubts_and_end(server: Standin) -> None:
    steps = [
        {
            "type": "tool.requested",
            "call_id": "c",
            "tool": "web.page",
            "connector": "web",
            "arguments": {},
            "effect": "read",
        },
        {"type": "tool.finished", "call_id": "c", "tool": "web.page", "status": "ok", "text": "x", "untrusted": True},
        {"type": "text.replaced", "text": "…", "reason": "the draft said 42"},
        {"type": "turn.failed", "status": "failed", "message": "The engine died. Ask again."},
    ]
    made = an_answer("msg_a", "Half an answer", status="failed", steps=steps, unsupported=["Paris"])
    server.add_thread("thr_1", "T", question("msg_q", "?"), made)
    text = shown(opened("thr_1"))
    for part in (
        "outside content",
        "the draft said 42",
        "Paris",
        "The engine died. Ask again.",
        "Half an answer",
        "Try again",
    ):
        assert part in text


def test_a_source_opens_to_the_marked_sentence_in_its_surroundings(server: Standin) -> None:
    server.document = "Before. The office opens at 7:30. After."
    cite = {"number": 1, "title": "notes.md", "document_id": "doc_1", "span": {"start": 8, "end": 33}, "quote": "…"}
    server.add_thread("thr_1", "T", question("msg_q", "?"), an_answer("msg_a", "At 7:30. [1]", citations=[cite]))
    app = opened("thr_1")
    assert not [path for _, path, _ in server.asked if path.startswith("/v1/documents/")], "read before it was opened"
    app.session_state["sources-msg_a"] = True
    app.run()
    assert "Before. <mark>The office opens at 7:30.</mark> After." in shown(app)


def test_a_thumb_goes_to_the_server_at_once(server: Standin) -> None:
    server.add_thread("thr_1", "T", question("msg_q", "?"), an_answer("msg_a", "Yes."))
    app = opened("thr_1")
    app.feedback(key="thumb-msg_a").set_value(0).run()
    assert server.posts("/v1/feedback") == [{"kind": "thumb", "message_id": "msg_a", "value": 0}]


def test_a_chat_that_was_deleted_elsewhere_is_explained(server: Standin) -> None:
    app = opened("thr_gone")
    assert "does not exist any more" in shown(app)
    assert "What would you like to know?" in shown(app)


def test_without_a_server_the_page_says_how_to_start_it(server: Standin) -> None:
    server.refuse["GET /v1/threads"] = httpx.ConnectError("refused")
    app = opened()
    assert "The server is not running" in shown(app)
    assert app.code[0].value == "trimtab up"
    app.button(key="try-again").click().run()
    assert "What would you like to know?" in shown(app)


def test_two_tabs_share_nothing_a_person_wrote(server: Standin) -> None:
    server.refuse["POST /v1/threads"] = httpx.ReadTimeout("slow")
    one = opened()
    one.chat_input(key="ask").set_value("my secret question").run()
    assert "my secret question" in shown(one)
    assert "my secret question" not in shown(opened())


def test_the_other_pages_draw_what_the_server_has(server: Standin) -> None:
    server.documents = [
        {"id": "doc_1", "name": "![a](http://evil.example)", "status": "ready", "size": 2048, "chunks": 3}
    ]
    app = AppTest.from_string("from trimtab_ui import knowledge\nknowledge.page()", default_timeout=20).run()
    assert not app.exception
    assert "![a](http://evil.example)" in shown(app)
    assert "2.0 KB" in shown(app)
    app = AppTest.from_string("from trimtab_ui import settings_page\nsettings_page.page()", default_timeout=20).run()
    assert not app.exception
    assert "0.1.0" in shown(app)
