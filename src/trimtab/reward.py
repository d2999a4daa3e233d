"""The reward model that was trained here, ready to be asked: which of several answers would people like best?

    reward = RewardModels(jobs, database, logs)
    await reward.ensure()                       # or an error that says what is missing
    found = await reward(prompt, ["Yes.", "Yes, and here is how."])

It runs in a process of its own (`scoring.py` says why), which is started at the first question and ended when nobody
has asked for a while. torch is never imported here.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import json
import os
import sys
from asyncio.subprocess import Process
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from trimtab.align.foreman import free_mib
from trimtab.align.jobs import Job, Jobs
from trimtab.align.queue import Candidate
from trimtab.domain.errors import MissingExtra, NotFound, Unavailable
from trimtab.domain.judgement import Said
from trimtab.orchestrator.best_of import Scores
from trimtab.store import versions
from trimtab.store.database import Database

NEEDS_MIB = 900
"""Of free memory, for the default base: 690 measured, and room to read in."""
START_SECONDS = 300.0
SCORE_SECONDS = 60.0
MORE_SECONDS = 15.0
"""For each text: a busy machine may need so long where an idle one needs half a second."""
IDLE_SECONDS = 300.0


def has_reward(job: Job) -> bool:
    return (job.work / "reward" / "reward.json").exists()


def reward_of(jobs: Jobs, preferred: str = "") -> Job:
    """The job whose reward model is used: the preferred one if it has one, else the latest that has.

    Raises:
        NotFound: none was trained here.
    """
    trained = [job for job in jobs.listed() if has_reward(job)]
    found = [job for job in trained if job.id == preferred] or trained[-1:]
    if not found:
        raise NotFound("No reward model was trained yet. Train one: trimtab align demo, or trimtab align rlhf.")
    return found[0]


@dataclass(frozen=True)
class Opinion:
    """What the two reward models of an alignment think of a candidate: probabilities that the answer is good, or the
    first of two the better."""

    reward: float
    judge: float | None


class RewardModels:
    """One for an installation. Close it at the end."""

    def __init__(self, jobs: Jobs, database: Database, logs: Path, *, idle: float = IDLE_SECONDS) -> None:
        self._jobs = jobs
        self._database = database
        self._log = logs / "reward.log"
        self._idle = idle
        self._child: Process | None = None
        self._of = ""
        """Id of the job whose models the child holds."""
        self._asking = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._behind: set[asyncio.Task[None]] = set()
        """Work that nobody waits for."""
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ensure(self) -> Job:
        """The job whose reward model would be asked now: the serving version's, else the latest.

        Raises:
            MissingExtra: torch is not installed.
            NotFound: no reward model was trained here.
        """
        if any(importlib.util.find_spec(name) is None for name in ("torch", "transformers", "trl")):
            raise MissingExtra("Choosing the best of several answers", "align")
        preferred = await self._database.read(_serving_job)
        return await asyncio.to_thread(reward_of, self._jobs, preferred)

    async def about(self) -> dict[str, Any]:
        """``{"available", "why"}``: whether it can be asked, and by whose reward model or why not."""
        try:
            job = await self.ensure()
        except (MissingExtra, NotFound) as error:
            return {"available": False, "why": error.message}
        return {"available": True, "why": f"reward model of {_name(job)}"}

    async def __call__(self, prompt: Sequence[Said], texts: Sequence[str]) -> Scores:
        """How much people would like each of these answers.

        Raises:
            MissingExtra, NotFound: see `ensure`.
            Unavailable: there is no memory for it, or its process failed.
        """
        job = await self.ensure()
        told = await self._ask(job, {"prompt": _lines(prompt), "texts": list(texts)}, len(texts))
        return Scores(tuple(float(score) for score in told["scores"]), _name(job))

    async def opinions(self, candidates: Sequence[Candidate]) -> tuple[str, list[Opinion]]:
        """Whose reward models were asked (a job's id), and what they think of these. Raises as `__call__`."""
        job = await self.ensure()
        asked = [{"prompt": _lines(c.prompt), "texts": list(c.texts), "label": c.label} for c in candidates]
        told = await self._ask(job, {"asked": asked}, 4 * len(asked))
        judges = told.get("judge") or [None] * len(candidates)
        return job.id, [Opinion(float(one), other) for one, other in zip(told["reward"], judges, strict=True)]

    async def warm(self) -> None:
        """Load the model while something else goes on. Says nothing of what fails: asking will."""
        with contextlib.suppress(Unavailable, NotFound):
            job = await self.ensure()
            async with self._asking:
                await self._ready(job)

    def open(self) -> None:
        """In the loop that `behind` is to use."""
        self._loop = asyncio.get_running_loop()

    def behind(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something go on that nobody waits for. From any thread."""
        if self._loop is None or self._loop.is_closed():
            work.close()
            return
        self._loop.call_soon_threadsafe(self._begin, work)

    async def settled(self) -> None:
        """Until nothing goes on behind."""
        await asyncio.sleep(0)  # what another thread has just handed in
        while self._behind:
            await asyncio.wait(set(self._behind))

    async def aclose(self) -> None:
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
        for task in self._behind:
            task.cancel()
        await asyncio.gather(*self._behind, return_exceptions=True)
        await self._end()

    # ------------------------------------------------------------------ the process

    async def _ask(self, job: Job, order: Mapping[str, Any], texts: int) -> dict[str, Any]:
        async with self._asking:
            await self._ready(job)
            number = next(self._numbers)
            told = await self._told({"id": number, **order}, number, SCORE_SECONDS + texts * MORE_SECONDS)
        if "error" in told:
            raise Unavailable(f"The reward model of {_name(job)} did not score: {told['error']}")
        return told

    async def _ready(self, job: Job) -> None:
        """The child with this job's models, started if it does not run. The caller holds the lock."""
        if self._child is not None and (self._child.returncode is not None or self._of != job.id):
            await self._end()
        if self._child is None:
            await self._start(job)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(self._idle, self._tired)

    async def _start(self, job: Job) -> None:
        free = free_mib()
        if free is not None and free < NEEDS_MIB:
            raise Unavailable(
                f"The reward model needs {NEEDS_MIB} MB of memory and {free} MB are free. Close something, or ask for "
                "one answer."
            )
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "trimtab.scoring", str(job.folder),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
                env=os.environ | {"OMP_WAIT_POLICY": "passive", "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        self._of = job.id
        told = await self._line(START_SECONDS)
        if "error" in told:
            await self._end()
            raise Unavailable(f"The reward model of {_name(job)} cannot be loaded: {told['error']}")

    async def _told(self, order: Mapping[str, Any], number: int, seconds: float) -> dict[str, Any]:
        assert self._child is not None
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died; reading says so
            self._child.stdin.write(json.dumps(order).encode() + b"\n")
            await self._child.stdin.drain()
        while True:
            told = await self._line(seconds)
            if told.get("id") == number:  # else of one who stopped waiting
                return told

    async def _line(self, seconds: float) -> dict[str, Any]:
        assert self._child is not None
        assert self._child.stdout is not None
        line = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                line = await self._child.stdout.readline()
        if not line:
            await self._end()
            raise Unavailable(f"The process of the reward model ended or hangs. Its log: {self._log}")
        told: dict[str, Any] = json.loads(line)
        return told

    def _tired(self) -> None:
        """Nobody asked for a while."""
        if self._asking.locked():
            return
        self._begin(self._end())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        if self._loop is None:  # closed meanwhile
            work.close()
            return
        task = asyncio.create_task(work, name="the reward model, behind")
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)

    async def _end(self) -> None:
        child, self._child, self._of = self._child, None, ""
        if child is None:
            return
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        # Reads what is left, so that the pipes are closed with the process.
        await child.communicate()


def _serving_job(connection: Connection) -> str:
    now = versions.serving_or_none(connection)
    if now is None:
        return ""
    manifest = versions.get(connection, now["version_id"])["manifest"]
    return str(manifest.get("lineage", {}).get("job", ""))


def _name(job: Job) -> str:
    return str(job.recipe.get("recipe", {}).get("name", job.id))


def _lines(prompt: Sequence[Said]) -> list[list[str]]:
    return [[said.role, said.content] for said in prompt]
