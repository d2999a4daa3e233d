"""The engine's child killed under load, again and again: every request ends, with an answer or a typed error.

`TRIMTAB_KILLS` sets how often (5 without it; 100 is what the handbook's figures are from).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "llm"))
from engines import ENGINES, Made, chat, until
from trimtab.domain.errors import EngineError
from trimtab.domain.model import Sampling
from trimtab.llm.engine import EngineOptions, EngineState
from trimtab.llm.openvino import OpenVinoEngine

pytestmark = [pytest.mark.model, pytest.mark.slow]

KILLS = int(os.environ.get("TRIMTAB_KILLS", "5"))
CLIENTS = 4


@pytest.mark.timeout(120 + 40 * KILLS)
@pytest.mark.parametrize("kind", sorted(ENGINES))
async def test_an_engine_killed_under_load_leaves_no_request_hanging(
    kind: str, chat_model_path: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    made = ENGINES[kind]
    file = request.getfixturevalue("converted_model") if made is OpenVinoEngine else chat_model_path
    options = EngineOptions(slots=CLIENTS, slot_context=1024, health_seconds=1.0, backoff_cap=0.5)
    engine: Made = made(file, options, tmp_path / "engine.log")
    await engine.start()
    answered, failed, done = 0, 0, asyncio.Event()

    async def client(number: int) -> None:
        nonlocal answered, failed
        while not done.is_set():
            sampling = Sampling(temperature=0.8, max_tokens=12, seed=number)
            try:
                await asyncio.wait_for(chat(engine, sampling).ainvoke(f"Write {number} sentences about the sea."), 90)
                answered += 1
            except EngineError:
                failed += 1
                await asyncio.sleep(0.1)

    clients = [asyncio.create_task(client(n)) for n in range(CLIENTS)]
    dice, back = random.Random(1), []
    try:
        for kill in range(1, KILLS + 1):
            if kill % 3 == 0:  # now and then an answer gets through, however slow the machine
                given = answered
                await until(lambda n=given: answered > n, 60)  # type: ignore[misc]
            await asyncio.sleep(dice.random() * 2)
            pid = engine.status().pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            before = time.monotonic()
            await until(lambda n=kill: engine.status().crashes == n and engine.status().state is EngineState.READY, 10)  # type: ignore[misc]
            back.append(time.monotonic() - before)
    finally:
        done.set()
        outcomes = await asyncio.gather(*clients, return_exceptions=True)
        await engine.stop()
    assert [o for o in outcomes if o is not None] == [], "a request hung, or ended with another error"
    assert answered > 0
    print(f"\n{kind}: {KILLS} kills, {answered} answered, {failed} typed errors, back after {max(back):.1f} s at most")
