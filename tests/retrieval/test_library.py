"""Documents in, passages out: through the library's one door, with real parts."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from trimtab.domain.errors import InvalidInput, NotFound, Unavailable
from trimtab.retrieval.ingest import IngestStatus
from trimtab.retrieval.library import Library
from trimtab.retrieval.search import Filters
from trimtab.retrieval.vectors import VectorIndex

Open = Callable[..., Library]

pytestmark = pytest.mark.model

RIVER = "# The Vell\n\nThe river Vell rises in the Karn hills.\n\n## Length\n\nThe Vell is 212 kilometres long.\n"
BREAD = "# Bread\n\nKnead the dough for ten minutes.\n\nBake the loaf at 230 degrees until the crust is brown.\n"


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_md", ".md").replace("_txt", ".txt").replace("_py", ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def statuses(library: Library, folder: Path, owner: str = "ann", **options: bool) -> dict[str, str]:
    return {event.name: event.status.value for event in library.ingest([folder], owner, **options)}


def test_a_question_finds_the_passage_with_its_place_and_the_best_sentence(library: Library, tmp_path: Path) -> None:
    folder = write(tmp_path / "docs", river_md=RIVER, bread_md=BREAD)
    assert statuses(library, folder) == {"bread.md": "added", "river.md": "added"}

    best, *_ = library.search("How many kilometres long is the Vell?", "ann")

    assert (best.name, best.heading) == ("river.md", ("The Vell", "Length"))
    assert best.score > 0.5
    assert best.vector_rank == 1
    text = library.text_of("ann", best.document_id)
    assert text[best.span.start : best.span.end] == best.text

    quote, *_ = library.best_sentences("How many kilometres long is the Vell?", [best], 2)
    assert quote.sentence == "The Vell is 212 kilometres long."
    assert text[quote.span.start : quote.span.end] == quote.sentence


def test_a_question_the_documents_do_not_touch_finds_nothing(library: Library) -> None:
    library.ingest_bytes("ann", "bread.md", BREAD.encode())
    assert library.search("Which treaty ended the war of 1812?", "ann") == []
    assert library.search("Which treaty ended the war of 1812?", "ann", floor=-1) != []
    assert library.search("   ", "ann") == []


def test_a_rare_word_is_found_by_the_keyword_side(library: Library) -> None:
    noise = "\n\n".join(f"# Note {i}\n\nThe committee discussed matter {i} at length." for i in range(80))
    library.ingest_bytes("ann", "notes.md", f"{noise}\n\n# Note X\n\nTicket ZQ-4711 was closed.".encode())
    found = library.search("ZQ-4711", "ann", 3, floor=-1)
    assert "ZQ-4711" in found[0].text
    assert found[0].keyword_rank == 1


def test_nothing_of_one_owner_reaches_another(library: Library) -> None:
    event = library.ingest_bytes("ann", "river.md", RIVER.encode())
    library.ingest_bytes("bob", "bread.md", BREAD.encode())
    found = library.search("How long is the river Vell?", "bob", floor=-1)
    assert {p.name for p in found} == {"bread.md"}
    assert (
        library.search(
            "How long is the river Vell?", "bob", floor=-1, filters=Filters(document_ids=(event.document_id,))
        )
        == []
    )
    for call in (library.document, library.text_of, library.delete):
        with pytest.raises(NotFound):
            call("bob", event.document_id)
    assert library.document("ann", event.document_id).name == "river.md"


def test_filters_limit_a_search_to_documents(library: Library, open_library: Open) -> None:
    library.ingest_bytes("ann", "a/river.md", RIVER.encode(), "geo")
    library.ingest_bytes("ann", "b/bread.txt", BREAD.encode(), "food")
    question = "How long is the Vell?"

    def names(filters: Filters) -> set[str]:
        return {p.name for p in library.search(question, "ann", filters=filters, floor=-1)}

    assert names(Filters()) == {"a/river.md", "b/bread.txt"}
    assert names(Filters(name="b/*")) == {"b/bread.txt"}
    assert names(Filters(collection="geo")) == {"a/river.md"}
    assert names(Filters(mime="text/markdown")) == {"a/river.md"}
    assert names(Filters(name="nothing")) == set()

    library.close()
    # The other way to answer a filter, taken when it leaves many chunks.
    library = open_library(exact_up_to=0)
    assert names(Filters(name="b/*")) == {"b/bread.txt"}
    assert names(Filters(collection="geo", mime="text/")) == {"a/river.md"}


def test_only_what_changed_is_read_again_and_sync_removes_what_is_gone(library: Library, tmp_path: Path) -> None:
    folder = write(tmp_path / "docs", river_md=RIVER, bread_md=BREAD)
    statuses(library, folder)
    before = {d.name: d.id for d in library.documents("ann")}
    assert set(statuses(library, folder).values()) == {"unchanged"}

    write(folder, river_md=RIVER.replace("212", "480"))
    (folder / "bread.md").touch()  # another time, the same bytes
    assert statuses(library, folder) == {"bread.md": "unchanged", "river.md": "replaced"}
    found = library.search("How long is the Vell?", "ann")
    assert "480" in found[0].text
    assert not any("212" in p.text for p in found)
    assert {d.name: d.id for d in library.documents("ann")} == before

    (folder / "river.md").unlink()
    assert statuses(library, folder) == {"bread.md": "unchanged"}
    assert statuses(library, folder, sync=True) == {"bread.md": "unchanged", "river.md": "removed"}
    assert [d.name for d in library.documents("ann")] == ["bread.md"]
    assert library.check().healthy
    assert library.check().chunks == len({p.id for p in library.search("bread", "ann", 50, floor=-1)})


def test_a_missing_folder_is_an_error_and_removes_nothing(library: Library, tmp_path: Path) -> None:
    folder = write(tmp_path / "docs", river_md=RIVER)
    statuses(library, folder)
    with pytest.raises(InvalidInput, match="cannot be read"):
        list(library.ingest([folder, tmp_path / "gone"], "ann", sync=True))
    assert len(library.documents("ann")) == 1


def test_the_same_content_is_kept_once(library: Library, tmp_path: Path) -> None:
    folder = write(tmp_path / "docs", a_md=RIVER, b_md=RIVER)
    assert statuses(library, folder) == {"a.md": "added", "b.md": "duplicate"}
    (folder / "a.md").unlink()
    assert statuses(library, folder, sync=True) == {"a.md": "removed", "b.md": "added"}


def test_a_file_that_cannot_be_read_stops_nothing_and_says_why(library: Library, tmp_path: Path) -> None:
    folder = write(tmp_path / "docs", river_md=RIVER)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 and then nothing of the kind")
    events = {e.name: e for e in library.ingest([folder], "ann")}
    assert events["river.md"].status is IngestStatus.ADDED
    assert events["broken.pdf"].status is IngestStatus.FAILED
    assert "broken.pdf could not be read" in events["broken.pdf"].error
    stored = {d.name: d for d in library.documents("ann")}
    assert stored["broken.pdf"].status == "failed"
    assert stored["broken.pdf"].error == events["broken.pdf"].error
    (folder / "broken.pdf").unlink()
    (folder / "broken.pdf").write_text("Plain words about the river Vell, whatever the ending says.")
    assert statuses(library, folder)["broken.pdf"] == "replaced"


def test_progress_counts_every_file_once(library: Library, tmp_path: Path) -> None:
    folder = write(tmp_path / "docs", **{f"n{i}_txt": f"Note number {i} about topic {i * 7}." for i in range(12)})
    events = list(library.ingest([folder], "ann"))
    assert [e.done for e in events] == list(range(1, 13))
    assert {e.total for e in events} == {12}


def test_deleting_a_document_leaves_no_trace_in_any_index(library: Library) -> None:
    event = library.ingest_bytes("ann", "river.md", RIVER.encode())
    library.delete("ann", event.document_id)
    assert library.search("How long is the Vell?", "ann", floor=-1) == []
    check = library.check()
    assert check.healthy
    assert check.chunks == 0


def test_an_upload_with_the_same_name_replaces_the_first(library: Library) -> None:
    first = library.ingest_bytes("ann", "../../etc/river.md", RIVER.encode())
    second = library.ingest_bytes("ann", "etc/river.md", RIVER.replace("212", "480").encode())
    assert (first.name, second.name) == ("etc/river.md", "etc/river.md")
    assert second.document_id == first.document_id
    assert second.status is IngestStatus.REPLACED
    with pytest.raises(InvalidInput, match="no usable name"):
        library.ingest_bytes("ann", "../\u202e/", b"text")


def test_a_second_process_is_sent_to_the_running_server(library: Library, open_library: Open) -> None:
    with pytest.raises(Unavailable, match=r"open in another process \(pid \d+\). Use the running server"):
        open_library()
    library.close()
    open_library()


def test_a_lost_index_is_rebuilt_at_the_next_start(library: Library, open_library: Open, tmp_path: Path) -> None:
    library.ingest_bytes("ann", "river.md", RIVER.encode())
    before = library.search("How long is the Vell?", "ann")
    library.close()
    (tmp_path / "index" / "keywords.db").unlink()
    for path in sorted((tmp_path / "index" / "chroma").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()

    library = open_library()

    assert library.check().healthy
    assert library.search("How long is the Vell?", "ann") == before


def test_entries_without_a_document_are_dropped_at_the_next_start(library: Library, open_library: Open) -> None:
    event = library.ingest_bytes("ann", "river.md", RIVER.encode())
    library.ingest_bytes("bob", "bread.md", BREAD.encode())
    # As if the process had died between the database's commit and the indexes.
    library._store.remove("ann", [event.document_id])
    assert library.search("How long is the Vell?", "ann", floor=-1) == []
    assert library.check().extra_vectors > 0
    library.close()
    assert open_library().check().healthy


def test_another_model_embeds_everything_again(library: Library, open_library: Open, embedder, store) -> None:  # type: ignore[no-untyped-def]
    from trimtab.retrieval.contracts import LangChainEncoder

    library.ingest_bytes("ann", "river.md", RIVER.encode())
    folder = library._lock._file.name
    library.close()
    other = LangChainEncoder(embedder, "another1", embedder.tokenizer)
    again = Library(store, other, Path(folder).parent)
    try:
        assert again.check().healthy
        assert set(store.chunk_ids("another1")) == set(store.chunk_ids())
        assert again.search("How long is the Vell?", "ann")[0].heading == ("The Vell", "Length")
    finally:
        again.close()


def test_an_index_that_names_an_embedding_function_is_refused(
    library: Library, open_library: Open, tmp_path: Path
) -> None:
    library.ingest_bytes("ann", "river.md", RIVER.encode())
    library.close()
    path = tmp_path / "index" / "chroma" / "chroma.sqlite3"
    with sqlite3.connect(path) as db:
        db.execute(
            """update collections set config_json_str = '{"embedding_function": {"type": "known", "name": "x"}}'"""
        )
    db.close()
    with pytest.raises(Unavailable, match="names an embedding function, which is not run"):
        open_library()


def test_a_collection_of_chroma_s_own_default_is_refused(tmp_path: Path) -> None:
    import chromadb
    from chromadb.config import Settings

    client = chromadb.PersistentClient(str(tmp_path / "c"), settings=Settings(anonymized_telemetry=False))
    client.create_collection("made-elsewhere")
    client.close()  # type: ignore[attr-defined]
    with pytest.raises(Unavailable, match="made by another program"):
        VectorIndex(tmp_path / "c", "f")


def test_searches_and_uploads_from_many_threads_agree(library: Library) -> None:
    library.ingest_bytes("ann", "river.md", RIVER.encode())
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(4):
                library.ingest_bytes(
                    f"owner{number}", f"{i}.md", f"# N{number}\n\nNote {i} of owner {number}.".encode()
                )
                assert library.search("How long is the Vell?", "ann")[0].name == "river.md"
                assert all(f"of owner {number}." in p.text for p in library.search("note", f"owner{number}", floor=-1))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert library.check().healthy


def test_a_closed_library_says_so(library: Library) -> None:
    library.close()
    library.close()
    with pytest.raises(Unavailable, match="closed"):
        library.search("x", "ann")
