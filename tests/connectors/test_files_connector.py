"""Files in one folder: what is in it is read, and no spelling, link or race leads out of it."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from trimtab.connect import ConnectOptions, Override, Toolbox, ToolError
from trimtab_connectors import files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("the treasure is under the oak")
    inside = tmp_path / "mine"
    (inside / "letters").mkdir(parents=True)
    (inside / "harbour.txt").write_text("Anna Berg\nlighthouse: 112 steps\n")
    (inside / "letters" / "übung.md").write_text("Zum Lighthouse gehen", "utf-8")
    (inside / ".env").write_text("KEY=1")
    (inside / "picture.png").write_bytes(b"\x89PNG\0\0")
    (inside / "large.txt").write_text("x" * 1_000_001)
    (inside / "out.txt").symlink_to(tmp_path / "secret.txt")
    (inside / "way").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(inside / "pipe")
    return inside


@pytest.fixture
async def toolbox(folder: Path) -> AsyncIterator[Toolbox]:
    made = Toolbox(ConnectOptions(overrides={"files": Override(options={"folder": str(folder)})}))
    made.add(files.connector)
    yield made
    await made.aclose()


async def test_files_are_listed_read_and_searched(toolbox: Toolbox) -> None:
    told = await toolbox.call("files.list", {})
    assert [one["name"] for one in told.data] == ["letters", "harbour.txt", "large.txt", "picture.png"]
    read = await toolbox.call("files.read", {"path": "./letters/übung.md"})
    assert read.data["text"] == "Zum Lighthouse gehen"
    assert read.sources[0].title == "letters/übung.md"
    part = await toolbox.call("files.read", {"path": "harbour.txt", "start": 2})
    assert part.data["text"] == "lighthouse: 112 steps"
    found = await toolbox.call("files.search", {"text": "LIGHTHOUSE"})
    assert [(hit["path"], hit["line"]) for hit in found.data] == [("harbour.txt", 2), ("letters/übung.md", 1)]
    named = await toolbox.call("files.search", {"text": "harbour"})
    assert named.data == [{"path": "harbour.txt", "line": None, "text": "(its name)"}]
    assert (await toolbox.call("files.search", {"text": "treasure"})).answer == "No file has 'treasure'."


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("../secret.txt", "out of the folder"),
        ("letters/../../secret.txt", "out of the folder"),
        ("letters\\..\\..\\secret.txt", "out of the folder"),
        ("/etc/passwd", "not a path inside"),
        ("~/x", "not a path inside"),
        ("file:///etc/passwd", "not a path inside"),
        ("out.txt", "link"),
        ("way/secret.txt", "link"),
        (".env", "hidden"),
        ("letters/.env", "hidden"),
        ("picture.png", "not a text"),
        ("large.txt", "more than 1,000,000 bytes"),
        ("letters", "not a file"),
        ("pipe", "not a file"),
        ("none.txt", "There is no none.txt"),
        ("harbour.txt/x", "not opened"),
        ("har\x00bour.txt", "characters that no"),
        ("n" * 400, "not opened"),
    ],
)
async def test_what_is_not_a_text_inside_is_refused(toolbox: Toolbox, path: str, why: str) -> None:
    with pytest.raises(ToolError, match=why) as caught:
        await toolbox.call("files.read", {"path": path})
    assert "treasure" not in caught.value.message


async def test_a_link_that_appears_between_look_and_open_leads_nowhere(folder: Path, tmp_path: Path) -> None:
    """The name is opened relative to its folder and without following links: there is no moment to swap it in."""
    inner = folder / "letters"
    with files.opened(str(folder), ["letters"], files.FOLDER) as held:
        inner.rename(folder / "moved")
        inner.symlink_to(tmp_path, target_is_directory=True)
        assert os.listdir(held) == ["übung.md"]
    with pytest.raises(ToolError, match="link"):
        files.text_of(str(folder), ["letters", "secret.txt"])


async def test_without_a_folder_nothing_is_offered_and_it_says_how() -> None:
    for options, told in (({}, r"options\.folder VALUE"), ({"folder": "relative"}, "no folder 'relative'")):
        toolbox = Toolbox(ConnectOptions(overrides={"files": Override(options=options)}))
        toolbox.add(files.connector)
        assert bool(toolbox.tools()) is bool(options)
        with pytest.raises(ToolError, match=told):
            await toolbox.call("files.list", {})
