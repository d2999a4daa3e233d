"""A small random model for laws, the default model for what is promised of it; each unpacked once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tiny_decoder import decoder
from trimtab.align.base import Base, load_base
from trimtab.align.network import Network


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Base:
    torch.set_num_threads(1)
    return load_base(tiny_folder)


@pytest.fixture(scope="session")
def network(tiny: Base) -> Network:
    return Network(tiny, trunk_layers=1, bf16=False)


@pytest.fixture(scope="session")
def default_base(chat_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Base:
    """The default chat model, unpacked."""
    from trimtab.llm.unpacked import safetensors_folder

    return load_base(safetensors_folder(chat_model_path, tmp_path_factory.mktemp("default") / "model"))
