"""Which engine a model gets, and what a person is told about it."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from trimtab.app import Trimtab
from trimtab.domain.errors import InvalidInput, ModelFileError
from trimtab.llm.choice import choose
from trimtab.llm.served import ServingOptions, engine_for, serve
from trimtab.llm.weights import prepare
from trimtab.settings import Settings

pytestmark = pytest.mark.model


def strange(folder: Path) -> Path:
    """A GGUF file of an architecture that only llama.cpp knows."""
    file = folder / "strange.gguf"
    writer = gguf.GGUFWriter(file, "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_the_default_model_gets_openvino_where_that_is_faster(
    chat_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    choice = choose(chat_model_path)
    assert (choice.engine, choice.fallback) == ("openvino", True)
    assert "faster" in choice.reason
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert choose(chat_model_path).engine == "llamacpp"


def test_a_model_that_openvino_cannot_read_gets_llamacpp_and_the_reason_is_told(tmp_path: Path) -> None:
    choice = choose(strange(tmp_path))
    assert choice.engine == "llamacpp"
    assert "mamba" in choice.reason
    with pytest.raises(InvalidInput, match="mamba"):
        choose(strange(tmp_path), "openvino")


def test_a_person_and_what_they_want_of_the_weights_come_first(chat_model_path: Path, tmp_path: Path) -> None:
    assert choose(chat_model_path, "llamacpp").engine == "llamacpp"
    assert choose(chat_model_path, "openvino", native_tools=True).engine == "openvino"
    assert choose(chat_model_path, native_tools=True).engine == "llamacpp"
    options = ServingOptions(models_dir=tmp_path, as_shipped=True)
    assert engine_for(chat_model_path, options).engine == "llamacpp"


async def test_llamacpp_takes_over_when_openvino_cannot_convert_but_only_if_nobody_chose(
    chat_model_path: Path, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    model = prepare(chat_model_path, models_dir / "prepared")
    (tmp_path / "prepared").write_text("in the way of the folder")
    options = ServingOptions(models_dir=tmp_path, model=str(model), tools_mode="none", context=512, parallel=1)
    served = await serve(options)
    try:
        status = served.engine_status()
        assert status is not None
        assert (status["engine"], status["ok"]) == ("llamacpp", True)
        assert "openvino could not" in status["reason"]
    finally:
        await served.aclose()


async def test_without_the_embedding_model_a_start_says_what_to_fetch_and_starts_no_engine(
    tmp_path: Path, models_dir: Path
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "smollm2-135m-instruct").symlink_to(models_dir / "smollm2-135m-instruct")
    with pytest.raises(ModelFileError, match=r"all-minilm-l6-v2.*trimtab models pull"):
        async with Trimtab.open(Settings.load(home=tmp_path)):
            pass
    assert not (tmp_path / "logs" / "engine.log").exists()
