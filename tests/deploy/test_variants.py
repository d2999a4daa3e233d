"""Variants of the real default model: written whole, known by their sum, started, asked and chosen."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from trimtab.cli.main import app
from trimtab.deploy.estimate import estimate
from trimtab.deploy.plan import read
from trimtab.deploy.variant import Candidate, Knobs, variant
from trimtab.domain.errors import ModelFileError
from trimtab.llm.gguf_header import read_header
from trimtab.variants import Variants


@pytest.mark.model
def test_a_variant_keeps_template_and_vocabulary_has_its_estimated_size_and_is_refused_when_damaged(
    models_dir: Path, tmp_path: Path
) -> None:
    found, q4 = Variants("default", models_dir, tmp_path), variant("llamacpp/q4_0")
    found.prepare(q4)
    file = found.path(q4)
    header = read_header(file)
    assert header.chat_template == found.header.chat_template
    assert header.values["tokenizer.ggml.tokens"] == found.header.values["tokenizer.ggml.tokens"]
    assert found.disk(q4) == estimate(found.facts, Candidate(q4, Knobs())).disk
    found.prepare(q4)
    with file.open("r+b") as stream:
        stream.seek(-10, 2)
        stream.write(b"otherbytes")
    with pytest.raises(ModelFileError, match="it is not what was written"):
        found.prepare(q4)


@pytest.mark.model
@pytest.mark.slow
def test_from_questions_to_a_choice_on_this_machine(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").symlink_to(models_dir, target_is_directory=True)
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("questions.txt").write_text("What is a harbour?\nWhy do ships need one?\n", "utf-8")

    def trimtab(words: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, words.split())
        assert done.exit_code == code, done.output
        return done.output

    trimtab("plan ask --yes")
    assert "estimated" in trimtab("plan check")
    names = "--variant llamacpp/f16 --variant openvino/int8"
    said = trimtab(f"measure {names} --workload file:questions.txt --context 2048")
    assert said.count("perplexity") == 2
    assert trimtab(f"measure {names} --workload file:questions.txt --context 2048").count("(measured before)") == 2
    plan = Path("deployment.toml")
    plan.write_text(plan.read_text("utf-8").replace("first_token_p95 = 3.0", "first_token_p95 = 3600.0"), "utf-8")
    plan.write_text(plan.read_text("utf-8").replace("tokens_per_second = 8.0", "tokens_per_second = 0.0"), "utf-8")
    assert "the cheapest that meets every target" in " ".join(trimtab("plan choose").split())
    assert read(plan).chosen.variant == variant("llamacpp/f16")
    trimtab("plan plot --to picture.svg")
    assert "openvino/int8" in Path("picture.svg").read_text("utf-8")
