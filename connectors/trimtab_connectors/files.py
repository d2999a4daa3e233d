"""Text files in one folder, which the person names: listing, reading, searching. Nothing outside it, and no writing.

A path is walked name by name, each opened relative to the one before and never through a symbolic link, so that no
spelling, link or race leads out of the folder. Hidden files are left out: they are where keys are kept.
"""

import asyncio
import contextlib
import errno
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from trimtab.connect import Connector, Effect, Option, Result, Setup, Source, ToolError

connector = Connector(
    name="files",
    version="1.0.0",
    description="Reads text files in a folder that you name; it only reads.",
    options={"folder": Option("The folder whose text files may be read, e.g. /home/you/notes.")},
)

MAX_BYTES = 1_000_000
MAX_LISTED = 500
MAX_SEARCHED_FILES = 3000
MAX_SEARCHED_BYTES = 50_000_000
MAX_DEPTH = 16
SEARCH_SECONDS = 8.0
FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
FILE = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
Path = Annotated[str, Field(max_length=500)]


@dataclass(frozen=True)
class Found:
    """Something in a folder."""

    name: str
    folder: bool
    bytes: int = 0


@connector.tool(
    effect=Effect.READ,
    max_chars=12_000,
    examples=(
        "Read the file notes/harbour.txt",
        "What is in todo.md?",
        "Open the file budget.csv in my folder",
        "Show me the contents of letters/to-anna.txt",
        "Summarise my file meeting-notes.md",
        "Read lines of log.txt from line 200 on",
    ),
)
async def read(
    path: Annotated[Path, Field(min_length=1), "The file's path inside the folder, e.g. notes/harbour.txt"],
    setup: Setup,
    start: Annotated[int, Field(ge=1, le=10_000_000), "The first line to read"] = 1,
) -> Result:
    """Read a text file in the person's folder."""
    inside = names(path)
    text = await asyncio.to_thread(lambda: text_of(root(setup), inside))
    lines = text.splitlines()
    if start > max(len(lines), 1):
        raise ToolError(f"{'/'.join(inside)} has {len(lines)} lines; there is no line {start}.")
    shown = "\n".join(lines[start - 1 :])
    name = "/".join(inside)
    return Result(
        text=f"{name} ({len(lines)} lines{f', from line {start}' if start > 1 else ''})\n\n{shown}",
        data={"path": name, "lines": len(lines), "start": start, "text": shown},
        sources=[Source(name)],
        answer=f"{name}: {' '.join(shown.split())[:300]}",
    )


@connector.tool(
    effect=Effect.READ,
    name="list",
    examples=(
        "Which files are in my folder?",
        "List the files in the folder notes",
        "What documents do I have in letters?",
        "Show the contents of the folder reports/2026",
        "What is in my files folder?",
        "List all files in the directory plans",
    ),
)
async def list_files(
    setup: Setup, folder: Annotated[Path, "A folder inside the folder, e.g. notes; empty is its top"] = ""
) -> Result:
    """List the files and folders in the person's folder, or in a folder inside it."""
    inside = names(folder) if folder.strip("/. ") else []
    found = await asyncio.to_thread(lambda: listed(root(setup), inside))
    where = "/".join(inside) or "the folder"
    lines = [f"{one.name}/" if one.folder else f"{one.name} ({one.bytes:,} bytes)" for one in found[:MAX_LISTED]]
    more = [f"({len(found) - MAX_LISTED} more are not shown)"] if len(found) > MAX_LISTED else []
    return Result(
        text="\n".join([f"In {where}:", *(lines or ["nothing"]), *more]),
        data=[{"name": one.name, "folder": one.folder, "bytes": one.bytes} for one in found[:MAX_LISTED]],
        sources=[Source(where)],
        answer=f"In {where}: {', '.join(one.name for one in found[:15]) or 'nothing'}.",
    )


@connector.tool(
    effect=Effect.READ,
    examples=(
        "Search my files for lighthouse",
        "Which of my files mention Anna?",
        "Find 'invoice 2026' in my folder",
        "In which note did I write about the boat?",
        "Look through my text files for the word mooring",
        "Where in my files is the phone number of the harbour?",
    ),
)
async def search(
    text: Annotated[str, Field(min_length=2, max_length=100), "The words to find, as they stand: lighthouse"],
    setup: Setup,
    limit: Annotated[int, Field(ge=1, le=100), "How many places"] = 20,
) -> Result:
    """Search the text files in the person's folder for words, in names and contents, and list where they stand."""
    hits, all_read = await asyncio.to_thread(lambda: searched(root(setup), text.casefold(), limit + 1))
    shown = hits[:limit]
    note = [] if all_read else ["(the folder is large: only a part of it was searched)"]
    note += ["(there are more places)"] if len(hits) > limit else []
    if not shown:
        said = f"No file has {text!r}."
        return Result(text="\n".join([said, *note]), data=[], answer=said)
    paths = list(dict.fromkeys(str(hit["path"]) for hit in shown))
    return Result(
        text="\n".join([*(f"{hit['path']}:{hit['line'] or ''} {hit['text']}" for hit in shown), *note]),
        data=shown,
        sources=[Source(path) for path in paths[:10]],
        answer=f"{text!r} stands in {', '.join(paths[:8])}.",
    )


def root(setup: Setup) -> str:
    """Raises `ToolError`: no folder is named, or there is none of that name."""
    folder = os.path.expanduser(setup.need("folder"))
    if os.open not in os.supports_dir_fd:
        raise ToolError("Connector 'files' needs Linux or macOS: this system cannot open a file relative to a folder.")
    if not os.path.isabs(folder) or not os.path.isdir(folder):
        raise ToolError(
            f"Connector 'files': there is no folder {folder!r}. Give a whole path as `folder` in your settings.",
            reason="not_set_up",
        )
    return folder


def names(path: str) -> list[str]:
    """The names that a path is made of.

    Raises:
        ToolError: it is no path inside a folder, or leads to something hidden.
    """
    parts = [part for part in path.strip().replace("\\", "/").split("/") if part not in ("", ".")]
    if path.strip().startswith(("/", "~")) or ":" in path or not parts or len(parts) > MAX_DEPTH:
        raise ToolError(f"{path[:100]!r} is not a path inside the folder. Write it like notes/harbour.txt.")
    if ".." in parts:
        raise ToolError(f"{path[:100]!r} would lead out of the folder, which is not permitted.", reason="not_permitted")
    if any(part.startswith(".") for part in parts):
        raise ToolError(f"{path[:100]!r} is hidden, and hidden files are not read.", reason="not_permitted")
    if any(ord(char) < 32 or 0xD800 <= ord(char) < 0xE000 for char in path):
        raise ToolError("That path has characters that no file's name has.")
    return parts


@contextlib.contextmanager
def opened(folder: str, inside: list[str], flags: int) -> Iterator[int]:
    """A descriptor of what `inside` names, walked from `folder` without following a link.

    Raises:
        ToolError: it is not there, or a link is on the way.
    """
    shown = "/".join(inside) or "the folder"
    held = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        for number, name in enumerate(inside):
            last = number + 1 == len(inside)
            step = os.open(name, flags if last else FOLDER, dir_fd=held)
            os.close(held)
            held = step
        yield held
    except FileNotFoundError:
        raise ToolError(f"There is no {shown} in the folder. List it to see what there is.") from None
    except OSError as error:
        links = (errno.ELOOP, errno.EMLINK, errno.ENOTDIR)
        why = "it is a link, or something on the way is a link or no folder" if error.errno in links else error.strerror
        raise ToolError(f"{shown} was not opened: {why}.", reason="not_permitted") from None
    finally:
        os.close(held)


def text_of(folder: str, inside: list[str]) -> str:
    """The text of a file.

    Raises:
        ToolError: it is no file, too large, or not text.
    """
    name = "/".join(inside)
    with opened(folder, inside, FILE) as held:
        about = os.fstat(held)
        if not stat.S_ISREG(about.st_mode):
            raise ToolError(f"{name} is not a file. List it to see what it holds.")
        content = contents(held, MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ToolError(f"{name} has more than {MAX_BYTES:,} bytes, which is more than this tool reads.")
    text = decoded(content)
    if text is None:
        raise ToolError(f"{name} is not a text file, so it was not read.")
    return text


def listed(folder: str, inside: list[str]) -> list[Found]:
    """What a folder holds by name; hidden files and links are left out."""
    with opened(folder, inside, FOLDER) as held, os.scandir(held) as entries:
        found = []
        for entry in entries:
            if entry.name.startswith(".") or entry.is_symlink():
                continue
            if entry.is_dir(follow_symlinks=False):
                found.append(Found(shown_name(entry.name), True))
            elif entry.is_file(follow_symlinks=False):
                found.append(Found(shown_name(entry.name), False, entry.stat(follow_symlinks=False).st_size))
            if len(found) >= 20 * MAX_LISTED:
                break
    return sorted(found, key=lambda one: (not one.folder, one.name.casefold()))


def searched(folder: str, wanted: str, limit: int) -> tuple[list[dict[str, object]], bool]:
    """Places where `wanted` stands, and whether everything was looked through."""
    end, files, size = time.monotonic() + SEARCH_SECONDS, 0, 0
    hits: list[dict[str, object]] = []
    whole = True
    for inside in walk(folder):
        if len(hits) >= limit:
            return hits[:limit], whole
        files += 1
        if files > MAX_SEARCHED_FILES or size > MAX_SEARCHED_BYTES or time.monotonic() > end:
            return hits, False
        try:
            text = text_of(folder, inside)
        except ToolError:
            continue  # not a text, too large, or gone meanwhile: nothing to be found there
        size += len(text)
        name = "/".join(inside)
        if wanted in name.casefold():
            hits.append({"path": name, "line": None, "text": "(its name)"})
        for number, line in enumerate(text.splitlines(), 1):
            if wanted in line.casefold():
                hits.append({"path": name, "line": number, "text": line.strip()[:300]})
                if len(hits) >= limit:
                    break
    return hits, whole


def walk(folder: str) -> Iterator[list[str]]:
    """Every file that may be read, folder by folder."""
    waiting: list[list[str]] = [[]]
    while waiting:
        inside = waiting.pop(0)
        try:
            found = listed(folder, inside)
        except ToolError:
            continue
        yield from ([*inside, one.name] for one in found if not one.folder)
        if len(inside) + 1 < MAX_DEPTH:
            waiting += [[*inside, one.name] for one in found if one.folder][: MAX_SEARCHED_FILES - len(waiting)]


def contents(held: int, most: int) -> bytes:
    parts = []
    while most > 0 and (part := os.read(held, min(most, 262_144))):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def decoded(content: bytes) -> str | None:
    """None for what is no text."""
    if b"\0" in content:
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def shown_name(name: str) -> str:
    return name.encode("utf-8", "replace").decode("utf-8")
