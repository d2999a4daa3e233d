"""The pytest plugin of a connector's own repository: each requirement is a test, and cassettes are at hand.

    # conftest.py
    pytest_plugins = ["trimtab.connect.conformance.plugin"]

    # test_tides.py
    import trimtab_tides

    connector_under_test = trimtab_tides.connector

    def test_it_keeps(requirement):
        requirement.holds()

    def test_a_port_has_its_tide(replayed):
        assert replayed("tides.tide", port="Dover").answer == "High water in Dover is at 06:12."

`requirement` runs the test once for every line of `trimtab connectors check`; a line that does not apply is skipped
with its reason. `replayed` calls a tool against the connector's cassettes: the same client, the same guard, no network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from trimtab.domain.tool import ToolOutcome

from ..cassettes import replaying
from ..declare import Connector
from ..discovery import connector_in
from ..toolbox import Toolbox
from .bench import Bench
from .requirement import Requirement
from .runner import REQUIREMENTS, bench_for, line
from .source import tapes_of

NAMED = "connector_under_test"


@dataclass(frozen=True)
class Held:
    """A requirement of one connector."""

    requirement: Requirement
    bench: Bench

    def holds(self) -> None:
        """Fails with what was found, skips where it does not apply."""
        found = line(self.bench, self.requirement)
        if found.status == "n/a":
            pytest.skip(found.reason)
        assert found.status == "pass", f"{found.id}: it must hold that {found.must}. {found.reason}"


def under_test(module: Any) -> Connector:
    """What the test module says it tests.

    Raises:
        pytest.UsageError: it says nothing.
    """
    if not hasattr(module, NAMED):
        raise pytest.UsageError(f"{module.__name__} needs a line like: {NAMED} = my_connector.connector")
    return connector_in(getattr(module, NAMED))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "requirement" in metafunc.fixturenames:
        under_test(metafunc.module)
        metafunc.parametrize("requirement", REQUIREMENTS, ids=[one.id for one in REQUIREMENTS], indirect=True)


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """The connector on a work bench, with its own cassettes."""
    with bench_for(under_test(request.module)) as made:
        yield made


@pytest.fixture
def requirement(request: pytest.FixtureRequest, bench: Bench) -> Held:
    """One line of the check."""
    return Held(request.param, bench)


@pytest.fixture
def replayed(request: pytest.FixtureRequest) -> Callable[..., ToolOutcome]:
    """``replayed("tides.tide", port="Dover")``: the tool's outcome, from cassettes. Raises what the tool raises."""
    connector = under_test(request.module)

    def call(tool: str, **arguments: Any) -> ToolOutcome:
        async def run() -> ToolOutcome:
            toolbox = Toolbox(replaying(tapes_of(connector)))
            toolbox.add(connector)
            try:
                return await toolbox.call(tool, arguments)
            finally:
                await toolbox.aclose()

        return asyncio.run(run())

    return call
