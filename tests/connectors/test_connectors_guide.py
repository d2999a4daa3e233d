"""docs/connectors.md does what it says: its files are written, installed and imported, its blocks are run in order."""

import ast
import asyncio
import importlib
import inspect
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trimtab.cli.config import app as config
from trimtab.cli.connectors import app
from trimtab.connect import Toolbox
from trimtab.domain.errors import InvalidInput
from trimtab.settings import Settings

GUIDE = Path(__file__).parents[2] / "docs" / "connectors.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stands for site-packages of a fresh environment."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path / "home"))
    yield tmp_path
    for name in {"dice", "harbours", "tides"} - before:
        sys.modules.pop(name, None)


async def test_every_block_of_the_guide_runs(site: Path) -> None:
    blocks = BLOCK.findall(GUIDE.read_text("utf-8"))
    assert [kind for kind, _ in blocks].count("python") >= 5
    for kind, text in blocks:
        named = re.match(r"# ([\w./-]+\.py|pyproject\.toml)\n", text)
        if kind == "python" and named:
            path = site / named[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            importlib.invalidate_caches()
        elif kind == "python":
            await run(text)
        elif named:
            install(site, tomllib.loads(text))
        elif kind == "console":
            await type_in(text)


async def run(text: str) -> None:
    """Each block stands alone, as when somebody pastes it."""
    code = compile(text, str(GUIDE), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    made = eval(code, {"__name__": "guide"})
    if inspect.isawaitable(made):
        await made


def install(site: Path, project: dict[str, Any]) -> None:
    """What pip leaves behind of that pyproject: a distribution with its entry points."""
    about = project["project"]
    info = site / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    lines = []
    for group, points in about["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    importlib.invalidate_caches()


async def type_in(text: str) -> None:
    command, _, expected = text.partition("\n")
    words = command.removeprefix("$ trimtab connectors ").split()
    assert words != command.split(), "the guide's commands are trimtab's"
    result = await asyncio.to_thread(CliRunner().invoke, app, words)
    assert result.exit_code == 0, result.output
    if expected:
        assert result.output == expected


def test_the_settings_of_the_guide_are_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = next(text for kind, text in BLOCK.findall(GUIDE.read_text("utf-8")) if text.startswith("# config.toml"))
    (tmp_path / "config.toml").write_text(block)
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path))
    override = Settings.load().connectors["tides"]
    assert (override.base_url, override.allow_private) == ("http://127.0.0.1:8000", True)


def test_a_line_of_a_table_is_set_by_its_name_and_its_neighbours_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text('# mine\n[connectors.tides]\nuser_agent = "Ada"\n')
    told = [text for kind, text in BLOCK.findall(GUIDE.read_text("utf-8")) if kind == "bash"]
    commands = [
        line.split()[3:] for text in told for line in text.splitlines() if line.startswith("trimtab config set")
    ]
    assert len(commands) == 2
    for words in [*commands, ["connectors.tides.options.berths", "12"]]:
        assert CliRunner().invoke(config, ["set", *words]).output.startswith(f"{words[0]} = ")
    kept = Settings.load().connectors
    assert (kept["bikes"].base_url, kept["bikes"].allow_private) == ("http://127.0.0.1:8100", True)
    assert (kept["tides"].user_agent, kept["tides"].options) == ("Ada", {"berths": 12})
    assert (tmp_path / "config.toml").read_text().startswith("# mine\n")
    for wrong in ("connectors.bikes.baseurl", "conectors.bikes.base_url", "port.bikes", "connectors.bikes"):
        with pytest.raises(InvalidInput):
            Settings.load().saved(wrong, "x")
    assert Settings.load().connectors == kept


def test_the_guide_names_every_built_in_connector() -> None:
    text = GUIDE.read_text("utf-8")
    for status in Toolbox.discover().connectors:
        assert f"| `{status.name}` |" in text
        for tool in status.tools:
            assert f"`{tool.name.partition('.')[2]}`" in text
