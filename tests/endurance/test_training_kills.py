"""A training killed at random moments loses at most the step it was in, and ends in the same weights.

`TRIMTAB_KILLS` sets how often (5 without it; 50 is what the handbook's figures are from).
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "align" / "llm"))
import aligning_worker

from tiny_decoder import decoder
from trimtab.align.adapter import read_adapter
from trimtab.align.base import load_base
from trimtab.align.network import Network

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("TRIMTAB_KILLS", "5"))
STEPS = 4 * KILLS + 10


PROCESSES = multiprocessing.get_context("forkserver")
"""Forked from one that has loaded torch, so that a kill costs tenths of a second; they die as any process does."""
PROCESSES.set_forkserver_preload(["transformers.models.auto.tokenization_auto", "trimtab.align.rlhf"])


def heard(steps_done: Connection) -> Iterator[int]:
    """The steps that a worker says it has done, until it is gone."""
    with suppress(EOFError, ConnectionResetError):
        while True:
            yield steps_done.recv()


@pytest.mark.timeout(120 + 40 * KILLS)
def test_training_killed_at_random_moments_ends_in_the_same_weights(tmp_path: Path) -> None:
    folder = decoder(tmp_path / "tiny")
    torch.set_num_threads(1)
    base = load_base(folder)
    whole = aligning_worker.run(base, Network(base, trunk_layers=1, bf16=False), tmp_path / "whole", STEPS)
    dice = random.Random(3)
    done, lost, kills = 0, [], 0
    for _ in range(2 * KILLS + 20):
        steps_done, ours = PROCESSES.Pipe(duplex=False)
        worker = PROCESSES.Process(target=aligning_worker.told, args=(folder, tmp_path / "killed", STEPS, ours))
        worker.start()
        ours.close()
        told = list(islice(heard(steps_done), 1)) or [0]  # it has begun, or it had nothing left to do
        if kills < KILLS and told[0]:
            time.sleep(dice.random() * 0.2)  # any moment of the steps that follow
            worker.kill()
            kills += 1
        told += heard(steps_done)
        worker.join()
        if told[0]:
            lost.append(done + 1 - told[0])
            done = told[-1]
        if worker.exitcode == 0:
            break
    print(f"\n{kills} kills over {STEPS} steps: {sum(lost)} steps done again, {max(lost)} at most after one kill")
    assert worker.exitcode == 0
    assert kills >= KILLS
    assert max(lost) <= 1
    adapter, _ = read_adapter(tmp_path / "killed" / "adapter")
    for name, tensor in whole.named().items():
        torch.testing.assert_close(adapter.named()[name], tensor, atol=1e-5, rtol=0)
