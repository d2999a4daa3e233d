"""A smaller model of the real default one: made by a job, known by name, served by both engines, its teacher's adapters
refused; disks that are full while variants are written; and what 4 bits are fitted to."""

from __future__ import annotations

import asyncio
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scripted_app import app_with, asked
from tiny_gguf import tiny_gguf
from trimtab.app import Trimtab
from trimtab.cli.main import app
from trimtab.deploy.estimate import estimate
from trimtab.deploy.speed import measure
from trimtab.deploy.variant import Candidate, Knobs, variant
from trimtab.deploy.workload import synthetic
from trimtab.domain.errors import Conflict, InvalidInput, ModelFileError, NotFound
from trimtab.llm.gguf_header import read_header
from trimtab.llm.openvino_folder import read_card
from trimtab.settings import Settings
from trimtab.store import versions
from trimtab.students import Students
from trimtab.variants import Variants


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """A disk that is full after so many bytes of a file: the system refuses the write that goes beyond."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.model
def test_a_full_disk_leaves_no_half_variant_and_says_what_to_do(models_dir: Path, tmp_path: Path) -> None:
    found, q4 = Variants("default", models_dir, tmp_path), variant("llamacpp/q4_0")
    with no_file_above(20_000_000), pytest.raises(ModelFileError, match="Free some space"):
        found.prepare(q4)
    assert not found.is_written(q4)
    assert not list(tmp_path.glob("*.gguf"))
    found.prepare(q4)
    assert found.is_written(q4)


@pytest.mark.model
def test_a_student_that_is_not_here_is_named_with_those_that_are(models_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="none yet; make one: trimtab models prune"):
        Variants("default", models_dir, tmp_path / "variants").prepare(variant("openvino/int8@pruned-24-1f3c9a"))


async def test_four_bits_are_fitted_to_own_conversations_and_take_the_place_of_those_that_were_not(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, int4 = tiny_gguf(tmp_path / "tiny.gguf"), variant("openvino/int4")
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path))
    monkeypatch.setenv("TRIMTAB_MODEL", str(model))
    found = Variants(str(model), models_dir, tmp_path / "variants")
    found.prepare(int4)
    assert found.could_be_fitted(int4)
    before = (found.path(int4) / "openvino_model.bin").read_bytes()
    alone = "models calibrate --no-bundled --conversations 5".split()
    with pytest.raises(InvalidInput, match="No conversation was held here yet"):
        CliRunner().invoke(app, alone, catch_exceptions=False)
    async with app_with(["a b ab ba abba ab"], tmp_path) as running:
        await asked(running, "ab ab ba?")
    done = CliRunner().invoke(app, alone)
    assert done.exit_code == 0, done.output
    assert "trimtab measure --again --variant openvino/int4" in done.output
    found.prepare(int4)  # what is there is what was written
    assert not found.could_be_fitted(int4)
    assert 0 < read_card(found.path(int4)).fitted_to < 30
    after = (found.path(int4) / "openvino_model.bin").read_bytes()
    assert (len(after), after != before) == (len(before), True)


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.skipif("TRIMTAB_STUDENTS" not in os.environ, reason="trains for many minutes: set TRIMTAB_STUDENTS=1")
def test_a_pruned_model_is_made_measured_and_served(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").symlink_to(models_dir, target_is_directory=True)
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path))
    done = CliRunner().invoke(app, "models prune --layers 24 --tokens 400 --name tiny".split())
    assert done.exit_code == 0, done.output
    rows = json.loads(CliRunner().invoke(app, "models students --json".split()).output)
    name = rows[0]["name"]
    assert (name[:5], rows[0]["layers"], rows[0]["method"]) == ("tiny-", 6, "prune")

    made = Students(tmp_path).verified(name)
    line = made.version.manifest.lineage
    assert line.parent.startswith("base_")
    assert line.recipe["tokens"] == 400
    assert set(line.datasets) == {"bundled", "texts"}
    header, teacher = read_header(made.gguf), Variants("default", models_dir, tmp_path / "variants").header
    assert header.values["llama.block_count"] == 6
    assert header.chat_template == teacher.chat_template
    assert header.values["tokenizer.ggml.tokens"] == teacher.values["tokenizer.ggml.tokens"]

    found = Variants("default", models_dir, tmp_path / "variants")
    knobs = Knobs(slots=1, context=512)
    assert CliRunner().invoke(app, ["models", "calibrate", name]).exit_code == 0
    for form in ("llamacpp/q8_0", "openvino/int8", "openvino/int4"):
        one = Candidate(variant(f"{form}@{name}"), knobs)
        found.prepare(one.variant)
        guessed = estimate(found.facts_of(one.variant), one)
        assert guessed.disk == pytest.approx(found.disk(one.variant), rel=0.01)
        assert found.disk(one.variant) < found.facts.numbers
        asyncio.run(_answers(found, one))

    # An adapter of the teacher changes layers that a student does not have: it is refused before it is tried.
    asyncio.run(_adapters_do_not_fit(name))

    weights = made.version.folder / "model.safetensors"
    with weights.open("r+b") as stream:
        stream.seek(-4, 2)
        stream.write(b"xxxx")
    with pytest.raises(ModelFileError, match=r"model.safetensors of ver_.* was changed"):
        found.prepare(variant(f"llamacpp/q4_0@{name}"))
    assert CliRunner().invoke(app, ["models", "forget", name]).exit_code == 0
    with pytest.raises(NotFound, match="no student"):
        Students(tmp_path).get(name)


async def _answers(found: Variants, one: Candidate) -> None:
    async with found.start(one) as started:
        speed = await measure(started.endpoint, synthetic(1, max_tokens=8).requests, 1)
        assert speed.answers == 1
        assert len(await started.positions()) > 200


async def _adapters_do_not_fit(name: str) -> None:
    settings = Settings.load(variant=f"llamacpp/q8_0@{name}", context=512, parallel=1)

    async with Trimtab.open(settings, retrieval=False) as running:
        await running.database.write(
            versions.add, "ver_of_the_teacher", "kinder", {"base": "SmolLM2", "base_sha256": "0" * 64}, digest="d"
        )
        with pytest.raises(Conflict, match=r"was trained on SmolLM2, and .* is served"):
            await running.versions.promote("ver_of_the_teacher", by="me", anyway=True)
