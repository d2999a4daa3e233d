"""The models on disk: a folder for each catalogue entry, and any GGUF file a person points at.

Only files whose hash is the pinned one get here (`fetch.pull` sees to it), so being installed is a matter of names and
sizes and costs no reading. `verify` reads them again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trimtab.domain.errors import InvalidInput, ModelFileError

from .catalogue import CATALOGUE, Entry, ModelFile, entry

GGUF_MAGIC = b"GGUF"


@dataclass(frozen=True)
class Progress:
    """How far a long file operation has come. `total` is bytes, 0 when it is not known."""

    what: str
    done: int
    total: int


OnProgress = Callable[[Progress], None]


def path(model: Entry, models_dir: Path) -> Path:
    """The folder where this model's files are, or will be."""
    return models_dir / _plain(model.name)


def files(model: Entry, models_dir: Path) -> dict[str, Path]:
    """Each file's path by its name; says nothing about whether it exists."""
    folder = path(model, models_dir)
    return {f.name: folder / _plain(f.name) for f in model.files}


def is_installed(model: Entry, models_dir: Path) -> bool:
    """Whether every file is there with its right size."""
    return all(
        has(folder_file, f) for f, folder_file in zip(model.files, files(model, models_dir).values(), strict=True)
    )


def installed(models_dir: Path) -> list[Entry]:
    """The catalogue's models that are complete on disk."""
    return [m for m in CATALOGUE.values() if is_installed(m, models_dir)]


def remove(model: Entry, models_dir: Path) -> bool:
    """Delete the model and everything derived from it. False when there was nothing."""
    folder = path(model, models_dir)
    if not folder.is_dir():
        return False
    shutil.rmtree(folder)
    return True


def verify(model: Entry, models_dir: Path) -> None:
    """Read every file and compare its hash.

    Raises:
        ModelFileError: a file is missing or is not what its hash says.
    """
    for spec, file in zip(model.files, files(model, models_dir).values(), strict=True):
        if not file.is_file():
            raise ModelFileError(f"{file} is missing. Run: trimtab models pull {model.name}")
        if sha256_of(file) != spec.sha256:
            raise ModelFileError(
                f"{file} is not the file its hash says. Run: trimtab models remove {model.name}, then pull it again."
            )


def resolve_model(name_or_path: str, models_dir: Path) -> Path:
    """The GGUF file that a person means by a catalogue name or a path.

    Raises:
        ModelFileError: the file is missing, or is no GGUF file.
        NotFound: neither a file nor a name of the catalogue.
        InvalidInput: the name is that of an embedding model.
    """
    if name_or_path.endswith(".gguf") or "/" in name_or_path:
        return _check_gguf(Path(name_or_path).expanduser())
    model = entry(name_or_path)
    if model.kind != "chat":
        raise InvalidInput(f"{model.name!r} is an embedding model; choose a chat model.")
    if not is_installed(model, models_dir):
        raise ModelFileError(f"{model.name!r} is not on this machine. Run: trimtab models pull {model.name}")
    return files(model, models_dir)[model.files[0].name]


def sha256_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_gguf(file: Path) -> Path:
    if not file.is_file():
        raise ModelFileError(
            f"There is no file {file}. Give a path to a .gguf file or a name from: trimtab models list"
        )
    with file.open("rb") as stream:
        if stream.read(4) != GGUF_MAGIC:
            raise ModelFileError(
                f"{file} is not a GGUF file (it does not begin with 'GGUF'). Choose a .gguf model file."
            )
    return file.resolve()


def has(file: Path, spec: ModelFile) -> bool:
    """Whether the file is there with its right size."""
    return file.is_file() and file.stat().st_size == spec.size


def _plain(name: str) -> str:
    """`name` as a single path component; a catalogue made elsewhere cannot point outside its folder."""
    if not name or name != Path(name).name or name in {".", ".."} or "\\" in name or "\0" in name:
        raise InvalidInput(f"{name!r} cannot be a file name. Use letters, digits, dots and dashes.")
    return name
