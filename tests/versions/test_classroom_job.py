"""A player is trained as a background job, and everybody plays against its checkpoints over HTTP."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripted_app import app_with
from trimtab.align.classroom import curve
from trimtab.align.foreman import Foreman
from trimtab.align.jobs import Job, Jobs, State, Status
from trimtab.api.server import create_app
from trimtab.api.serving import ensure_key
from trimtab.app import Trimtab
from trimtab.domain.errors import InvalidInput
from trimtab.store import people

EARLY = {"seed": 1, "games": 20_480}
TABLE = {"seed": 1, "algorithm": "q"}


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    made = Jobs(tmp_path / "jobs")
    foreman = Foreman(made, [sys.executable, "-m", "trimtab.works"], every=0.02)
    foreman.start()
    yield made
    foreman.stop()


def ended(jobs: Jobs, job: Job, seconds: float = 120) -> State:
    deadline = time.monotonic() + seconds
    while not (state := jobs.state(job)).status.final:
        assert time.monotonic() < deadline, (state, jobs.log(job))
        time.sleep(0.05)
    return state


def test_a_player_is_trained_until_it_passes_and_every_point_is_told(jobs: Jobs) -> None:
    job = jobs.submit("tictactoe", TABLE)
    state = ended(jobs, job)
    assert (state.status, state.result["proved"]) == (Status.DONE, True), state
    begin, *points = jobs.progress(job)
    assert (begin["stage"], begin["algorithm"]) == ("begin", "q")
    assert len(points) > 1
    assert points[0]["lost_as_o"] > 0
    assert (points[-1]["never_loses"], points[-1]["given_away"], points[-1]["done"]) == (True, 0, True)
    kept = [{k: v for k, v in point.items() if k not in ("at", "stage")} for point in points]
    assert curve.read(job.work) == kept
    assert curve.checkpoint_file(job.work, state.result["checkpoint"]) is not None


def test_a_training_begun_again_after_a_pause_ends_with_the_same_player(jobs: Jobs) -> None:
    once, twice = (jobs.submit("tictactoe", {"seed": 3, "games": 61_440}) for _ in range(2))
    ended(jobs, once)
    deadline = time.monotonic() + 200
    while not jobs.state(twice).done:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    jobs.pause(twice)
    while jobs.state(twice).status is Status.RUNNING:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert jobs.state(twice).status is Status.PAUSED
    jobs.resume(twice)
    state = ended(jobs, twice)
    assert state.result == jobs.state(once).result
    told = [line["stage"] for line in jobs.progress(twice)]
    fresh = told[len(told) - told[::-1].index("begin") :]
    assert fresh == ["point"] * 3, "what counts is told after the last begin"


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"seed": -1}, "`seed` is a whole number"),
        ({"seed": True}, "`seed` is a whole number"),
        ({"games": 10**9}, "`games` is a whole number from 1 to 2,000,000"),
        ({"opponent": "mother"}, "`opponent` is one of self, mixture, random, perfect"),
        ({"opponent": ["self"]}, "`opponent` is one of"),
        ({"algorithm": "q", "opponent": "random"}, "plays both sides itself"),
        ({"colour": "red"}, "has no 'colour'"),
    ],
)
async def test_a_recipe_that_is_wrong_is_refused_where_it_is_ordered(
    tmp_path: Path, recipe: dict[str, Any], said: str
) -> None:
    async with app_with([], tmp_path) as app:
        with pytest.raises(InvalidInput, match=said):
            await app.trainings.submit("tictactoe", recipe, by="ada")
        assert app.trainings.jobs.listed() == []


def test_a_wrong_recipe_that_reaches_the_worker_fails_with_the_reason(jobs: Jobs) -> None:
    state = ended(jobs, jobs.submit("tictactoe", {"games": "many"}))
    assert state.status is Status.FAILED
    assert "`games` is a whole number" in state.message


# ---------------------------------------------------------------------- over HTTP


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[Trimtab]:
    async with app_with([], tmp_path / "home") as opened, opened.trainings.going():
        yield opened


@pytest.fixture
async def client(app: Trimtab) -> AsyncIterator[httpx.AsyncClient]:
    await ensure_key(app)
    key = app.settings.key_path.read_text("utf-8").strip()
    async with caller(app, key) as opened:
        yield opened


def caller(app: Trimtab, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(app)), base_url="http://127.0.0.1",
        headers={"Authorization": f"Bearer {key}"},
    )  # fmt: skip


async def ok(response: httpx.Response) -> Any:
    assert response.status_code < 400, response.text
    return response.json()


async def trained(client: httpx.AsyncClient, recipe: dict[str, Any]) -> dict[str, Any]:
    """The training as `/v1/learn/checkpoints` shows it when its job is done."""
    job = await ok(await client.post("/v1/jobs", json={"kind": "tictactoe", "recipe": recipe}))
    async with asyncio.timeout(120):
        while True:
            (found,) = (await ok(await client.get("/v1/learn/checkpoints")))["trainings"]
            assert found["id"] == job["id"]
            if found["status"] == "done":
                return dict(found)
            assert found["status"] in ("queued", "running"), found
            await asyncio.sleep(0.1)


async def test_a_trained_player_thinks_plays_and_is_watched(client: httpx.AsyncClient) -> None:
    training = await trained(client, TABLE)
    assert training["recipe"] == {"seed": 1, "algorithm": "q", "games": 600_000, "opponent": "self"}
    last = training["checkpoints"][-1]
    assert last["never_loses"]

    asked = {"checkpoint": last["id"], "board": "XX..O...."}
    thought = await ok(await client.post("/v1/learn/think", json=asked))
    assert (thought["mover"], thought["free"], thought["best"]) == ("O", [2, 3, 5, 6, 7, 8], [2])
    assert sum(thought["probabilities"]) == pytest.approx(1)
    assert thought["probabilities"][2] == 1

    moved = await ok(await client.post("/v1/learn/play", json=asked))
    assert (moved["position"], moved["board"], moved["over"]) == (2, "XXO.O....", False)
    assert moved["thought"] == thought
    end = await ok(await client.post("/v1/learn/play", json=asked | {"board": "XXXOO...."}))
    assert (end["position"], end["over"], end["winner"], end["row"]) == (None, True, "X", [0, 1, 2])

    game = {"checkpoint": last["id"], "opponent": "perfect", "side": "O", "seed": 4, "greedy": True}
    rollout = await ok(await client.post("/v1/learn/rollout", json=game))
    assert rollout == await ok(await client.post("/v1/learn/rollout", json=game))
    assert rollout["reward"] == 0, "neither a proved player nor a perfect one loses"
    assert [move["by"] for move in rollout["moves"]][:2] == ["opponent", "agent"]


async def test_a_player_is_only_as_good_as_its_checkpoint(client: httpx.AsyncClient) -> None:
    """The untrained half of a training loses where the whole does not: the checkpoints are different players."""
    first, *_, last = (await trained(client, TABLE))["checkpoints"]
    assert first["lost_as_o"] + first["lost_as_x"] > 0 == last["lost_as_o"] + last["lost_as_x"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("think", {"checkpoint": "nobody/000001", "board": "........."}, 404),
        ("think", {"checkpoint": "../../etc/000001", "board": "........."}, 400),
        ("think", {"checkpoint": "../000001", "board": "........."}, 404),
        ("play", {"checkpoint": "player/000100", "board": "XXX......"}, 400),
        ("play", {"checkpoint": "player/000100", "board": "XXXOOO..."}, 400),
        ("play", {"checkpoint": "player/000100", "board": "hello you"}, 400),
        ("think", {"checkpoint": "player/000100", "board": "XXXOO...."}, 400),
        ("rollout", {"checkpoint": "player/000100", "opponent": "mother"}, 400),
        ("rollout", {"checkpoint": "player/000100", "side": "Z"}, 400),
        ("rollout", {"checkpoint": "player/000200"}, 404),
        ("play", {"checkpoint": "damaged/000001", "board": "........."}, 503),
    ],
)
async def test_what_is_no_checkpoint_or_no_board_is_refused(
    app: Trimtab, client: httpx.AsyncClient, path: str, body: dict[str, Any], status: int
) -> None:
    from trimtab.align.classroom.qlearning import QConfig, train

    home = app.settings.home / "learn"
    (_,) = curve.kept(train(QConfig(games=5000)), home / "player")
    (home / "damaged").mkdir()
    (home / "damaged" / "000001.safetensors").write_bytes(b"no weights")
    response = await client.post(f"/v1/learn/{path}", json=body)
    assert response.status_code == status, response.text
    assert response.json()["error"]["message"]


async def test_what_the_command_trained_is_there_and_a_broken_curve_hides_nothing_else(
    app: Trimtab, client: httpx.AsyncClient
) -> None:
    from trimtab.align.classroom.qlearning import QConfig, train

    home = app.settings.home / "learn"
    (_,) = curve.kept(train(QConfig(games=5000)), home / "tictactoe-q-0")
    (home / "broken").mkdir()
    (home / "broken" / "curve.json").write_text('[{"update": 1}]')
    (found,) = (await ok(await client.get("/v1/learn/checkpoints")))["trainings"]
    assert (found["id"], found["job"], found["recipe"]) == ("tictactoe-q-0", None, {"algorithm": "q", "seed": 0})
    (only,) = found["checkpoints"]
    rollout = {"checkpoint": only["id"], "opponent": only["id"], "side": "X"}
    assert (await ok(await client.post("/v1/learn/rollout", json=rollout)))["moves"]


async def test_the_words_are_told_and_a_stranger_hears_nothing(app: Trimtab, client: httpx.AsyncClient) -> None:
    words = (await ok(await client.get("/v1/learn/words")))["words"]
    assert {"word": "action", "tictactoe": "a position", "language_model": "the next token"} in words
    async with caller(app, "nobody") as stranger:
        for path in ("words", "checkpoints"):
            assert (await stranger.get(f"/v1/learn/{path}")).status_code == 401


async def test_only_who_runs_it_orders_trainings(app: Trimtab, client: httpx.AsyncClient) -> None:
    await app.database.write(people.ensure_user, "ann")
    key = await app.database.write(people.create_key, "ann", "test")
    async with caller(app, key) as ann:
        refused = await ann.post("/v1/jobs", json={"kind": "tictactoe", "recipe": EARLY})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "forbidden")
