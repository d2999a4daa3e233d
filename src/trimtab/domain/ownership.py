"""A folder that one process owns at a time."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from .errors import Unavailable


class FolderLock:
    """Exclusive ownership of a folder by this process, released by the system if the process dies.

    `what` says what is in it, for whoever is refused: "The search index".

    Raises:
        Unavailable: another process has it.
    """

    def __init__(self, folder: Path, what: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = (folder / "owner.lock").open("a+", encoding="ascii")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            owner = self._file.read(20).strip() or "unknown"
            self._file.close()
            raise Unavailable(
                f"{what} in {folder} is open in another process (pid {owner}). Use the running server: commands find "
                "it by themselves when it answers, or stop it and retry.",
                folder=str(folder),
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        self._file.close()
