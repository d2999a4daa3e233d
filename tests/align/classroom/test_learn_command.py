"""`trimtab learn`, as a person types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trimtab.align.classroom.words import WORDS
from trimtab.cli.main import app

runner = CliRunner(env={"COLUMNS": "160"})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path))
    return tmp_path


def test_a_player_is_trained_proved_kept_and_played_against(home: Path) -> None:
    done = runner.invoke(app, ["learn", "tictactoe", "--algorithm", "q", "--seed", "1"])
    assert done.exit_code == 0, done.output
    assert "Passed." in done.output
    assert "given away" in done.output
    folder = home / "learn" / "tictactoe-q-1"
    curve = json.loads((folder / "curve.json").read_text("utf-8"))
    assert len(curve) == len(list(folder.glob("*.safetensors"))) > 1
    assert curve[-1]["done"]
    game = runner.invoke(
        app,
        ["learn", "play", "--side", "X", "--think"],
        input="5\n" + "nonsense\n0\n10\n" + "1\n2\n3\n4\n6\n7\n8\n9\n" * 4,
    )
    assert game.exit_code == 0, game.output
    assert "please" in game.output
    assert "in truth" in game.output
    assert game.output.strip().endswith(("A draw.", "The player wins."))


def test_too_few_games_do_not_pass_and_the_lost_lines_are_shown(home: Path, tmp_path: Path) -> None:
    done = runner.invoke(
        app, ["learn", "tictactoe", "--games", "1", "--opponent", "random", "--out", str(tmp_path / "o")]
    )
    assert done.exit_code == 0, done.output
    assert "Not passed." in done.output
    assert "such as" in done.output
    assert sorted(p.name for p in (tmp_path / "o").iterdir()) == ["000001.safetensors", "curve.json"]
    assert not (home / "learn").exists()


def test_the_curve_is_json_for_a_script(home: Path) -> None:
    done = runner.invoke(app, ["learn", "tictactoe", "--algorithm", "q", "--games", "10000", "--json"])
    points = [json.loads(line) for line in done.stdout.splitlines()]
    assert [point["games"] for point in points] == [5000, 10000]


def test_the_player_moves_first_when_the_person_is_o_and_an_ended_input_ends_the_game(home: Path) -> None:
    runner.invoke(app, ["learn", "tictactoe", "--algorithm", "q", "--games", "500"])
    game = runner.invoke(app, ["learn", "play", "--side", "O"], input="")
    assert game.exit_code == 1
    assert "X takes" in game.output


def test_playing_before_training_says_what_to_do(home: Path) -> None:
    error = runner.invoke(app, ["learn", "play"]).exception
    assert "Run: trimtab learn tictactoe" in str(error)
    error = runner.invoke(app, ["learn", "play", str(home / "nothing.safetensors")]).exception
    assert "cannot be read" in str(error)


def test_the_words_are_told_for_both_worlds() -> None:
    shown = runner.invoke(app, ["learn", "words"]).output
    for word in WORDS:
        assert word.word in shown
    assert "the next token" in shown


def test_without_the_extra_the_command_names_what_to_install(home: Path) -> None:
    """A Python in which torch cannot be imported, as on a machine without the extra."""
    code = "import sys; sys.modules['torch'] = None; from trimtab.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "learn", "tictactoe"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert done.stderr.strip().endswith("pip install 'trimtab[align]'")


def test_nothing_heavy_is_imported_for_help() -> None:
    code = (
        "import sys, trimtab.cli.main, trimtab.cli.learn;"
        "print([m for m in ('torch', 'gymnasium', 'numpy', 'safetensors', 'rich.table') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
