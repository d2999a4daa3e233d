"""`/v1/learn`: the classroom. Playing against any checkpoint of a training, and watching one play.

A checkpoint is named ``training/update``: the training is a job's id, or a folder that `trimtab learn` left. torch is
imported when the first checkpoint is opened, in a thread, and never by a server that nobody asks to play.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field

from trimtab.align.classroom import curve
from trimtab.align.classroom.extra import needed
from trimtab.align.classroom.words import WORDS
from trimtab.align.jobs import Job
from trimtab.app import Trimtab
from trimtab.domain.errors import NotFound

from .access import App, Known
from .threads import Body

if TYPE_CHECKING:
    from trimtab.align.classroom.board import Floats
    from trimtab.align.classroom.player import Policy

router = APIRouter(prefix="/v1/learn", tags=["learn"])

KIND = "tictactoe"
OPEN_AT_ONCE = 16
"""Players kept as tables, some 1.5 MB each."""

Checkpoint = Annotated[str, Field(pattern=r"^[\w.-]{1,100}/\d{6,9}$")]
Board = Annotated[str, Field(max_length=20, description="Nine of X, O and '.', row by row.")]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Question(Body):
    checkpoint: Checkpoint
    board: Board


class Move(Question):
    seed: Seed | None = None
    """None: its likeliest position; a number: drawn from its probabilities."""


class Game(Body):
    checkpoint: Checkpoint
    opponent: Literal["random", "perfect", "self"] | Checkpoint = "random"
    """`self` is the same checkpoint; another one may be named."""
    side: Literal["X", "O"] = "X"
    """The checkpoint's. X begins."""
    seed: Seed = 0
    greedy: bool = False


@router.get("/words")
async def words(caller: Known) -> dict[str, Any]:
    """What the words of reinforcement learning mean on the board, and for a language model."""
    return {"words": [asdict(word) for word in WORDS]}


@router.get("/checkpoints")
async def checkpoints(app: App, caller: Known) -> dict[str, Any]:
    """Every training with its checkpoints, the latest first."""
    return {"trainings": await asyncio.to_thread(_trainings, app)}


@router.post("/think")
async def think(app: App, caller: Known, body: Question) -> dict[str, Any]:
    """What a checkpoint makes of a board on which somebody moves."""

    def work() -> dict[str, Any]:
        policy = _policy(app, body.checkpoint)
        from trimtab.align.classroom import rollout

        return asdict(rollout.think(policy, body.board))

    return await _in_class(work)


@router.post("/play")
async def play(app: App, caller: Known, body: Move) -> dict[str, Any]:
    """The board after the checkpoint's move; as it was, when the game on it is over. Nothing is kept."""

    def work() -> dict[str, Any]:
        policy = _policy(app, body.checkpoint)
        from trimtab.align.classroom import game

        return asdict(game.answer(policy, body.board, seed=body.seed))

    return await _in_class(work)


@router.post("/rollout")
async def rollout(app: App, caller: Known, body: Game) -> dict[str, Any]:
    """One game of a checkpoint, step by step."""

    def work() -> dict[str, Any]:
        policy, opponent = _policy(app, body.checkpoint), _opponent(app, body)
        import numpy as np

        from trimtab.align.classroom.rollout import watch

        return asdict(watch(policy, opponent, body.side, np.random.default_rng(body.seed), greedy=body.greedy))

    return await _in_class(work)


async def _in_class(work: Any) -> dict[str, Any]:
    def guarded() -> dict[str, Any]:
        with needed():
            found: dict[str, Any] = work()
            return found

    return await asyncio.to_thread(guarded)


# ---------------------------------------------------------------------- where checkpoints are


def _folders(app: Trimtab) -> dict[str, tuple[Path, Job | None]]:
    """Each training's folder by its name. Names are looked up here and never joined to a path."""
    learnt = app.settings.home / "learn"
    found: dict[str, tuple[Path, Job | None]] = {}
    if learnt.is_dir():
        found = {folder.name: (folder, None) for folder in learnt.iterdir() if folder.is_dir()}
    jobs = (job for job in app.trainings.jobs.listed() if job.kind == KIND)
    return found | {job.id: (job.work, job) for job in jobs}


def _trainings(app: Trimtab) -> list[dict[str, Any]]:
    found = [_training(app, name, folder, job) for name, (folder, job) in _folders(app).items()]
    shown = [one for one in found if one["job"] or one["checkpoints"]]
    return sorted(shown, key=lambda one: float(one["at"]), reverse=True)


def _training(app: Trimtab, name: str, folder: Path, job: Job | None) -> dict[str, Any]:
    points = curve.read(folder)
    recipe = dict(job.recipe) if job else _recipe_of(name)
    return {
        "id": name,
        "job": job.id if job else None,
        "status": app.trainings.jobs.state(job).status.value if job else "done",
        "recipe": recipe,
        "at": job.created_at if job else folder.stat().st_mtime,
        "checkpoints": [{"id": f"{name}/{int(point['update']):06d}", **point} for point in points],
    }


def _recipe_of(name: str) -> dict[str, Any]:
    """What the command calls its folder says how it was trained."""
    found = re.fullmatch(r"tictactoe-(ppo|q)-(\d{1,10})", name)
    return {"algorithm": found[1], "seed": int(found[2])} if found else {}


def _policy(app: Trimtab, checkpoint: str) -> Policy:
    training, _, name = checkpoint.partition("/")
    folder, _job = _folders(app).get(training, (None, None))
    file = curve.checkpoint_file(folder, name) if folder else None
    if file is None:
        raise NotFound(f"No checkpoint {checkpoint}. GET /v1/learn/checkpoints lists them.")
    return _opened(file, file.stat().st_mtime_ns)


@lru_cache(OPEN_AT_ONCE)
def _opened(file: Path, _written: int) -> Policy:
    from trimtab.align.classroom.checkpoint import open_checkpoint

    return open_checkpoint(file).policy


def _opponent(app: Trimtab, body: Game) -> Floats:
    from trimtab.align.classroom.opponents import PERFECT, RANDOM

    if body.opponent == "random":
        return RANDOM.policy
    if body.opponent == "perfect":
        return PERFECT.policy
    policy = _policy(app, body.checkpoint if body.opponent == "self" else body.opponent)
    return policy.greedy if body.greedy else policy.probabilities
