"""Seeing jobs to their end: one process at a time, started when there is room, taken up again when it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .jobs import FOREMAN_LOCK, Job, Jobs, Status


class Foreman:
    """A thread that starts queued jobs, one at a time, and takes up those whose process died.

    Args:
        command: what runs a job; the job's folder is added as its last argument.
        attempts: times a job may die in a row without having moved on.
        nice: how far it steps back for whoever answers people (0..19).
    """

    def __init__(
        self, jobs: Jobs, command: Sequence[str], *, attempts: int = 3, nice: int = 15, every: float = 0.5
    ) -> None:
        self.jobs = jobs
        self.command = tuple(command)
        self.attempts = attempts
        self.nice = nice
        self.every = every
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.jobs.folder.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=self._watch, name="jobs", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching. A job that runs is ended; it goes on from its last checkpoint when somebody watches again."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        with (self.jobs.folder / FOREMAN_LOCK).open("w") as lock:
            while not self._stopping.wait(self.every):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue  # another process sees to the jobs
                if (job := self._next()) is not None:
                    self._run(job)

    def _next(self) -> Job | None:
        """The job to work on: one whose process died, else the oldest that is queued and for which there is memory."""
        waiting = [(job, self.jobs.state(job).status) for job in self.jobs.listed()]
        for job, status in waiting:
            if status is Status.RUNNING:
                return job  # we hold the lock: whoever ran it is gone
        for job, status in waiting:
            if status is Status.QUEUED and self._room_for(job):
                return job
        return None

    def _room_for(self, job: Job) -> bool:
        free = free_mib()
        if free is None or free >= job.needs_mib:
            return True
        told = f"It needs {job.needs_mib} MB of memory and {free} MB are free. It starts when there is room."
        with self.jobs.changing(job):
            state = self.jobs.state(job)
            if state.status is Status.QUEUED and state.message != told:
                self.jobs.put(job, replace(state, message=told))
        return False

    def _run(self, job: Job) -> None:
        if not self._claim(job):
            return
        with (job.folder / "log.txt").open("ab") as log:
            child = subprocess.Popen(
                [*self.command, str(job.folder)],
                stdin=subprocess.PIPE,  # ends when we do, however we end: the worker leaves with us
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | {"OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1"},
            )
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, child.pid, self.nice)
        self._note(job, pid=child.pid)
        while child.poll() is None:
            if self._stopping.wait(0.1):
                _end(child)
                return
        _end(child)
        self._after(job, child.returncode)

    def _claim(self, job: Job) -> bool:
        with self.jobs.changing(job):
            state = self.jobs.state(job)
            if state.status not in (Status.QUEUED, Status.RUNNING):
                return False
            started = state.started_at or time.time()
            self.jobs.put(job, replace(state, status=Status.RUNNING, started_at=started, message=""))
            return True

    def _note(self, job: Job, **changes: Any) -> None:
        with self.jobs.changing(job):
            state = self.jobs.state(job)
            if not state.status.final:
                self.jobs.put(job, replace(state, **changes))

    def _after(self, job: Job, code: int) -> None:
        """The worker has gone. If it did not say how it ended, it died."""
        with self.jobs.changing(job):
            state = self.jobs.state(job)
            if state.status is not Status.RUNNING:
                return
            last = next((line for line in reversed(self.jobs.log(job, 2000).splitlines()) if line.strip()), "")
            said = f"Its process ended with code {code}. {last}".strip()
            if state.attempts + 1 >= self.attempts:
                told = f"{said} It was tried {state.attempts + 1} times. Its log: trimtab align logs {job.id}"
                self.jobs.put(job, replace(state, status=Status.FAILED, message=told, pid=0, finished_at=time.time()))
                return
            again = replace(
                state, attempts=state.attempts + 1, pid=0, message=f"{said} It goes on from its checkpoint."
            )
            self.jobs.put(job, again)


def free_mib() -> int | None:
    """Memory that can be had without swapping, in MiB; None where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text("ascii")
    except OSError:
        return None
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.M)
    return int(found[1]) // 1024 if found else None


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.stdin is not None:
        child.stdin.close()
    try:
        child.wait(timeout=2.0)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
