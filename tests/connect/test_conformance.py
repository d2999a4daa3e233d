"""The lines of a check that need no fault: each passes an honest connector and finds out one that is not."""

import asyncio
import dataclasses
import gc
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from trimtab.connect import ApiKey, Connector, Effect, Http, Limits, Result, Retry
from trimtab.connect.cassettes import Exchange, Tape
from trimtab.connect.conformance.bench import Pace
from trimtab.connect.conformance.requirement import Finding, Report
from trimtab.connect.conformance.runner import REQUIREMENTS, check

# A connection that is given up while it is being opened is closed by the collector, which Python remarks upon.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a check leaves to the collector is collected in its own test."""
    yield
    gc.collect()


HOST, OTHER = "api.tides.example", "files.tides.example"
JSON = {"content-type": "application/json"}
BODY = json.dumps({"metres": 6.4}).encode()
EXAMPLES = tuple(f"How high is the tide in port {i}?" for i in range(6))
DOVER = Exchange("GET", f"https://{HOST}/v1/ports/Dover", 200, JSON, BODY)


class Tide(BaseModel):
    metres: float


def tape(*exchanges: Exchange, **more: Any) -> Tape:
    return Tape(
        "tides.tide", {"port": "Dover"}, live=False, note="made for this test", exchanges=list(exchanges), **more
    )


def tides(tool: Any, **options: Any) -> Connector:
    told = {key: options.pop(key) for key in ("effect", "untrusted", "timeout", "examples") if key in options}
    connector = Connector(
        **{"name": "tides", "version": "1.0.0", "description": "Tide tables.", "hosts": (HOST,), **options}
    )

    @connector.tool(**{"effect": Effect.READ, "examples": EXAMPLES, **told})
    async def tide(port: Annotated[str, "A port's name, e.g. Dover"], http: Http) -> Any:
        """Say how high the tide is in a port."""
        return await tool(port, http)

    return connector


async def honest(port: str, http: Http) -> Any:
    found = (await http.get("/v1/ports/{port}", path={"port": port})).into(Tide)
    return Result(text=f"{found.metres} m")


def found(connector: Connector, line: str, *tapes: Tape) -> Finding:
    checked = check(connector, list(tapes or [tape(DOVER)]), only=(line,)).line(line)
    return Finding(checked.status, checked.reason)


def fails(connector: Connector, line: str, said: str, *tapes: Tape) -> None:
    finding = found(connector, line, *tapes)
    assert finding.status == "fail", finding.reason
    assert said in finding.reason


def test_ids_are_unique_and_each_line_says_what_and_how() -> None:
    assert len({one.id for one in REQUIREMENTS}) == len(REQUIREMENTS)
    for one in REQUIREMENTS:
        assert one.id == one.id.upper()
        assert one.must
        assert one.how


def test_what_a_declaration_lacks_is_named() -> None:
    for options, line, said in (
        ({"version": "first"}, "DECL-COMPLETE", "version"),
        ({"description": "Tides"}, "DECL-COMPLETE", "description"),
        ({"examples": EXAMPLES[:2]}, "DECL-COMPLETE", "examples"),
        (
            {"examples": (*EXAMPLES, "Is it low in Dover?", "Dover's tide?")},
            "DECL-COMPLETE",
            "the value 'dover' stands",
        ),
        ({"limits": Limits(max_bytes=10**12)}, "DECL-BOUNDED", "reads up to"),
        ({"limits": Limits(total=3600)}, "DECL-BOUNDED", "3600 s"),
        ({"retry": Retry(attempts=100)}, "DECL-BOUNDED", "100 times"),
        ({"timeout": 3600.0}, "DECL-BOUNDED", "3600 s"),
        ({"untrusted": False}, "DECL-TRUST", "untrusted"),
    ):
        fails(tides(honest, **options), line, said)
        assert found(tides(honest), line).status == "pass"


def test_a_schema_that_is_open_wrong_or_silent_is_named() -> None:
    def with_schema(given: dict[str, Any]) -> Connector:
        connector = tides(honest)
        connector.tools["tide"] = dataclasses.replace(connector.tools["tide"], given=given)
        return connector

    port = {"type": "string", "description": "A port"}
    nested = {"type": "object", "description": "Where", "properties": {"port": port}}
    fails(with_schema({"type": "objekt"}), "SCHEMA-VALID", "objekt")
    fails(with_schema({"type": "object", "properties": {"where": nested}}), "SCHEMA-CLOSED", "where takes members")
    fails(with_schema({"type": "object", "properties": {"port": {"type": "string"}}}), "SCHEMA-DESCRIBED", "'port'")
    for line in ("SCHEMA-VALID", "SCHEMA-CLOSED", "SCHEMA-DESCRIBED"):
        assert found(tides(honest), line).status == "pass"


def test_a_tool_without_a_cassette_or_with_a_silent_one_is_named() -> None:
    bare = check(tides(honest), [], only=("REPLAY-COVERED", "REPLAY-WORKS", "ARGS"))
    assert [line.id for line in bare.failures] == ["REPLAY-COVERED"]
    told = "tides.tide has no cassette. Record one: trimtab connectors call tides.tide --arg port=... --record "
    assert bare.failures[0].reason.startswith(told)
    other = check(tides(honest), [dataclasses.replace(tape(DOVER), tool="tides.moon")], only=("REPLAY",)).failures
    assert [line.id for line in other] == ["REPLAY-COVERED"]
    assert len(other[0].reason.split("\n")) == 2, "a line for the tool, one for the cassette"
    fails(tides(honest), "REPLAY-COVERED", "must say after which", dataclasses.replace(tape(DOVER), note=""))
    fails(tides(honest), "REPLAY-COVERED", "no tool", tape(DOVER), dataclasses.replace(tape(DOVER), tool="tides.moon"))


def test_a_cassette_that_no_longer_fits_is_named() -> None:
    fails(tides(honest), "REPLAY-WORKS", "is not recorded", tape(Exchange("GET", f"https://{HOST}/v2/Dover", 200)))
    fails(tides(honest), "REPLAY-WORKS", "recorded was", tape(DOVER, expects="7 m"))
    fails(tides(honest), "REPLAY-WORKS", "never asked for", tape(DOVER, Exchange("GET", f"https://{HOST}/v1/x", 200)))
    fails(tides(honest), "REPLAY-WORKS", "ended in a result", tape(DOVER, error="tool_error"))
    gone = dataclasses.replace(DOVER, status=404)
    fails(tides(honest), "REPLAY-WORKS", "ended in", tape(gone))
    assert found(tides(honest), "REPLAY-WORKS", tape(gone, error="tool_error")).status == "pass"
    assert found(tides(honest), "REPLAY-WORKS", tape(DOVER, expects="6.4 m")).status == "pass"


def test_a_secret_in_a_cassette_is_named_without_being_shown() -> None:
    leaky = dataclasses.replace(DOVER, body=b'{"metres": 1, "by": "9f86d081884c7d659a2feaa0c55ad015"}')
    finding = found(tides(honest), "REPLAY-CLEAN", tape(leaky))
    assert finding.status == "fail"
    assert "9f86…" in finding.reason
    assert "9f86d0" not in finding.reason


# ---------------------------------------------------------------------- truthful


async def behind_the_back(port: str, http: Http) -> Any:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", 9)
        writer.close()
    except PermissionError:
        pass
    return await honest(port, http)


async def in_a_thread(port: str, http: Http) -> Any:
    import contextlib
    import urllib.request

    with contextlib.suppress(OSError):
        await asyncio.to_thread(urllib.request.urlopen, "http://localhost:9/")
    return await honest(port, http)


async def with_a_process(port: str, http: Http) -> Any:
    import contextlib

    with contextlib.suppress(PermissionError):
        await asyncio.create_subprocess_exec("true")
    return await honest(port, http)


def test_what_is_reached_past_the_client_is_seen() -> None:
    fails(tides(behind_the_back), "TRUE-HOSTS", "127.0.0.1:9 past its client")
    fails(tides(in_a_thread), "TRUE-HOSTS", "past its client")
    fails(tides(with_a_process), "TRUE-HOSTS", "started")
    assert found(tides(honest), "TRUE-HOSTS").status == "pass"


def test_a_host_that_is_declared_and_never_asked_is_named() -> None:
    async def elsewhere(port: str, http: Http) -> Any:
        return (await http.get(f"https://{HOST}/v1/ports/Dover")).into(Tide).metres

    fails(tides(elsewhere, hosts=(HOST, OTHER)), "TRUE-HOSTS", f"declares {OTHER} and never asks it")


def test_a_reader_that_writes_is_named(tmp_path: Path) -> None:
    async def keeps_a_file(port: str, http: Http) -> Any:
        (tmp_path / "tides.log").write_text(port)
        return await honest(port, http)

    fails(tides(keeps_a_file), "TRUE-EFFECTS", "tides.log")
    assert found(tides(keeps_a_file, effect=Effect.WRITE), "TRUE-EFFECTS").status == "pass"
    posted = tape(DOVER, Exchange("POST", f"https://{HOST}/v1/notes", 201, sent={"port": "Dover"}))
    fails(tides(honest), "TRUE-EFFECTS", "sends POST", posted)


def test_a_key_that_is_shown_is_named() -> None:
    async def chatty(port: str, http: Http) -> Any:
        said = (await http.get("/v1/ports/{port}", path={"port": port}, ok=(400,))).text
        return said.replace("placeholder", "PLACEHOLDER")  # written otherwise, so that nobody can take it out

    auth = ApiKey(env="TIDES_KEY", header="X-Key")
    assert found(tides(honest, auth=auth), "KEY-KEPT").status == "pass"
    assert found(tides(chatty, auth=auth), "KEY-KEPT").status == "fail"
    assert found(tides(honest), "KEY-KEPT").status == "n/a"


# ---------------------------------------------------------------------- arguments


async def anywhere(port: str, http: Http) -> Any:
    """The argument is glued to the host."""
    return (await http.open(f"https://{HOST}{port}")).text


async def one_of_two(port: str, http: Http) -> Any:
    """The argument decides which host is asked."""
    where = OTHER if OTHER in port else HOST
    return (await http.get(f"https://{where}/v1/ports/Dover")).text


async def careless(port: str, http: Http) -> Any:
    """Breaks at what it does not expect."""
    await honest(port, http)
    return f"{port.split('over')[1]} m"


def test_an_argument_that_leads_elsewhere_is_seen() -> None:
    exchange = Exchange("GET", f"https://{HOST}/v1/ports/Dover", 200, JSON, BODY)
    start = dataclasses.replace(tape(exchange), arguments={"port": "/v1/ports/Dover"})
    fails(tides(anywhere, hosts=("*",)), "ARGS-ORIGIN", "asked https://api.tides.example", start)
    fails(tides(one_of_two, hosts=(HOST, OTHER)), "ARGS-ORIGIN", f"asked https://{OTHER}")
    assert found(tides(honest), "ARGS-ORIGIN").status == "pass"
    assert found(tides(honest), "ARGS-CRLF").status == "pass"


def test_an_argument_that_breaks_the_tool_is_seen() -> None:
    fails(tides(careless), "ARGS-TYPED", "failed inside its own code")
    assert found(tides(honest), "ARGS-TYPED").status == "pass"


def test_more_than_one_plain_request_is_seen_on_the_wire() -> None:
    """No connector can send this through the client: the judge itself is shown what it must find."""
    from trimtab.connect.conformance.fuzz import one_request

    fine = b"GET /v1?q=%0d%0a HTTP/1.1\r\nHost: api.tides.example\r\nAccept: */*\r\n\r\n"
    assert one_request(fine, b"") == []
    for head, extra in (
        (b"GET /v1 HTTP/1.1\r\nHost: a\r\nHost: evil.example\r\n\r\n", b""),
        (b"GET /v1 HTTP/1.1\r\nHost: a\r\nX-Injected: 1\r\n\r\n", b""),
        (b"GET /v 1 HTTP/1.1\r\nHost: a\r\n\r\n", b""),
        (b"GET /v1 HTTP/1.1\r\nHost: a\nb: c\r\n\r\n", b""),
        (fine, b"GET /admin HTTP/1.1\r\n\r\n"),
    ):
        assert one_request(head, extra)


# ---------------------------------------------------------------------- side effects


def berths(tool: Any, **options: Any) -> Connector:
    return tides(tool, effect=Effect.WRITE, **options)


async def reserve(port: str, http: Http) -> Any:
    await http.post("/v1/berths", json={"port": port})
    return f"A berth in {port} is reserved."


async def reserve_surely(port: str, http: Http) -> Any:
    for _ in range(2):
        try:
            return await reserve(port, http)
        except Exception as error:
            kept = error
    raise kept


BERTH = tape(Exchange("POST", f"https://{HOST}/v1/berths", 201, JSON, b'{"id": 1}', sent={"port": "Dover"}))


def test_a_write_that_is_done_twice_is_seen() -> None:
    for line in ("FAULT-5XX", "FAULT-RESET"):
        fails(berths(reserve_surely), line, "times over: a repeated write needs one idempotency key", BERTH)
        assert found(berths(reserve), line, BERTH).status == "pass"
        assert found(berths(reserve, idempotency_header="Idempotency-Key"), line, BERTH).status == "pass"


def test_a_check_leaves_no_thread() -> None:
    before = threading.active_count()
    report: Report = check(tides(honest), [tape(DOVER)], only=("REPLAY", "FAULT-REFUSE"), pace=Pace(0.3, 0.5))
    assert report.passed
    assert threading.active_count() <= before
