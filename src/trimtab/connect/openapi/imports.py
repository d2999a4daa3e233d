"""Imported connectors in a folder of the data folder: documents by their hash, and for each connector what was chosen.

    imports = Imports(home / "openapi", toolbox)
    imports.add(content, name="petstore", choices=Choices())

Nothing in the folder is run. A connector is made anew from its document at each start; a document that is not what its
hash says, or cannot be read any more, costs only its own connector, which is listed as broken.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from trimtab.domain.durable import replace_file, sync
from trimtab.domain.errors import Conflict, InvalidInput, NotFound, TrimtabError

from ..auth import secret_names
from ..declare import NAME
from ..toolbox import ConnectorStatus, Toolbox
from .connector import Choices, Imported, connector_name, make
from .document import read_document

FORMAT = 1
MAX_REMARKS = 200
"""Of what was left out, in one answer; there is always the number of all."""


@dataclass(frozen=True)
class Record:
    """What is kept of one import beside its document."""

    name: str
    document: str
    """The document's SHA-256."""
    choices: Choices
    imported_at: str
    """ISO 8601, UTC."""


class Imports:
    """The imports of one folder, in one toolbox."""

    def __init__(self, folder: Path, toolbox: Toolbox) -> None:
        self._folder = folder
        self._toolbox = toolbox
        self._made: dict[str, Imported] = {}
        self._records: dict[str, Record] = {}
        self._broken: dict[str, str] = {}

    def load(self) -> None:
        """Add every kept connector to the toolbox. One that cannot be made is listed as broken."""
        for path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else ():
            name = path.stem
            try:
                record = _read(path)
                self._records[name] = record
                self._put(record, make(read_document(self._document(record)), name, record.choices))
            except (TrimtabError, OSError) as error:
                said = error.message if isinstance(error, TrimtabError) else str(error.strerror)
                self._broken[name] = said
                self._toolbox.broken(ConnectorStatus(name, error=said[:500], origin=f"openapi {name}"))

    def preview(self, content: bytes, name: str = "", choices: Choices = Choices()) -> Imported:
        """What an import would make; nothing is kept.

        Raises:
            InvalidInput: the document or a choice cannot be used (a `Fault` says where in the document).
        """
        document = read_document(content)
        chosen = name or connector_name(document)
        if not NAME.match(chosen):
            raise InvalidInput(f"{chosen!r} cannot name a connector: use a-z, 0-9 and _, at most 31, a letter first.")
        return make(document, chosen, choices)

    def add(self, content: bytes, name: str = "", choices: Choices = Choices(), *, replace: bool = False) -> Imported:
        """Import a document: `preview`, then `take`."""
        return self.take(self.preview(content, name, choices), content, replace=replace)

    def take(self, imported: Imported, content: bytes, *, replace: bool = False) -> Imported:
        """Keep what was previewed, and put its connector into the toolbox. `content` is its document's bytes.

        Raises:
            Conflict: a connector of that name is there; `replace` takes the place of an imported one.
        """
        chosen = imported.connector.name
        taken = chosen in {status.name for status in self._toolbox.connectors}
        mine = chosen in self.names()
        if taken and not (replace and mine):
            how = "replace it with --replace, or choose" if mine else "choose"
            raise Conflict(f"There is a connector {chosen!r} already: {how} another name with --name.")
        record = Record(chosen, imported.document.digest, imported.choices, _now())
        self._keep(record, content)
        if taken:
            self._forget(chosen)
        self._put(record, imported)
        self._sweep()
        return imported

    def remove(self, name: str) -> None:
        """Take an imported connector away, its document with it when no other uses it.

        Raises:
            NotFound: no import has that name.
        """
        self.record(name)
        (self._folder / f"{name}.json").unlink(missing_ok=True)
        self._forget(name)
        self._sweep()

    def record(self, name: str) -> Record:
        """What is kept of an import. Raises `NotFound`."""
        if name not in self._records and name not in self._broken:
            known = ", ".join(self.names()) or "none"
            raise NotFound(f"No connector {name!r} was imported from an OpenAPI document. Imported: {known}.")
        return self._records.get(name) or Record(name, "", Choices(), "")

    def names(self) -> list[str]:
        return sorted({*self._records, *self._broken})

    def describe(self, name: str) -> dict[str, Any]:
        """An import as people and programs see it. Raises `NotFound`."""
        record = self.record(name)
        kept = {
            "name": name,
            "document": record.document,
            "imported_at": record.imported_at,
            "choices": asdict(record.choices),
            "error": self._broken.get(name, ""),
        }
        return kept | (summary(self._made[name]) if name in self._made else {})

    def _put(self, record: Record, imported: Imported) -> None:
        self._toolbox.add(imported.connector, origin=f"openapi {record.choices.source or record.document[:12]}")
        self._records[record.name], self._made[record.name] = record, imported

    def _forget(self, name: str) -> None:
        self._toolbox.remove(name)
        for kept in (self._records, self._made, self._broken):
            kept.pop(name, None)

    def _document(self, record: Record) -> bytes:
        content = self._path(record.document).read_bytes()
        if sha256(content).hexdigest() != record.document:
            raise InvalidInput(f"The document of {record.name!r} was changed or is damaged. Import it again.")
        return content

    def _path(self, digest: str) -> Path:
        return self._folder / "documents" / digest

    def _keep(self, record: Record, content: bytes) -> None:
        """The document first: a record whose document is missing would be a broken connector."""
        path = self._path(record.document)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            sync(path.parent)
        kept = {"format": FORMAT, **asdict(record)}
        replace_file(self._folder / f"{record.name}.json", json.dumps(kept, indent=2, ensure_ascii=False) + "\n")

    def _sweep(self) -> None:
        """Documents that no import uses any more."""
        used = {record.document for record in self._records.values()}
        folder = self._folder / "documents"
        if self._broken or not folder.is_dir():
            return  # a broken record may use any of them
        for path in folder.iterdir():
            if path.name not in used:
                path.unlink(missing_ok=True)


def summary(imported: Imported) -> dict[str, Any]:
    """What came of a document: counts, hosts, how it signs in, and what was left out with the reason."""
    counts: dict[str, int] = {}
    for operation in imported.operations:
        counts[str(operation.effect)] = counts.get(str(operation.effect), 0) + 1
    return {
        "title": imported.title,
        "version": imported.connector.version,
        "openapi": imported.document.version,
        "hosts": list(imported.connector.hosts),
        "servers": sorted({server.url for server in imported.servers.values()}),
        "security_scheme": imported.scheme,
        "secrets": list(secret_names(imported.connector.auth)),
        "operations": len(imported.operations),
        "effects": counts,
        "searched": imported.searched,
        "tools": sorted(f"{imported.connector.name}.{tool}" for tool in imported.connector.tools),
        "left_out_count": len(imported.left_out),
        "left_out": [asdict(remark) for remark in imported.left_out[:MAX_REMARKS]],
        "remarks_count": len(imported.remarks),
        "remarks": [asdict(remark) for remark in imported.remarks[:MAX_REMARKS]],
    }


def _read(path: Path) -> Record:
    try:
        kept: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
        if kept["format"] != FORMAT or kept["name"] != path.stem or not NAME.match(path.stem):
            raise ValueError("another format")
        digest = str(kept["document"])
        if len(digest) != 64 or not digest.isalnum():
            raise ValueError("no hash")
        choices = kept["choices"]
        return Record(
            path.stem, digest, Choices(**{**choices, "include": tuple(choices["include"])}), str(kept["imported_at"])
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path} is no record of an import ({error}). Remove it, and import again.") from error


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
