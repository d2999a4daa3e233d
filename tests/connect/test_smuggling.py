"""Whatever a model puts into an argument, the request goes where the declaration says, and is one request."""

import asyncio
from typing import Annotated
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trimtab.connect import (
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
from trimtab.connect.http import checked_headers
from trimtab.connect.reach import Reach
from wire import Sink, response, serving

connector = Connector(
    name="probe",
    version="1.0.0",
    description="Asks with whatever it is given.",
    hosts=("api.example.org",),
    retry=Retry(attempts=1),
)


@connector.tool(effect=Effect.READ, read_by_post=True)
async def find(
    city: Annotated[str, "Goes into the path"],
    query: Annotated[str, "Goes into the query"],
    tag: Annotated[str, "Goes into a header"],
    body: Annotated[str, "Goes into the body"],
    http: Http,
) -> Result:
    """Send each argument to its place."""
    await http.post(
        "/v1/{city}/info", path={"city": city}, params={"q": query}, headers={"X-Tag": tag}, json={"text": body}
    )
    return Result(text="sent")


NASTY = [
    "..", ".", "/", "//", "\\", "../../admin", "..%2f..%2fadmin", "%2e%2e", "@evil.example", "//evil.example/",
    "http://evil.example", "x\r\nHost: evil.example", "x\nX-Injected: 1", "\r\n\r\nGET /admin HTTP/1.1\r\n\r\n",
    "\x00", "?admin=1", "#fragment", ";admin", "&admin=1", "{city}", "{0.__class__}", "%0d%0aX: 1", "\u2028",
    "\u560d\u560a", "evil.example:80",
    "１２７.0.0.1", "' OR 1=1 --", "$(id)", "`id`", "\ud800", "a" * 4000, " ", "", "\t", "é", "𝕏",
]  # fmt: skip
ARGUMENT = st.one_of(
    st.text(max_size=60),
    st.sampled_from(NASTY),
    st.builds(lambda left, right: left + right, st.sampled_from(NASTY), st.text(max_size=10)),
    st.text(alphabet="./\\%@:?#&\r\n\x00{}[]0aA2eEfF \t", max_size=30),
)


def smuggle(examples: int) -> int:
    """Run that many argument sets through the toolbox; returns how many requests were sent."""
    with asyncio.Runner() as runner:
        entered = serving(answer)
        sink = runner.run(entered.__aenter__())
        toolbox = Toolbox(ConnectOptions(overrides={"probe": Override(base_url=sink.url, allow_private=True)}))
        toolbox.add(connector)

        @settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck))
        @given(city=ARGUMENT, query=ARGUMENT, tag=ARGUMENT, body=ARGUMENT)
        def attempt(city: str, query: str, tag: str, body: str) -> None:
            before = len(sink.heads)
            arguments = {"city": city, "query": query, "tag": tag, "body": body}
            try:
                runner.run(toolbox.call("probe.find", arguments))
            except (ToolError, InvalidInput):
                assert len(sink.heads) == before
            else:
                assert len(sink.heads) == before + 1
                checked = connector.tools["find"].arguments.model_validate(arguments)
                one_honest_request(sink, checked.model_dump()["city"])

        attempt()
        runner.run(entered.__aexit__(None, None, None))
        return len(sink.heads)


async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(response(200, b"{}"))


def one_honest_request(sink: Sink, city: str) -> None:
    line, *headers = sink.heads[-1].removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, target, version = line.split(b" ")
    assert (method, version) == (b"POST", b"HTTP/1.1")
    path, _, query = target.partition(b"?")
    parts = path.split(b"/")
    assert [parts[0], parts[1], parts[3], len(parts)] == [b"", b"v1", b"info", 4]
    assert unquote(parts[2].decode("ascii")) == city
    assert query.count(b"=") == 1
    assert query.startswith(b"q=")
    assert b"&" not in query
    names = [header.split(b":")[0].lower() for header in headers]
    assert sorted(names) == EXPECTED
    assert headers[names.index(b"host")] == b"Host: " + sink.url.removeprefix("http://").encode()
    assert not any(byte < 32 and byte != 9 for header in headers for byte in header)


EXPECTED = sorted([b"host", b"accept", b"user-agent", b"x-tag", b"content-type", b"accept-encoding", b"content-length"])


def test_no_argument_changes_where_a_request_goes_or_what_it_is() -> None:
    assert smuggle(400) > 20


@pytest.mark.slow
def test_ten_thousand_argument_sets_change_nothing() -> None:
    assert smuggle(10_000) > 500


TEMPLATES = ("/v1/{x}", "https://api.example.org/{x}/y", "https://api.example.org/v1?", "https://{x}.example.org/v1")


@settings(max_examples=1000, database=None)
@given(template=st.sampled_from(TEMPLATES), value=ARGUMENT, query=ARGUMENT)
def test_a_built_url_keeps_scheme_host_and_port(template: str, value: str, query: str) -> None:
    reach = Reach(("api.example.org", "*.example.org") if "{x}.ex" in template else ("api.example.org",))
    try:
        url = reach.build(template, {"x": value}, {"q": query})
    except ToolError:
        return
    assert url.scheme == "https"
    assert url.port is None
    assert url.host.endswith(".example.org")
    assert url.host.count(".") == 2
    assert not url.userinfo
    assert url.fragment == ""


@settings(max_examples=1000, database=None)
@given(text=st.one_of(ARGUMENT, ARGUMENT.map(lambda text: "https://" + text), ARGUMENT.map(lambda t: "//" + t)))
def test_any_text_given_as_an_address_is_checked_or_refused(text: str) -> None:
    reach = Reach(("api.example.org",))
    try:
        url = reach.free(text)
    except ToolError:
        return
    assert (url.scheme, url.host, url.port) == ("https", "api.example.org", None)


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/",
        "https://api.example.org.evil.example/",
        "https://api.example.org@evil.example/",
        "https://evil.example\\@api.example.org/",
        "https://api.example.org:8443/",
        "http://api.example.org/",
        "ftp://api.example.org/",
        "https://user:pw@api.example.org/",
        "https://api.example.org\t/",
        "//api.example.org/",
        "javascript:alert(1)",
        "https://",
        "https:///etc/passwd",
        "https://[::1",
        "https://api.example.org:99999/",
        "https://api.example.org:x/",
    ],
)
def test_what_was_not_declared_is_refused_before_any_look_up(url: str) -> None:
    with pytest.raises(ToolError):
        Reach(("api.example.org",)).free(url)


def test_a_wildcard_stands_for_subdomains_only() -> None:
    reach = Reach(("*.wikipedia.org",))
    assert reach.free("https://de.wikipedia.org/").host == "de.wikipedia.org"
    for host in ("evilwikipedia.org", "wikipedia.org", "de.wikipedia.org.evil.example", "wikipedia.org.evil.example"):
        with pytest.raises(ToolError, match="has declared"):
            reach.free(f"https://{host}/")


def test_a_port_is_declared_for_its_own_host() -> None:
    reach = Reach(("a.example:8443", "b.example"))
    assert reach.free("https://a.example:8443/").port == 8443
    assert reach.free("https://b.example/").port is None
    for url in ("https://a.example/", "https://b.example:8443/"):
        with pytest.raises(ToolError, match="Port"):
            reach.free(url)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"X-A": "1\r\nX-B: 2"}, "cannot carry"),
        ({"X-A": "1\n"}, "cannot carry"),
        ({"X-A": "\x00"}, "cannot carry"),
        ({"X-A": "é"}, "cannot carry"),
        ({"X A": "1"}, "cannot be set"),
        ({"X-A:": "1"}, "cannot be set"),
        ({"": "1"}, "cannot be set"),
        ({"Host": "evil.example"}, "cannot be set"),
        ({"Content-Length": "0"}, "cannot be set"),
        ({"transfer-encoding": "chunked"}, "cannot be set"),
        ({"X-A": "a" * 9000}, "cannot carry"),
    ],
)
def test_a_header_is_one_line_and_not_one_of_ours(headers: dict[str, str], said: str) -> None:

    with pytest.raises(ToolError, match=said):
        checked_headers(headers)
