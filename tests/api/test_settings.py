"""Where settings come from, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.domain.errors import InvalidInput
from trimtab.settings import Settings


def test_an_argument_beats_the_environment_and_that_beats_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text("passages = 2\ntool_steps = 3\nport = 7001\n")
    monkeypatch.setenv("TRIMTAB_HOME", str(tmp_path))
    monkeypatch.setenv("TRIMTAB_TOOL_STEPS", "4")
    monkeypatch.setenv("TRIMTAB_PORT", "7002")
    found = Settings.load(port=7003)
    assert (found.home, found.passages, found.tool_steps, found.port) == (tmp_path, 2, 4, 7003)


def test_an_empty_home_is_the_usual_one_and_not_the_folder_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIMTAB_HOME", raising=False)
    usual = Settings.load().home
    monkeypatch.setenv("TRIMTAB_HOME", "")
    assert Settings.load().home == usual
    assert usual.is_relative_to(tmp_path / "data")


def test_what_is_wrong_is_named_with_where_to_mend_it(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("passages = 'many'\n")
    with pytest.raises(InvalidInput, match=r"'passages' is wrong.*config\.toml.*TRIMTAB_PASSAGES"):
        Settings.load(home=tmp_path)
    (tmp_path / "config.toml").write_text("passages = \n")
    with pytest.raises(InvalidInput, match=r"config\.toml cannot be read"):
        Settings.load(home=tmp_path)
