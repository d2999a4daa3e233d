"""Discovery, on and off, keys, overrides, and what is remembered of calls."""

import asyncio
import importlib
import logging
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import SecretStr

import connector_notes
from services import LoopbackServices
from trimtab.connect import (
    ApiKey,
    ConnectOptions,
    Connector,
    Effect,
    Http,
    InvalidInput,
    Override,
    Result,
    Retry,
    Toolbox,
    ToolError,
)
from trimtab.domain.errors import NotFound, Unavailable
from wire import response, serving

GOOD = """
from trimtab.connect import Connector, Effect
connector = Connector(name="{name}", version="1.0.0", description="Throws dice.")

@connector.tool(effect=Effect.READ)
async def throw() -> int:
    '''Throw a die.'''
    return 4
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that Python takes for site-packages, with one distribution that announces what is put there."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for module in [name for name in sys.modules if name.startswith("sample_")]:
        del sys.modules[module]
    importlib.invalidate_caches()


def announce(folder: Path, **modules: str) -> str:
    """Write modules and a distribution that announces them. Returns the group."""
    info = folder / "samples-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: samples\nVersion: 1.0\n")
    lines = ["[trimtab.samples]"]
    for name, source in modules.items():
        (folder / f"sample_{name}.py").write_text(source)
        lines.append(f"{name} = sample_{name}")
    (info / "entry_points.txt").write_text("\n".join(lines))
    importlib.invalidate_caches()
    return "trimtab.samples"


async def test_a_strangers_package_is_found(installed: Path) -> None:
    group = announce(installed, dice=GOOD.format(name="dice"))
    toolbox = Toolbox.discover(ConnectOptions(group=group))
    assert (await toolbox.call("dice.throw", {})).text == "4"
    assert toolbox.connector("dice").origin == "sample_dice"


def test_a_broken_connector_costs_only_itself(installed: Path) -> None:
    group = announce(
        installed,
        broken="import a_module_that_is_not_there",
        empty="x = 1",
        exploding="raise RuntimeError('boom')",
        misdeclared=GOOD.format(name="No Name!"),
        dice=GOOD.format(name="dice"),
    )
    toolbox = Toolbox.discover(ConnectOptions(group=group))
    errors = {status.name: status.error for status in toolbox.connectors}
    assert errors["dice"] == ""
    assert "a_module_that_is_not_there" in errors["broken"]
    assert "holds 0 connectors" in errors["empty"]
    assert "boom" in errors["exploding"]
    assert "cannot name a connector" in errors["misdeclared"]
    assert [tool.name for tool in toolbox.tools()] == ["dice_throw"]
    with pytest.raises(InvalidInput, match="could not be loaded"):
        toolbox.enable("broken")


def test_two_connectors_of_one_name_are_not_mixed_up(installed: Path) -> None:
    group = announce(installed, first=GOOD.format(name="dice"), second=GOOD.format(name="dice"))
    toolbox = Toolbox.discover(ConnectOptions(group=group))
    assert toolbox.connector("dice").origin == "sample_first"
    assert "already there (sample_first)" in toolbox.connector("second").error


def test_two_tools_of_one_name_are_refused() -> None:
    toolbox = Toolbox()
    for name, tool in (("a_b", "c"), ("a", "b_c")):
        connector = Connector(name=name, version="1", description="x")

        async def run() -> str:
            """Run."""
            return "x"

        connector.tool(effect=Effect.READ, name=tool)(run)
        if name == "a_b":
            toolbox.add(connector)
        else:
            with pytest.raises(InvalidInput, match="'a_b_c' is already there"):
                toolbox.add(connector)
    with pytest.raises(InvalidInput, match="no tools"):
        toolbox.add(Connector(name="empty", version="1", description="x"))


async def test_a_connector_that_is_off_is_not_offered_and_not_called() -> None:
    toolbox = Toolbox.discover(ConnectOptions(disabled=frozenset({"clock"})))
    held = {tool.name: tool for tool in toolbox.tools()}
    assert "clock_now" not in held
    with pytest.raises(NotFound, match="turned off"):
        await toolbox.call("clock.now", {})
    toolbox.enable("clock")
    assert (await toolbox.call("clock.now", {})).answer
    toolbox.disable("calculator")
    with pytest.raises(NotFound, match="turned off"):  # a tool that was handed out before does not slip through
        await held["calculator_calculate"].ainvoke({"expression": "1"})
    only = Toolbox.discover(ConnectOptions(enabled=frozenset({"clock"})))
    assert {tool.name for tool in only.tools()} == {"clock_now", "clock_days_between"}


async def test_an_unknown_tool_or_connector_is_said() -> None:
    toolbox = Toolbox.discover()
    for ask in (lambda: toolbox.tool("nothing.here"), lambda: toolbox.enable("nothing")):
        with pytest.raises(NotFound, match="no"):
            ask()


SECRET = "sk-very-secret-0123456789"


def keyed(auth: ApiKey) -> Connector:
    connector = Connector(
        name="keyed", version="1", description="x", hosts=("api.example.org",), auth=auth, retry=Retry(attempts=1)
    )

    @connector.tool(effect=Effect.READ)
    async def ask(what: Annotated[str, "What"], http: Http) -> Result:
        """Ask."""
        if what == "crash":
            raise RuntimeError(f"crashed with {vars(http)['_credential'].value}")
        reply = await http.get("/{what}", path={"what": what})
        return Result(text=reply.text, data={"echo": [reply.text], reply.text: 1}, answer=reply.text)

    return connector


async def test_a_key_is_sent_and_never_told(caplog: pytest.LogCaptureFixture) -> None:
    """The service echoes what it was sent; results, errors, tracebacks, logs and reprs do not repeat the key."""

    async def echo(head: bytes, writer: asyncio.StreamWriter) -> None:
        status = 500 if b"/fail" in head else 200
        writer.write(response(status, head))

    caplog.set_level(logging.DEBUG)
    for auth in (
        ApiKey(env="KEYED_KEY", header="X-Key"),
        ApiKey(env="KEYED_KEY", query="key"),
        ApiKey(env="KEYED_KEY", header="Authorization", prefix="Bearer "),
    ):
        async with serving(echo) as sink:
            options = ConnectOptions(
                overrides={"keyed": Override(base_url=sink.url, allow_private=True)},
                secret=lambda name: SecretStr(SECRET) if name == "KEYED_KEY" else None,
            )
            toolbox = Toolbox(options)
            toolbox.add(keyed(auth))
            outcome = await toolbox.call("keyed.ask", {"what": "echo"})
            told = [repr(outcome), repr(options), repr(toolbox.connectors)]
            for what in ("fail", "crash"):
                with pytest.raises(ToolError) as caught:
                    await toolbox.call("keyed.ask", {"what": what})
                told.append("".join(traceback.format_exception(caught.value)))
            told.append(repr(toolbox.connectors))
        assert SECRET.encode() in sink.heads[0]
        assert "[secret removed]" in outcome.text
        assert not [text for text in told if SECRET in text]
    assert SECRET not in caplog.text


async def test_a_missing_key_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEYED_KEY", raising=False)
    toolbox = Toolbox()
    toolbox.add(keyed(ApiKey(env="KEYED_KEY", header="X-Key")))
    assert toolbox.connector("keyed").auth == "missing KEYED_KEY"
    with pytest.raises(ToolError, match="'keyed' needs KEYED_KEY"):
        await toolbox.call("keyed.ask", {"what": "x"})
    monkeypatch.setenv("KEYED_KEY", SECRET)
    assert toolbox.connector("keyed").auth == "ready"


async def test_errors_and_calls_are_counted_and_the_list_stays_short() -> None:
    toolbox = Toolbox.discover()
    for i in range(30):
        with pytest.raises(ToolError):
            await toolbox.call("calculator.calculate", {"expression": f"{i}/0"})
    await toolbox.call("calculator.calculate", {"expression": "1+1"})
    status = toolbox.connector("calculator")
    assert (status.calls, status.failures, len(status.last_errors)) == (31, 30, 20)
    assert "'29/0'" in status.last_errors[-1].message
    assert status.seconds > 0


def _slow_toolbox() -> tuple[Toolbox, asyncio.Event, asyncio.Event]:
    """A tool that waits for a minute; the events say that it has begun and that it has ended."""
    connector = Connector(name="slow", version="1", description="x")
    begun, ended = asyncio.Event(), asyncio.Event()

    @connector.tool(effect=Effect.READ)
    async def wait() -> str:
        """Wait."""
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return "never"

    toolbox = Toolbox()
    toolbox.add(connector)
    return toolbox, begun, ended


async def test_closing_stops_what_is_running_and_refuses_the_rest() -> None:
    toolbox, begun, ended = _slow_toolbox()
    running = asyncio.create_task(toolbox.call("slow.wait", {}))
    await begun.wait()
    await toolbox.aclose()
    with pytest.raises(Unavailable, match="shutting down"):
        await running
    assert ended.is_set()
    with pytest.raises(Unavailable):
        await toolbox.call("slow.wait", {})


async def test_cancelling_a_call_cancels_the_tool() -> None:
    toolbox, begun, ended = _slow_toolbox()
    running = asyncio.create_task(toolbox.call("slow.wait", {}))
    await begun.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended.is_set()


async def test_a_module_can_be_added_by_hand_and_pointed_elsewhere() -> None:
    with LoopbackServices() as services:
        toolbox = Toolbox(ConnectOptions(overrides=services.overrides))
        toolbox.add(connector_notes)
        await toolbox.call("notes.add", {"text": "water the plants"})
        assert services.notes == {1: "water the plants"}
        assert services.requests[0].headers["user-agent"].startswith("Trimtab/")


async def test_a_service_that_hangs_holds_up_nobody_else() -> None:
    async def blackhole(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with serving(blackhole) as sink:
        options = ConnectOptions(
            overrides={"keyed": Override(base_url=sink.url, allow_private=True)}, secret=lambda name: SecretStr(SECRET)
        )
        toolbox = Toolbox.discover(options)
        toolbox.add(keyed(ApiKey(env="KEYED_KEY", header="X-Key")))
        hanging = [asyncio.create_task(toolbox.call("keyed.ask", {"what": "x"})) for _ in range(50)]
        await asyncio.sleep(0.2)
        started = asyncio.get_running_loop().time()
        for _ in range(20):
            await toolbox.call("calculator.calculate", {"expression": "2+2"})
        assert asyncio.get_running_loop().time() - started < 1.0
        assert not any(task.done() for task in hanging)
        await toolbox.aclose()
        assert all(isinstance(end, Unavailable) for end in await asyncio.gather(*hanging, return_exceptions=True))
