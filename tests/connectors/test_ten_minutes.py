"""The guide's ten minutes, typed in as they stand there: from a service of one's own to its answer in the chat."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

GUIDE = (Path(__file__).parents[2] / "docs" / "connectors.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE.partition("\n## A file that works")[0], re.M | re.S)
SERVICE_SECONDS = 30

pytestmark = [pytest.mark.slow, pytest.mark.model]


@pytest.fixture
def shell(tmp_path: Path, models_dir: Path) -> dict[str, str]:
    """A person's terminal: `trimtab` is this tree's, pip's work is done by a path, and nothing of ours is at home."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, run in (("trimtab", "-m trimtab.cli.main"), ("pip", "-c pass")):
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {run} "$@"\n')
        (commands / name).chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(models_dir, target_is_directory=True)
    return {
        **os.environ,
        "PATH": f"{commands}:{os.environ['PATH']}",
        "TRIMTAB_HOME": str(home),
        "PYTHONPATH": str(tmp_path / "trimtab-bikes" / "src"),
    }


def test_a_newcomer_gets_from_a_service_to_its_answer_in_the_chat(tmp_path: Path, shell: dict[str, str]) -> None:
    place, said = tmp_path, ""
    service: subprocess.Popen[bytes] | None = None
    try:
        for kind, text in BLOCKS:
            if kind == "python":
                path = tmp_path / text.splitlines()[0].removeprefix("# ")
                path.write_text(text, "utf-8")
                if path.name == "service.py":
                    service = subprocess.Popen([sys.executable, str(path)], stderr=subprocess.DEVNULL)
                    until_it_answers("http://127.0.0.1:8100/v1/stations/harbour")
            elif kind == "bash":
                for line in text.strip().splitlines():
                    if line.startswith("pip install"):
                        installed(tmp_path)
                    if line.startswith("cd "):
                        place = place / line.removeprefix("cd ")
                    elif line != "trimtab up":  # `trimtab ask` opens the same itself where none runs
                        said = typed(line, place, shell)
            elif kind == "text":
                assert [line for line in text.strip().splitlines() if line not in said.splitlines()] == []
        tested = typed(f"{sys.executable} -m pytest -q -k 'bikes_it_has or REPLAY'", place, shell)
        assert "4 passed" in tested
        assert "bikes (on)" in typed("trimtab connectors show bikes", place, shell).replace(" 0.1.0", "")
    finally:
        if service:
            service.kill()
            service.wait()
    badge = tmp_path / "home" / "badges" / "bikes.json"
    assert badge.exists()


def typed(line: str, place: Path, shell: dict[str, str]) -> str:
    """What a command says, on either stream; a question is answered with yes."""
    done = subprocess.run(
        line, shell=True, cwd=place, env=shell, input="y\n", capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def installed(folder: Path) -> None:
    """What `pip install -e` leaves behind: a distribution with its entry points, beside what it points to."""
    info = folder / "trimtab-bikes" / "src" / "trimtab_bikes-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trimtab-bikes\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[trimtab.connectors]\nbikes = trimtab_bikes\n")


def until_it_answers(url: str) -> None:
    end = time.monotonic() + SERVICE_SECONDS
    while True:
        try:
            assert httpx.get(url, trust_env=False).status_code == 200
            return
        except httpx.ConnectError:
            assert time.monotonic() < end, "the service of the guide did not start"
            time.sleep(0.05)
