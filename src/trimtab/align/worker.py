"""The worker's side of a job: tell where it stands, hear what people wish, say how it ended."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import IO, Any

from trimtab.domain.durable import replace_file
from trimtab.domain.errors import TrimtabError

from .jobs import Job, Jobs, Status


class Paused(Exception):
    """Somebody wants the job to rest. Raised where it reports, after its checkpoint."""


class Cancelled(Exception):
    """Somebody wants the job to end."""


class Report:
    """What a worker holds: it tells where the work stands, and hears what people wish.

    Call `checkpointed` where the work can be taken up again: there, and only there, a wish is heard.
    """

    def __init__(self, jobs: Jobs, job: Job) -> None:
        self._jobs = jobs
        self._job = job
        self._file: IO[str] = (job.folder / "progress.jsonl").open("a", encoding="utf-8")
        self._since = time.time()
        self._mend()

    def tell(self, stage: str, **values: Any) -> None:
        """Add a line for whoever watches."""
        line = {"at": round(time.time(), 3), "stage": stage, **values}
        self._file.write(json.dumps(line, default=str) + "\n")
        self._file.flush()

    def moved(self, stage: str, done: int, total: int, message: str = "") -> None:
        """Say how far the whole job is."""
        with self._jobs.changing(self._job):
            state, now = self._jobs.state(self._job), time.time()
            worked = state.worked + now - self._since
            self._since = now
            changed = replace(
                state, stage=stage, done=done, total=total, message=message, moved_at=now, worked=worked, attempts=0
            )
            self._jobs.put(self._job, changed)

    def checkpointed(self) -> None:
        """Raises:
        Paused, Cancelled: as somebody wished.
        """
        try:
            wish = (self._job.folder / "wish").read_text("utf-8")
        except FileNotFoundError:
            return
        raise Cancelled if wish == "cancel" else Paused

    def close(self) -> None:
        """Nothing more will be told."""
        self._file.close()

    def _mend(self) -> None:
        """A process that was killed may have left half a line: it is ended, and reads as nothing."""
        path = self._job.folder / "progress.jsonl"
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            whole = data[: data.rfind(b"\n") + 1]
            self._file.close()
            replace_file(path, whole.decode("utf-8"))
            self._file = path.open("a", encoding="utf-8")


Work = Callable[[Job, Report], Mapping[str, Any]]
"""Does the job and returns its result, plain values that people are shown."""


def working(jobs: Jobs, job: Job, work: Work) -> None:
    """In the worker's process: run `work` and keep how it ended.

    A `TrimtabError` is the job's own failure: trying again would not help. Any other ends the process, and the foreman
    sees that it died.
    """
    with (job.folder / "worker.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one that lost its parent may still be about to leave
        result: Mapping[str, Any] = {}
        message = ""
        try:
            result = work(job, Report(jobs, job))
            status = Status.DONE
        except Paused:
            status = Status.PAUSED
        except Cancelled:
            status = Status.CANCELLED
        except TrimtabError as error:
            status, message = Status.FAILED, error.message
        with jobs.changing(job):
            ended = replace(
                jobs.state(job),
                status=status,
                result=dict(result),
                message=message,
                pid=0,
                finished_at=time.time() if status.final else 0.0,
            )
            jobs.put(job, ended)
            (job.folder / "wish").unlink(missing_ok=True)


def leave_with_parent() -> None:
    """In a worker: end when whoever started us is gone. Standard input is a pipe the system closes then."""

    def wait() -> None:
        os.read(0, 1)
        os.kill(os.getpid(), signal.SIGKILL)  # nothing is lost: that is what checkpoints are for

    threading.Thread(target=wait, name="leave-with-parent", daemon=True).start()
