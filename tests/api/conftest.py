"""One server for all stories here: the real small model, real retrieval, connectors pointed at loopback services."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from running import Running
from services import LoopbackServices


@pytest.fixture(scope="session")
def services() -> Iterator[LoopbackServices]:
    with LoopbackServices() as running:
        yield running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path, services: LoopbackServices) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("home"), models_dir, services).start()
    yield running
    running.stop()
