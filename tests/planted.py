"""A small reward model, trained for real and lying where an alignment leaves one. What it likes is its own affair."""

from __future__ import annotations

from pathlib import Path

from tiny_decoder import decoder
from trimtab.align.base import load_base
from trimtab.align.jobs import Job, Jobs
from trimtab.align.network import Network
from trimtab.align.recipe import Recipe
from trimtab.align.reward_model import RewardModel, rows_of
from trimtab.align.reward_training import RewardConfig, train
from trimtab.domain.judgement import Judgement, Kind, Said

SHA = "ab" * 32


def reward_job(home: Path, *, name: str = "planted") -> Job:
    """A job with a reward model, and the judge beside it. It is cancelled, so that nobody takes it up."""
    folder = home / "models" / "prepared" / f"tiny.{SHA[:16]}.fp32"
    base = load_base(decoder(folder), threads=1)
    network = Network(base, trunk_layers=1, bf16=False)
    rows = rows_of(base, [_row(number) for number in range(8)])
    resolved = {"base_name": "tiny", "base_sha256": SHA, "weights": str(folder / "tiny.gguf"),
                "models_dir": str(home / "models"), "versions_dir": "", "engine": "auto", "parent": ""}  # fmt: skip
    recipe = Recipe.model_validate({"name": name, "policy": {"trunk_layers": 1}}).model_dump(mode="json")
    jobs = Jobs(home / "jobs")
    job = jobs.submit("align", {"recipe": recipe, "resolved": resolved})
    jobs.cancel(job)
    for kind in ("reward", "judge"):
        model = RewardModel(network, base, reads="trunk" if kind == "reward" else "top")
        list(train(model, rows, RewardConfig(batch=8)))
        model.save(job.work / kind)
    return job


def _row(number: int) -> Judgement:
    prompt, good = (Said("user", f"question {number}"),), f"the keeper of lamp {number}"
    if number % 2:
        return Judgement(f"fbk_{number}", Kind.PREFERENCE, prompt, good, "no")
    return Judgement(f"fbk_{number}", Kind.LABEL, prompt, good if number % 4 else "no", value=int(number % 4 > 0))
