"""A model is asked in the way that suits it, and its tokens are counted."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import gguf
import pytest
from typer.testing import CliRunner

from trimtab.domain.errors import InvalidInput, MissingExtra, ModelFileError
from trimtab.llm.hosted import hosted_model
from trimtab.llm.profile import profile_for
from trimtab.llm.tokens import counter_for, estimate

KNOWS_TOOLS = "{% if tools %}{{ tools }}{% endif %}{% for m in messages %}{{ m.role }}{% endfor %}"


def header_file(folder: Path, size: str, template: str, context: int = 32768) -> Path:
    file = folder / f"model-{size}.gguf"
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_name("Some Model")
    writer.add_uint32("qwen2.context_length", context)
    writer.add_chat_template(template)
    if size:
        writer.add_size_label(size)
    else:
        writer.add_embedding_length(4096)
        writer.add_block_count(32)
        writer.add_feed_forward_length(12288)
        writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize(
    ("size", "template", "tools", "grounding"),
    [
        ("135M", "plain", "guided", "quote"),
        ("1.5B", KNOWS_TOOLS, "guided", "quote"),
        ("3B", KNOWS_TOOLS, "native", "write"),
        ("7B", "plain", "guided", "write"),
        ("8x7B", KNOWS_TOOLS, "native", "write"),
        ("", KNOWS_TOOLS, "native", "write"),
    ],
)
def test_size_and_template_decide(tmp_path: Path, size: str, template: str, tools: str, grounding: str) -> None:
    found = profile_for(header_file(tmp_path, size, template), slot_context=8192)
    assert (found.tools, found.grounding) == (tools, grounding)
    assert found.context_tokens == 8192


def test_a_model_trained_for_less_context_gets_less(tmp_path: Path) -> None:
    assert profile_for(header_file(tmp_path, "1B", "plain", context=2048), slot_context=8192).context_tokens == 2048


def test_what_a_person_set_wins(tmp_path: Path) -> None:
    found = profile_for(header_file(tmp_path, "1B", "plain"), tools="none", grounding="write", name="mine")
    assert (found.tools, found.grounding, found.name) == ("none", "write", "mine")


def test_a_remote_model_is_taken_to_be_capable() -> None:
    found = profile_for("qwen3:8b", base_url="http://127.0.0.1:11434/v1", slot_context=16384)
    assert (found.tools, found.grounding, found.name, found.context_tokens) == ("native", "write", "qwen3:8b", 16384)


@pytest.mark.model
def test_the_default_model_is_guided_and_quotes(chat_model_path: Path) -> None:
    found = profile_for(chat_model_path)
    assert (found.tools, found.grounding, found.context_tokens) == ("guided", "quote", 4096)
    assert found.system_role
    assert found.sampling.repeat_penalty is None


@pytest.mark.model
def test_the_estimate_for_unknown_vocabularies_is_not_short_for_english(chat_model_path: Path) -> None:
    exact = counter_for(chat_model_path)
    texts = (
        "The harbour was built in 1842 to shelter herring boats. " * 9,
        "def f(x):\n    return x ** 2\n" * 5,
        "Dear Ms Okafor, we regret the incomprehensible misunderstanding; €20.50 was refunded.",
    )
    for text, true in zip(texts, exact(texts), strict=True):
        assert true <= estimate([text])[0] <= 2 * true, text
    german = ["Der Schifffahrtsgesellschaft wurde übermäßig viel berechnet."]
    assert exact(german)[0] <= 1.5 * estimate(german)[0]


def test_without_a_file_tokens_are_estimated_and_a_missing_file_is_said() -> None:
    assert counter_for(None)(["", "four words of text"]) == [0, 5]
    with pytest.raises(ModelFileError):
        counter_for(Path("/nowhere/x.gguf"))


def test_a_hosted_model_needs_its_provider_and_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="provider:model"):
        hosted_model("gpt-5-mini")
    with pytest.raises(InvalidInput):
        hosted_model("nobody-knows-them:x")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    assert hosted_model("openai:gpt-5-mini") is not None
    plain = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("langchain.chat_models"):
            raise ImportError(name)
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"pip install 'trimtab\[hosted\]'"):
        hosted_model("openai:gpt-5-mini")


@pytest.mark.model
def test_the_command_lists_finds_and_removes_models(
    models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trimtab.cli import models
    from trimtab.settings import Settings

    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path))
    home = Settings.load().models_dir
    home.parent.mkdir(parents=True, exist_ok=True)
    (home / "all-minilm-l6-v2").mkdir(parents=True)
    (home / "smollm2-135m-instruct").symlink_to(models_dir / "smollm2-135m-instruct")
    run = CliRunner()
    rows = json.loads(run.invoke(models.app, ["list", "--json"]).stdout)
    assert {r["name"]: r["installed"] for r in rows} == {"smollm2-135m-instruct": True, "all-minilm-l6-v2": False}
    assert run.invoke(models.app, ["path", "smollm2-135m-instruct"]).stdout.strip().endswith(".gguf")
    assert "smollm2" in run.invoke(models.app, ["list"]).stdout
    assert "removed" in run.invoke(models.app, ["remove", "all-minilm-l6-v2"]).stdout
    assert not (home / "all-minilm-l6-v2").exists()
    missing = run.invoke(models.app, ["path", "all-minilm-l6-v2"])
    assert isinstance(missing.exception, ModelFileError)
