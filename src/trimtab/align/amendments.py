"""Every version of the constitution that was ever in force, and which one is.

A folder holds one file a version, named by the hash of its text, a pointer to the one in force, and a log of who put
what in force when. Saving never overwrites: the text goes to a new file, then the pointer moves, so a crash between the
two leaves the old version in force.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trimtab.domain.durable import replace_file
from trimtab.domain.errors import Conflict, InvalidInput, NotFound

from .constitution import DEFAULT, Constitution

_POINTER = "current"
_LOG = "history.jsonl"
_LOCK = "lock"


@dataclass(frozen=True)
class Amendment:
    """One line of the history."""

    version: str
    at: float
    """Unix seconds."""
    by: str
    """Opaque id of who saved it."""
    note: str


class Amendments:
    """The constitutions of one installation.

    kept = Amendments(home / "constitution")
    edited = kept.save(text, after=kept.current().version, by="p-17")
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def current(self) -> Constitution:
        """The constitution in force; the bundled one until another was saved.

        Raises:
            InvalidInput: a kept file is not what its name says any more.
        """
        try:
            version = (self._folder / _POINTER).read_text("ascii").strip()
        except FileNotFoundError:
            return Constitution.load(DEFAULT)
        return self.version(version)

    def file(self) -> Path | None:
        """The file in force, for a process that is handed a path; None while nothing was ever saved here.

        Raises:
            InvalidInput, NotFound: as `current`.
        """
        if not (self._folder / _POINTER).exists():
            return None
        version = self.current().version
        path = self._folder / f"{version}.yaml"
        return path if path.is_file() else None

    def version(self, version: str) -> Constitution:
        """One version by its hash.

        Raises:
            NotFound: it was never saved here.
            InvalidInput: the file was changed after it was saved.
        """
        bundled = Constitution.load(DEFAULT)
        if version == bundled.version:
            return bundled
        path = self._folder / f"{version}.yaml"
        if not version.isalnum() or not path.is_file():
            known = ", ".join(dict.fromkeys(line.version for line in self.history())) or "none"
            raise NotFound(f"There is no version {version!r} of the constitution. Saved ones: {known}.")
        found = Constitution.load(path)
        if found.version != version:
            raise InvalidInput(
                f"{path} was changed after it was saved (its text is now version {found.version}). "
                "Save the changed text as a new version, and put the old text back."
            )
        return found

    def save(self, text: str, *, after: str | None = None, by: str = "", note: str = "") -> Constitution:
        """Put a text in force as a version of its own.

        Args:
            after: the version the person edited. Another one in force by now is a conflict, so that nobody overwrites
                what they have not seen.

        Raises:
            InvalidInput: it is not a constitution; the message names the line.
            Conflict: somebody else has saved meanwhile.
        """
        edited = Constitution.parse(text)
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            standing = self.current().version
            if after is not None and after != standing:
                raise Conflict(
                    f"The constitution has changed since version {after} was opened; {standing} is in force now. "
                    "Open it again and repeat your change.",
                    current=standing,
                )
            path = self._folder / f"{edited.version}.yaml"
            if not path.exists():
                replace_file(path, edited.text)
            self._enforce(edited.version, by, note)
        return edited

    def restore(self, version: str, *, by: str = "", note: str = "") -> Constitution:
        """Put an earlier version in force again.

        Raises:
            NotFound: no such version.
        """
        found = self.version(version)
        return self.save(found.text, by=by, note=note or f"restored {version}")

    def history(self) -> list[Amendment]:
        """What was put in force, oldest first."""
        try:
            lines = (self._folder / _LOG).read_text("utf-8").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                found.append(Amendment(**json.loads(line)))
            except (ValueError, TypeError):
                continue  # half a line, from a crash in the middle of a write; the pointer decides, not the log
        return found

    def _enforce(self, version: str, by: str, note: str) -> None:
        replace_file(self._folder / _POINTER, version)
        entry = {"version": version, "at": time.time(), "by": by, "note": note}
        log = self._folder / _LOG
        torn = log.exists() and log.stat().st_size and not log.read_bytes().endswith(b"\n")
        with log.open("a", encoding="utf-8") as out:
            out.write(("\n" if torn else "") + json.dumps(entry) + "\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, also over processes: whoever makes the file has it. Left by a crash, it grows old."""
        lock = self._folder / _LOCK
        if lock.exists() and time.time() - lock.stat().st_mtime > 30:
            lock.unlink(missing_ok=True)
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError as error:
            raise Conflict("Somebody else is saving the constitution right now. Try again in a moment.") from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
