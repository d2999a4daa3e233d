"""The plan over HTTP: kept, checked by name, chosen from rows of before, and ordered to be measured, one at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from measured_rows import row

from scripted_app import app_with
from trimtab.api.server import create_app
from trimtab.api.serving import ensure_key
from trimtab.app import Trimtab
from trimtab.deploy.machine import this_machine
from trimtab.deploy.results import Results
from trimtab.llm.shelf import resolve_model, sha256_of
from trimtab.store import people

pytestmark = pytest.mark.model

Q8 = row("llamacpp/q8_0", memory=410, disk=145, first=1.6, rate=24, loss=0.004, threads=1)
INT8 = row("openvino/int8", memory=620, disk=153, first=0.4, rate=41, loss=0.006, threads=1)


@pytest.fixture
async def app(tmp_path: Path, models_dir: Path) -> AsyncIterator[Trimtab]:
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(models_dir, target_is_directory=True)
    async with app_with([], home) as opened:
        yield opened


@pytest.fixture
async def client(app: Trimtab) -> AsyncIterator[httpx.AsyncClient]:
    await ensure_key(app)
    async with caller(app, app.settings.key_path.read_text("utf-8").strip()) as opened:
        yield opened


def caller(app: Trimtab, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(app)), base_url="http://127.0.0.1",
        headers={"Authorization": f"Bearer {key}"},
    )  # fmt: skip


def ok(response: httpx.Response) -> Any:
    assert response.status_code < 400, response.text
    return response.json()


def refused(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    return error


async def test_a_plan_is_kept_wrong_keys_are_named_and_the_impossible_is_told_before_anything_runs(
    client: httpx.AsyncClient, app: Trimtab
) -> None:
    first = ok(await client.get("/v1/plans"))
    assert (first["kept"], first["plan"]["targets"]["users"]) == (False, 1)
    wanted = first["plan"] | {"targets": {"users": 2, "context": 1024}}
    kept = ok(await client.put("/v1/plans", json={"plan": wanted}))
    again = ok(await client.get("/v1/plans"))
    assert (again["kept"], again["plan"], again["digest"]) == (True, kept["plan"], kept["digest"])
    wrong = wanted | {"targets": {"users": 0, "speed": 1}, "budget": {"ram": 1}}
    message = refused(await client.put("/v1/plans", json={"plan": wrong}), 400)["message"]
    assert all(name in message for name in ("targets.users", "targets.speed", "budget.ram"))
    assert ok(await client.get("/v1/plans"))["plan"] == kept["plan"]

    held = ok(await client.post("/v1/plans/check", json={}))
    assert held["refusal"] is None
    assert {"openvino/int8", "llamacpp/q8_0"} <= {one["variant"] for one in held["fits"]}
    tight = ok(await client.post("/v1/plans/check", json={"plan": wanted | {"budget": {"memory_mb": 50}}}))
    assert tight["refusal"]["code"] == "impossible_budget"
    assert tight["refusal"]["detail"]["memory_mb"] > 50


async def test_the_choice_is_told_with_its_reasons_and_an_unreachable_target_with_the_nearest_offer(
    client: httpx.AsyncClient, app: Trimtab
) -> None:
    nothing = ok(await client.get("/v1/plans/measurements"))
    assert (nothing["rows"], nothing["refusal"]["code"]) == ([], "unreachable_target")
    home = app.settings.home
    where = {"model_sha256": sha256_of(resolve_model("smollm2-135m-instruct", home / "models"))}
    for one in (Q8, INT8):
        Results(home / "measurements").add(dataclasses.replace(one, **where, machine=this_machine(home).fingerprint))
    plan = ok(await client.get("/v1/plans"))["plan"]
    chosen = ok(await client.post("/v1/plans/choose", json={"write": True}))
    assert [(r["variant"], r["chosen"]) for r in chosen["rows"]] == [("llamacpp/q8_0", True), ("openvino/int8", False)]
    assert chosen["rows"][1]["why_not"].startswith("meets every target, and takes 210 MB more")
    assert ok(await client.get("/v1/plans"))["plan"]["chosen"]["weights"] == "q8_0"

    hard = plan | {"targets": plan["targets"] | {"first_token_p95": 0.1}}
    told = ok(await client.post("/v1/plans/choose", json={"plan": hard, "write": True}))
    assert told["chosen"] is None
    assert told["nearest"] == INT8.key
    assert told["refusal"]["detail"] | {"nearest": ""} == {
        "target": "targets.first_token_p95", "wanted": 0.1, "got": 0.4, "nearest": "",
    }  # fmt: skip
    assert ok(await client.get("/v1/plans"))["plan"]["chosen"]["weights"] == "q8_0", "nothing was written"


async def test_measuring_is_ordered_once_at_a_time_and_cancelled_like_any_job(client: httpx.AsyncClient) -> None:
    assert (
        "llamacpp/q9"
        in refused(await client.post("/v1/plans/measurements", json={"variants": ["llamacpp/q9"]}), 400)["message"]
    )
    refused(await client.post("/v1/plans/measurements", json={"workload": "file:/etc/passwd"}), 400)
    small = {"budget": {"memory_mb": 50}}
    refused(await client.post("/v1/plans/measurements", json={"plan": small}), 409)
    job = ok(await client.post("/v1/plans/measurements", json={"minutes": 1}))
    assert (job["kind"], job["status"]) == ("measure", "queued")
    assert ok(await client.get("/v1/plans"))["measuring"]["id"] == job["id"]
    second = refused(await client.post("/v1/plans/measurements", json={}), 409)
    assert second["detail"] == {"job": job["id"]}
    assert ok(await client.post(f"/v1/jobs/{job['id']}/cancel"))["status"] == "cancelled"
    assert ok(await client.get("/v1/plans"))["measuring"] is None


async def test_what_changes_for_everybody_is_for_whoever_runs_this(client: httpx.AsyncClient, app: Trimtab) -> None:
    key = await app.database.write(people.create_key, "ada", "a test")
    async with caller(app, key) as ada:
        assert ok(await ada.get("/v1/plans"))["kept"] is False
        for method, path, body in (
            ("PUT", "", {"plan": {}}), ("POST", "/measurements", {}), ("POST", "/choose", {}),
            ("POST", "/apply", {}), ("POST", "/undo", {}),
        ):  # fmt: skip
            refused(await ada.request(method, f"/v1/plans{path}", json=body), 403)
    assert "served elsewhere" in refused(await client.post("/v1/plans/apply", json={}), 409)["message"]
    assert ok(await client.get("/v1/plans/history")) == {"history": []}
