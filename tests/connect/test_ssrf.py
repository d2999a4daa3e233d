"""The table of what must not be reached, from end to end: a tool asks, and what would be dialled is looked at.

The addresses are those of `test_addresses.py`; here they arrive as a person's link, as a resolver's answer and as a
redirect, through a connector's own client.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated

import httpx
import pytest
from pydantic import SecretStr

from connect.test_addresses import PUBLIC, REFUSED
from trimtab.connect import Bearer, ConnectOptions, Connector, Effect, Http, Toolbox, ToolError

PUBLIC_NAME = "public.example"
PUBLIC_ADDRESS = "93.184.215.14"
KEY = "s3cret-of-the-connector"


class Wire(httpx.AsyncBaseTransport):
    """What opens sockets, under the guard. Remembers where to, and answers as it is told."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response] | None = None) -> None:
        self.answer = answer or (lambda request: httpx.Response(200, stream=httpx.ByteStream(b"{}")))
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer(request)

    @property
    def dialled(self) -> list[str]:
        return [request.url.host for request in self.requests]


def reader(wire: Wire, resolver: Callable[[str, int], Sequence[str]], *hosts: str) -> Toolbox:
    """A connector that opens whatever link it is given. One of named hosts has a key for them."""
    connector = Connector(
        name="links", version="1.0.0", description="Opens links.", hosts=hosts or ("*",), plain_http=True,
        auth=Bearer(env="LINKS_KEY") if hosts else None,
    )  # fmt: skip

    @connector.tool(effect=Effect.READ)
    async def look(url: Annotated[str, "A link"], http: Http) -> str:
        """Open a link."""
        return str((await http.open(url)).status)

    toolbox = Toolbox(ConnectOptions(resolver=resolver, below=lambda: wire, secret=lambda name: SecretStr(KEY)))
    toolbox.add(connector)
    return toolbox


def literal(address: str) -> str:
    return f"[{address}]" if ":" in address else address


async def refused(toolbox: Toolbox, url: str) -> str:
    with pytest.raises(ToolError) as caught:
        await toolbox.call("links.look", {"url": url})
    return str(caught.value.detail["reason"])


async def test_no_address_of_the_table_is_dialled_as_a_link_or_as_a_names_meaning() -> None:
    wire, answers = Wire(), dict[str, str]()
    toolbox = reader(wire, lambda host, port: [answers.get(host, host)])
    told = Counter[str]()
    for number, address in enumerate(REFUSED):
        answers[f"name{number}.example"] = address
        for scheme in ("http", "https"):
            told[await refused(toolbox, f"{scheme}://{literal(address)}/latest/meta-data")] += 1
            told[await refused(toolbox, f"{scheme}://name{number}.example/")] += 1
    await toolbox.aclose()
    assert wire.dialled == []
    assert told == {"not_permitted": 4 * len(REFUSED)}
    assert len(REFUSED) >= 26


async def test_public_addresses_are_dialled_as_they_are_under_the_names_they_were_asked_by() -> None:
    wire, answers = Wire(), dict[str, str]()
    toolbox = reader(wire, lambda host, port: [answers.get(host, host)])
    for number, address in enumerate(PUBLIC):
        answers[f"name{number}.example"] = address
        for host in (f"name{number}.example", literal(address)):
            assert (await toolbox.call("links.look", {"url": f"https://{host}/"})).text == "200"
            assert wire.dialled.pop() == address
            assert wire.requests == [] or wire.requests.pop().headers["host"] == host
    await toolbox.aclose()


async def test_a_thousand_rebinding_names_never_lead_inside_and_are_looked_up_once_a_request() -> None:
    asked = Counter[str]()

    def rebinding(host: str, port: int) -> list[str]:
        asked[host] += 1
        return [PUBLIC_ADDRESS] if asked[host] == 1 else ["127.0.0.1"]

    wire = Wire()
    toolbox = reader(wire, rebinding)
    for number in range(1000):
        await toolbox.call("links.look", {"url": f"http://rebind{number}.example/"})
    assert await refused(toolbox, "http://rebind7.example/again") == "not_permitted"
    await toolbox.aclose()
    assert Counter(wire.dialled) == {PUBLIC_ADDRESS: 1000}
    assert asked.total() == 1001


SHAPES = {
    **{str(status): (status, "http://127.0.0.1/internal") for status in (301, 302, 303, 307, 308)},
    "without a scheme": (302, "//127.0.0.1/internal"),
    "a file": (302, "file:///etc/passwd"),
    "gopher": (302, "gopher://127.0.0.1:70/_x"),
    "https to http": (302, f"http://{PUBLIC_NAME}/"),
    "for ever": (302, "/again"),
    "a name that means loopback": (307, "https://inside.example/"),
    "metadata in IPv6": (308, "https://[fd00:ec2::254]/latest"),
    "a number": (302, "https://2130706433/"),
    "with a user name": (302, f"https://{PUBLIC_NAME}@127.0.0.1/"),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_no_redirect_leads_inside_down_or_round_and_round(shape: str) -> None:
    status, location = SHAPES[shape]

    def redirecting(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers={"location": location}, stream=httpx.ByteStream(b""))

    def resolver(host: str, port: int) -> list[str]:
        return [{PUBLIC_NAME: PUBLIC_ADDRESS, "inside.example": "127.0.0.1", "2130706433": "127.0.0.1"}.get(host, host)]

    wire = Wire(redirecting)
    toolbox = reader(wire, resolver)
    await refused(toolbox, f"https://{PUBLIC_NAME}/")
    await toolbox.aclose()
    assert set(wire.dialled) == {PUBLIC_ADDRESS}
    assert len(wire.dialled) == (4 if shape == "for ever" else 1)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_to_another_origin_carries_no_key(status: int) -> None:
    def elsewhere(request: httpx.Request) -> httpx.Response:
        if request.headers["host"] == PUBLIC_NAME:
            return httpx.Response(status, headers={"location": "https://other.example/"}, stream=httpx.ByteStream(b""))
        return httpx.Response(200, stream=httpx.ByteStream(b"{}"))

    wire = Wire(elsewhere)
    toolbox = reader(wire, lambda host, port: [PUBLIC_ADDRESS], PUBLIC_NAME, "other.example")
    assert (await toolbox.call("links.look", {"url": f"https://{PUBLIC_NAME}/"})).text == "200"
    await toolbox.aclose()
    hosts = [request.headers["host"] for request in wire.requests]
    assert hosts == [PUBLIC_NAME, "other.example"]
    assert wire.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in str(wire.requests[1].headers) + str(wire.requests[1].url)
