"""The badge: what a check found, signed by whoever ran it, for exactly one source.

A badge is made on the machine that will trust it. A check takes seconds and no network, so there is no reason to
believe a stranger's; what a connector's author sends along is cassettes, which anybody can play. The key (Ed25519) is
made at the first badge and stays in Trimtab's folder. The signature keeps other programs of the same machine's files
honest, a package that brings a badge for itself above all; it is no defence against somebody who can read the key.

Built-in connectors are vouched for by the release they came with: pip's record of an installed release has a hash of
each of their files, and one that was changed afterwards needs a badge like any other. In a working copy (an editable
installation) there is no such record; who changes Trimtab itself vouches for it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from trimtab.domain.durable import replace_file
from trimtab.domain.errors import Conflict, Unavailable

from ..declare import Connector
from ..standing import Standing
from .requirement import Report
from .source import files, fingerprint, modules

BUILT_IN = "trimtab_connectors"
KEY_FILE = "badge.key"
FOLDER = "badges"


@dataclass(frozen=True)
class Badge:
    """A signed report, as it is kept."""

    connector: str
    version: str
    source: str
    at: str
    results: Mapping[str, str]
    """Each requirement's id and whether it passed."""
    figures: Mapping[str, int]
    passed: bool
    signer: str = ""
    """The public key, hexadecimal."""


class Badges:
    """The badges in one folder of Trimtab's, and the key that signs them.

    badges = Badges(settings.home)
    badges.award(report)
    toolbox = Toolbox.discover(ConnectOptions(standing=badges.standing))
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._loaded: dict[int, tuple[Connector, str, bool]] = {}

    def award(self, report: Report) -> Path:
        """Sign and keep what a check found, failures included. Returns the file.

        Raises:
            Unavailable: the folder cannot be written.
        """
        badge = Badge(
            connector=report.connector,
            version=report.version,
            source=report.source,
            at=report.at,
            results={line.id: line.status for line in report.lines},
            figures=report.figures,
            passed=report.passed,
            signer=self.signer(),
        )
        document = asdict(badge)
        signature = self._key().sign(_bytes(document))
        path = self.path(report.connector)
        content = json.dumps({"badge": document, "signature": base64.b64encode(signature).decode()}, indent=2) + "\n"
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(path, content)
        except OSError as error:
            raise Unavailable(f"The badge {path} could not be written: {error.strerror}.") from error
        return path

    def path(self, connector: str) -> Path:
        return self._home / FOLDER / f"{connector}.json"

    def standing(self, connector: Connector) -> Standing:
        """Whether this connector may do more than read. What counts is its source when it was first asked about: a
        program goes on running what it loaded, whatever stands on the disk by now."""
        loaded = self._loaded.get(id(connector))
        if loaded is None:
            loaded = self._loaded[id(connector)] = (connector, fingerprint(connector), of_the_release(connector))
        if loaded[2]:
            return Standing("release", "It came with this release of Trimtab.")
        return self._by_badge(connector, loaded[1])

    def _by_badge(self, connector: Connector, source: str) -> Standing:
        path = self.path(connector.name)
        if not path.is_file():
            return Standing("missing", "It has no badge: nobody has checked it here.")
        badge = self.read(path)
        if badge is None:
            return Standing("unsigned", "Its badge is damaged, or was signed with another key than this folder's.")
        if (badge.source, badge.version, badge.connector) != (source, connector.version, connector.name):
            return Standing("outdated", f"It has changed since it was checked on {badge.at[:10]}.", badge.at)
        if not badge.passed:
            bad = ", ".join(id for id, status in badge.results.items() if status == "fail")
            return Standing("failed", f"Its last check failed ({bad}).", badge.at)
        return Standing("current", f"It was checked on {badge.at[:10]}.", badge.at)

    def read(self, path: Path) -> Badge | None:
        """The badge in a file; None when it is damaged or signed with another key than ours."""
        from cryptography.exceptions import InvalidSignature

        try:
            found = json.loads(path.read_text("utf-8"))
            document = found["badge"]
            self._key().public_key().verify(base64.b64decode(found["signature"]), _bytes(document))
            return Badge(**document)
        except (OSError, ValueError, KeyError, TypeError, InvalidSignature):
            return None

    def signer(self) -> str:
        """The public key, hexadecimal."""
        return str(self._key().public_key().public_bytes_raw().hex())

    def _key(self) -> Any:
        """The private key, made when there is none."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        path = self._home / KEY_FILE
        try:
            if not path.exists():
                self._home.mkdir(parents=True, exist_ok=True)
                made = Ed25519PrivateKey.generate().private_bytes_raw()
                _write_new(path, made)
            raw = path.read_bytes()
        except OSError as error:
            raise Unavailable(f"The key {path} cannot be read or made: {error.strerror}.") from error
        try:
            return Ed25519PrivateKey.from_private_bytes(raw)
        except ValueError:
            raise Conflict(
                f"{path} is not a badge key. Remove it to have a new one made; every badge is then to be made anew."
            ) from None


def _write_new(path: Path, content: bytes) -> None:
    """For the owner alone, whole or not at all, and never over one that somebody else made meanwhile."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()


def _bytes(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def of_the_release(connector: Connector) -> bool:
    """Whether it is a built-in, as released."""
    written_in = modules(connector)
    if not written_in or any(name.partition(".")[0] != BUILT_IN for name in written_in):
        return False
    return all(_as_released(path) for path in files(connector))


@cache
def _recorded() -> dict[Path, str] | None:
    """The release's files and their hashes by pip's record; None for a working copy, which has none."""
    try:
        installed = distribution("trimtab")
    except PackageNotFoundError:
        return None
    ours = [file for file in installed.files or () if file.parts[0] == BUILT_IN and file.hash]
    return {Path(str(file.locate())).resolve(): file.hash.value for file in ours if file.hash} or None


def _as_released(path: Path) -> bool:
    recorded = _recorded()
    if recorded is None:
        import trimtab_connectors

        return path.resolve().is_relative_to(Path(trimtab_connectors.__file__).resolve().parent)
    digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode().rstrip("=")
    return recorded.get(path.resolve()) == digest
