"""The worked examples of docs/deployment.md: each choice it tells is the one that is made from the rows kept here."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from trimtab.deploy.choose import choose
from trimtab.deploy.machine import Machine
from trimtab.deploy.plan import checked
from trimtab.deploy.results import Results

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
MACHINE = Machine(2, 25_000_000_000, 50_000_000_000, (), "AMD EPYC")
"""Where the rows were measured, with room on its disk."""
LINE = re.compile(r"^\| (?:\[\w+\]\((plans/\w+\.toml)\))? ?\| (.*?) \| (.*?) \|", re.M)
CHANGE = re.compile(r"`(\w+)\.(\w+) = ([^`]+)`")


def told() -> list[tuple[str, str, str]]:
    """Plan, what is changed in it, and what is said to be chosen: line by line of the table."""
    page = (ROOT / "docs" / "deployment.md").read_text("utf-8").partition("## Three worked examples")[2]
    found, plan = [], ""
    for line in LINE.finditer(page.partition("\n## ")[0]):
        plan = line[1] or plan
        if plan:
            found.append((plan, line[2], line[3]))
    return found


@pytest.mark.parametrize(("plan", "changed", "said"), told())
def test_what_the_handbook_says_is_chosen_is_chosen(plan: str, changed: str, said: str) -> None:
    values: dict[str, Any] = tomllib.loads((ROOT / "docs" / plan).read_text("utf-8"))
    for part, key, value in CHANGE.findall(changed):
        values.setdefault(part, {})[key] = tomllib.loads(f"x = {value}")["x"]
    found = choose(checked(values), MACHINE, list(Results(HERE / "rows").all().values()))
    if found.chosen is None:
        assert found.nearest is not None
        worst = max(found.nearest.misses, key=lambda miss: miss.share)
        assert said == f"none: `{worst.target}`; nearest `{found.nearest.row.candidate.variant.name}`"
    else:
        assert said == f"`{found.chosen.candidate.variant.name}`"


def test_each_example_has_a_change_that_changes_the_choice() -> None:
    chosen: dict[str, set[str]] = {}
    for plan, _, said in told():
        chosen.setdefault(plan, set()).add(said)
    assert len(chosen) == 3
    assert all(len(several) > 1 for several in chosen.values()), chosen
