"""A training killed at random moments loses at most the step it was in, and ends in the same weights.

`TRIMTAB_KILLS` sets how often (5 without it; 50 is what the handbook's figures are from).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "align" / "llm"))
from aligning_worker import run

from tiny_decoder import decoder
from trimtab.align.adapter import read_adapter
from trimtab.align.base import load_base
from trimtab.align.network import Network

pytestmark = pytest.mark.slow
TESTS = Path(__file__).parents[1]

KILLS = int(os.environ.get("TRIMTAB_KILLS", "5"))
STEPS = 4 * KILLS + 10


@pytest.mark.timeout(120 + 40 * KILLS)
def test_training_killed_at_random_moments_ends_in_the_same_weights(tmp_path: Path) -> None:
    folder = decoder(tmp_path / "tiny")
    torch.set_num_threads(1)
    base = load_base(folder)
    whole = run(base, Network(base, trunk_layers=1, bf16=False), tmp_path / "whole", STEPS)
    paths = os.pathsep.join((str(TESTS), str(TESTS / "align" / "llm")))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "aligning_worker", str(folder), str(tmp_path / "killed"), str(STEPS)]
    dice = random.Random(3)
    done, lost, kills = 0, [], 0
    for _ in range(2 * KILLS + 20):
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            told = [int(next(worker.stdout, "0"))]  # it has begun, or it had nothing left to do
            if kills < KILLS and told[0]:
                time.sleep(dice.random() * 0.2)  # any moment of the steps that follow
                worker.send_signal(signal.SIGKILL)
                kills += 1
            told += [int(line) for line in worker.stdout if line.endswith("\n")]
        if told[0]:
            lost.append(done + 1 - told[0])
            done = told[-1]
        if worker.returncode == 0:
            break
    print(f"\n{kills} kills over {STEPS} steps: {sum(lost)} steps done again, {max(lost)} at most after one kill")
    assert worker.returncode == 0
    assert kills >= KILLS
    assert max(lost) <= 1
    adapter, _ = read_adapter(tmp_path / "killed" / "adapter")
    for name, tensor in whole.named().items():
        torch.testing.assert_close(adapter.named()[name], tensor, atol=1e-5, rtol=0)
