"""Stage one of RLAIF in a job: answers are revised, the revisions are learned, and PPO begins with what was learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from opinions import Believer

from tiny_decoder import decoder
from tiny_run import Making
from trimtab.align import bundled
from trimtab.align.adapter import read_adapter
from trimtab.align.constitution import Constitution
from trimtab.align.evaluation import Prompt
from trimtab.align.jobs import Jobs
from trimtab.align.judge import Judge
from trimtab.align.revision import red_team_prompts
from trimtab.domain.judgement import Kind, Said, Source
from trimtab.works.material import Material
from trimtab.works.practice import practise
from trimtab.works.principles import Bench
from trimtab.works.revising import Revised, revise
from trimtab.works.run import Run, revises, shares

RED = red_team_prompts()
ORDINARY: list[Prompt] = [(Said("user", f"What is {n} and {n}?"),) for n in range(6)]
MATERIAL = Material([], [], {"train": [*RED, *ORDINARY], "validation": [], "test": [RED[0]]}, {}, [])
RECIPE: dict[str, Any] = {
    "data": {"constitution": True},
    "revision": {"prompts": 10, "harmful": 0.6, "own": 2, "epochs": 2, "learning_rate": 0.01},
}


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def making(tiny_model: Path, tmp_path: Path) -> Iterator[Making]:
    runs = Making(tiny_model, tmp_path)
    yield runs
    runs.close()


def bench(stronger: Any = None, forms: dict[str, str] | None = None) -> Bench:
    constitution = Constitution.load()
    few = (constitution["harmless"], constitution["brief"])
    return Bench(
        replace(constitution, principles=few), few, Judge(Believer(), external=stronger), forms or {}, stronger
    )


def progress(run: Run, stage: str) -> list[dict[str, Any]]:
    return [line for line in Jobs(run.job.folder.parent).progress(run.job) if line["stage"] == stage]


def test_answers_are_revised_and_learned_and_it_is_told_by_whom(making: Making) -> None:
    run = making(**RECIPE)
    found = revise(run, MATERIAL, bench())
    assert found.told["answers"] == 10
    assert found.told["by"]["template"] >= 6, "each harmful one, as a random model writes nothing of use"
    assert found.told["by"]["model"] == found.told["by"]["stronger"] == 0
    assert found.told["tried_by_the_model"] == 0, "nobody could say whether its own were better"
    assert {(row.kind, row.source) for row in found.rows} == {(Kind.DEMONSTRATION, Source.CONSTITUTION)}
    assert RED[0] not in {row.prompt for row in found.rows}, "a prompt of the test is not learned from"
    declined = {row.completion for row in found.rows if row.person == "harmless"}
    assert declined <= set(Constitution.load()["harmless"].templates)
    (told,) = progress(run, "revision")
    assert (told["revised"], told["by"]) == (found.told["revised"], found.told["by"])
    assert told["samples"][0]["revised"]
    steps = progress(run, "revised")
    assert steps[-1]["loss"] < steps[0]["loss"]


def test_what_a_judge_does_not_prefer_is_not_learned(making: Making) -> None:
    """This judge likes "please", and of three templates one says it: only that one ever stands."""
    found = revise(making(**RECIPE), MATERIAL, bench(forms={"harmless": "likelihood"}))
    declined = {row.completion for row in found.rows if row.person == "harmless"}
    assert len(declined) == 1
    assert "please" in declined.pop()
    assert found.told["tried_by_the_model"] == 2, "as many as the recipe lets it"


def test_a_stronger_model_revises_where_the_policy_cannot(making: Making) -> None:
    def stronger(asked: Any) -> list[str]:
        return ["I would rather help you find somebody to talk to." for _ in asked]

    found = revise(making(**RECIPE), MATERIAL, bench(stronger))
    assert found.told["by"] == {"model": 0, "stronger": 10, "template": 0}
    assert all(not row.ours for row in found.rows)


def test_a_stage_that_was_cut_off_goes_on_and_ends_in_the_same_weights(making: Making) -> None:
    run = making(**RECIPE)
    once = revise(run, MATERIAL, bench())
    folder = run.work / "revised" / "adapter"
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_config.json").unlink()
    folder.rmdir()
    again = revise(making(**RECIPE), MATERIAL, bench())
    assert again.told == once.told
    assert [row.id for row in again.rows] == [row.id for row in once.rows]
    _same(once, again)
    third = revise(making(**RECIPE), MATERIAL, bench())
    _same(once, third)
    assert len(progress(run, "revision")) == 2, "the third time there was nothing to do"


def test_it_may_not_move_the_model_further_than_the_kl_target(making: Making) -> None:
    far = {**RECIPE, "policy": {"kl_target": 0.05, "kl_cap": 1.0}}
    run = making(**far)
    found = revise(run, MATERIAL, bench())
    measured = [line["kl"] for line in progress(run, "revised report")]
    assert measured[0] > 0.05
    assert found.told["kl"] == measured[-1] <= 0.05


def test_ppo_begins_with_what_was_learned(making: Making) -> None:
    run = making(
        **RECIPE,
        policy={"steps": 1, "rollouts": 2, "learning_rate": 1e-9, "kl_target": 90.0, "kl_cap": 190.0},
        rewards={"reward_model": 0.0, "length": 1.0},
    )
    found = revise(run, MATERIAL, bench())
    practise(run, MATERIAL, None, start=found.adapter)  # type: ignore[arg-type]  # of no weight here
    kept, _ = read_adapter(run.work / "policy" / "adapter")
    assert found.adapter is not None
    learned = {name: b.detach() for name, b in found.adapter.b.items()}
    for name, b in learned.items():
        torch.testing.assert_close(kept.b[name].detach(), b, rtol=0, atol=1e-6)
    assert max(float(b.abs().max()) for b in learned.values()) > 1e-3


def _same(one: Revised, other: Revised) -> None:
    assert one.adapter is not None
    assert other.adapter is not None
    for name, tensor in one.adapter.named().items():
        torch.testing.assert_close(other.adapter.named()[name], tensor, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("data", "method", "stages"),
    [
        ({}, "ppo", ["reward", "judge", "policy", "examination"]),
        ({"labels_only": True}, "kto", ["reward", "judge", "policy", "examination"]),
        (
            {"constitution": True, "human_weight": 0.0},
            "ppo",
            ["judges", "revision", "constitution", "reward", "judge", "policy", "examination"],
        ),
        ({"constitution": True}, "dpo", ["judges", "constitution", "reward", "judge", "policy", "examination"]),
    ],
)
def test_progress_runs_from_nothing_to_all_through_the_stages_that_a_recipe_has(
    making: Making, data: dict[str, Any], method: str, stages: list[str]
) -> None:
    run = making(data=data, method=method)
    assert list(shares(run.recipe)) == stages
    assert revises(run.recipe) == ("revision" in stages)
    done = []
    for stage in stages:
        for step in (1, 2):
            run.moved(stage, step, 2)
            done.append(Jobs(run.job.folder.parent).state(run.job).done)
    assert done == sorted(done)
    assert len(set(done)) == len(done)
    assert done[-1] == 1000


def test_the_prompts_that_are_revised_ship_with_trimtab() -> None:
    assert {one.expected for one in bundled.prompts("train") if one.prompt in set(RED)} == {"decline"}
