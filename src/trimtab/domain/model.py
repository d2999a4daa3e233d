"""What a model can do and how it likes to be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. `None` leaves the server's default."""

    temperature: float = 0.7
    top_p: float | None = None
    min_p: float | None = None
    top_k: int | None = None
    repeat_penalty: float | None = None
    max_tokens: int = 512
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """A model's capabilities. The orchestrator decides by these, never by a model's name."""

    name: str
    """What lineage and `/v1/models` say."""
    tools: Literal["native", "guided", "none"] = "guided"
    grounding: Literal["quote", "write"] = "quote"
    """With passages: ``quote`` the best sentences and let the model phrase them (small models), or let it ``write``
    a cited answer."""
    context_tokens: int = 4096
    chat_template: str = ""
    """``""`` means the server applies the model's own."""
    system_role: bool = True
    sampling: Sampling = field(default_factory=Sampling)
    base_url: str = ""
    version: str = ""


QUESTION_KEY = "trimtab_question"
"""In the last human message's `additional_kwargs`: what the person really typed, where the content is that plus
passages. A model that routes by similarity routes on this."""

EVIDENCE_KEY = "trimtab_evidence"
"""Beside it: how well (cosine, 0..1) the best sentence of the documents answers. A router prefers the documents to a
tool that matches less well."""


class AskedDirectly:
    """Marks a chat model whose `_astream` is all there is to `astream`, once nobody listens to LangChain's callbacks:
    its `run_manager` is not needed. Ours are; a stranger's may do more."""


class Embedder(Protocol):
    """Texts to unit vectors. LangChain's `Embeddings` satisfies this."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]: ...
    def embed_query(self, text: str) -> list[float]: ...


class TokenCounter(Protocol):
    def __call__(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without special tokens."""
        ...
