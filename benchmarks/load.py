"""Does the chosen plan keep its promise? `python -m benchmarks.load deployment.toml --seconds 60`.

Starts `trimtab up --plan` in a process of its own, sees that the API answers (and the web UI, where the plan has it),
and lets as many people as the plan promises ask through `/v1/chat/completions` at once, each the next question as soon
as the last is answered, until the time is over. The questions are those that variants are measured by. The first word's
time, for 95 of 100 questions, is compared with what the plan promised; the exit code is 1 when it was longer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from trimtab.deploy import plan as plans
from trimtab.deploy.interval import mean, quantile
from trimtab.deploy.speed import Answer, Endpoint, ask
from trimtab.deploy.workload import synthetic
from trimtab.settings import Settings

START_SECONDS = 180
ANSWER_SECONDS = 120.0


@dataclass(frozen=True)
class Running:
    api: str
    page: str
    key: str
    started_in: float


@contextmanager
def running(file: Path, home: Path, *, web: bool) -> Iterator[Running]:
    """The plan, started as a person starts it, on ports that are free."""
    port, page = _free(), _free()
    environment = {**os.environ, "TRIMTAB_HOME": str(home), "TRIMTAB_RATE_PER_MINUTE": "100000"}
    words = ["up", "--plan", str(file), "--port", str(port), "--ui-port", str(page)]
    with tempfile.TemporaryFile() as log:
        began = time.monotonic()
        child = subprocess.Popen(
            [sys.executable, "-m", "trimtab.cli.main", *words], env=environment, stdout=log, stderr=log
        )
        try:
            api = f"http://127.0.0.1:{port}"
            _wait(child, f"{api}/readyz", log)
            if web:
                _wait(child, f"http://127.0.0.1:{page}/_stcore/health", log)
            key = (home / "key").read_text("utf-8").strip()
            yield Running(api, f"http://127.0.0.1:{page}", key, time.monotonic() - began)
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait(timeout=60)


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(child: subprocess.Popen[bytes], url: str, log: object) -> None:
    for _ in range(START_SECONDS * 5):
        if child.poll() is not None:
            log.seek(0)  # type: ignore[attr-defined]
            sys.exit(f"trimtab up ended by itself: {log.read().decode(errors='replace')[-1500:]}")  # type: ignore[attr-defined]
        try:
            if httpx.get(url, timeout=2, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    sys.exit(f"{url} does not answer after {START_SECONDS} s.")


async def asked(endpoint: Endpoint, users: int, seconds: float) -> list[Answer]:
    """What so many people saw in that time. Answers that were begun are finished."""
    questions = list(enumerate(synthetic(4096).requests))[::-1]
    answers: list[Answer] = []
    headers = {"Authorization": f"Bearer {endpoint.key}"}
    async with httpx.AsyncClient(timeout=ANSWER_SECONDS, headers=headers, trust_env=False, verify=False) as client:
        await ask(client, endpoint, questions.pop()[1], seed=0)  # what only the first question pays
        ends = time.monotonic() + seconds

        async def person() -> None:
            while questions and time.monotonic() < ends:
                number, question = questions.pop()
                answers.append(await ask(client, endpoint, question, seed=number))

        async with asyncio.TaskGroup() as people:
            for _ in range(users):
                people.create_task(person())
    return answers


def model_of(found: Running) -> str:
    """What the API calls the bare model."""
    headers = {"Authorization": f"Bearer {found.key}"}
    told = httpx.get(f"{found.api}/v1/models", headers=headers, timeout=10, trust_env=False).raise_for_status().json()
    return str(told["data"][1]["id"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path, nargs="?", default=Path("deployment.toml"))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    plan, home = plans.read(given.plan), Settings.load().home
    load = os.getloadavg()[0]
    with running(given.plan, home, web="web" in plan.interface.faces) as found:
        began = time.monotonic()
        endpoint = Endpoint(f"{found.api}/v1", model_of(found), found.key)
        answers = asyncio.run(asked(endpoint, plan.targets.users, given.seconds))
        seconds = time.monotonic() - began
    firsts = [answer.first for answer in answers]
    told = {
        "variant": plan.chosen.variant.name if plan.chosen.variant else "",
        "users": plan.targets.users,
        "seconds": round(seconds, 1),
        "answers": len(answers),
        "first_p50": round(quantile(firsts, 0.5), 3),
        "first_p95": round(quantile(firsts, 0.95), 3),
        "promised_p95": plan.targets.first_token_p95,
        "tokens_per_second": round(mean([answer.rate for answer in answers]), 1),
        "promised_tokens_per_second": plan.targets.tokens_per_second,
        "together": round(sum(answer.tokens for answer in answers) / seconds, 1),
        "started_in": round(found.started_in, 1),
        "load_before": round(load, 2),
    }
    kept = told["first_p95"] <= told["promised_p95"] and told["tokens_per_second"] >= told["promised_tokens_per_second"]
    if given.json:
        print(json.dumps(told | {"kept": kept}))
    else:
        print("\n".join(f"{name:28}{value}" for name, value in told.items()))
        print("The promise is kept." if kept else "The promise is NOT kept.")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
