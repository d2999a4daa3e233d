"""The folder of versions: content-addressed, written once, verified whenever one is about to be used.

    registry = Registry(home / "versions")
    version = registry.add(folder, Manifest(...))
    registry.verified(version.id)   # hashes checked; the paths can be handed to an engine

    versions/
      ver_1f3c.../
        manifest.json
        adapter/adapter_model.safetensors ...

A version appears by one rename, when all of it is on disk. Which version answers is not known here: that changes in
one transaction, in the database.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trimtab.domain.durable import replace_file, sync
from trimtab.domain.errors import ModelFileError, NotFound

from .manifest import FileHash, Manifest, check_name

MANIFEST = "manifest.json"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Version:
    """A manifest and where its files are."""

    manifest: Manifest
    folder: Path

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def adapter(self) -> Path | None:
        """The adapter as a PEFT folder; None when this is the base itself."""
        return self._holding("adapter/adapter_model.safetensors", "adapter")

    @property
    def adapter_gguf(self) -> Path | None:
        return self._holding("adapter.gguf", "adapter.gguf")

    def _holding(self, file: str, path: str) -> Path | None:
        return self.folder / path if file in self.manifest.files else None


class Registry:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, source: Path, manifest: Manifest) -> Version:
        """Copy `source`, a folder, in as a version. `manifest.files` is filled in here. Adding the same again gives
        the version that is there.

        Raises:
            ModelFileError: a file has no place in a version, or the disk is full.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=self.folder))
        try:
            manifest = replace(manifest, files=_copy(source, part))
            version = Version(manifest, self.folder / manifest.id)
            if version.folder.exists():
                return self.verified(version.id)
            replace_file(part / MANIFEST, manifest.canonical())
            _sync_folders(part)
            os.rename(part, version.folder)
            sync(self.folder)
        except OSError as error:
            raise ModelFileError(
                f"The version cannot be written to {self.folder} ({error.strerror}). Free some space and try again."
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return version

    def get(self, version_id: str) -> Version:
        """A version as its manifest describes it. Its files are not read: see `verified`.

        Raises:
            NotFound: there is none of that id.
            ModelFileError: its manifest is damaged.
        """
        folder = self.folder / version_id
        if not version_id.startswith("ver_") or not folder.name == version_id or not (folder / MANIFEST).is_file():
            raise NotFound(f"No version {version_id} in {self.folder}. `trimtab models versions` lists them.")
        try:
            data = json.loads((folder / MANIFEST).read_bytes())
        except ValueError as error:
            raise ModelFileError(f"The manifest of {version_id} is damaged. Import the version again.") from error
        manifest = Manifest.from_json(data)
        if manifest.id != version_id:
            raise ModelFileError(
                f"The manifest of {version_id} was changed: its hash is {manifest.id}. Import the version again."
            )
        return Version(manifest, folder)

    def verified(self, version_id: str) -> Version:
        """A version whose every file has the hash its manifest says.

        Raises:
            NotFound, ModelFileError: it is missing, incomplete or changed; says which file.
        """
        version = self.get(version_id)
        for path, held in version.manifest.files.items():
            file = version.folder / path
            if file.is_symlink() or not file.is_file():
                raise ModelFileError(f"{path} of {version_id} is missing. Import the version again.")
            if file.stat().st_size != held.size or _sha256(file) != held.sha256:
                raise ModelFileError(f"{path} of {version_id} was changed since it was made. Import the version again.")
        return version

    def listed(self) -> list[Version]:
        """All versions, oldest first. Damaged ones are left out: `verified` says what is wrong with one."""
        found = []
        for folder in self.folder.glob("ver_*"):
            try:
                found.append(self.get(folder.name))
            except (ModelFileError, NotFound):
                continue
        return sorted(found, key=lambda v: (v.manifest.created_at, v.id))

    def remove(self, version_id: str) -> None:
        """Delete a version's files. Whoever calls has made sure that it does not answer."""
        version = self.get(version_id)
        gone = Path(tempfile.mkdtemp(prefix=".gone-", dir=self.folder))
        os.rename(version.folder, gone / version_id)  # in one step it is no version any more
        shutil.rmtree(gone)

    def tidy(self) -> None:
        """Delete what an interrupted `add` or `remove` left behind."""
        for pattern in (".part-*", ".gone-*"):
            for folder in self.folder.glob(pattern):
                shutil.rmtree(folder, ignore_errors=True)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs between two manifests (as JSON): dotted name to (old, new)."""
    before, after = _flat(old), _flat(new)
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{name}.{key}" if name else key).items()}
    return {name: value}


def _copy(source: Path, target: Path) -> dict[str, FileHash]:
    files = {}
    for file in sorted(source.rglob("*")):
        if file.is_dir() and not file.is_symlink():
            continue
        path = file.relative_to(source).as_posix()
        check_name(path)
        if file.is_symlink() or path == MANIFEST:
            raise ModelFileError(f"{path!r} has no place in a version of a model. Give a folder of plain files.")
        copy = target / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
        sync(copy)
        files[path] = FileHash(_sha256(copy), copy.stat().st_size)
    return files


def _sync_folders(root: Path) -> None:
    for folder in (root, *(p for p in root.rglob("*") if p.is_dir())):
        sync(folder)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
