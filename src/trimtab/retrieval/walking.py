"""Which files of a folder are documents.

Left out: hidden files, what `.gitignore` and `.trimtabignore` say (in every folder, as git reads them), folders that
hold other people's code, and every symbolic link: its target is found by itself when it lies inside, and must not be
read when it lies outside.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from pathspec import GitIgnoreSpec

from trimtab.domain.errors import InvalidInput, TooLarge

from .loading import FORMATS

IGNORED_FOLDERS = frozenset("node_modules __pycache__ venv site-packages target dist build".split())
IGNORE_FILES = (".gitignore", ".trimtabignore")
_NAMES = frozenset("makefile dockerfile justfile cmakelists.txt license readme changelog contributing".split())


@dataclass(frozen=True)
class Found:
    """A file worth reading. `name` is relative to the folder that was asked for."""

    path: Path
    name: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class WalkOptions:
    ignore: tuple[str, ...] = ()
    """More patterns, as in `.gitignore`."""
    max_files: int = 200_000
    max_depth: int = 60


def walk(root: Path, options: WalkOptions = WalkOptions()) -> Iterator[Found]:
    """Files under `root` (or `root` itself), in the order of their names.

    Raises:
        InvalidInput: `root` does not exist or cannot be read.
        TooLarge: more files than `options.max_files`.
    """
    root = Path(os.path.realpath(root))
    try:
        info = root.stat()
    except OSError as error:
        raise InvalidInput(f"{root} cannot be read ({error.strerror}). Check the path.") from error
    if stat.S_ISREG(info.st_mode):
        yield Found(root, root.name, info.st_size, info.st_mtime_ns)
        return
    if not stat.S_ISDIR(info.st_mode):
        raise InvalidInput(f"{root} is neither a file nor a folder. Give a path to documents.")
    base = ("", GitIgnoreSpec.from_lines(options.ignore))
    for count, found in enumerate(_folder(root, "", [base], options)):
        if count >= options.max_files:
            raise TooLarge(f"{root} holds more than {options.max_files:,} documents. Ingest its parts.")
        yield found


def _folder(root: Path, inside: str, rules: list[tuple[str, GitIgnoreSpec]], options: WalkOptions) -> Iterator[Found]:
    if inside.count("/") > options.max_depth:
        return
    try:
        with os.scandir(root / inside) as entries:
            listed = sorted(entries, key=lambda e: e.name)
    except OSError:
        return  # a folder we may not read holds no documents for us
    own = _own_rules(root, inside, [e.name for e in listed])
    rules = [*rules, (inside, own)] if own else rules
    for entry in listed:
        name = inside + entry.name
        if entry.name.startswith(".") or entry.is_symlink():
            continue
        if entry.is_dir(follow_symlinks=False):
            if not _is_foreign(entry) and not _ignored(name + "/", rules):
                yield from _folder(root, name + "/", rules, options)
        elif entry.is_file(follow_symlinks=False) and _readable_format(entry.name) and not _ignored(name, rules):
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError:
                continue  # gone since it was listed
            yield Found(root / name, name, info.st_size, info.st_mtime_ns)


def _is_foreign(entry: os.DirEntry[str]) -> bool:
    return entry.name in IGNORED_FOLDERS or os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))


def _readable_format(name: str) -> bool:
    return PurePath(name).suffix[1:].lower() in FORMATS or name.lower() in _NAMES


def _own_rules(root: Path, inside: str, names: list[str]) -> GitIgnoreSpec | None:
    lines: list[str] = []
    for name in IGNORE_FILES:
        if name in names:
            try:
                with (root / inside / name).open(encoding="utf-8", errors="replace") as file:
                    lines += file.read(100_000).splitlines()
            except OSError:
                continue
    try:
        return GitIgnoreSpec.from_lines(lines) if lines else None
    except ValueError:
        return None  # a pattern git would not read either


def _ignored(name: str, rules: list[tuple[str, GitIgnoreSpec]]) -> bool:
    """The innermost file that says anything decides, as in git."""
    for base, spec in reversed(rules):
        said = spec.check_file(name[len(base) :]).include
        if said is not None:
            return said
    return False
