"""Where secrets are kept: the environment, a file that only you can read, or the system's keyring.

    secret = Places(Environment(), SecretFile(home / "secrets"))
    secret("TIDES_KEY")

The first place that has the name is asked. What Trimtab itself keeps (keys typed into `trimtab connectors auth`, tokens
of a sign-in) goes into the file or the keyring. Nothing here appears in a `repr` or an error.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Literal, Protocol

from pydantic import SecretStr

from trimtab.domain.durable import replace_file
from trimtab.domain.errors import InvalidInput, MissingExtra, Unavailable

NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_.-]{0,100}$")
MAX_BYTES = 1_000_000
POSIX = os.name == "posix"


class Place(Protocol):
    """Somewhere to look a secret up."""

    def __call__(self, name: str) -> SecretStr | None: ...


class Keeper(Place, Protocol):
    """Somewhere to keep one as well."""

    def keep(self, name: str, value: str) -> None: ...

    def forget(self, name: str) -> None: ...

    def locked(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Whoever wants to renew what is kept under `name`, in this process or another, waits for its turn."""
        ...


class Environment:
    """Variables of this process. An empty one is none."""

    def __call__(self, name: str) -> SecretStr | None:
        value = os.environ.get(name, "")
        return SecretStr(value) if value else None


class Places:
    """The first of several that has it."""

    def __init__(self, *places: Place) -> None:
        self._places = places

    def __call__(self, name: str) -> SecretStr | None:
        for place in self._places:
            if (found := place(name)) is not None:
                return found
        return None


class Memory:
    """Kept as long as this object lives."""

    def __init__(self) -> None:
        self._kept: dict[str, SecretStr] = {}

    def __call__(self, name: str) -> SecretStr | None:
        return self._kept.get(name)

    def keep(self, name: str, value: str) -> None:
        self._kept[name] = SecretStr(value)

    def forget(self, name: str) -> None:
        self._kept.pop(name, None)

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        yield


class SecretFile:
    """Lines of ``NAME=value``, as a person can write them; ``#`` begins a comment. Missing is empty.

    Raises:
        InvalidInput: others can read the file, it is not a file of one's own, or a line is not understood.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, name: str) -> SecretStr | None:
        value = self._read().get(name, "")
        return SecretStr(value) if value else None

    def keep(self, name: str, value: str) -> None:
        if not NAME.match(name) or not value or "\n" in value or "\r" in value or value != value.strip():
            raise InvalidInput(f"{name[:60]!r} cannot be kept: names are of letters, digits and _, values of one line.")
        with self._writing():
            self._write({**self._read(), name: value})

    def forget(self, name: str) -> None:
        with self._writing():
            kept = self._read()
            if kept.pop(name, None) is not None:
                self._write(kept)

    def locked(self, name: str) -> contextlib.AbstractContextManager[None]:
        return _locked(self.path.with_name(f".{self.path.name}.{name}.lock"))

    def _writing(self) -> contextlib.AbstractContextManager[None]:
        return _locked(self.path.with_name(f".{self.path.name}.lock"))

    def _read(self) -> dict[str, str]:
        try:
            # Not followed where it is a link, not waited for where it is a pipe.
            flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            handle = os.open(self.path, os.O_RDONLY | flags)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise InvalidInput(f"The secrets in {self.path} cannot be read: {error.strerror}.") from None
        try:
            self._check(os.fstat(handle))
            return self._parsed(os.read(handle, MAX_BYTES).decode("utf-8", "replace"))
        finally:
            os.close(handle)

    def _check(self, about: os.stat_result) -> None:
        if not stat.S_ISREG(about.st_mode):
            raise InvalidInput(f"{self.path} is not a file. Secrets are kept in a file that only you can read.")
        if POSIX and about.st_mode & 0o077:
            raise InvalidInput(
                f"Others can read the secrets in {self.path} (mode {about.st_mode & 0o777:04o}), so they are not used. "
                f"Run: chmod 600 {self.path}. Whoever could read it may have: think about new keys."
            )
        if POSIX and about.st_uid != os.geteuid():
            raise InvalidInput(f"The secrets in {self.path} belong to another user, so they are not used.")

    def _parsed(self, text: str) -> dict[str, str]:
        kept: dict[str, str] = {}
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name, equals, value = line.partition("=")
            if not equals or not NAME.match(name.strip()):
                raise InvalidInput(f"Line {number} of {self.path} is not NAME=value. Correct it.")
            kept[name.strip()] = value.strip()
        return kept

    def _write(self, kept: dict[str, str]) -> None:
        """Whole or not at all, and readable by nobody else at any moment: a replaced file is made 0600."""
        lines = [f"{name}={value}\n" for name, value in sorted(kept.items())]
        head = "# Secrets of Trimtab's connectors. Keep this file to yourself (mode 0600).\n"
        replace_file(self.path, head + "".join(lines))


class Keyring:
    """The system's own: macOS Keychain, Windows Credential Locker, Secret Service (GNOME, KDE) on Linux.

    Raises:
        MissingExtra: the extra ``keyring`` is not installed.
        Unavailable: this machine has no keyring, or it stays locked.
    """

    def __init__(self, folder: Path, service: str = "trimtab") -> None:
        self._service = service
        self._folder = folder
        """For lock files."""

    def __call__(self, name: str) -> SecretStr | None:
        with _told():
            value = _keyring().get_password(self._service, name)
        return SecretStr(value) if value else None

    def keep(self, name: str, value: str) -> None:
        with _told():
            _keyring().set_password(self._service, name, value)

    def forget(self, name: str) -> None:
        ring = _keyring()
        with _told(), contextlib.suppress(ring.errors.PasswordDeleteError):
            ring.delete_password(self._service, name)

    def locked(self, name: str) -> contextlib.AbstractContextManager[None]:
        return _locked(self._folder / f".keyring.{name}.lock")


def kept_in(folder: Path, where: Literal["file", "keyring"] = "file") -> tuple[Places, Keeper]:
    """Where to look secrets up, and where to keep them: the environment first, then the file ``secrets`` in `folder`
    or the system's keyring. With a keyring the file is still read, last."""
    file = SecretFile(folder / "secrets")
    if where == "file":
        return Places(Environment(), file), file
    ring = Keyring(folder)
    return Places(Environment(), ring, file), ring


def _keyring() -> ModuleType:
    try:
        import keyring
        import keyring.errors
    except ImportError:
        raise MissingExtra("The system's keyring", "keyring") from None
    return keyring


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """The keyring's own errors in our words."""
    errors = _keyring().errors
    try:
        yield
    except errors.KeyringError as error:
        raise Unavailable(
            f"The system's keyring could not be used ({type(error).__name__}). Unlock it, or keep secrets in the file."
        ) from None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """An advisory lock that the system lets go of when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if POSIX:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
