"""What the library needs from others: somewhere to keep documents, something that makes vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from langchain_core.embeddings import Embeddings
from tokenizers import Tokenizer

from trimtab.domain.document import Chunk, Document

Matrix = npt.NDArray[np.float32]


class DocumentStore(Protocol):
    """The truth. `store.documents.SqlDocumentStore` is the one we ship; its methods say what each promises."""

    def put(self, items: Sequence[tuple[Document, str, Sequence[Chunk]]]) -> list[str]: ...
    def touch(self, document_id: str, size: int, mtime_ns: int) -> None: ...
    def remove(self, owner_id: str, document_ids: Sequence[str]) -> list[str]: ...
    def set_embeddings(self, embedder: str, vectors: Mapping[str, bytes]) -> None: ...
    def documents(self, owner_id: str, collection: str | None = None) -> list[Document]: ...
    def document(self, owner_id: str, document_id: str) -> Document | None: ...
    def text(self, owner_id: str, document_id: str) -> str | None: ...
    def found(self, owner_id: str, chunk_ids: Sequence[str]) -> dict[str, tuple[Chunk, Document, str]]: ...
    def vectors(
        self, owner_id: str, embedder: str, *, chunk_ids: Sequence[str] = (), document_ids: Sequence[str] = ()
    ) -> list[tuple[str, bytes]]: ...
    def chunk_ids(self, embedder: str | None = None) -> dict[str, str]: ...
    def chunks_by_id(self, chunk_ids: Sequence[str]) -> Iterator[tuple[str, Chunk, str]]: ...


class Encoder(Protocol):
    """Texts to unit vectors, and the tokenizer that says how long a text is. `MiniLmEmbeddings` is one."""

    @property
    def fingerprint(self) -> str:
        """Letters and digits; differs whenever the vectors do."""
        ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def encode(self, texts: Sequence[str]) -> Matrix: ...


class LangChainEncoder:
    """Any LangChain `Embeddings` as an `Encoder`.

    Args:
        fingerprint: 1-16 letters and digits that name the model and its version; changing it re-embeds everything.
        tokenizer: the model's own, or any whose tokens are about as long.
    """

    def __init__(self, embeddings: Embeddings, fingerprint: str, tokenizer: Tokenizer) -> None:
        self.embeddings, self.fingerprint, self.tokenizer = embeddings, fingerprint, tokenizer

    def encode(self, texts: Sequence[str]) -> Matrix:
        rows = np.asarray(self.embeddings.embed_documents(list(texts)), dtype=np.float32).reshape(len(texts), -1)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        scaled: Matrix = rows / np.maximum(norms, 1e-12)
        return scaled
