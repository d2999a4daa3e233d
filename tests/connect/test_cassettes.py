"""Recording a tool's run, and playing it again without a network."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import pytest

from trimtab.connect import ApiKey, ConnectOptions, Connector, Effect, Http, InvalidInput, Override, Toolbox, ToolError
from trimtab.connect.cassettes import Exchange, Player, Scrubber, Tape, load, recording, replaying, suspicious
from wire import response, serving

KEY = "k7Qz93hfuW2mXc81LpVd"

connector = Connector(
    name="tides",
    version="1.0.0",
    description="Tide tables.",
    hosts=("api.tides.example",),
    auth=ApiKey(env="TIDES_KEY", query="api_key"),
)


@connector.tool(effect=Effect.WRITE)
async def tide(port: Annotated[str, "A port"], http: Http) -> str:
    """Say how high the tide is, and leave a note of who asked."""
    found = (await http.get("/v1/{port}", path={"port": port}, params={"day": "2026-05-01"})).json()
    await http.post("/v1/notes", json={"port": port, "by": "us"})
    return f"{found['metres']} m, {found.get('hint', 'no hint')}"


def toolbox_with(options: ConnectOptions) -> Toolbox:
    toolbox = Toolbox(options)
    toolbox.add(connector)
    return toolbox


async def recorded(body: bytes, *, not_secret: tuple[str, ...] = ()) -> Tape:
    """Dover's tide, recorded from a service on loopback."""
    from pydantic import SecretStr

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(200, body, content_type="application/json", set_cookie="session=abc"))

    tape = Tape.new("tides.tide", {"port": "Dover"}, not_secret=not_secret)
    async with serving(answer) as service:
        here = Override(base_url=service.url, allow_private=True)
        options = ConnectOptions(overrides={"tides": here}, secret=lambda name: SecretStr(KEY))
        toolbox = toolbox_with(recording(tape, options))
        await toolbox.call("tides.tide", {"port": "Dover"})
        await toolbox.aclose()
    # What was asked of loopback is kept as what is asked of the service.
    real = [e.url.replace(service.url, "https://api.tides.example") for e in tape.exchanges]
    tape.exchanges = [
        Exchange(e.method, url, e.status, e.headers, e.body, e.sent)
        for e, url in zip(tape.exchanges, real, strict=True)
    ]
    return tape


async def test_a_run_is_recorded_scrubbed_read_by_a_person_and_played_again(tmp_path: Path) -> None:
    tape = await recorded(json.dumps({"metres": 6.4, "hint": f"you sent {KEY}", "access_token": "short"}).encode())
    file = tmp_path / "tides" / "dover.json"
    tape.save(file, Scrubber({"TIDES_KEY": KEY}))
    text = file.read_text()
    assert KEY not in text
    assert "session=abc" not in text
    assert "short" not in text
    assert '"metres": 6.4' in text
    assert "api_key={{TIDES_KEY}}" in text
    assert "you sent {{TIDES_KEY}}" in text

    toolbox = toolbox_with(replaying(load(file.parent)))
    outcome = await toolbox.call("tides.tide", {"port": "Dover"})
    assert outcome.text == "6.4 m, you sent {{TIDES_KEY}}"
    await toolbox.aclose()


@pytest.mark.parametrize(
    "left",
    [
        "9f86d081884c7d659a2feaa0c55ad015",
        "sk-proj-4fG7hJ2kL9mN1pQ3",
        "ghp_A1b2C3d4E5f6G7h8I9j0",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x",
        "AKIAIOSFODNN7EXAMPLE",
        "Bearer abcdef0123456789",
        "qWeRtYuIoPaSdFgHjKlZxCvBnM",
    ],
)
async def test_a_recording_that_would_hold_a_secret_is_not_written(tmp_path: Path, left: str) -> None:
    tape = await recorded(json.dumps({"metres": 1, "hint": left}).encode())
    file = tmp_path / "dover.json"
    with pytest.raises(InvalidInput, match=r"not written.*json\.hint") as caught:
        tape.save(file, Scrubber({"TIDES_KEY": KEY}))
    assert not file.exists()
    assert left not in caught.value.message
    found = [string for _, string in tape.scrubbed(Scrubber({"TIDES_KEY": KEY})).secrets_left()]
    tape.not_secret = tuple(found)
    tape.save(file, Scrubber({"TIDES_KEY": KEY}))
    assert Tape.read(file).not_secret == tuple(found)


@pytest.mark.parametrize(
    "plain",
    [
        "https://en.wikipedia.org/wiki/Antikythera_mechanism",
        "how-lighthouses-work-in-2026-and-after",
        "2026-10-01T12:00:00Z",
        "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        "geocoding-api.open-meteo.com/v1/search?name=Paris&count=10",
        "Donaudampfschifffahrtsgesellschaft",
        "temperature_2m,weather_code,wind_speed_10m",
        "0000000000000000000000000000000000000000",
        "1234567890123456789012",
    ],
)
def test_what_people_write_is_no_secret(plain: str) -> None:
    assert list(suspicious({"text": plain})) == []


def test_a_key_is_found_in_every_form_in_which_it_travels() -> None:
    key = "a/b+c d&e=f12345"
    scrub = Scrubber({"K": key})
    in_a_form = "a%2Fb%2Bc+d%26e%3Df12345"
    for form in (key, "a%2Fb%2Bc%20d%26e%3Df12345", in_a_form, "YS9iK2MgZCZlPWYxMjM0NQ=="):
        assert scrub.text(f"<{form}>") == "<{{K}}>"


async def test_what_was_never_recorded_says_what_was_asked_and_what_is_near(tmp_path: Path) -> None:
    tape = await recorded(b'{"metres": 6.4}')
    tape.save(tmp_path / "dover.json", Scrubber({"TIDES_KEY": KEY}))
    toolbox = toolbox_with(replaying(load(tmp_path)))
    with pytest.raises(ToolError) as caught:
        await toolbox.call("tides.tide", {"port": "Brest"})
    assert caught.value.code == "not_recorded"
    assert "GET https://api.tides.example/v1/Brest" in caught.value.message
    assert "Near: GET https://api.tides.example/v1/Dover" in caught.value.message
    await toolbox.aclose()


async def test_the_guard_stands_before_the_cassettes_too() -> None:
    tape = Tape("tides.tide", {"port": "x"}, live=False, exchanges=[Exchange("GET", "https://evil.example/", 200)])
    player = Player([tape])
    options = replaying([tape])
    toolbox = Toolbox(options)
    other = Connector(name="other", version="1.0.0", description="Asks elsewhere.", hosts=("api.tides.example",))

    @other.tool(effect=Effect.READ)
    async def ask(http: Http) -> str:
        """Ask somebody else."""
        return (await http.get("https://evil.example/")).text

    toolbox.add(other)
    with pytest.raises(ToolError, match="not a host this connector has declared"):
        await toolbox.call("other.ask", {})
    assert player.asked == []
    await toolbox.aclose()


def test_requests_fit_by_meaning_and_answers_come_in_their_order() -> None:
    url = "https://api.tides.example/v1?day=2026-05-01&b=2"
    first = Exchange("POST", url, 200, body=b"1", sent={"q": 1, "at": "then"}, ignore=("day", "at"))
    player = Player([Tape("t.t", {}, live=False, exchanges=[first, Exchange(**{**vars(first), "body": b"2"})])])
    asked = "https://api.tides.example/v1?b=2&day=2026-11-23"
    bodies = [player._find("POST", asked, {"q": 1, "at": "now"}).body for _ in range(3)]
    assert bodies == [b"1", b"2", b"1"]
    for method, where, sent in (
        ("GET", asked, {"q": 1}),
        ("POST", asked.replace("b=2", "b=3"), {"q": 1}),
        ("POST", asked, {"q": 2}),
        ("POST", asked.replace("https", "http"), {"q": 1}),
    ):
        with pytest.raises(ToolError, match="No cassette has"):
            player._find(method, where, sent)


def test_a_file_that_is_no_cassette_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"tool": "x"}')
    with pytest.raises(InvalidInput, match=r"bad\.json is not a cassette"):
        load(tmp_path)
    assert load(tmp_path / "absent") == []


def test_what_nobody_would_read_in_a_cassette_is_pointed_out(tmp_path: Path) -> None:
    """A body under "json" is a response's; in a request it would be left out, and nothing would fit."""
    path = tmp_path / "mine.json"
    asked = {"method": "POST", "url": "https://api.tides.example/v1", "json": {"port": "Dover"}}
    whole = {"tool": "tides.tide", "arguments": {}, "recorded_live": False,
             "exchanges": [{"request": asked, "response": {"status": 200}}]}  # fmt: skip
    path.write_text(json.dumps(whole))
    with pytest.raises(InvalidInput, match="a request has 'json', which nobody reads; known are body, ignore, method"):
        Tape.read(path)
    del whole["tool"]
    path.write_text(json.dumps(whole))
    with pytest.raises(InvalidInput, match="it lacks 'tool'"):
        Tape.read(path)
