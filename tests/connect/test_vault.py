"""Where secrets are kept: who may read them, and what is refused."""

import os
import stat
import threading
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked, PasswordDeleteError

from trimtab.connect.vault import Environment, Keyring, Places, SecretFile
from trimtab.domain.errors import InvalidInput, Unavailable


def written(folder: Path, text: str, mode: int = 0o600) -> SecretFile:
    path = folder / "secrets"
    path.write_text(text)
    path.chmod(mode)
    return SecretFile(path)


def value(place: object, name: str) -> str:
    found = place(name)  # type: ignore[operator]
    return found.get_secret_value() if found else ""


def test_a_file_a_person_wrote_is_read(tmp_path: Path) -> None:
    file = written(tmp_path, "# mine\n\nTIDES_KEY = k=1 2 \nOTHER=x\n")
    assert value(file, "TIDES_KEY") == "k=1 2"
    assert value(file, "MISSING") == ""
    assert value(SecretFile(tmp_path / "nothing"), "TIDES_KEY") == ""


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o610, 0o666])
def test_a_file_that_others_can_read_is_refused_with_what_to_do(tmp_path: Path, mode: int) -> None:
    file = written(tmp_path, "TIDES_KEY=s3cret\n", mode)
    with pytest.raises(InvalidInput, match=rf"mode {mode:04o}.*chmod 600 ") as refused:
        file("TIDES_KEY")
    assert "s3cret" not in str(refused.value)
    with pytest.raises(InvalidInput):
        file.keep("OTHER", "x")


def test_a_link_a_folder_and_rubbish_are_refused(tmp_path: Path) -> None:
    real = written(tmp_path, "TIDES_KEY=s3cret\n")
    link = tmp_path / "link"
    link.symlink_to(real.path)
    with pytest.raises(InvalidInput, match="cannot be read"):
        SecretFile(link)("TIDES_KEY")
    (tmp_path / "folder").mkdir(mode=0o700)
    with pytest.raises(InvalidInput, match="is not a file"):
        SecretFile(tmp_path / "folder")("TIDES_KEY")
    with pytest.raises(InvalidInput, match=r"Line 2 .* not NAME=value") as refused:
        written(tmp_path, "A=1\nnot a line s3cret\n")("A")
    assert "s3cret" not in str(refused.value)


def test_what_is_kept_is_ours_alone_and_survives(tmp_path: Path) -> None:
    file = SecretFile(tmp_path / "deep" / "secrets")
    before = os.umask(0)
    try:
        file.keep("A", "one=1")
        file.keep("B", "two")
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert (value(SecretFile(file.path), "A"), value(file, "B")) == ("one=1", "two")
    file.forget("A")
    file.forget("never there")
    assert (value(file, "A"), value(file, "B")) == ("", "two")
    for name, secret in (("a b", "x"), ("A", "x\ny"), ("A", ""), ("A", " x")):
        with pytest.raises(InvalidInput, match="cannot be kept"):
            file.keep(name, secret)


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    def write(first: int) -> None:
        for number in range(first, first + 8):
            SecretFile(tmp_path / "secrets").keep(f"N{number}", str(number))

    writers = [threading.Thread(target=write, args=(first,)) for first in (0, 100, 200)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    file = SecretFile(tmp_path / "secrets")
    assert [value(file, f"N{n}") for n in (0, 7, 107, 200, 207)] == ["0", "7", "107", "200", "207"]


def test_the_first_place_that_has_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = Places(Environment(), written(tmp_path, "TIDES_KEY=of-the-file\n"))
    monkeypatch.setenv("TIDES_KEY", "")
    assert value(places, "TIDES_KEY") == "of-the-file"
    monkeypatch.setenv("TIDES_KEY", "of-the-shell")
    assert value(places, "TIDES_KEY") == "of-the-shell"
    assert "of-the" not in repr(places) + repr(places("TIDES_KEY"))


class Ring(KeyringBackend):
    """A keyring in memory: the library's own plug, which systems implement."""

    priority = 1.0  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise KeyringLocked("s3cret detail")
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if self.kept.pop((service, username), None) is None:
            raise PasswordDeleteError("not there")


def test_the_systems_keyring_keeps_and_says_when_it_is_locked(tmp_path: Path) -> None:
    before, ring = keyring.get_keyring(), Ring()
    keyring.set_keyring(ring)
    try:
        kept = Keyring(tmp_path)
        kept.keep("TIDES_KEY", "s3cret")
        assert value(kept, "TIDES_KEY") == "s3cret"
        assert ring.kept == {("trimtab", "TIDES_KEY"): "s3cret"}
        kept.forget("TIDES_KEY")
        kept.forget("TIDES_KEY")
        assert value(kept, "TIDES_KEY") == ""
        with kept.locked("X"):
            pass
        ring.locked = True
        with pytest.raises(Unavailable, match=r"keyring could not be used \(KeyringLocked\)") as said:
            kept("TIDES_KEY")
        assert "s3cret" not in str(said.value)
    finally:
        keyring.set_keyring(before)
