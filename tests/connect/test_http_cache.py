"""What a service said before is used again where RFC 9111 permits, and said to be old where it is."""

import asyncio
import time
from email.utils import formatdate
from typing import Annotated, Any

import pytest
from pydantic import SecretStr

from trimtab.connect import (
    ApiKey,
    Cache,
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
from trimtab.connect.caching import Cached
from trimtab.connect.guards import Guards
from trimtab.connect.http import Credential, Declared
from trimtab.connect.reach import Reach
from trimtab.connect.transport import PinnedTransport
from wire import Sink, response, serving

HOUR = 3600.0


class Service:
    """Counts its answers; `headers`, `status` and `etag` can change between them."""

    def __init__(self, **headers: str) -> None:
        self.headers = headers
        self.status = 200
        self.said = 0
        self.confirmed = 0

    async def __call__(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        etag = self.headers.get("etag", "")
        if etag and f"if-none-match: {etag}".encode() in head.lower():
            self.confirmed += 1
            writer.write(response(304, b"", **self.headers))
            return
        self.said += 1
        writer.write(response(self.status, f"answer {self.said}".encode(), **self.headers))


def client(sink: Sink, guards: Guards, effect: Effect = Effect.READ, **options: Any) -> Http:
    reach = Reach(("api.example.org",), base_url=sink.url, allow_private=True)
    transport, declared = PinnedTransport(allow_private=True), Declared(effect=effect)
    return Http(reach, transport=transport, guards=guards, declared=declared, retry=Retry(attempts=1), **options)


async def texts(http: Http, *paths: str) -> list[str]:
    return [(await http.get(path)).text for path in paths]


async def test_a_reply_is_fresh_for_the_declared_time_where_the_service_says_nothing() -> None:
    service = Service()
    async with serving(service) as sink:
        http = client(sink, Guards(cached=Cached(Cache(lifetime=HOUR))))
        assert await texts(http, "/a", "/a", "/b") == ["answer 1", "answer 1", "answer 2"]
        first, again = (reply for reply in http.replies if reply.url.endswith("/a"))
    assert (first.from_cache, again.from_cache, again.stale) == (False, True, False)
    assert again.at == pytest.approx(first.at, abs=1)
    assert service.said == 2


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        ({"cache_control": "no-store"}, 2),
        ({"cache_control": "max-age=0"}, 2),
        ({"cache_control": "no-cache"}, 2),
        ({"expires": "Thu, 01 Jan 1970 00:00:00 GMT"}, 2),
        ({"cache_control": "max-age=60", "age": "61"}, 2),
        ({"cache_control": "max-age=60"}, 1),
        ({"cache_control": "max-age=60", "age": "30"}, 1),
        ({"cache_control": "max-age=60", "date": formatdate(0, usegmt=True)}, 2),
        ({"expires": formatdate(time.time() + 3000, usegmt=True)}, 1),
        ({"expires": formatdate(time.time() + 3000, usegmt=True), "age": "4000"}, 2),
        ({"cache_control": "private"}, 1),
        ({"vary": "accept"}, 1),
        ({"vary": "*"}, 2),
    ],
)
async def test_the_services_own_word_wins(headers: dict[str, str], asked: int) -> None:
    service = Service(**headers)
    async with serving(service) as sink:
        await texts(client(sink, Guards(cached=Cached(Cache(lifetime=HOUR)))), "/", "/")
    assert service.said == asked


async def test_a_connector_that_declares_no_cache_asks_each_time() -> None:
    service = Service(cache_control="max-age=60")
    async with serving(service) as sink:
        await texts(client(sink, Guards()), "/", "/")
    assert service.said == 2


async def test_what_the_service_confirms_is_not_sent_again() -> None:
    service = Service(cache_control="max-age=0", etag='"v1"')
    async with serving(service) as sink:
        http = client(sink, Guards(cached=Cached(Cache())))
        assert await texts(http, "/", "/", "/") == ["answer 1"] * 3
        assert (service.said, service.confirmed) == (1, 2)
        assert [reply.from_cache for reply in http.replies] == [False, False, False]
        service.headers["etag"] = '"v2"'
        assert await texts(http, "/") == ["answer 2"]


async def test_answers_that_differ_by_a_header_are_kept_apart() -> None:
    service = Service(vary="accept-language", cache_control="max-age=60")
    async with serving(service) as sink:
        http = client(sink, Guards(cached=Cached(Cache())))
        said = [(await http.get("/", headers={"accept-language": lang})).text for lang in ("de", "fr", "de", "fr")]
    assert said == ["answer 1", "answer 2", "answer 1", "answer 2"]


async def test_changing_something_forgets_what_was_said_of_it() -> None:
    service = Service(cache_control="max-age=60")
    async with serving(service) as sink:
        guards = Guards(cached=Cached(Cache()))
        http = client(sink, guards)
        await texts(http, "/", "/")
        await client(sink, guards, Effect.WRITE).put("/", json={})
        assert await texts(http, "/") == ["answer 3"]


# ---------------------------------------------------------------------- whose answers


async def test_what_one_account_was_told_is_never_told_to_another() -> None:
    async def echo(head: bytes, writer: asyncio.StreamWriter) -> None:
        key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"x-key"))
        writer.write(response(200, key, cache_control="max-age=60"))

    async with serving(echo) as sink:
        secret = {"KEY": "first-key"}
        connector = Connector(
            name="mine",
            version="1",
            description="x",
            hosts=("api.example.org",),
            auth=ApiKey(env="KEY", header="X-Key"),
            cache=Cache(lifetime=HOUR),
        )
        heard: list[str] = []

        @connector.tool(effect=Effect.READ)
        async def whoami(http: Http) -> str:
            """Say who asks."""
            heard.append((await http.get("/me")).text)
            return "."

        here = Override(base_url=sink.url, allow_private=True)
        toolbox = Toolbox(ConnectOptions(overrides={"mine": here}, secret=lambda name: SecretStr(secret[name])))
        toolbox.add(connector)
        for key in ("first-key", "first-key", "second-key", "second-key", "first-key"):
            secret["KEY"] = key
            await toolbox.call("mine.whoami", {})
            assert heard[-1].lower() == f"x-key: {key}"
    assert len(sink.heads) == 2


async def test_the_key_itself_is_not_kept_nor_in_the_address_of_a_reply() -> None:
    service = Service(cache_control="max-age=60")
    async with serving(service) as sink:
        cached = Cached(Cache())
        http = client(sink, Guards(cached=cached), credential=Credential(query="key", value="s3cret-value"))
        reply = await http.get("/", params={"q": "x"})
    assert b"key=s3cret-value" in sink.heads[0]
    assert reply.url.endswith("/?q=x")
    kept = list(vars(cached.store)["_kept"].values())
    assert kept
    assert "s3cret" not in repr(kept)


# ---------------------------------------------------------------------- the service is down


def tides(**options: Any) -> Connector:
    connector = Connector(
        name="tides", version="1", description="x", hosts=("api.example.org",), retry=Retry(attempts=1), **options
    )

    @connector.tool(effect=Effect.READ)
    async def tide(port: Annotated[str, "A port"], http: Http) -> Result:
        """Say the tide."""
        reply = await http.get("/{port}", path={"port": port})
        return Result(text=reply.text, answer=f"{reply.text}.")

    @connector.tool(effect=Effect.WRITE)
    async def correct(port: Annotated[str, "A port"], http: Http) -> str:
        """Look, then write."""
        return (await http.get("/{port}", path={"port": port})).text

    return connector


def toolbox_at(sink: Sink, connector: Connector) -> Toolbox:
    toolbox = Toolbox(ConnectOptions(overrides={"tides": Override(base_url=sink.url, allow_private=True)}))
    toolbox.add(connector)
    return toolbox


async def test_an_older_answer_stands_in_for_a_service_that_is_down_and_says_so() -> None:
    service = Service(cache_control="max-age=60", age="600")
    async with serving(service) as sink:
        toolbox = toolbox_at(sink, tides(cache=Cache(stale_if_error=HOUR)))
        fresh = await toolbox.call("tides.tide", {"port": "dover"})
        service.status = 503
        old = await toolbox.call("tides.tide", {"port": "dover"})
        with pytest.raises(ToolError, match="status 503"):
            await toolbox.call("tides.tide", {"port": "brest"})
    assert "stale" not in fresh.meta
    assert old.meta["stale"] is True
    assert "the service could not be asked just now.]\nanswer 1" in old.text
    assert old.answer.startswith("answer 1. [This is of 2")
    assert old.sources[0].retrieved_at == fresh.sources[0].retrieved_at
    down = toolbox.connector("tides").health.recent[1]
    assert (down.ok, down.stale, down.cached) == (True, True, True)


async def test_an_older_answer_stands_in_when_nobody_answers_at_all() -> None:
    service = Service(cache_control="max-age=60", age="600")
    async with serving(service) as sink:
        toolbox = toolbox_at(sink, tides(cache=Cache(stale_if_error=HOUR)))
        await toolbox.call("tides.tide", {"port": "dover"})
    outcome = await toolbox.call("tides.tide", {"port": "dover"})
    assert outcome.meta["stale"] is True


@pytest.mark.parametrize(
    "headers",
    [
        {"cache_control": "max-age=60", "age": "4000"},
        {"cache_control": "max-age=60, must-revalidate", "age": "600"},
        {"cache_control": "no-cache"},
        {"cache_control": "no-store"},
        {"cache_control": "max-age=60, stale-if-error=10", "age": "600"},
        {"date": formatdate(0, usegmt=True), "expires": formatdate(60, usegmt=True)},
    ],
)
async def test_an_answer_too_old_or_forbidden_does_not_stand_in(headers: dict[str, str]) -> None:
    service = Service(**headers)
    async with serving(service) as sink:
        toolbox = toolbox_at(sink, tides(cache=Cache(stale_if_error=HOUR)))
        await toolbox.call("tides.tide", {"port": "dover"})
        service.status = 503
        with pytest.raises(ToolError, match="status 503"):
            await toolbox.call("tides.tide", {"port": "dover"})


async def test_who_is_about_to_write_looks_afresh() -> None:
    service = Service(cache_control="max-age=60", age="10")
    async with serving(service) as sink:
        toolbox = toolbox_at(sink, tides(cache=Cache(lifetime=HOUR)))
        await toolbox.call("tides.tide", {"port": "dover"})
        assert (await toolbox.call("tides.correct", {"port": "dover"})).text == "answer 2"


# ---------------------------------------------------------------------- bounds


async def test_the_cache_stays_within_its_memory_and_keeps_what_was_used_last() -> None:
    service = Service(cache_control="max-age=60")
    async with serving(service) as sink:
        cached = Cached(Cache(max_bytes=50_000))
        http = client(sink, Guards(cached=cached))
        await texts(http, "/kept")
        for number in range(60):
            await texts(http, f"/{number}", "/kept")
        assert len(cached.store) <= 25
        assert service.said == 61


def test_a_cache_cannot_be_negative() -> None:
    with pytest.raises(InvalidInput, match="negative"):
        Cache(lifetime=-1)
