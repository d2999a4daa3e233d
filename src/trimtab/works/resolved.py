"""What the server knew when an alignment was ordered, and the worker cannot look up itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trimtab.align.base import Base, load_base
from trimtab.llm.unpacked import safetensors_folder


@dataclass(frozen=True)
class Resolved:
    """Paths are absolute."""

    base_name: str
    base_sha256: str
    weights: str
    """The base's GGUF file."""
    models_dir: str
    versions_dir: str
    engine: str
    parent: str
    """Id of the base as a version."""
    serving: str = ""
    """Id of the version that answers now; empty when that is the base."""
    dataset: str = ""
    """Folder of people's feedback, curated; empty when none is used."""
    constitution: str = ""
    """A constitution of the operator's own; empty is the bundled one."""
    home: str = ""
    """Where students are written."""

    def base(self, *, threads: int | None = None) -> Base:
        """The base's weights, unpacked beside them the first time."""
        folder = Path(self.models_dir) / "prepared" / f"{self.base_name}.{self.base_sha256[:16]}.fp32"
        return load_base(safetensors_folder(Path(self.weights), folder), threads=threads)
