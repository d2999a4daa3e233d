"""What a version says about itself: its files with their hashes, where it came from, and how it was measured.

A version's id is the beginning of the hash of its manifest, and the manifest holds the hash of each file: nothing of a
version can change without its id changing.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from trimtab.domain.errors import ModelFileError

FORMAT = 1


@dataclass(frozen=True)
class FileHash:
    sha256: str
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Lineage:
    """Where a version came from: enough to make it again, and to say whose judgement is in it."""

    method: str = ""
    """``ppo``, ``dpo``, ``sft``..., or ``import``."""
    parent: str = ""
    """Id of the version it was trained from; empty for the base itself."""
    datasets: Mapping[str, str] = field(default_factory=dict)
    """Name to content hash."""
    rows: int = 0
    """Judgements that shaped it. Which ones: the database's `version_rows`."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    code: str = ""
    """Version of Trimtab that trained it."""
    job: str = ""
    reward_model: str = ""
    """Hash of the reward model's weights."""


@dataclass(frozen=True)
class Manifest:
    name: str
    base: str
    """What it is served on: name of the base model."""
    base_sha256: str
    """Hash of the base's weights file. The adapter fits no other."""
    files: Mapping[str, FileHash]
    """Path inside the version's folder to its hash."""
    chat_template_sha256: str = ""
    tokenizer_sha256: str = ""
    lineage: Lineage = field(default_factory=Lineage)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    created_at: float = field(default_factory=time.time)
    """Unix seconds."""
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest's canonical JSON."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    @property
    def id(self) -> str:
        return f"ver_{self.digest[:24]}"

    def canonical(self) -> str:
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Manifest:
        """Raises:
        ModelFileError: it is not a manifest, or one of a newer Trimtab.
        """
        try:
            if data["format"] != FORMAT:
                raise ModelFileError(f"This version's manifest has format {data['format']}. Upgrade Trimtab.")
            known = {f.name for f in fields(cls)}
            given = {key: value for key, value in data.items() if key in known}
            given["files"] = {str(path): FileHash(**held) for path, held in data["files"].items()}
            given["lineage"] = Lineage(**data["lineage"])
            manifest = cls(**given)
        except (TypeError, KeyError, AttributeError) as error:
            raise ModelFileError(
                f"This version's manifest cannot be read ({error}). Import the version again."
            ) from error
        for path in manifest.files:
            check_name(path)
        return manifest


KEPT = (".safetensors", ".gguf", ".json", ".jinja", ".md", ".toml", ".txt", ".model")
"""Files a version may hold. Nothing that Python would run when it is loaded."""

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")


def check_name(path: str) -> None:
    """Raises:
    ModelFileError: the file has no place in a version: a pickle, a program, a path that leads out.
    """
    if not _PLAIN.fullmatch(path) or not path.endswith(KEPT):
        raise ModelFileError(
            f"{path!r} has no place in a version of a model. It may hold: {', '.join(f'*{s}' for s in KEPT)}."
        )
