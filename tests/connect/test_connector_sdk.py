"""Declaring a connector: what a developer writes, and what each mistake is called."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel, ConfigDict, Field

from trimtab.connect import (
    ApiKey,
    ConnectOptions,
    Connector,
    Effect,
    Http,
    InvalidInput,
    Override,
    Result,
    Source,
    Toolbox,
    ToolError,
    ToolInfo,
    ToolOutcome,
)
from trimtab.connect.result import estimate
from trimtab.domain.tool import METADATA_KEY
from wire import response, serving


def tides(**options: Any) -> Connector:
    return Connector(**{"name": "tides", "version": "1.2.0", "description": "Tide tables.", **options})


@dataclass
class Tide:
    port: str
    day: date
    metres: float


def toolbox_with(connector: Connector) -> Toolbox:
    toolbox = Toolbox()
    toolbox.add(connector)
    return toolbox


async def test_a_function_becomes_a_langchain_tool() -> None:
    connector = tides()

    @connector.tool(effect=Effect.READ, examples=("When is high water in Dover tomorrow?",))
    async def tide(port: Annotated[str, "A port's name, e.g. Dover"], day: date, metres: float = 2.5) -> Tide:
        """Say when high water is at a port.

        Args:
            day: The day, e.g. 2026-05-01
            metres: How deep the keel is
        """
        return Tide(port, day, metres)

    tool = toolbox_with(connector).tool("tides.tide")
    message = await tool.ainvoke(
        {"type": "tool_call", "id": "c1", "name": "tides_tide", "args": {"port": "Dover", "day": "2026-05-01"}}
    )
    assert isinstance(message, ToolMessage)
    assert message.content == "port: Dover\nday: 2026-05-01\nmetres: 2.5"
    assert message.artifact == ToolOutcome(
        text="port: Dover\nday: 2026-05-01\nmetres: 2.5",
        data={"port": "Dover", "day": "2026-05-01", "metres": 2.5},
        meta={"tool": "tides.tide"},
    )
    assert tool.metadata is not None
    assert tool.metadata[METADATA_KEY] == ToolInfo(
        name="tides_tide",
        description="Say when high water is at a port.",
        connector="tides",
        connector_version="1.2.0",
        effect=Effect.READ,
        untrusted=True,
        examples=("When is high water in Dover tomorrow?",),
    )
    shown = convert_to_openai_tool(tool)["function"]
    assert shown["parameters"]["properties"]["day"]["description"] == "The day, e.g. 2026-05-01"
    assert shown["parameters"]["required"] == ["port", "day"]


async def test_every_argument_is_closed_and_bounded() -> None:
    connector = tides()

    @connector.tool(effect=Effect.READ)
    async def check(
        text: Annotated[str, "Some text"],
        names: Annotated[list[str], "Some names"],
        size: Annotated[int, Field(ge=1), "A size"],
        kind: Annotated[Literal["spring", "neap"], "Which kind"],
        weight: Annotated[float, "A weight"] = 1.0,
        labels: Annotated[dict[str, str] | None, "Labels by name"] = None,
    ) -> str:
        """Check something."""
        return text

    toolbox = toolbox_with(connector)
    schema = toolbox.connector("tides").tools[0].schema
    assert schema["additionalProperties"] is False
    assert schema["properties"]["text"]["maxLength"] == 4000
    assert schema["properties"]["names"] == {
        "description": "Some names",
        "items": {"maxLength": 4000, "type": "string"},
        "maxItems": 100,
        "type": "array",
    }
    fine = {"text": "a", "names": ["b"], "size": 1, "kind": "neap"}
    assert (await toolbox.call("tides.check", fine)).text == "a"
    for wrong in (
        {"text": "a" * 4001},
        {"names": ["b"] * 101},
        {"names": ["b" * 4001]},
        {"size": 0},
        {"size": 10**30},
        {"kind": "ebb"},
        {"weight": float("nan")},
        {"weight": float("inf")},
        {"labels": {"a": "b" * 5000}},
        {"text": None},
        {"text": {"nested": "object"}},
        {"text": "\ud800"},
    ):
        with pytest.raises(InvalidInput, match=next(iter(wrong))):
            await toolbox.call("tides.check", {**fine, **wrong})


class Open(BaseModel):
    port: str


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    port: str


async def test_a_nested_model_must_be_closed() -> None:
    connector = tides()

    @connector.tool(effect=Effect.READ)
    async def ask(where: Annotated[Closed, "Where"]) -> str:
        """Ask."""
        return where.port

    assert (await toolbox_with(connector).call("tides.ask", {"where": {"port": "Dover"}})).text == "Dover"
    with pytest.raises(InvalidInput, match="accepts anything"):

        @connector.tool(effect=Effect.READ)
        async def ask_open(where: Annotated[Open, "Where"]) -> str:
            """Ask."""
            return where.port


def test_mistakes_in_a_declaration_are_named_when_it_is_made() -> None:
    connector = tides()

    async def undocumented(port: Annotated[str, "A port"]) -> str:
        return port

    async def undescribed(port: str) -> str:
        """Say something."""
        return port

    async def untyped(port) -> str:  # type: ignore[no-untyped-def]
        """Say something."""
        return str(port)

    async def anything(port: Annotated[Any, "A port"]) -> str:
        """Say something."""
        return str(port)

    async def open_mapping(port: Annotated[dict[str, Any], "A port"]) -> str:
        """Say something."""
        return str(port)

    async def reserved(config: Annotated[str, "A port"]) -> str:
        """Say something."""
        return config

    async def spread(*ports: Annotated[str, "A port"]) -> str:
        """Say something."""
        return str(ports)

    def not_async(port: Annotated[str, "A port"]) -> str:
        """Say something."""
        return port

    for function, said in (
        (undocumented, "no docstring"),
        (undescribed, "not described"),
        (untyped, "no type hint"),
        (anything, "accepts anything"),
        (open_mapping, "accepts anything"),
        (reserved, "reserved"),
        (spread, "name each parameter"),
        (not_async, "async function"),
    ):
        with pytest.raises(InvalidInput, match=said):
            connector.tool(effect=Effect.READ)(function)  # type: ignore[type-var]
    for options, said in (
        ({"name": "Tides!"}, "cannot name a connector"),
        ({"hosts": ("https://api.example.org",)}, "not a host"),
        ({"hosts": ("*",), "auth": ApiKey(env="K", header="x")}, "must not carry a key"),
    ):
        with pytest.raises(InvalidInput, match=said):
            tides(**options)
    with pytest.raises(InvalidInput, match="exactly one"):
        ApiKey(env="K")


async def test_a_failing_function_is_told_to_the_model_not_raised_at_the_person() -> None:
    connector = tides()

    @connector.tool(effect=Effect.READ)
    async def divide(by: Annotated[int, "By what"]) -> float:
        """Divide."""
        return 1 / by

    @connector.tool(effect=Effect.READ, timeout=0.1)
    async def sleep() -> str:
        """Sleep."""
        await asyncio.sleep(30)
        return "never"

    @connector.tool(effect=Effect.READ)
    async def strange() -> object:
        """Return what cannot be shown."""
        return object()

    toolbox = toolbox_with(connector)
    with pytest.raises(ToolError, match=r"tides\.divide failed inside its own code. ZeroDivisionError"):
        await toolbox.call("tides.divide", {"by": 0})
    with pytest.raises(ToolError, match=r"did not finish within 0\.1 seconds"):
        await toolbox.call("tides.sleep", {})
    with pytest.raises(ToolError, match="cannot be shown"):
        await toolbox.call("tides.strange", {})
    status = toolbox.connector("tides")
    assert (status.calls, status.failures) == (3, 3)
    assert [error.tool for error in status.last_errors] == ["tides.divide", "tides.sleep", "tides.strange"]


async def returned(value: Any, max_chars: int = 400) -> ToolOutcome:
    connector = tides()

    @connector.tool(effect=Effect.READ, max_chars=max_chars)
    async def give() -> Any:
        """Give something."""
        return value

    return await toolbox_with(connector).call("tides.give", {})


async def test_a_long_list_is_shortened_and_says_so() -> None:
    outcome = await returned([{"port": f"port {i}", "metres": i} for i in range(500)])
    assert len(outcome.text) <= 400
    assert outcome.truncated
    assert "of 500 left out" in outcome.text
    assert len(outcome.data) == 500


async def test_a_long_text_is_cut_at_a_word_and_says_how_much_is_missing() -> None:
    outcome = await returned("word " * 500)
    assert len(outcome.text) <= 400
    assert outcome.truncated
    assert "of 2500 characters left out]" in outcome.text
    assert not (await returned("short")).truncated


async def test_huge_data_is_cut_for_the_face_too() -> None:
    outcome = await returned({"rows": ["x" * 1000] * 1000})
    assert len(str(outcome.data)) < 70_000
    assert outcome.truncated


async def test_characters_that_a_terminal_would_obey_are_taken_out() -> None:
    sneaky = "red \x1b[31m\u202etxet\u2066\U000e0041\u200b\x00 end\tof\nline"
    outcome = await returned(
        Result(text=sneaky, data={"k\x1b": [sneaky]}, answer=sneaky, sources=[Source(sneaky, "https://x/\x1b")])
    )
    for part in (outcome.text, outcome.answer, str(outcome.data), outcome.sources[0].title, outcome.sources[0].url):
        assert not set("\x1b\u202e\u2066\U000e0041\u200b\x00") & set(part)
    assert outcome.text == "red [31mtxet end\tof\nline"
    assert outcome.meta["removed_characters"] == 6


async def test_text_without_data_and_nothing_at_all_are_fine() -> None:
    assert (await returned(None)).text == "Done."
    assert (await returned(Result(data={"a": float("nan")}))).data == {"a": None}
    assert (await returned({"a": {"b": 1}})).text == '{"a": {"b": 1}}'


def test_an_http_parameter_is_not_shown_to_the_model() -> None:
    connector = tides(hosts=("api.example.org",))

    @connector.tool(effect=Effect.WRITE)
    async def tide(port: Annotated[str, "A port"], client: Http) -> str:
        """Ask."""
        return (await client.get("/v1/{port}", path={"port": port})).text

    status = toolbox_with(connector).connector("tides")
    assert list(status.tools[0].schema["properties"]) == ["port"]
    assert status.tools[0].info.effect is Effect.WRITE


async def test_a_result_fits_the_budget_of_tokens_whatever_its_script() -> None:
    """A character is a quarter of a token in one script and a whole one in another."""
    counted: list[str] = []

    def count(text: str) -> int:
        counted.append(text)
        return len(text.encode()) // 3

    connector = tides()

    @connector.tool(effect=Effect.READ, max_chars=8000, max_tokens=300)
    async def tell(what: Annotated[str, "What"], times: Annotated[int, "How often"]) -> str:
        """Say something over and over."""
        return what * times

    for options, limit in ((ConnectOptions(count=count), count), (ConnectOptions(), estimate)):
        toolbox = Toolbox(options)
        toolbox.add(connector)
        for what in ("high water at noon ", "満潮は正午です。", "06:12 6.41 m; "):
            outcome = await toolbox.call("tides.tell", {"what": what, "times": 500})
            assert 150 < limit(outcome.text) <= 300
            assert outcome.truncated
            assert "[cut: " in outcome.text
    assert counted


async def test_what_was_read_is_cited_with_its_time() -> None:
    async with serving(fine) as sink:
        connector = tides(hosts=("api.example.org",))

        @connector.tool(effect=Effect.READ)
        async def silent(http: Http) -> str:
            """Name no source."""
            return (await http.get("/tides", params={"port": "Dover"})).text

        @connector.tool(effect=Effect.READ)
        async def spoken(http: Http) -> Result:
            """Name one."""
            return Result(
                text=(await http.get("/tides")).text, sources=[Source("Harbour office", "https://h.example/")]
            )

        here = Override(base_url=sink.url, allow_private=True)
        toolbox = Toolbox(ConnectOptions(overrides={"tides": here}))
        toolbox.add(connector)
        (own,) = (await toolbox.call("tides.silent", {})).sources
        (named,) = (await toolbox.call("tides.spoken", {})).sources
    assert (own.title, own.url) == ("127.0.0.1", f"{sink.url}/tides?port=Dover")
    assert (named.title, named.url) == ("Harbour office", "https://h.example/")
    for source in (own, named):
        assert abs((datetime.now(UTC) - datetime.fromisoformat(source.retrieved_at)).total_seconds()) < 60


async def fine(head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(response(200, b"High water at noon."))
