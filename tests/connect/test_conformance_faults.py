"""Each kind of fault finds out a connector that is bad in its own way; an honest one stands them all."""

import asyncio
import contextlib
import gc
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from trimtab.connect import Connector, Effect, Http, Limits, Result, Retry, ToolError
from trimtab.connect.auth import ApiKey, ClientCredentials, OAuth
from trimtab.connect.cassettes import Exchange, Tape
from trimtab.connect.conformance.kinds import KINDS
from trimtab.connect.conformance.runner import check

# A connection that is given up while it is being opened is closed by the collector, which Python remarks upon.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a check leaves to the collector is collected in its own test."""
    yield
    gc.collect()


HOST = "api.tides.example"
JSON = {"content-type": "application/json"}
BODY = json.dumps({"port": "Dover", "metres": 6.4, "times": ["06:12", "18:40"], "note": "spring tide"}).encode()
TAPES = [
    Tape(
        "tides.tide",
        {"port": "Dover"},
        live=False,
        note="made for this test",
        exchanges=[Exchange("GET", f"https://{HOST}/v1/ports/Dover", 200, JSON, BODY)],
        expects="High water in Dover: 6.4 m.",
    )
]
Tool = Callable[[str, Http], Awaitable[Any]]


class Tide(BaseModel):
    port: str
    metres: float
    times: list[str]


async def honest(port: str, http: Http) -> Any:
    found = (await http.get("/v1/ports/{port}", path={"port": port})).into(Tide)
    return Result(text=f"High water in {found.port}: {found.metres} m.")


def tides(tool: Tool, effect: Effect = Effect.READ, **options: Any) -> Connector:
    declared = {"name": "tides", "version": "1.0.0", "description": "Tide tables.", "hosts": (HOST,), **options}
    connector = Connector(**declared)

    @connector.tool(effect=effect, examples=tuple(f"How high is the tide in port {i}?" for i in range(6)))
    async def tide(port: Annotated[str, "A port's name, e.g. Dover"], http: Http) -> Any:
        """Say how high the tide is in a port."""
        return await tool(port, http)

    return connector


def verdict(connector: Connector, line: str, tapes: list[Tape] = TAPES) -> tuple[str, str]:
    found = check(connector, tapes, only=(line,)).line(line)
    return found.status, found.reason


def test_an_honest_connector_stands_every_fault_and_it_is_counted() -> None:
    for auth in (None, OAuth(f"https://{HOST}/sign-in", f"https://{HOST}/token", client_id="us", scopes=("read",))):
        report = check(tides(honest, auth=auth), TAPES, only=("FAULT", "REPLAY", "TRUE", "ARGS", "KEY", "DECL"))
        assert report.failures == []
        skipped = {line.id for line in report.lines if line.status == "n/a"}
        assert skipped == (
            {"FAULT-EXPIRED", "FAULT-TOKEN", "FAULT-REFRESH", "KEY-KEPT"} if auth is None else {"KEY-KEPT"}
        )
        assert report.figures["faults"] > 40


# ---------------------------------------------------------------------- one bad connector a kind


async def made_up(port: str, http: Http) -> Any:
    """Whatever goes wrong, the tide is fine."""
    try:
        return await honest(port, http)
    except ToolError:
        return "High water is at noon, 5 m."


async def patient(port: str, http: Http) -> Any:
    """Swallows being cancelled, and tries for ever."""
    for _ in range(12):
        with contextlib.suppress(ToolError, asyncio.CancelledError):
            return await honest(port, http)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.1)
    raise ToolError("The tide is not known.")


async def blocking(port: str, http: Http) -> Any:
    """Waits in a way that nobody can end."""
    try:
        return await honest(port, http)
    except (ToolError, asyncio.CancelledError):
        time.sleep(1.6)
        raise ToolError("The tide is not known.") from None


async def hammering(port: str, http: Http) -> Any:
    """Asks again at once, whatever the service says."""
    for _ in range(30):
        try:
            return await honest(port, http)
        except ToolError as error:
            kept = error
    raise kept


async def guessing(port: str, http: Http) -> Any:
    """Takes what it can get out of whatever came."""
    text = (await http.get("/v1/ports/{port}", path={"port": port})).text
    return f"The service says: {text[:40] or 'nothing'}"


async def trusting(port: str, http: Http) -> Any:
    """Believes that members are there and of their types."""
    found = json.loads((await http.get("/v1/ports/{port}", path={"port": port})).content)
    return f"High water in {found['port']}: {found['metres'] + 0:.1f} m at {found['times'][0]}."


async def tolerant(port: str, http: Http) -> Any:
    """Believes that what is missing means nothing to report."""
    found = json.loads((await http.get("/v1/ports/{port}", path={"port": port})).content)
    return f"There are {len(found.get('times', []))} tides." if isinstance(found, dict) else "No tides."


async def falling_back(port: str, http: Http) -> Any:
    """Takes plain http when the certificate is wrong."""
    try:
        return await honest(port, http)
    except ToolError:
        return (await http.get(f"http://{HOST}/v1/ports/Dover")).into(Tide).port


async def following(port: str, http: Http) -> Any:
    """Follows a redirect itself, past its client."""
    reader, writer = await asyncio.open_connection("127.0.0.1", 9)
    writer.close()
    return await reader.read()


async def redirecting(port: str, http: Http) -> Any:
    """Looks into private places when it is sent there."""
    try:
        return await honest(port, http)
    except ToolError:
        return await following(port, http)


async def impatient(port: str, http: Http) -> Any:
    """Renews its token by itself, whether it must or not."""
    await http.post("/token", form={"grant_type": "refresh_token", "refresh_token": "mine"})
    return await honest(port, http)


async def untyped(port: str, http: Http) -> Any:
    try:
        return await honest(port, http)
    except ToolError:
        raise RuntimeError("503 see log") from None


BAD: dict[str, tuple[Tool, str, dict[str, Any]]] = {
    "FAULT-REFUSE": (made_up, "claims success", {}),
    "FAULT-RESET": (untyped, "escaped the connector", {}),
    "FAULT-BLACKHOLE": (patient, "deadline was|did not end", {}),
    "FAULT-DRIP": (patient, "deadline was|did not end", {}),
    "FAULT-LATENCY": (blocking, "deadline was|did not end", {}),
    "FAULT-429": (hammering, "attempts", {"retry": Retry(attempts=1)}),
    "FAULT-5XX": (hammering, "attempts", {"retry": Retry(attempts=2)}),
    "FAULT-TRUNCATED": (guessing, "claims success", {}),
    "FAULT-TYPE": (guessing, "claims success", {}),
    "FAULT-LENGTH": (made_up, "claims success", {}),
    "FAULT-GZIP": (made_up, "claims success", {}),
    "FAULT-HUGE": (patient, "deadline was|did not end", {}),
    "FAULT-SSE": (blocking, "deadline was|did not end", {}),
    "FAULT-REDIRECT-PRIVATE": (redirecting, "past its client", {}),
    "FAULT-REDIRECT-LOOP": (made_up, "claims success", {"limits": Limits(redirects=40)}),
    "FAULT-TLS": (falling_back, "claims success", {"plain_http": True}),
    "FAULT-HTTP": (made_up, "claims success", {}),
    "FAULT-EXPIRED": (made_up, "claims success", {"auth": ApiKey(env="TIDES_KEY", header="X-Key")}),
    "FAULT-TOKEN": (
        impatient,
        "asked for a token 2 times",
        {"auth": OAuth(f"https://{HOST}/sign-in", f"https://{HOST}/token", client_id="us")},
    ),
    "FAULT-REFRESH": (
        made_up,
        "claims success",
        {"auth": ClientCredentials(f"https://{HOST}/token", "TIDES_ID", "TIDES_SECRET")},
    ),
    "FAULT-SCHEMA": (trusting, "escaped the connector", {}),
}


EFFECTS = {"FAULT-TOKEN": Effect.WRITE}


def test_every_kind_of_fault_has_its_bad_connector() -> None:
    assert set(BAD) == {kind.id for kind in KINDS}


@pytest.mark.parametrize("line", BAD)
def test_a_bad_connector_fails_the_line_of_its_fault(line: str) -> None:
    tool, said, options = BAD[line]
    status, reason = verdict(tides(tool, EFFECTS.get(line, Effect.READ), **options), line)
    assert status == "fail", reason
    assert any(part in reason for part in said.split("|")), reason
    assert "tides.tide with" in reason
    assert verdict(tides(honest, **{k: v for k, v in options.items() if k != "limits"}), line)[0] == "pass"
