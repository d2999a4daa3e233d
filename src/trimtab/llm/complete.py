"""Model files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from trimtab.domain.durable import sync
from trimtab.domain.errors import ModelFileError


@contextlib.contextmanager
def complete_file(target: Path) -> Iterator[Path]:
    """A path to write to. It becomes `target` when the block ends, on disk, and nothing is left when that fails.

    Raises:
        ModelFileError: it cannot be written; mostly the disk is full.
    """
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with _explained(target):
            yield part
            sync(part)
            os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def complete_folder(target: Path) -> Iterator[Path]:
    """The same for a folder, which is there and empty when the block begins; what is written into it is not forced to
    disk."""
    with _explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield part
            os.replace(part, target)
        finally:
            shutil.rmtree(part, ignore_errors=True)


@contextlib.contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelFileError(
            f"{target} cannot be written ({error.strerror}). Free some space and try again."
        ) from error
