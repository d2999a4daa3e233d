"""A service that is down, slow or strict: what is still sent to it, and what the caller is told."""

import asyncio
import math
from typing import Annotated, Any

import pytest

from trimtab.connect import (
    Breaker,
    ConnectOptions,
    Connector,
    Effect,
    Http,
    Limits,
    Override,
    Rate,
    Retry,
    Toolbox,
    ToolBusy,
    ToolError,
)
from trimtab.connect.budget import RateBudget, RetryBudget
from trimtab.connect.circuit import Circuits
from trimtab.connect.guards import Guards
from trimtab.connect.reach import Reach
from trimtab.connect.transport import PinnedTransport
from trimtab.domain.tool import CALL_ID
from wire import Behave, Sink, response, serving

AT_ONCE = Retry(attempts=3, base=0.0, cap=0.0)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Service:
    """Answers with `status`; 200 says what was asked."""

    def __init__(self, status: int = 200, **headers: str) -> None:
        self.status = status
        self.headers = headers

    async def __call__(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(self.status, b'{"ok": true}', **self.headers))


def client(sink: Sink, guards: Guards, **options: Any) -> Http:
    reach = Reach(("api.example.org",), base_url=sink.url, allow_private=True)
    return Http(reach, transport=PinnedTransport(allow_private=True), guards=guards, **{"retry": AT_ONCE, **options})


def toolbox_at(sink: Sink, connector: Connector) -> Toolbox:
    here = Override(base_url=sink.url, allow_private=True)
    toolbox = Toolbox(ConnectOptions(overrides={connector.name: here}))
    toolbox.add(connector)
    return toolbox


def berths(**options: Any) -> Connector:
    connector = Connector(
        **{
            "name": "berths",
            "version": "1",
            "description": "Berths.",
            "hosts": ("api.example.org",),
            "retry": AT_ONCE,
            **options,
        }
    )

    @connector.tool(effect=Effect.READ)
    async def look(http: Http) -> str:
        """Look."""
        return (await http.get("/berths")).text

    @connector.tool(effect=Effect.WRITE)
    async def reserve(ships: Annotated[int, "How many"], http: Http) -> str:
        """Reserve a berth for each ship."""
        for ship in range(ships):
            await http.post("/berths", json={"ship": ship})
        return "Reserved."

    @connector.tool(effect=Effect.READ)
    async def sly(http: Http) -> str:
        """Say that it reads, and write."""
        return (await http.delete("/berths")).text

    return connector


# ---------------------------------------------------------------------- retries


async def test_a_service_that_is_down_is_asked_at_most_a_tenth_more_often() -> None:
    """Without a breaker, which would stop most of it: the retry budget alone keeps the promise."""
    async with serving(Service(503)) as sink:
        guards = Guards()
        http = client(sink, guards)
        for _ in range(200):
            with pytest.raises(ToolError, match="status 503"):
                await http.get("/")
    assert 200 < len(sink.heads) <= 220
    assert guards.retries.spent == len(sink.heads) - 200


def test_a_good_day_does_not_save_up_retries_for_a_bad_minute() -> None:
    budget = RetryBudget()
    for _ in range(10_000):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) == 5


# ---------------------------------------------------------------------- the breaker


async def test_a_service_that_fails_is_left_alone_and_taken_back_after_one_good_probe() -> None:
    clock, service = Clock(), Service(503)
    async with serving(service) as sink:
        guards = Guards(breaker=Breaker(failures=5, open_for=1.5), clock=clock)
        http = client(sink, guards, retry=Retry(attempts=1))
        for _ in range(5):
            with pytest.raises(ToolError, match="status 503"):
                await http.get("/")
        for _ in range(50):
            with pytest.raises(ToolBusy, match="has been failing") as refused:
                await http.get("/")
        assert refused.value.detail["reason"] == "circuit_open"
        assert 0 < refused.value.retry_after <= 1.5
        assert len(sink.heads) == 5

        clock.now += 1.5
        assert guards.circuits.state == "half-open"
        with pytest.raises(ToolError, match="status 503"):
            await http.get("/")
        with pytest.raises(ToolBusy):
            await http.get("/")
        assert (len(sink.heads), guards.circuits.state) == (6, "open")

        clock.now += 1.5
        service.status = 200
        assert (await http.get("/")).status == 200
        assert guards.circuits.state == "closed"
        assert (await http.get("/")).status == 200


async def test_a_half_open_circuit_lets_one_probe_through_and_forgets_one_that_was_cancelled() -> None:
    clock = Clock()
    circuit = Circuits(Breaker(failures=1), clock).of("https", "api.example.org", 443)
    circuit.admit()
    circuit.failed()
    clock.now += 2
    circuit.admit()
    with pytest.raises(ToolBusy):
        circuit.admit()
    circuit.released()
    circuit.admit()
    circuit.succeeded()
    assert circuit.state == "closed"


async def test_what_the_caller_did_wrong_does_not_open_the_circuit() -> None:
    async with serving(Service(404)) as sink:
        guards = Guards(breaker=Breaker())
        http = client(sink, guards)
        for _ in range(30):
            with pytest.raises(ToolError, match="nothing under that address"):
                await http.get("/")
    assert (len(sink.heads), guards.circuits.state) == (30, "closed")


async def test_one_dead_page_does_not_cost_the_others() -> None:
    async with serving(Service(500)) as dead, serving(Service(200)) as alive:
        guards = Guards(breaker=Breaker(failures=3))
        transport = PinnedTransport(allow_private=True)
        http = Http(Reach(("*",), allow_private=True), transport=transport, guards=guards, retry=AT_ONCE)
        for _ in range(5):
            with pytest.raises(ToolError):
                await http.open(f"{dead.url}/page")
        assert len(dead.heads) == 3
        assert (await http.open(f"{alive.url}/page")).status == 200


# ---------------------------------------------------------------------- what the service permits


async def test_a_used_up_budget_is_said_with_the_time_it_takes_and_nothing_is_sent() -> None:
    clock = Clock()
    async with serving(Service()) as sink:
        http = client(sink, Guards(rate=Rate(3, per=60.0), clock=clock))
        for _ in range(3):
            await http.get("/")
        with pytest.raises(ToolBusy, match=r"budget .* used up \(3 requests in 60 seconds\)") as spent:
            await http.get("/")
        assert (spent.value.retry_after, spent.value.detail["reason"]) == (pytest.approx(20), "rate")
        clock.now += 20
        await http.get("/")
    assert len(sink.heads) == 4


async def test_a_short_wait_for_the_budget_is_waited() -> None:
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)

    async with serving(Service()) as sink:
        http = client(sink, Guards(rate=Rate(2, per=2.0), clock=Clock()), sleep=nap)
        for _ in range(3):
            await http.get("/")
    assert naps == [1.0]


def test_a_budget_of_many_callers_is_one_budget() -> None:
    clock = Clock()
    budget = RateBudget(Rate(10, per=10.0), clock)
    waits = [budget.take() for _ in range(30)]
    assert waits == [0.0] * 10 + [float(n) for n in range(1, 21)]
    clock.now += 10
    assert budget.left == 0  # twenty were promised; ten of them are due by now
    clock.now += 20
    assert budget.left == 10


async def test_a_service_that_asks_for_peace_is_given_it_by_every_later_call() -> None:
    clock = Clock()
    service = Service(429, retry_after="120")
    async with serving(service) as sink:
        guards = Guards(clock=clock)
        with pytest.raises(ToolError, match="120 seconds"):
            await client(sink, guards).get("/")
        for _ in range(5):
            with pytest.raises(ToolBusy, match="asked for fewer requests") as held:
                await client(sink, guards).get("/")
        assert math.isclose(held.value.retry_after, 120)
        clock.now += 120
        service.status = 200
        await client(sink, guards).get("/")
    assert len(sink.heads) == 2


async def test_more_calls_than_places_are_told_that_the_connector_is_busy_and_others_go_on() -> None:
    entered = asyncio.Event()

    async def hang(head: bytes, writer: asyncio.StreamWriter) -> None:
        entered.set()
        await asyncio.sleep(60)

    async with serving(hang) as stuck, serving(Service()) as fine:
        connector = berths(limits=Limits(concurrent=2, patience=0.05))
        other = Connector(name="other", version="1", description="x", hosts=("other.example.org",))

        @other.tool(effect=Effect.READ)
        async def look(http: Http) -> str:
            """Look."""
            return (await http.get("/")).text

        overrides = {
            "berths": Override(base_url=stuck.url, allow_private=True),
            "other": Override(base_url=fine.url, allow_private=True),
        }
        toolbox = Toolbox(ConnectOptions(overrides=overrides))
        toolbox.add(connector)
        toolbox.add(other)
        hanging = [asyncio.create_task(toolbox.call("berths.look", {})) for _ in range(2)]
        await entered.wait()
        with pytest.raises(ToolBusy, match="'berths' is busy with 2 other calls") as busy:
            await toolbox.call("berths.look", {})
        assert busy.value.detail["reason"] == "busy"
        assert toolbox.connector("berths").health.running == 2
        assert "ok" in (await toolbox.call("other.look", {})).text
        await toolbox.aclose()
        await asyncio.gather(*hanging, return_exceptions=True)
        assert len(stuck.heads) == 2


# ---------------------------------------------------------------------- one call


async def test_a_call_of_many_requests_ends_by_its_own_deadline() -> None:
    connector = berths(limits=Limits(total=30.0, read=30.0))

    @connector.tool(effect=Effect.READ, timeout=0.4)
    async def patient(http: Http) -> str:
        """Ask over and over."""
        for _ in range(100):
            await http.get("/")
        return "never"

    async def hang(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(60)

    async with serving(hang) as sink:
        toolbox = toolbox_at(sink, connector)
        with pytest.raises(ToolError, match="did not finish answering") as late:
            await toolbox.call("berths.patient", {})
        assert late.value.detail["reason"] == "deadline"
        record = toolbox.connector("berths").health.recent[-1]
        assert (record.ok, record.reason, record.tool, record.requests) == (False, "deadline", "berths.patient", 1)


async def test_a_tool_that_is_declared_to_read_cannot_write() -> None:
    async with serving(Service()) as sink:
        with pytest.raises(ToolError, match=r"berths\.sly is declared to read and was about to send DELETE"):
            await toolbox_at(sink, berths()).call("berths.sly", {})
    assert sink.heads == []


def keys(sink: Sink, name: bytes = b"idempotency-key") -> list[bytes]:
    lines = [line for head in sink.heads for line in head.lower().split(b"\r\n")]
    return [line.partition(b": ")[2] for line in lines if line.startswith(name + b":")]


def fail_first(times: int) -> Behave:
    left = [503] * times

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(left.pop() if left else 200, b"{}"))

    return answer


async def test_a_write_that_the_service_recognises_is_repeated_under_one_key() -> None:
    async with serving(fail_first(2)) as sink:
        toolbox = toolbox_at(sink, berths(idempotency_header="X-Request-Key"))
        await toolbox.call("berths.reserve", {"ships": 2})
        sent = keys(sink, b"x-request-key")
        assert len(sent) == 4
        assert sent[0] == sent[1] == sent[2] != sent[3]
        await toolbox.call("berths.reserve", {"ships": 1})
        assert keys(sink, b"x-request-key")[-1] not in sent


async def test_a_write_carries_a_key_and_is_sent_once_where_the_service_promises_nothing() -> None:
    async with serving(fail_first(1)) as sink:
        with pytest.raises(ToolError, match="status 503"):
            await toolbox_at(sink, berths()).call("berths.reserve", {"ships": 1})
        assert len(keys(sink)) == len(sink.heads) == 1


async def test_the_same_call_run_again_after_a_crash_carries_the_same_keys() -> None:
    async with serving(Service()) as sink:
        for call in ("call-1", "call-1", "call-2"):
            token = CALL_ID.set(call)
            await toolbox_at(sink, berths()).call("berths.reserve", {"ships": 2})
            CALL_ID.reset(token)
    first, again, other = keys(sink)[:2], keys(sink)[2:4], keys(sink)[4:]
    assert first == again
    assert not set(first) & set(other)


async def test_health_tells_what_happened() -> None:
    service = Service()
    async with serving(service) as sink:
        toolbox = toolbox_at(sink, berths(rate=Rate(100, per=60.0), breaker=Breaker(failures=2)))
        for _ in range(3):
            await toolbox.call("berths.look", {})
        service.status = 500
        for _ in range(4):
            with pytest.raises(ToolError):
                await toolbox.call("berths.look", {})
        health = toolbox.connector("berths").health
    assert health.breaker == "open"
    assert health.error_rate == pytest.approx(4 / 7, abs=0.001)
    assert 0 < health.p95 < 5
    assert health.rate_left == 100 - len(sink.heads)
    assert (health.rate_limit, health.rate_per, health.requests) == (100, 60.0, len(sink.heads))
    assert [record.reason for record in health.recent] == ["", "", "", "status", "status", "status", "circuit_open"]
