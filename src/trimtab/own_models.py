"""The models of an installation: the one that answers, and the one that finds passages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from trimtab.settings import Settings

if TYPE_CHECKING:
    from trimtab.llm.served import Form, ServingOptions
    from trimtab.retrieval.embedding import MiniLmEmbeddings
    from trimtab.retrieval.library import Library
    from trimtab.store.database import Database


def serving_options(settings: Settings) -> ServingOptions:
    """What the llm wing needs to know to serve a model."""
    from trimtab.llm.served import ServingOptions

    return ServingOptions(
        model=settings.model,
        models_dir=settings.models_dir,
        log_path=settings.logs_dir / "engine.log",
        base_url=settings.base_url,
        api_key=settings.api_key,
        engine=settings.engine,
        tools_mode=settings.tools_mode,
        as_shipped=settings.weights == "as-shipped",
        form=_form(settings),
        batch=settings.batch,
        context=settings.context,
        parallel=settings.parallel,
        threads=settings.threads,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        max_prompt_chars=settings.max_prompt_chars,
    )


def _form(settings: Settings) -> Form | None:
    """Raises InvalidInput when there is no such variant."""
    if not settings.variant:
        return None
    from trimtab.deploy.variant import variant
    from trimtab.llm.served import Form
    from trimtab.students import Students

    one = variant(settings.variant)
    source = Students(settings.home).verified(one.student).gguf if one.student else None
    return Form(one.engine, one.weights, one.kv, settings.home / "variants", source)


def open_embedder(settings: Settings) -> MiniLmEmbeddings:
    """The default embedding model.

    Raises:
        ModelFileError: it is not on this machine; says how to fetch it.
    """
    from trimtab.llm import catalogue, shelf
    from trimtab.retrieval.embedding import MiniLmEmbeddings

    entry = catalogue.entry(catalogue.DEFAULT_EMBEDDING)
    return MiniLmEmbeddings(shelf.path(entry, settings.models_dir))


def open_library_on(
    settings: Settings, database: Database, progress: Callable[[str, float], None] | None = None
) -> tuple[Library, MiniLmEmbeddings]:
    """The document library on an open database, and the embedding model it uses.

    Raises:
        ModelFileError: the embedding model is missing.
        Unavailable: another process has the library open.
    """
    from trimtab.retrieval.library import Library, LibraryOptions
    from trimtab.retrieval.loading import Loader, LoadLimits
    from trimtab.store.documents import SqlDocumentStore

    embedder = open_embedder(settings)
    options = LibraryOptions(floor=settings.passage_floor)
    store = SqlDocumentStore(database.engine, database.reader)
    loader = Loader(LoadLimits(file=settings.max_upload_mb * 1_000_000))
    return Library(store, embedder, settings.index_dir, options, loader, progress), embedder
