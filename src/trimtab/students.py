"""Smaller models that were made from an installed one here: found by name, verified, and refused when damaged.

    home/students/ver_1f3c.../   manifest.json, model.safetensors, config.json, tokenizer.json, student.gguf

A student's name ends with the beginning of its manifest's hash, `pruned-24-1f3c9a`: a name that always means the same
weights, so what was measured of it stays true. Unlike other versions a student is no adapter: it is a model of its own,
and adapters that were trained on its teacher do not fit it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.domain.errors import NotFound
from trimtab.registry.manifest import Manifest
from trimtab.registry.registry import Registry, Version

FOLDER, GGUF = "students", "student.gguf"


@dataclass(frozen=True)
class Made:
    """A student on disk."""

    version: Version

    @property
    def name(self) -> str:
        return f"{self.version.manifest.name}-{self.version.manifest.digest[:6]}"

    @property
    def gguf(self) -> Path:
        return self.version.folder / GGUF

    @property
    def sha256(self) -> str:
        """Of its GGUF file."""
        return self.version.manifest.files[GGUF].sha256


class Students:
    """The students in an installation's folder `home`."""

    def __init__(self, home: Path) -> None:
        self._registry = Registry(home / FOLDER)

    def add(self, source: Path, manifest: Manifest) -> Made:
        """See `Registry.add`."""
        return Made(self._registry.add(source, manifest))

    def listed(self, base_sha256: str = "") -> list[Made]:
        """Oldest first; with `base_sha256`, those of that model."""
        found = [Made(one) for one in self._registry.listed() if GGUF in one.manifest.files]
        return [one for one in found if base_sha256 in ("", one.version.manifest.base_sha256)]

    def get(self, name: str) -> Made:
        """Raises:
        NotFound: there is none of that name; lists those there are.
        """
        known = self.listed()
        for one in known:
            if name in (one.name, one.version.id):
                return one
        names = ", ".join(one.name for one in known) or "none yet; make one: trimtab models prune"
        raise NotFound(f"There is no student {name!r} here. There are: {names}.")

    def verified(self, name: str) -> Made:
        """One whose every file has the hash its manifest says.

        Raises:
            NotFound: there is none of that name.
            ModelFileError: a file is missing or was changed; says which.
        """
        return Made(self._registry.verified(self.get(name).version.id))

    def remove(self, name: str) -> None:
        """Delete a student's files."""
        self._registry.remove(self.get(name).version.id)


def content_of(texts: Sequence[Sequence[int]]) -> str:
    """A hash of token ids, for lineage."""
    return hashlib.sha256(repr([list(ids) for ids in texts]).encode()).hexdigest()
