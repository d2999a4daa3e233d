"""The handbook does what it says: its Python runs, its commands are commands, and nothing is left out of it.

`docs/connectors.md` has a test of its own, beside the connectors.
"""

from __future__ import annotations

import ast
import gc
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import settings_table
import typer
from openai import OpenAI

from running import Running
from trimtab.cli.main import COMMANDS, app
from trimtab.domain.events import TYPES
from trimtab.settings import Settings

ROOT = Path(__file__).parents[2]
CONNECTORS = ROOT / "docs" / "connectors.md"
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
GUIDES = [page for page in PAGES if page != CONNECTORS]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
INLINE = re.compile(r"(?<!`)`(trimtab [^`\n]+)`(?!`)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
SHELL = ("bash", "sh", "console")
DEFAULT_URL = "http://127.0.0.1:8765"


def name_of(page: Path) -> str:
    return page.name


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in BLOCK.findall(page.read_text("utf-8")) if language in languages]


everything = "\n".join(page.read_text("utf-8") for page in PAGES)
pages = pytest.mark.parametrize("page", PAGES, ids=name_of)
guides = pytest.mark.parametrize("page", GUIDES, ids=name_of)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("home"), models_dir).start()
    yield running
    running.stop()


# ---------------------------------------------------------------------- Python


@pytest.mark.model
@pytest.mark.parametrize("page", [p for p in GUIDES if blocks(p, "python")], ids=name_of)
async def test_the_python_of_a_page_runs_in_order(
    page: Path, server: Running, models_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(models_dir, target_is_directory=True)
    if page.name == "operations.md":  # what is backed up there is the database of the running server
        home = server.home
    monkeypatch.setenv("TRIMTAB_HOME", str(home))
    monkeypatch.setenv("TRIMTAB_KEY", server.key)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "guide"}
    for text in blocks(page, "python"):
        code = text.replace(DEFAULT_URL, server.url)
        compiled = compile(code, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        made = eval(compiled, names)
        if inspect.isawaitable(made):
            await made
    for value in names.values():  # what the end of a program would close
        if isinstance(value, OpenAI):
            value.close()
    del made, names
    gc.collect()  # what a page leaves open is said here, not in the next test


# ---------------------------------------------------------------------- commands


def command_lines(text: str) -> list[list[str]]:
    """Every `trimtab ...` in shell text as its words, also inside `$(...)` and behind variables."""
    found = []
    for line in text.splitlines():
        for piece in re.split(r"\$\(|\)|\||&&|;|\s>\s|(?:^|\s)#", line):
            words = shlex.split(piece.removeprefix("$ ")) if "trimtab" in piece else []
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words[:1] == ["trimtab"]:
                found.append(words[1:])
    return found


def parse(words: list[str]) -> None:
    """Read a command line as the command itself would, without running it.

    Raises:
        typer's usage errors: no such command, option or argument.
    """
    command: Any = typer.main.get_command(app)
    context = command.make_context("trimtab", list(words))
    while hasattr(command, "resolve_command"):
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        if not rest and command.invoke_without_command:
            return
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


@pages
def test_every_command_line_that_is_shown_is_understood(page: Path) -> None:
    lines = [words for text in blocks(page, *SHELL) for words in command_lines(text)]
    for words in lines:
        try:
            parse(words)
        except Exception as error:
            raise AssertionError(f"{page.name}: trimtab {shlex.join(words)}: {error}") from error
    assert lines or page.name in ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks.md", "http-api.md", "security.md",
                                  "python-api.md", "performance.md",
                                  "how-a-turn-works.md")  # fmt: skip


def test_a_command_line_that_is_wrong_is_noticed() -> None:
    for wrong in ("asks hello", "ask --nonsense hello", "ask", "config sett a b", "search x -k 0"):
        with pytest.raises(Exception, match=r"(?i)no such|missing|invalid|greater than or equal"):
            parse(wrong.split())


@pages
def test_every_command_named_in_a_sentence_exists(page: Path) -> None:
    prose = BLOCK.sub("", page.read_text("utf-8"))
    for text in INLINE.findall(prose):
        words = text.split()[1:]
        command: Any = typer.main.get_command(app)
        while words and hasattr(command, "commands") and not words[0].startswith("-"):
            assert words[0] in command.commands, f"{page.name}: `{text}`: no command {words[0]!r}"
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        known |= {"-h", "--help"}
        for option in (word for word in words if word.startswith("-")):
            if hasattr(command, "commands") and option in ("--verbose", "-v"):
                break  # an option of trimtab itself; a command follows
            assert option in known, f"{page.name}: `{text}`: no option {option}"


SAFE = {
    "ask", "search", "ingest", "doctor", "threads list", "connectors list", "connectors show", "connectors call",
    "models list", "models path", "config show", "config path", "config keys", "config key", "config set",
    "learn words",
}  # fmt: skip
"""What may be run here: it neither stays in the foreground nor fetches anything nor takes something away."""


def safe(words: list[str]) -> bool:
    if {"ID", "--record", "--replay"} & set(words) or any(word.startswith("anthropic:") for word in words):
        return False
    return " ".join(words[:1]) in SAFE or " ".join(words[:2]) in SAFE


@pytest.mark.model
@guides
def test_the_commands_of_a_page_work(page: Path, server: Running) -> None:
    for language, text in BLOCK.findall(page.read_text("utf-8")):
        if language not in SHELL:
            continue
        shown = [line for line in text.splitlines() if language == "console" and not line.startswith("$ ")]
        printed = ""
        for words in command_lines(text):
            if safe(words):
                printed += run(words, server)
        for line in shown:
            assert line in printed, f"{page.name} shows {line!r}; this came:\n{printed}"


def run(words: list[str], server: Running) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "trimtab.cli.main", *words],
        env=server.environment, cwd=ROOT, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, (
        f"trimtab {shlex.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    )
    return done.stdout + done.stderr


@pytest.mark.model
def test_the_question_of_the_tour_is_answered_from_the_handbook(server: Running) -> None:
    """The README takes in `docs` and asks about it; the answer it promises stands there and is quoted."""
    run(["ingest", "docs"], server)
    question = next(w[1] for text in blocks(ROOT / "README.md", "bash") for w in command_lines(text) if w[0] == "ask")
    answer = server.ask(question)
    assert "20 million characters" in answer["text"]
    (citation, *_) = answer["citations"]
    assert citation["title"] == "retrieval.md"
    assert "20 million characters" in citation["quote"]
    assert citation["span"]["end"] > citation["span"]["start"]


def test_the_variables_in_shell_blocks_are_settings() -> None:
    known = {f"TRIMTAB_{name.upper()}" for name in Settings.model_fields}
    known |= {"TRIMTAB_KEY", "TRIMTAB_URL", "TRIMTAB_TEST_MODELS", "TRIMTAB_LLAMA_SERVER", "TRIMTAB_JUDGE_KEY",
              "TRIMTAB_DATABASE_PASSWORD"}  # fmt: skip
    assert set(re.findall(r"TRIMTAB_[A-Z_]+[A-Z]", everything)) <= known


@pytest.mark.skipif(not any((Path(p) / "make").exists() for p in os.get_exec_path()), reason="make is not installed")
def test_every_make_verb_that_is_named_exists_and_the_other_way_round() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    verbs = set(re.findall(r"^  make (\S+)", listed, re.M))
    named = set(re.findall(r"`?make ([a-z]+)`", everything)) | set(re.findall(r"^make ([a-z]+)", everything, re.M))
    assert named == verbs


# ---------------------------------------------------------------------- links and pictures


@pages
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    prose = BLOCK.sub("", page.read_text("utf-8"))
    for target in LINK.findall(prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors(file), f"{page.name} links to {target}; there is no such heading"


def anchors(page: Path) -> set[str]:
    """Headings as GitHub turns them into anchors."""
    titles = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text("utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pages
def test_every_picture_is_there_and_says_what_it_shows(page: Path) -> None:
    for says, target in IMAGE.findall(page.read_text("utf-8")):
        assert says, f"{page.name}: {target} has no text for those who cannot see it"
        file = page.parent / target
        assert file.exists(), f"{page.name} shows {target}, which is not there: the browser tests write it"
        assert file.read_bytes().startswith(b"\x89PNG")


def test_every_page_of_the_handbook_is_in_the_readme() -> None:
    linked = set(LINK.findall((ROOT / "README.md").read_text("utf-8")))
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= linked


# ---------------------------------------------------------------------- nothing is left out


def test_the_table_of_settings_is_what_the_code_says() -> None:
    page = settings_table.PAGE.read_text("utf-8")
    assert settings_table.in_page(page) == settings_table.table(), "run: python tests/docs/settings_table.py"


def test_every_setting_says_what_it_does() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def commands() -> Iterator[str]:
    root: Any = typer.main.get_command(app)
    assert set(root.commands) == set(COMMANDS)
    for name, command in root.commands.items():
        yield from (
            (f"{name} {inner}" for inner in getattr(command, "commands", ()))
            if hasattr(command, "commands")
            else [name]
        )


@pytest.mark.parametrize("command", list(commands()))
def test_every_command_is_in_the_handbook(command: str) -> None:
    assert re.search(rf"trimtab {command}\b", everything)


@pytest.mark.parametrize("event", sorted(TYPES))
def test_every_event_is_in_the_handbook(event: str) -> None:
    for page in ("http-api.md", "how-a-turn-works.md"):
        assert f"| `{event}` |" in (ROOT / "docs" / page).read_text("utf-8")


@pytest.mark.model
def test_every_route_is_in_the_handbook_and_no_other(server: Running) -> None:
    paths = httpx.get(f"{server.url}/openapi.json", trust_env=False).json()["paths"]
    routes = {(m.upper(), re.sub(r"{.*?}", "{}", path)) for path, methods in paths.items() for m in methods}
    text = (ROOT / "docs" / "http-api.md").read_text("utf-8")
    told = {
        (m, re.sub(r"{.*?}", "{}", path)) for m, path in re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^\s`?]*)", text)
    }
    assert told == routes


@pytest.mark.model
def test_every_metric_is_in_the_handbook_and_no_other(server: Running) -> None:
    with server.client as client:
        names = set(re.findall(r"^# TYPE (\w+)", client.get("/metrics").text, re.M))
    told = set(re.findall(r"`(trimtab_\w+)`", (ROOT / "docs" / "operations.md").read_text("utf-8")))
    assert told == names


def test_every_public_name_is_in_the_handbook() -> None:
    import trimtab

    text = (ROOT / "docs" / "python-api.md").read_text("utf-8")
    assert [name for name in trimtab.__all__ if not re.search(rf"`{name}`", text)] == []
