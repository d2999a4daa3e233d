"""Which files of a folder are documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.domain.errors import InvalidInput, TooLarge
from trimtab.retrieval.walking import WalkOptions, walk


def tree(root: Path, *names: str, **contents: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("words")
    return root


def names(root: Path, options: WalkOptions = WalkOptions()) -> list[str]:
    return [found.name for found in walk(root, options)]


def test_hidden_foreign_and_binary_files_are_left_out(tmp_path: Path) -> None:
    tree(
        tmp_path, "a.md", "b/c.txt", ".hidden.md", ".git/config.txt", "node_modules/x.js", "env/pyvenv.cfg", "env/y.py"
    )
    tree(tmp_path, "photo.jpg", "tool.exe", "README", "Makefile")
    assert names(tmp_path) == ["Makefile", "README", "a.md", "b/c.txt"]


def test_ignore_files_are_read_as_git_reads_them(tmp_path: Path) -> None:
    tree(tmp_path, "a.md", "draft.md", "notes/draft.md", "notes/keep.txt", "out/x.txt", "log/y.txt")
    (tmp_path / ".gitignore").write_text("draft.md\nout/\n# comment\n")
    (tmp_path / "notes" / ".gitignore").write_text("!draft.md\n")
    (tmp_path / ".trimtabignore").write_text("log/\n")
    assert names(tmp_path) == ["a.md", "notes/draft.md", "notes/keep.txt"]
    assert names(tmp_path, WalkOptions(ignore=("a.*",))) == ["notes/draft.md", "notes/keep.txt"]


def test_no_link_is_followed(tmp_path: Path) -> None:
    outside = tree(tmp_path / "outside", "secret.md")
    inside = tree(tmp_path / "inside", "a.md", "sub/b.md")
    (inside / "link.md").symlink_to(outside / "secret.md")
    (inside / "folder").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    assert names(inside) == ["a.md", "sub/b.md"]


def test_a_single_file_is_found_whatever_its_ending(tmp_path: Path) -> None:
    tree(tmp_path, "notes.unknown")
    assert names(tmp_path / "notes.unknown") == ["notes.unknown"]


def test_limits_and_missing_paths_are_errors(tmp_path: Path) -> None:
    tree(tmp_path, "a.md", "b.md", "c.md")
    with pytest.raises(TooLarge, match="more than 2 documents"):
        names(tmp_path, WalkOptions(max_files=2))
    with pytest.raises(InvalidInput, match="cannot be read"):
        names(tmp_path / "missing")
