"""Training as a background job: a folder a job, a process a job, one at a time.

    jobs = Jobs(home / "jobs")
    job = jobs.submit("rlhf", recipe)
    Foreman(jobs, command).start()      # a thread that starts what is queued and sees it to its end

    jobs/
      job_019a.../
        job.json        what is to be done; written once
        state.json      where it stands; replaced whole
        progress.jsonl  what it reports; only ever longer
        wish            "pause" or "cancel", when somebody wants that
        log.txt         what it and its libraries say
        work/           checkpoints, its own business

Everything is in the folder, so a job outlives whoever started it: a process that finds a job "running" whose process
is gone takes it up again, and the work goes on from its last checkpoint. Two processes never work at once: the one
that works holds the folder's lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from trimtab.domain import ids
from trimtab.domain.durable import replace_file
from trimtab.domain.errors import Conflict, InvalidInput, NotFound

FOREMAN_LOCK = "foreman.lock"
"""Held by who sees to the jobs of a folder."""


class Status(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (Status.DONE, Status.FAILED, Status.CANCELLED)


@dataclass(frozen=True)
class State:
    status: Status = Status.QUEUED
    pid: int = 0
    attempts: int = 0
    """Times its process died and it was taken up again."""
    stage: str = ""
    done: int = 0
    total: int = 0
    """Steps of the whole job, where that is known."""
    message: str = ""
    """What a person is told: what it waits for, why it failed."""
    started_at: float = 0.0
    worked: float = 0.0
    """Seconds of work up to `moved_at`, pauses left out."""
    moved_at: float = 0.0
    finished_at: float = 0.0
    result: Mapping[str, Any] = field(default_factory=dict)

    @property
    def eta(self) -> float | None:
        """Seconds it still needs if it goes on as it went; None while nobody knows."""
        if self.status is not Status.RUNNING or not self.done or not self.total:
            return None
        return max(0.0, self.worked / self.done * (self.total - self.done))


@dataclass(frozen=True)
class Job:
    id: str
    kind: str
    recipe: Mapping[str, Any]
    by: str
    created_at: float
    folder: Path
    needs_mib: int = 0
    """Memory it will take; it is not started while less is free."""

    @property
    def work(self) -> Path:
        return self.folder / "work"


class Jobs:
    """The folder of jobs. Any number of processes may read it, submit to it and wish."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def submit(self, kind: str, recipe: Mapping[str, Any], *, by: str = "local", needs_mib: int = 0) -> Job:
        """Queue a job. It is on disk when this returns.

        Raises:
            InvalidInput: the recipe cannot be written as JSON.
        """
        job = Job(ids.new("job"), kind, dict(recipe), by, time.time(), Path(), needs_mib)
        job = replace(job, folder=self.folder / job.id)
        told = {k: v for k, v in asdict(job).items() if k != "folder"}
        try:
            text = json.dumps(told, indent=1, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"This recipe cannot be kept ({error}). Use plain numbers, texts and lists.") from error
        job.work.mkdir(parents=True)
        replace_file(job.folder / "state.json", _state_text(State()))
        replace_file(job.folder / "job.json", text)  # last: with it the job is one
        return job

    def get(self, job_id: str) -> Job:
        """Raises:
        NotFound
        """
        file = self.folder / job_id / "job.json"
        if not re.fullmatch(r"job_[0-9a-f]+", job_id) or not file.is_file():
            raise NotFound(f"No job {job_id}. `trimtab align status` lists them.")
        return Job(**json.loads(file.read_text("utf-8")), folder=file.parent)

    def listed(self) -> list[Job]:
        """All jobs, oldest first."""
        return [self.get(f.parent.name) for f in sorted(self.folder.glob("job_*/job.json"))]

    def attended(self) -> bool:
        """Whether somebody sees to the jobs: a server, or a command that follows its own."""
        try:
            with (self.folder / FOREMAN_LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False

    def state(self, job: Job) -> State:
        data = json.loads((job.folder / "state.json").read_text("utf-8"))
        return State(**{**data, "status": Status(data["status"])})

    def progress(self, job: Job, after: int = 0) -> list[dict[str, Any]]:
        """What it reported from its `after`-th report on. A half-written last line is left for next time."""
        try:
            lines = (job.folder / "progress.jsonl").read_text("utf-8").split("\n")[:-1]
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines[after:]]

    def log(self, job: Job, characters: int = 20_000) -> str:
        """The end of what it said."""
        try:
            with (job.folder / "log.txt").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - characters))
                return file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def pause(self, job: Job) -> State:
        """Let it rest at its next checkpoint, its memory freed. A queued job is not started."""
        return self._wish(job, "pause", Status.PAUSED)

    def cancel(self, job: Job) -> State:
        """End it. What it had learnt until then stays in its folder."""
        return self._wish(job, "cancel", Status.CANCELLED)

    def resume(self, job: Job) -> State:
        """Queue a paused, failed or cancelled job again; it goes on from its last checkpoint.

        Raises:
            Conflict: it is not resting.
        """
        with self.changing(job):
            state = self.state(job)
            if state.status in (Status.QUEUED, Status.RUNNING, Status.DONE):
                raise Conflict(f"Job {job.id} is {state.status.value}; there is nothing to resume.")
            (job.folder / "wish").unlink(missing_ok=True)
            return self.put(job, replace(state, status=Status.QUEUED, message="", attempts=0, finished_at=0.0))

    def _wish(self, job: Job, wish: str, at_once: Status) -> State:
        with self.changing(job):
            state = self.state(job)
            if state.status.final:
                raise Conflict(f"Job {job.id} has ended ({state.status.value}).")
            if state.status is Status.RUNNING:
                replace_file(job.folder / "wish", wish)
                return state
            ended = time.time() if at_once.final else 0.0
            return self.put(job, replace(state, status=at_once, finished_at=ended))

    def put(self, job: Job, state: State) -> State:
        replace_file(job.folder / "state.json", _state_text(state))
        return state

    @contextlib.contextmanager
    def changing(self, job: Job) -> Iterator[None]:
        """One change of a job's state at a time, over all processes."""
        with (job.folder / "state.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _state_text(state: State) -> str:
    return json.dumps(asdict(state), default=str)
