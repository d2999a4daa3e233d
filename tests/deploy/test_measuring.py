"""Measuring: resumed when it was stopped, honest about what cannot run, and kept on disk or said not to be."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from measuring_stage import Examined, OnLoopback, Server

from trimtab.deploy.answers import Sizes, collect
from trimtab.deploy.campaign import Done, LeftOut, Orders, Step, run
from trimtab.deploy.interval import wilson
from trimtab.deploy.quality import Position, compare
from trimtab.deploy.results import Results
from trimtab.deploy.speed import Endpoint, measure
from trimtab.deploy.variant import REFERENCE, Candidate, Knobs, candidate, variant
from trimtab.deploy.workload import Request, from_file, replayed, synthetic
from trimtab.domain.errors import EngineError, EngineRefused, InvalidInput, Unavailable

SMALL = (variant("llamacpp/q8_0"), REFERENCE, variant("openvino/int8"))


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


def orders(**changes: object) -> Orders:
    plain = Orders(SMALL, Knobs(slots=2), synthetic(8), "test", users=2, alone=2, each=2, settings=False)
    return replace(plain, **changes)  # type: ignore[arg-type]


def steps(asked: Orders, stage: OnLoopback, results: Results, **more: object) -> list[Step]:
    async def all_of_them() -> list[Step]:
        return [step async for step in run(asked, stage, results, **more)]  # type: ignore[arg-type]

    return asyncio.run(all_of_them())


def test_every_variant_gets_a_row_that_says_how_to_repeat_it(server: Server, tmp_path: Path) -> None:
    rows = [s.row for s in steps(orders(), OnLoopback(server), Results(tmp_path)) if isinstance(s, Done)]
    assert next(row.candidate.variant for row in rows) == REFERENCE
    assert {row.candidate.variant for row in rows} == set(SMALL)
    first = rows[0]
    assert (first.alone.answers, first.together.answers, first.together.users) == (2, 4, 2)
    assert 0 < first.alone.first_p50 <= first.alone.first_p95
    assert first.alone.cached_share == 0.25
    assert first.memory == 2000
    assert first.quality is not None
    assert first.quality.loss.value == pytest.approx(0)
    assert "trimtab measure --again --variant llamacpp/f16" in first.command
    assert Results(tmp_path).all() == {row.key: row for row in rows}


def test_a_killed_measurement_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    results, stage = Results(tmp_path), OnLoopback(server)

    async def until_killed() -> None:
        async for step in run(orders(), stage, results):
            if isinstance(step, Done):
                return

    asyncio.run(until_killed())
    with results.path.open("ab") as file:
        file.write(b'{"key": "half a li')
    asked = len(server.asked)
    done = [s for s in steps(orders(), stage, results) if isinstance(s, Done)]
    assert [s.before for s in done] == [True, False, False]
    assert len(server.asked) == asked * 3  # what was measured was not asked again
    assert len(results.all()) == 3


KILLED = """
import asyncio, sys
from pathlib import Path
from types import SimpleNamespace
sys.path.insert(0, sys.argv[1])
from measuring_stage import OnLoopback
from trimtab.deploy.campaign import Orders, run
from trimtab.deploy.results import Results
from trimtab.deploy.speed import Endpoint
from trimtab.deploy.variant import REFERENCE, Knobs, variant
from trimtab.deploy.workload import synthetic

async def measure():
    server = SimpleNamespace(endpoint=Endpoint(sys.argv[2], "small", "secret"))
    some = (variant("llamacpp/q8_0"), REFERENCE, variant("openvino/int8"))
    orders = Orders(some, Knobs(slots=2), synthetic(8), "test", users=2, alone=2, each=2, settings=False)
    async for step in run(orders, OnLoopback(server), Results(Path(sys.argv[3]))):
        print(type(step).__name__, flush=True)

asyncio.run(measure())
"""


def test_a_process_that_is_killed_while_it_measures_loses_no_row(server: Server, tmp_path: Path) -> None:
    words = [sys.executable, "-c", KILLED, str(Path(__file__).parent), server.endpoint.base_url, str(tmp_path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        while child.stdout.readline().strip() != "Done":
            assert child.poll() is None
        child.kill()
    kept = Results(tmp_path).all()
    assert 1 <= len(kept) <= 3
    done = [s for s in steps(orders(), OnLoopback(server), Results(tmp_path)) if isinstance(s, Done)]
    assert sum(s.before for s in done) == len(kept)
    assert len(Results(tmp_path).all()) == 3


def test_other_questions_or_another_machine_are_measured_anew(server: Server, tmp_path: Path) -> None:
    results, stage = Results(tmp_path), OnLoopback(server)
    steps(orders(), stage, results)
    for other in (orders(machine="another"), orders(workload=synthetic(9)), orders(users=3)):
        assert not any(s.before for s in steps(other, stage, results) if isinstance(s, Done))


def test_when_the_time_is_over_nothing_new_is_begun(server: Server, tmp_path: Path) -> None:
    ticks = iter(range(0, 10_000, 10))
    found = steps(orders(seconds=25.0), OnLoopback(server), Results(tmp_path), clock=lambda: float(next(ticks)))
    assert len([s for s in found if isinstance(s, Done)]) < len(SMALL)
    assert any(isinstance(s, LeftOut) and "run it again to go on" in s.reason for s in found)


def test_a_damaged_variant_is_told_and_the_others_are_measured(server: Server, tmp_path: Path) -> None:
    stage = OnLoopback(server, broken=(SMALL[0],))
    found = steps(orders(), stage, Results(tmp_path))
    assert next(s.reason for s in found if isinstance(s, LeftOut)).startswith("The variant llamacpp/q8_0 is damaged")
    assert len([s for s in found if isinstance(s, Done)]) == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_ends_it_with_what_to_do(server: Server, tmp_path: Path) -> None:
    (tmp_path / "measurements.jsonl").symlink_to("/dev/full")
    with pytest.raises(Unavailable, match="Free some space"):
        steps(orders(), OnLoopback(server), Results(tmp_path))


async def test_what_refuses_says_nothing_or_is_not_there_is_an_error(server: Server) -> None:
    question = [Request((("user", "Hello?"),))]
    server.status = 400
    with pytest.raises(EngineRefused, match="400"):
        await measure(server.endpoint, question, 1)
    server.status, server.pieces = 200, [""]
    with pytest.raises(EngineError, match="without any text"):
        await measure(server.endpoint, question, 1)
    server.close()
    with pytest.raises(EngineError, match="cannot be measured"):
        await measure(server.endpoint, question, 1)


def test_a_worse_prediction_of_the_text_is_a_loss_with_an_interval() -> None:
    good = [Position(n, {n: math.log(0.5), n + 1: math.log(0.5)}) for n in range(64)]
    bad = [Position(n, {n: math.log(0.4 if n % 20 else 0.3), n + 1: math.log(0.6)}) for n in range(64)]
    found = compare(bad, good)
    assert found.perplexity.value > 2.0
    assert found.loss.low <= found.loss.value <= found.loss.high
    assert found.loss.low > 0.2
    assert found.divergence.value > 0
    assert compare(good, good).divergence.value == pytest.approx(0, abs=1e-6)
    with pytest.raises(EngineError, match="different tokens"):
        compare(good[:-1], good)


def test_questions_come_from_a_file_or_from_conversations(tmp_path: Path) -> None:
    file = tmp_path / "asked.jsonl"
    said = {"messages": [{"role": "system", "content": "Be\u2028brief."}, {"role": "user", "content": "Why?"}]}
    line = json.dumps(said | {"max_tokens": 9}, ensure_ascii=False)
    file.write_text(f"How long is the bridge?\n\n{line}\n", "utf-8")
    first, second = from_file(file).requests
    assert first.messages == (("user", "How long is the bridge?"),)
    assert (second.messages[0][0], second.max_tokens) == ("system", 9)
    for wrong in ("", '{"messages": 3}', '{"messages": [{"role": "tool", "content": "x"}]}'):
        file.write_text(wrong, "utf-8")
        with pytest.raises(InvalidInput, match="asked"):
            from_file(file)
    held = replayed([[("user", "a"), ("assistant", "b"), ("user", "c")], []], "last:1")
    assert [r.messages[-1] for r in held.requests] == [("user", "c")]
    with pytest.raises(InvalidInput, match="No conversation"):
        replayed([], "last:3")


async def test_answers_are_asked_in_turns_until_the_time_is_over() -> None:
    sizes, asker = Sizes(preferences=12, tools=8, cited=30, reward=6), Examined()
    whole = await collect(asker, sizes, 60.0, clock=lambda: 0.0)
    assert whole is not None
    assert whole.asked == {"preferences": 12, "tools": 8, "cited": 30}
    assert (whole.tools, whole.reward) == (wilson(4, 8), None)
    assert asker.asked[:4] == [("preferences", 0, 6), ("tools", 0, 6), ("cited", 0, 6), ("reward", 0, 6)]
    ticks = iter(range(100))
    cut = await collect(Examined(), sizes, 3.0, clock=lambda: float(next(ticks)))
    assert cut is not None
    assert cut.asked == {"preferences": 6, "tools": 6}
    assert await collect(Examined(), sizes, 0.0) is None


def test_a_share_of_few_is_unsure_and_stays_a_share() -> None:
    few, many = wilson(3, 3), wilson(300, 300)
    assert (few.value, few.high) == (1.0, pytest.approx(1.0))
    assert few.low < 0.5 < 0.98 < many.low
    assert wilson(0, 10).low == 0.0


def test_other_settings_of_the_best_are_tried_and_have_its_quality(server: Server, tmp_path: Path) -> None:
    stage, results = OnLoopback(server), Results(tmp_path)
    asked = orders(variants=(REFERENCE,), knobs=Knobs(slots=4, threads=2, batch=256), settings=True, users=1)
    done = [s.row for s in steps(asked, stage, results) if isinstance(s, Done)]
    tried = {(row.candidate.knobs.batch, row.candidate.knobs.threads, row.candidate.knobs.slots) for row in done}
    begun = {(one.knobs.batch, one.knobs.threads, one.knobs.slots) for one in stage.started}
    assert begun >= {(256, 2, 4), (512, 2, 4), (128, 2, 4), (256, 1, 4), (256, 2, 2)}
    assert tried <= begun
    assert {row.quality for row in done} == {done[0].quality}


def test_a_setting_that_cannot_win_is_stopped_after_its_first_questions(server: Server, tmp_path: Path) -> None:
    stage, results = OnLoopback(server), Results(tmp_path)
    one = orders(variants=(REFERENCE,), knobs=Knobs(threads=2), users=1, alone=3)
    row = next(s.row for s in steps(one, stage, results) if isinstance(s, Done))
    # As if it had been far faster: every other setting is now too slow by far.
    fast = replace(row.alone, rate=replace(row.alone.rate, value=1e9))
    results.add(replace(row, alone=fast, together=fast))
    found = steps(replace(one, settings=True), stage, results)
    stopped = [s.reason for s in found if isinstance(s, LeftOut)]
    assert stopped
    assert all("stopped after its first questions" in reason for reason in stopped)
    assert [s.before for s in found if isinstance(s, Done)] == [True]


def test_forms_of_a_student_have_names_of_their_own_and_old_measurements_keep_their_key() -> None:
    name = "openvino/int8/kv-u4@pruned-24-1f3c9a"
    assert variant(name).name == name
    assert variant(name).student == "pruned-24-1f3c9a"
    assert candidate(Candidate(variant(name), Knobs()).plain()) == Candidate(variant(name), Knobs())
    plain = Candidate(variant("openvino/int8"), Knobs()).plain()
    assert "student" not in plain["variant"]
    assert candidate(plain).variant == variant("openvino/int8")
    with pytest.raises(InvalidInput, match="no student's name"):
        variant("openvino/int8@../etc")


def test_a_server_that_closes_connections_between_two_questions_is_measured() -> None:
    """As llama.cpp's server does with idle ones. A server that is gone is still an error."""
    events = [{"choices": [{"delta": {"content": piece}}]} for piece in ("one", " two")]
    body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        for turn in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line)
            await reader.readexactly(length)
            if turn == 0:
                asked += 1
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        writer.close()

    async def story() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        endpoint = Endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", "small", "")
        async with server:
            assert (await measure(endpoint, synthetic(3).requests, 1)).answers == 3
        with pytest.raises(EngineError):
            await measure(endpoint, synthetic(1).requests, 1)

    asyncio.run(story())
    assert asked == 3
