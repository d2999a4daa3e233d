"""The badge: who may change something, and what takes it away."""

import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from trimtab.connect import ConnectOptions, Toolbox
from trimtab.connect.conformance.badge import Badges, of_the_release
from trimtab.connect.conformance.runner import check
from trimtab.connect.conformance.source import fingerprint
from trimtab.connect.declare import Connector
from trimtab.connect.discovery import in_file, installed
from trimtab.domain.errors import Conflict, Forbidden

SOURCE = '''
from typing import Annotated
from trimtab.connect import Connector, Effect

connector = Connector(name="bell", version="1.0.0", description="Rings a bell.")
rung = []

@connector.tool(effect=Effect.WRITE)
async def ring(times: Annotated[int, "How often"]) -> str:
    """Ring the bell some times."""
    rung.append(times)
    return "Rung."

@connector.tool(effect=Effect.READ)
async def heard() -> int:
    """Say how often it rang."""
    return sum(rung)
'''
QUICK = ("SCHEMA",)


@pytest.fixture
def bell(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "bell.py"
    path.write_text(SOURCE)
    yield path
    sys.modules.pop("trimtab_connector_file_bell", None)


def toolbox_of(connector: Connector, badges: Badges) -> Toolbox:
    toolbox = Toolbox(ConnectOptions(standing=badges.standing))
    toolbox.add(connector)
    return toolbox


async def refused(toolbox: Toolbox, state: str) -> None:
    """Reads, and does not write; says why and what to do."""
    assert (await toolbox.call("bell.heard", {})).text == "0"
    with pytest.raises(Forbidden, match=r"runs read-only.*Run: trimtab connectors check bell") as caught:
        await toolbox.call("bell.ring", {"times": 1})
    assert caught.value.detail["badge"] == state
    assert toolbox.connector("bell").standing.state == state
    assert not toolbox.connector("bell").standing.vouched


async def test_a_connector_may_change_something_once_it_was_checked(tmp_path: Path, bell: Path) -> None:
    badges, connector = Badges(tmp_path / "home"), in_file(bell)
    toolbox = toolbox_of(connector, badges)
    await refused(toolbox, "missing")
    path = badges.award(check(connector, [], only=QUICK))
    assert (await toolbox.call("bell.ring", {"times": 2})).text == "Rung."
    standing = toolbox.connector("bell").standing
    assert (standing.state, standing.vouched) == ("current", True)
    assert standing.checked_at in standing.reason + standing.checked_at
    told = json.loads(path.read_text())["badge"]
    assert told["connector"] == "bell"
    assert told["version"] == "1.0.0"
    assert told["source"] == fingerprint(connector)
    assert told["results"]["SCHEMA-CLOSED"] == "pass"
    key = tmp_path / "home" / "badge.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


async def test_a_changed_source_needs_a_new_check(tmp_path: Path, bell: Path) -> None:
    badges = Badges(tmp_path / "home")
    badges.award(check(in_file(bell), [], only=QUICK))
    bell.write_text(SOURCE + "\n# one byte more\n")
    await refused(toolbox_of(in_file(bell), badges), "outdated")


async def test_a_program_that_runs_the_old_source_is_not_covered_by_the_new_badge(tmp_path: Path, bell: Path) -> None:
    badges = Badges(tmp_path / "home")
    toolbox = toolbox_of(in_file(bell), badges)
    await refused(toolbox, "missing")
    bell.write_text(SOURCE + "\n# better now\n")
    badges.award(check(in_file(bell), [], only=QUICK))
    await refused(toolbox, "outdated")


async def test_a_failed_check_is_written_down_and_gives_nothing(tmp_path: Path, bell: Path) -> None:
    badges, connector = Badges(tmp_path / "home"), in_file(bell)
    report = check(connector, [], only=("SCHEMA", "DECL"))
    assert [line.id for line in report.failures] == ["DECL-COMPLETE"]
    badges.award(report)
    toolbox = toolbox_of(connector, badges)
    await refused(toolbox, "failed")
    assert "DECL-COMPLETE" in toolbox.connector("bell").standing.reason


@pytest.mark.parametrize("damage", ["passed", "source", "signature", "key", "garbage", "stranger"])
async def test_a_badge_that_was_touched_counts_for_nothing(tmp_path: Path, bell: Path, damage: str) -> None:
    home, connector = tmp_path / "home", in_file(bell)
    badges = Badges(home)
    path = badges.award(check(connector, [], only=("SCHEMA", "DECL")))
    document = json.loads(path.read_text())
    if damage == "passed":
        document["badge"]["passed"] = True
    elif damage == "source":
        document["badge"]["source"] = "0" * 64
    elif damage == "signature":
        document["signature"] = document["signature"][::-1]
    elif damage == "key":
        (home / "badge.key").unlink()
    elif damage == "stranger":
        theirs = Badges(tmp_path / "theirs")
        document = json.loads(theirs.award(check(connector, [], only=QUICK)).read_text())
    path.write_text("{" if damage == "garbage" else json.dumps(document))
    await refused(toolbox_of(connector, badges), "unsigned")


def test_a_key_that_is_none_says_so(tmp_path: Path, bell: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "badge.key").write_text("not a key")
    with pytest.raises(Conflict, match="is not a badge key"):
        Badges(home).award(check(in_file(bell), [], only=QUICK))


def test_the_release_vouches_for_what_came_with_it_and_for_nothing_else(tmp_path: Path, bell: Path) -> None:
    badges = Badges(tmp_path)
    built_in = {found.name: found.connector for found in installed() if found.origin.startswith("trimtab_connectors")}
    assert {"calculator", "clock", "weather", "web", "wikipedia"} <= set(built_in)
    for connector in built_in.values():
        assert connector is not None
        assert badges.standing(connector).state == "release"
    assert not of_the_release(in_file(bell))
    pretender = tmp_path / "trimtab_connectors.py"
    pretender.write_text(SOURCE)
    assert badges.standing(in_file(pretender)).state == "missing"
