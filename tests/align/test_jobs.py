"""A job is done once, whatever dies meanwhile, and does what people wish."""

from __future__ import annotations

import itertools
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trimtab.align.foreman import Foreman
from trimtab.align.jobs import Job, Jobs, State, Status
from trimtab.domain.errors import Conflict, InvalidInput, NotFound

COMMAND = [sys.executable, str(Path(__file__).with_name("counting_worker.py"))]


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path / "jobs")


@pytest.fixture
def foreman(jobs: Jobs) -> Iterator[Foreman]:
    made = Foreman(jobs, COMMAND, every=0.02)
    made.start()
    yield made
    made.stop()


def until(jobs: Jobs, job: Job, holds: Callable[[State], bool], seconds: float = 60) -> State:
    deadline = time.monotonic() + seconds
    while not holds(state := jobs.state(job)):
        assert time.monotonic() < deadline, state
        time.sleep(0.02)
    return state


def ended(state: State) -> bool:
    return state.status.final


@pytest.mark.usefixtures("foreman")
def test_a_job_is_done_and_tells_how_it_goes(jobs: Jobs) -> None:
    job = jobs.submit("count", {"to": 5}, by="ada")
    state = until(jobs, job, ended)
    assert (state.status, state.result, state.done, state.total) == (Status.DONE, {"counted": 5}, 5, 5)
    assert [line["n"] for line in jobs.progress(job)] == [1, 2, 3, 4, 5]
    assert [line["n"] for line in jobs.progress(job, after=3)] == [4, 5]
    assert jobs.get(job.id).by == "ada"
    assert [j.id for j in jobs.listed()] == [job.id]


def test_it_is_known_whether_anybody_sees_to_the_jobs(jobs: Jobs) -> None:
    assert not jobs.attended()
    foreman = Foreman(jobs, COMMAND, every=0.02)
    foreman.start()
    until(jobs, jobs.submit("count", {"to": 1}), ended)
    assert jobs.attended()
    foreman.stop()
    assert not jobs.attended()


@pytest.mark.usefixtures("foreman")
def test_jobs_are_done_one_at_a_time_in_their_order(jobs: Jobs) -> None:
    made = [jobs.submit("count", {"to": 4}) for _ in range(3)]
    for job in made:
        until(jobs, job, ended)
    spans = [(jobs.progress(job)[0]["at"], jobs.progress(job)[-1]["at"]) for job in made]
    assert spans == sorted(spans)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))


@pytest.mark.usefixtures("foreman")
def test_a_job_is_paused_and_goes_on_where_it_was(jobs: Jobs) -> None:
    job = jobs.submit("count", {"to": 30, "pause": 0.02})
    until(jobs, job, lambda s: s.done >= 3)
    jobs.pause(job)
    state = until(jobs, job, lambda s: s.status is Status.PAUSED)
    assert 3 <= state.done < 30
    jobs.resume(job)
    assert until(jobs, job, ended).result == {"counted": 30}
    assert [line["n"] for line in jobs.progress(job)] == list(range(1, 31))


@pytest.mark.usefixtures("foreman")
def test_a_job_is_cancelled_while_it_runs_and_while_it_waits(jobs: Jobs) -> None:
    first = jobs.submit("count", {"to": 10_000, "pause": 0.01})
    second = jobs.submit("count", {"to": 1})
    until(jobs, first, lambda s: s.done >= 1)
    assert jobs.cancel(second).status is Status.CANCELLED
    jobs.cancel(first)
    assert until(jobs, first, ended).status is Status.CANCELLED
    with pytest.raises(Conflict, match="has ended"):
        jobs.pause(first)
    assert jobs.progress(second) == []


@pytest.mark.usefixtures("foreman")
def test_a_job_whose_process_dies_goes_on_from_its_checkpoint(jobs: Jobs) -> None:
    job = jobs.submit("count", {"to": 6, "dies_at": 3})
    assert until(jobs, job, ended).result == {"counted": 6}
    assert "out of numbers" in jobs.log(job)


@pytest.mark.usefixtures("foreman")
def test_a_job_that_dies_again_and_again_fails_with_its_last_words(jobs: Jobs) -> None:
    job = jobs.submit("count", {"to": 6, "always_dies_at": 2})
    state = until(jobs, job, ended)
    assert state.status is Status.FAILED
    assert "out of numbers for good" in state.message
    assert "trimtab align logs" in state.message


@pytest.mark.usefixtures("foreman")
def test_a_job_that_cannot_be_done_says_why_and_is_not_tried_again(jobs: Jobs) -> None:
    job = jobs.submit("count", {"wrong": True})
    state = until(jobs, job, ended)
    assert (state.status, state.message) == (Status.FAILED, "There is nothing to count. Say how far.")


def test_a_job_is_not_started_while_memory_is_short_and_says_so(jobs: Jobs, foreman: Foreman) -> None:
    greedy = jobs.submit("count", {"to": 1}, needs_mib=10**9)
    modest = jobs.submit("count", {"to": 1})
    assert until(jobs, modest, ended).status is Status.DONE
    state = until(jobs, greedy, lambda s: "memory" in s.message)
    assert state.status is Status.QUEUED


def test_two_foremen_over_one_folder_do_each_job_once(jobs: Jobs, foreman: Foreman) -> None:
    other = Foreman(jobs, COMMAND, every=0.02)
    other.start()
    try:
        made = [jobs.submit("count", {"to": 3}) for _ in range(4)]
        for job in made:
            until(jobs, job, ended)
            assert [line["n"] for line in jobs.progress(job)] == [1, 2, 3]
    finally:
        other.stop()


def test_a_stopped_foreman_leaves_the_job_for_the_next(jobs: Jobs) -> None:
    first = Foreman(jobs, COMMAND, every=0.02)
    first.start()
    job = jobs.submit("count", {"to": 40, "pause": 0.02})
    until(jobs, job, lambda s: s.done >= 2)
    first.stop()
    assert jobs.state(job).status is Status.RUNNING
    second = Foreman(jobs, COMMAND, every=0.02)
    second.start()
    try:
        assert until(jobs, job, ended).result == {"counted": 40}
    finally:
        second.stop()


FOREMAN = """
import sys, time
from pathlib import Path
from trimtab.align.foreman import Foreman
from trimtab.align.jobs import Jobs
Foreman(Jobs(Path(sys.argv[1])), sys.argv[2:], every=0.02).start()
print("go", flush=True)
time.sleep(60)
"""


def test_the_foremans_process_is_killed_again_and_again_and_no_number_is_counted_twice(jobs: Jobs) -> None:
    job = jobs.submit("count", {"to": 60, "pause": 0.01})
    dice = random.Random(3)
    for _ in range(40):
        child = subprocess.Popen(
            [sys.executable, "-c", FOREMAN, str(jobs.folder), *COMMAND], stdout=subprocess.PIPE, start_new_session=True
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(dice.uniform(0.1, 0.8))
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        if jobs.state(job).status.final:
            break
    state = until(jobs, job, ended, 1)
    assert state.result == {"counted": 60}
    told = [line["n"] for line in jobs.progress(job)]
    assert sorted(set(told)) == list(range(1, 61))


def test_a_line_cut_in_half_by_a_crash_is_not_read(jobs: Jobs) -> None:
    job = jobs.submit("count", {"to": 2})
    (job.folder / "progress.jsonl").write_text('{"n": 1}\n{"n": ')
    assert jobs.progress(job) == [{"n": 1}]
    with subprocess.Popen([*COMMAND, str(job.folder)], stdin=subprocess.PIPE) as worker:
        assert worker.wait(60) == 0
    assert [line["n"] for line in jobs.progress(job)] == [1, 1, 2]


def test_what_is_no_job_is_not_found(jobs: Jobs) -> None:
    for wrong in ("job_1", "../x", "", "job_zz"):
        with pytest.raises(NotFound):
            jobs.get(wrong)
    with pytest.raises(InvalidInput, match="recipe"):
        jobs.submit("count", {"to": float("nan")})
