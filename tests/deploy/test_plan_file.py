"""`deployment.toml`: what it may hold, and what `trimtab plan` makes of it before anything is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trimtab.deploy.estimate import Asked, ModelFacts, estimate, fit, refuse_impossible
from trimtab.deploy.machine import Machine, this_machine
from trimtab.deploy.plan import Deployment, checked, read, write
from trimtab.deploy.variant import STANDARD, Candidate, Knobs, variant
from trimtab.domain.errors import ImpossibleBudget, InvalidInput

SMOLLM = ModelFacts("SmolLM2", "0" * 64, 30, 576, 1536, 3, 64, 49152, 8192, 106_168_320, 28_311_552, 140_544, 1_741_888)
MACHINE = Machine(cores=2, memory=8_000_000_000, disk=50_000_000_000, accelerators=(), processor="test")


def test_a_plan_is_written_with_what_each_key_means_and_read_back_the_same(tmp_path: Path) -> None:
    plan = checked(
        {
            "targets": {"users": 8, "first_token_p95": 1.5},
            "budget": {"memory_mb": 2000},
            "resources": {"connectors": [{"name": "weather", "authentication": "key"}], "collections": ["handbook"]},
            "interface": {"faces": ["api", "mcp"]},
            "chosen": {"engine": "openvino", "weights": "int8", "kv": "u8", "slots": 8, "threads": 2, "batch": 256},
        }
    )
    file = tmp_path / "deployment.toml"
    write(plan, file)
    assert read(file) == plan
    assert "# People who ask at the same time." in file.read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[targets]\nuser = 3", "targets.user"),
        ("[targets]\nusers = 0", "targets.users"),
        ("[targets]\nfirst_token_p95 = nan", "targets.first_token_p95"),
        ("[budget]\naccelerator = 'maybe'", "budget.accelerator"),
        ("[[resources.connectors]]\nname = 'x'\nauthentication = 'password'", "resources.connectors.0.authentication"),
        ("[interface]\nfaces = []", "interface.faces"),
        ("model = ", "no TOML"),
    ],
)
def test_a_wrong_key_is_refused_by_its_name(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "deployment.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(InvalidInput, match=named.replace(".", r"\.")):
        read(file)


def test_a_missing_plan_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="trimtab plan ask"):
        read(tmp_path / "nothing.toml")


def refuse(plan: Deployment, machine: Machine = MACHINE) -> None:
    knobs = Knobs(slots=plan.targets.users, context=plan.targets.context)
    fits = []
    for one in STANDARD:
        guessed = estimate(SMOLLM, Candidate(one, knobs))
        fits.append(fit(plan, machine, Candidate(one, knobs), guessed.memory, guessed.disk, guessed.basis))
    refuse_impossible(plan, machine, SMOLLM, fits)


def test_a_budget_that_nothing_fits_is_refused_before_anything_is_loaded() -> None:
    refuse(checked({}))
    with pytest.raises(ImpossibleBudget, match=r"No variant of SmolLM2 fits.*MB of memory") as told:
        refuse(checked({"budget": {"memory_mb": 50}}))
    assert told.value.detail["memory_mb"] > 50
    with pytest.raises(ImpossibleBudget, match="MB of disk"):
        refuse(checked({}), replace(MACHINE, disk=0))
    with pytest.raises(ImpossibleBudget, match="64 cores"):
        refuse(checked({"budget": {"cores": 64}}))
    with pytest.raises(ImpossibleBudget, match="trained for 8192"):
        refuse(checked({"targets": {"context": 16384}}))


def test_a_required_accelerator_is_never_silently_done_without() -> None:
    plan = checked({"budget": {"accelerator": "required"}})
    with pytest.raises(ImpossibleBudget, match="there is none on this machine"):
        refuse(plan)
    refuse(plan, replace(MACHINE, accelerators=("/dev/nvidia0",)))


MEASURED = (
    ("llamacpp/f16", 4, 2048, 256, 528),
    ("llamacpp/q8_0", 4, 2048, 256, 401),
    ("llamacpp/q8_0/kv-q8_0", 4, 2048, 256, 314),
    ("llamacpp/q5_0", 4, 2048, 256, 351),
    ("llamacpp/q4_0", 4, 2048, 256, 410),
    ("openvino/f16", 4, 2048, 256, 1151),
    ("openvino/int8", 4, 2048, 256, 621),
    ("openvino/int8/kv-f16", 4, 2048, 256, 632),
    ("openvino/int8/kv-u4", 4, 2048, 256, 612),
    ("openvino/int4", 4, 2048, 256, 524),
    ("llamacpp/q8_0", 1, 2048, 256, 257),
    ("openvino/int8", 1, 2048, 256, 606),
    ("llamacpp/q8_0", 8, 4096, 512, 978),
    ("openvino/int8", 8, 4096, 512, 664),
    ("llamacpp/f16", 1, 1024, 256, 361),
    ("openvino/int4", 1, 1024, 256, 506),
)
"""Variant, slots, context, batch, and peak MB of its processes after one question of about 310 tokens in each slot, as
it was measured on two cores of an AMD EPYC with AVX-512."""

MEASURED_WITHOUT = (
    ("llamacpp/f16", 8, 24, 7264, 849),
    ("llamacpp/q8_0", 8, 24, 7250, 723),
    ("llamacpp/q8_0/kv-q8_0", 8, 24, 7250, 485),
    ("llamacpp/q4_0", 8, 24, 7200, 727),
    ("openvino/f16", 1, 0, 1237, 1433),
    ("openvino/f16", 8, 24, 7235, 1655),
    ("openvino/int8", 1, 0, 1237, 633),
    ("openvino/int8", 2, 6, 2800, 664),
    ("openvino/int8", 4, 12, 4300, 700),
    ("openvino/int8", 8, 24, 7235, 870),
    ("openvino/int8/kv-f16", 8, 24, 7235, 943),
    ("openvino/int8/kv-u4", 8, 24, 7235, 820),
    ("openvino/int4", 1, 0, 1242, 563),
    ("openvino/int4", 8, 24, 7125, 738),
)
"""Variant, slots, questions beside those that one person asked, tokens of all, peak MB: an EPYC without AVX-512."""


@pytest.mark.parametrize(("name", "slots", "context", "batch", "peak"), MEASURED)
def test_estimates_are_near_what_was_measured(name: str, slots: int, context: int, batch: int, peak: int) -> None:
    one = Candidate(variant(name), Knobs(slots=slots, context=context, threads=2, batch=batch))
    assert estimate(SMOLLM, one, Asked(slots, slots * 310), avx512=True).memory / 1e6 == pytest.approx(peak, rel=0.05)


@pytest.mark.parametrize(("name", "slots", "more", "tokens", "peak"), MEASURED_WITHOUT)
def test_estimates_are_near_on_a_processor_without_avx512(
    name: str, slots: int, more: int, tokens: int, peak: int
) -> None:
    one = Candidate(variant(name), Knobs(slots=slots, context=2048, threads=2, batch=256))
    assert estimate(SMOLLM, one, Asked(6 + more, tokens), avx512=False).memory / 1e6 == pytest.approx(peak, rel=0.1)


def test_more_users_more_context_and_finer_numbers_take_more_memory() -> None:
    def memory(name: str, slots: int = 1, context: int = 2048) -> int:
        return estimate(SMOLLM, Candidate(variant(name), Knobs(slots=slots, context=context))).memory

    assert memory("llamacpp/q5_0") < memory("llamacpp/q8_0") < memory("llamacpp/f16")
    assert memory("llamacpp/q8_0/kv-q8_0", 8) < memory("llamacpp/q8_0", 8) < memory("llamacpp/q8_0", 8, 4096)
    assert memory("openvino/int8/kv-u4", 8) < memory("openvino/int8", 8) < memory("openvino/int8/kv-f16", 8)


def test_this_machine_is_told_as_it_is(tmp_path: Path) -> None:
    found = this_machine(tmp_path / "not" / "yet" / "there")
    assert found.cores >= 1
    assert found.memory > 100_000_000
    assert found.disk > 0


def test_a_variant_is_known_by_its_name_and_others_are_refused() -> None:
    assert [variant(one.name) for one in STANDARD] == list(STANDARD)
    for wrong in ("llamacpp", "llamacpp/int8", "openvino/int8/kv-q8_0", "vllm/f16", ""):
        with pytest.raises(InvalidInput, match="llamacpp/q8_0"):
            variant(wrong)
