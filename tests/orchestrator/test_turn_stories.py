"""A person asks, the model calls tools or answers, and everything that happened is in the log."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from sqlalchemy import Connection

from scripted_app import Desk, app_with, asked, follow, kinds, new_thread, only, post
from trimtab.app import Ask
from trimtab.connect import Effect
from trimtab.domain import events as ev
from trimtab.domain.errors import Conflict, EngineDied, InvalidInput, NotFound, TooLarge, Unavailable
from trimtab.domain.model import Profile
from trimtab.llm.scripted import Say, call
from trimtab.store import people, threads, turns


async def test_a_question_is_answered_and_stored(tmp_path: Path) -> None:
    async with app_with(["Forty-two."], tmp_path) as app:
        thread = await new_thread(app)
        events = await asked(app, "What is six times seven?", thread=thread)
        line = await app.database.read(threads.path, app.owner, thread)
    assert kinds(events)[0] == "turn.started"
    assert kinds(events)[-1] == "turn.finished"
    assert "".join(e["text"] for e in events if e["type"] == "text.delta") == "Forty-two."
    assert [(m["role"], m["text"], m["status"]) for m in line] == [
        ("user", "What is six times seven?", "done"),
        ("assistant", "Forty-two.", "done"),
    ]
    assert line[1]["lineage"]["model"] == "given model"
    assert line[1]["lineage"]["prompt_version"]
    assert line[1]["usage"]["completion_tokens"] > 0
    assert line[1]["timing"]["total"] > 0


async def test_the_python_door_yields_the_same_events_as_the_log(tmp_path: Path) -> None:
    async with app_with([call("calculator_calculate", expression="2+2"), "It is 4."], tmp_path) as app:
        thread = await new_thread(app)
        seen = [event async for event in app.ask("2+2?", thread=thread)]
        turn = (await app.database.read(threads.path, app.owner, thread))[-1]["turn_id"]
        logged = [ev.from_wire(wire) for _, wire in await app.database.read(turns.log, turn)]
    assert seen == logged
    assert isinstance(seen[-1], ev.TurnFinished)
    assert seen[-1].text == "It is 4."


async def test_a_new_chat_is_named_after_its_first_question(tmp_path: Path) -> None:
    async with app_with(["Yes.", "No."], tmp_path) as app:
        thread = await new_thread(app)
        await asked(app, "Is the sea salty?", thread=thread)
        await asked(app, "And the lake?", thread=thread)
        assert (await app.database.read(threads.get, app.owner, thread))["title"] == "Is the sea salty?"


async def test_a_tool_is_called_and_its_result_is_shown_to_the_model(tmp_path: Path) -> None:
    desk = Desk()
    async with app_with([call("desk_look", drawer=3), "There are 30 pencils."], tmp_path, desk=desk) as app:
        events = await asked(app, "How many pencils are in drawer 3?")
        shown = app.model.asked[1].messages  # type: ignore[attr-defined]
    assert desk.ran == ["look 3"]
    assert only(events, "tool.requested")["arguments"] == {"drawer": 3}
    result = only(events, "tool.finished")
    assert result["status"] == "ok"
    assert result["text"] == "Drawer 3 holds 30 pencils."
    assert "30 pencils" in shown[-1].text
    assert shown[-1].type == "tool"
    assert shown[-2].tool_calls[0]["name"] == "desk_look"
    assert events[-1]["lineage"]["connectors"] == {"desk": "1.2.0"}
    considered = only(events, "tools.considered")
    assert considered["chosen"] == ["desk_look"]
    assert {o["name"] for o in considered["offered"]} == {"desk_look", "desk_drop", "desk_stamp"}


async def test_wrong_arguments_are_never_run_and_may_be_mended_once(tmp_path: Path) -> None:
    desk = Desk()
    steps = [call("desk_look", drawer=77), call("desk_look", drawer=7), "Seventy pencils."]
    async with app_with(steps, tmp_path, desk=desk) as app:
        events = await asked(app, "What is in drawer 7?")
    assert desk.ran == ["look 7"]
    assert [e["status"] for e in events if e["type"] == "tool.finished"] == ["invalid", "ok"]


async def test_a_model_that_calls_wrongly_twice_is_offered_no_tools_any_more(tmp_path: Path) -> None:
    desk = Desk()
    steps = [call("desk_look"), call("desk_look", drawer="all"), "I could not look."]
    async with app_with(steps, tmp_path, desk=desk) as app:
        events = await asked(app, "What is in the drawers?")
        offered = [bool(request.tools) for request in app.model.asked]  # type: ignore[attr-defined]
    assert desk.ran == []
    assert offered == [True, True, False]
    assert events[-1]["text"] == "I could not look."


async def test_a_tool_that_does_not_exist_is_reported_to_the_model(tmp_path: Path) -> None:
    desk = Desk()
    async with app_with([call("desk_burn", what="all"), "I cannot do that."], tmp_path, desk=desk) as app:
        events = await asked(app, "Burn the desk")
    result = only(events, "tool.finished")
    assert result["status"] == "invalid"
    assert "no tool named 'desk_burn'" in result["text"]
    assert "desk_look" in result["text"]
    assert events[-1]["status"] == "done"


async def test_a_failing_tool_is_told_to_the_model_and_the_turn_goes_on(tmp_path: Path) -> None:
    desk = Desk()
    async with app_with([call("desk_drop", what="vase"), "Sorry, it broke."], tmp_path, desk=desk) as app:
        events = await asked(app, "Drop the vase")
        told = app.model.asked[1].messages[-1]  # type: ignore[attr-defined]
    assert only(events, "tool.finished")["status"] == "error"
    assert "The vase broke." in told.text
    assert told.status == "error"
    assert events[-1]["text"] == "Sorry, it broke."


async def test_read_only_calls_of_one_step_run_side_by_side(tmp_path: Path) -> None:
    desk = Desk()
    together = call("desk_look", "a", drawer=1)
    together.tool_calls += [c for n in (2, 3) for c in call("desk_look", f"c{n}", drawer=n).tool_calls]
    async with app_with([together, "10, 20 and 30."], tmp_path, desk=desk) as app:
        events = await asked(app, "Look into drawers 1 to 3")
    assert desk.most_at_once == 3
    assert sorted(desk.ran) == ["look 1", "look 2", "look 3"]
    assert {e["step"] for e in events if e["type"] == "tool.requested"} == {0}


async def test_a_model_that_only_ever_calls_tools_is_stopped_at_the_limit(tmp_path: Path) -> None:
    desk = Desk()
    async with app_with([call("desk_look", drawer=1)], tmp_path, desk=desk, cycle=True, tool_steps=3) as app:
        events = await asked(app, "Look", thread="")
        offered = [bool(request.tools) for request in app.model.asked]  # type: ignore[attr-defined]
    assert len(desk.ran) == 3
    assert offered[:3] == [True] * 3
    assert not any(offered[3:])
    requested = {e["call_id"] for e in events if e["type"] == "tool.requested"}
    assert requested == {e["call_id"] for e in events if e["type"] == "tool.finished"}
    assert events[-1]["type"] == "turn.finished"


async def test_a_result_without_end_is_cut_before_it_reaches_the_model(tmp_path: Path) -> None:
    desk = Desk()

    @desk.connector.tool(effect=Effect.READ)
    async def shout() -> str:
        """Shout for a very long time."""
        return "A" * 1_000_000

    async with app_with([call("desk_shout"), "Loud."], tmp_path, desk=desk) as app:
        events = await asked(app, "Shout")
    assert len(only(events, "tool.finished")["text"]) <= 8_000 + 200


async def test_stop_ends_the_answer_at_once_and_keeps_what_there_was(tmp_path: Path) -> None:
    async with app_with([Say("one two three four five six seven eight nine ten " * 20, delay=0.05)], tmp_path) as app:
        thread = await new_thread(app)
        turn = await post(app, "Count", thread=thread)
        await follow(app, turn, until=("text.delta",))
        began = time.monotonic()
        stopped = await app.cancel(app.owner, turn["id"])
        assert time.monotonic() - began < 5, "it was written to its end, which takes ten seconds"
        answer = (await app.database.read(threads.path, app.owner, thread))[-1]
        again = await app.cancel(app.owner, turn["id"])
        events = await follow(app, turn)
    assert stopped["status"] == again["status"] == answer["status"] == "cancelled"
    assert answer["text"].startswith("one two")
    assert len(answer["text"]) < 900
    assert "".join(e["text"] for e in events if e["type"] == "text.delta") == answer["text"]


async def test_an_engine_that_dies_leaves_a_typed_error_and_the_text_so_far(tmp_path: Path) -> None:
    step = Say("The answer begins", error=EngineDied("The engine stopped. It is being restarted; ask again."))
    async with app_with([step, "Better now."], tmp_path) as app:
        thread = await new_thread(app)
        events = await asked(app, "Hello?", thread=thread)
        answer = (await app.database.read(threads.path, app.owner, thread))[-1]
        after = await asked(app, "Again?", thread=thread)
    assert events[-1]["type"] == "turn.failed"
    assert events[-1]["code"] == "engine_died"
    assert answer["status"] == "failed"
    assert answer["text"] == "The answer begins"
    assert after[-1]["text"] == "Better now."


async def test_a_mistake_in_a_model_is_an_internal_error_without_its_words(tmp_path: Path) -> None:
    async with app_with([ValueError("secret-in-a-traceback")], tmp_path) as app:
        events = await asked(app, "Hello?")
    assert events[-1]["code"] == "internal_error"
    assert "secret" not in events[-1]["message"]


async def test_a_turn_ends_at_its_deadline(tmp_path: Path) -> None:
    async with app_with([Say("never " * 100, delay=0.2)], tmp_path) as app:
        object.__setattr__(app.orchestrator.limits, "deadline", 3.0)  # enough for a first word on a busy machine
        events = await asked(app, "Hello?")
    assert events[-1]["code"] == "deadline_exceeded"
    assert events[-1]["text"].startswith("never")


async def test_closing_while_a_turn_runs_marks_it_as_interrupted(tmp_path: Path) -> None:
    async with app_with([Say("slow " * 400, delay=0.1)], tmp_path) as app:
        thread = await new_thread(app)
        turn = await post(app, "Hello?", thread=thread)
        await follow(app, turn, until=("text.delta",))
        await app.runner.close(grace=0.01)
        answer = (await app.database.read(threads.path, app.owner, thread))[-1]
    assert answer["status"] == "interrupted"
    assert answer["text"].startswith("slow")


async def test_the_same_key_gives_the_same_turn_and_another_body_is_refused(tmp_path: Path) -> None:
    async with app_with(["Once.", "Twice."], tmp_path) as app:
        thread = await new_thread(app)
        first = await post(app, "Hello?", thread=thread, key="k-1")
        again = await post(app, "Hello?", thread=thread, key="k-1")
        await follow(app, first)
        later = await post(app, "Hello?", thread=thread, key="k-1")
        with pytest.raises(Conflict):
            await post(app, "Something else", thread=thread, key="k-1")
        line = await app.database.read(threads.path, app.owner, thread)
        assert len(app.model.asked) == 1  # type: ignore[attr-defined]
    assert first["id"] == again["id"] == later["id"]
    assert len(line) == 2


async def test_a_client_that_hangs_up_while_asking_leaves_no_turn_that_nobody_runs(tmp_path: Path) -> None:
    async with app_with(["Here I am."], tmp_path, cycle=True) as app:
        thread = await new_thread(app)
        for pauses in range(12):
            asking = asyncio.create_task(post(app, "Hello?", thread=thread))
            for _ in range(pauses):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            for _ in range(200):
                if await app.database.read(turns.active_in, thread) is None and not app.runner.running:
                    break
                await asyncio.sleep(0.02)
            else:
                raise AssertionError("the thread is blocked by a turn that nobody runs")


async def test_a_thread_answers_one_question_at_a_time(tmp_path: Path) -> None:
    async with app_with([Say("slow " * 20, delay=0.05), "Next."], tmp_path) as app:
        thread = await new_thread(app)
        first = await post(app, "One?", thread=thread)
        with pytest.raises(Conflict) as refused:
            await post(app, "Two?", thread=thread)
        assert refused.value.detail["turn_id"] == first["id"]
        await follow(app, first)
        assert (await asked(app, "Two?", thread=thread))[-1]["text"] == "Next."


async def test_regenerating_makes_a_sibling_and_keeps_the_first_answer(tmp_path: Path) -> None:
    async with app_with(["First.", "Second."], tmp_path) as app:
        thread = await new_thread(app)
        await asked(app, "Hello?", thread=thread)
        first = (await app.database.read(threads.path, app.owner, thread))[-1]
        await follow(app, await app.regenerate(app.owner, first["id"]))
        line = await app.database.read(threads.path, app.owner, thread)
        back = await app.database.write(threads.choose_head, app.owner, thread, first["id"])
        with pytest.raises(InvalidInput):
            await app.regenerate(app.owner, line[0]["id"])
    assert [m["text"] for m in line] == ["Hello?", "Second."]
    assert line[-1]["siblings"] == [first["id"], line[-1]["id"]]
    assert back["head_id"] == first["id"]


async def test_a_question_may_follow_an_earlier_answer_but_not_a_question(tmp_path: Path) -> None:
    async with app_with(["A.", "B.", "C."], tmp_path) as app:
        thread = await new_thread(app)
        await asked(app, "One?", thread=thread)
        first = await app.database.read(threads.path, app.owner, thread)
        await asked(app, "Two?", thread=thread)
        await asked(app, "Other two?", thread=thread, parent=first[-1]["id"])
        shown = app.model.asked[-1].messages  # type: ignore[attr-defined]
        with pytest.raises(InvalidInput):
            await post(app, "Three?", thread=thread, parent=first[0]["id"])
        with pytest.raises(NotFound):
            await post(app, "Three?", thread=await new_thread(app), parent=first[-1]["id"])
    assert [m.text for m in shown if m.type != "system"] == ["One?", "A.", "Other two?"]


async def test_nobody_sees_or_uses_what_belongs_to_another(tmp_path: Path) -> None:
    async with app_with(["Mine."], tmp_path) as app:
        other = await app.database.write(people.ensure_user, "other")
        thread = await new_thread(app)
        turn = await post(app, "Hello?", thread=thread)
        await follow(app, turn)
        answer = (await app.database.read(threads.path, app.owner, thread))[-1]
        for attempt in (
            app.post(other, thread, "Hello?"),
            app.cancel(other, turn["id"]),
            app.regenerate(other, answer["id"]),
            app.database.read(threads.path, other, thread),
            app.database.write(threads.remove, other, thread),
        ):
            with pytest.raises(NotFound):
                await attempt


async def test_a_long_thread_is_trimmed_in_whole_pairs(tmp_path: Path) -> None:
    profile = Profile(name="short memory", tools="none", grounding="write", context_tokens=1800)
    answers = [f"Answer {n}: " + "word " * 60 for n in range(30)]
    async with app_with(answers, tmp_path, profile=profile) as app:
        thread = await new_thread(app)
        for n in range(30):
            await asked(app, f"Question {n}?", thread=thread)
            shown = [m for m in app.model.asked[n].messages if m.type != "system"]  # type: ignore[attr-defined]
            assert shown[-1].text == f"Question {n}?"
            assert [m.type for m in shown] == ["human", "ai"] * (len(shown) // 2) + ["human"]
            assert [m.text.split()[1].strip(":?") for m in shown] == sorted(
                (m.text.split()[1].strip(":?") for m in shown), key=int
            )
            assert sum(len(m.text) // 3 for m in shown) < profile.context_tokens
        assert 3 <= len(shown) < 59


async def test_text_that_utf8_cannot_hold_is_mended_not_lost(tmp_path: Path) -> None:
    async with app_with([Say("half \ud83d"), Say("ok")], tmp_path) as app:
        thread = await new_thread(app)
        events = await asked(app, "What \udc00 is this?", thread=thread)
        line = await app.database.read(threads.path, app.owner, thread)
    assert events[-1]["type"] == "turn.finished"
    assert line[0]["text"] == "What \ufffd is this?"
    assert line[1]["text"] == "half \ufffd"


async def test_an_empty_or_endless_question_is_refused(tmp_path: Path) -> None:
    async with app_with([], tmp_path) as app:
        with pytest.raises(InvalidInput):
            await post(app, " \n ")
        with pytest.raises(TooLarge):
            await post(app, "x" * (app.settings.max_prompt_chars + 1))


async def test_tools_can_be_left_out_of_a_question(tmp_path: Path) -> None:
    async with app_with(["Plain."], tmp_path, desk=Desk()) as app:
        turn = await app.post(app.owner, await new_thread(app), "Hello?", how=Ask(tools=False))
        await follow(app, turn)
        assert app.model.asked[0].tools == ()  # type: ignore[attr-defined]


async def test_two_watchers_see_the_same_events_in_the_same_order(tmp_path: Path) -> None:
    async with app_with([Say("a b c d e f g h " * 10, delay=0.01)], tmp_path) as app:
        turn = await post(app, "Hello?")
        first, second = await asyncio.gather(follow(app, turn), follow(app, turn))
    assert first == second
    assert first[-1]["type"] == "turn.finished"


async def test_a_question_that_could_not_be_kept_is_refused_and_not_answered(tmp_path: Path) -> None:
    async with app_with([Say("slow " * 50, delay=0.05)], tmp_path) as app:
        thread = await new_thread(app)

        def limit(connection: Connection) -> None:
            used = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count={used}").close()

        await app.database.write(limit)
        with pytest.raises(Unavailable, match="disk is full"):
            await post(app, "x" * 60_000, thread=thread)
        for _ in range(100):
            if not app.runner.running:
                break
            await asyncio.sleep(0.01)
        assert app.runner.running == 0
        assert await app.database.read(threads.path, app.owner, thread) == []


async def test_a_store_that_refuses_in_mid_answer_fails_the_turn_and_keeps_what_there_was(tmp_path: Path) -> None:
    async with app_with([Say("word " * 100, delay=0.01)], tmp_path) as app:
        thread = await new_thread(app)
        turn = await post(app, "Hello?", thread=thread)
        await follow(app, turn, until=("text.delta",))
        # The writer's connection refuses from now on; after the error a new one is opened, which does not.
        await app.database.write(lambda c: c.exec_driver_sql("PRAGMA query_only=ON").close())
        events = await follow(app, turn)
        answer = (await app.database.read(threads.path, app.owner, thread))[-1]
    assert events[-1]["type"] == "turn.failed"
    assert events[-1]["code"] == "unavailable"
    assert answer["status"] == "failed"
    assert answer["text"].startswith("word word")
