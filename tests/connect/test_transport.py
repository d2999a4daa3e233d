"""The transport and the client against hostile resolvers, redirects and bodies. Real sockets throughout."""

import asyncio
import contextlib
import gzip
import shutil
import ssl
import subprocess
import threading
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from trimtab.connect import Http, Limits, Retry, ToolError
from trimtab.connect.http import Credential
from trimtab.connect.reach import Reach
from trimtab.connect.transport import PinnedTransport
from wire import Sink, response, serving

Sleep = Callable[[float], Awaitable[None]]
Behave = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
QUICK = Limits(connect=0.5, read=5.0, total=1.0, max_bytes=1_000_000)
SLACK = 10.0
"""What comes here never ends by itself, or in minutes; the machine may have other work."""


@contextlib.asynccontextmanager
async def client(
    url: str,
    *,
    limits: Limits = QUICK,
    retry: Retry = Retry(attempts=1),
    credential: Credential | None = None,
    resolver: Callable[[str, int], list[str]] | None = None,
    sleep: Sleep = asyncio.sleep,
) -> AsyncIterator[Http]:
    """Declares api.example.org, which an override moves to `url`."""
    transport = PinnedTransport(allow_private=True, **({"resolver": resolver} if resolver else {}))
    reach = Reach(("api.example.org", "other.example.org"), base_url=url, allow_private=True)
    try:
        yield Http(reach, limits=limits, retry=retry, transport=transport, credential=credential, sleep=sleep)
    finally:
        await transport.aclose()


async def ok(head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(response(200, b"{}"))


class Opened(httpx.AsyncBaseTransport):
    """Writes down where a socket would have been opened, and answers."""

    def __init__(self, answer: httpx.Response | None = None) -> None:
        self.urls: list[httpx.URL] = []
        self.answer = answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.urls.append(request.url)
        return self.answer or httpx.Response(200, stream=httpx.ByteStream(b"{}"))


async def test_a_rebinding_name_never_reaches_loopback_and_is_looked_up_once() -> None:
    """The resolver says a public address first and loopback ever after: the second answer is never asked for."""
    for _ in range(1000):
        asked: list[str] = []

        def rebinding(host: str, port: int, asked: list[str] = asked) -> list[str]:
            asked.append(host)
            return ["93.184.215.14"] if len(asked) == 1 else ["127.0.0.1"]

        opened = Opened()
        transport = PinnedTransport(resolver=rebinding, inner=opened)
        await Http(Reach(("rebind.example",)), transport=transport).get("/")
        assert asked == ["rebind.example"]
        assert [url.host for url in opened.urls] == ["93.184.215.14"]


async def test_each_attempt_of_a_rebinding_name_is_checked_again() -> None:
    answers = [["93.184.215.14"], ["127.0.0.1"]]
    opened = Opened(httpx.Response(503, stream=httpx.ByteStream(b"")))
    transport = PinnedTransport(resolver=lambda host, port: answers.pop(0), inner=opened)
    with pytest.raises(ToolError, match="private, local or reserved"):
        await Http(Reach(("rebind.example",)), retry=Retry(base=0.001), transport=transport).get("/")
    assert [url.host for url in opened.urls] == ["93.184.215.14"]


async def test_the_connection_goes_to_the_address_that_was_checked_with_the_hosts_own_name() -> None:
    asked: list[str] = []

    def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async with serving(ok) as sink, client(f"http://internal.example:{sink.port}", resolver=resolver) as http:
        await http.get("https://api.example.org/v1")
    assert asked == ["internal.example"]
    assert f"host: internal.example:{sink.port}".encode() in sink.heads[0].lower()


async def test_tls_is_checked_against_the_name_not_the_address(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path, "api.example.org")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    names: list[str] = []
    context.sni_callback = lambda connection, name, ctx: names.append(name)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response(200, b'{"safe": true}'))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    transport = PinnedTransport(allow_private=True, resolver=lambda h, p: ["127.0.0.1"], ca_file=str(certificate))
    reach = Reach(("api.example.org", "wrong.example.org"), allow_private=True)
    http = Http(reach, limits=QUICK, retry=Retry(attempts=1), transport=transport)
    assert (await http.get(f"https://api.example.org:{port}/")).json() == {"safe": True}
    with pytest.raises(ToolError, match="certificate was not accepted"):
        await http.get(f"https://wrong.example.org:{port}/")
    assert names == ["api.example.org", "wrong.example.org"]
    await transport.aclose()
    stranger = PinnedTransport(allow_private=True, resolver=lambda h, p: ["127.0.0.1"])
    with pytest.raises(ToolError, match="certificate was not accepted"):
        await Http(reach, limits=QUICK, retry=Retry(attempts=1), transport=stranger).get(
            f"https://api.example.org:{port}/"
        )
    await stranger.aclose()
    server.close()


def self_signed(folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = folder / "cert.pem", folder / "key.pem"
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed, so no certificate can be made")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout key.pem -out cert.pem"
    names = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run([*command.split(), *names], cwd=folder, check=True, capture_output=True)
    return certificate, key


async def test_proxy_settings_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(ok) as proxy, serving(ok) as sink, client(sink.url) as http:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        await http.get("https://api.example.org/")
    assert len(sink.heads) == 1
    assert proxy.heads == []


REDIRECTS = [
    (301, "http://127.0.0.1:{port}/internal"),
    (302, "http://127.0.0.1:{port}/internal"),
    (303, "http://127.0.0.1:{port}/internal"),
    (307, "http://127.0.0.1:{port}/internal"),
    (308, "http://127.0.0.1:{port}/internal"),
    (302, "//127.0.0.1:{port}/internal"),
    (302, "file:///etc/passwd"),
    (302, "gopher://127.0.0.1:{port}/_x"),
    (302, "http://localhost:{port}/internal"),
    (302, "https://user:pass@api.example.org/internal"),
    (302, "https://2130706433/internal"),
    (302, "\\\\127.0.0.1:{port}\\internal"),
    (302, "http://[::ffff:127.0.0.1]:{port}/internal"),
    (302, "ht\ttp://127.0.0.1:{port}/"),
]


@pytest.mark.parametrize(("status", "location"), REDIRECTS)
async def test_a_redirect_to_somewhere_internal_is_not_followed(status: int, location: str) -> None:
    """The first server may be reached; where it points may not."""
    async with serving(ok) as internal:
        target = location.format(port=internal.port)

        async def point(head: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(response(status, location=target))

        async with serving(point) as sink, client(sink.url, credential=Credential("authorization", value="k")) as http:
            with pytest.raises(ToolError):
                await http.get("https://api.example.org/start")
        assert len(sink.heads) == 1
        assert internal.heads == []


async def test_the_public_web_is_not_a_way_in_by_redirect() -> None:
    """In free mode too: a public page that redirects to loopback gets nowhere."""
    async with serving(ok) as internal:

        async def point(head: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(response(302, location=f"http://inside.example:{internal.port}/"))

        async with serving(point) as public:

            class Public(PinnedTransport):
                """Stands for the internet: one public name leads to a server of this test."""

                async def _addresses(self, host: str, port: int) -> list[str]:
                    return ["127.0.0.1"] if host == "public.example" else await super()._addresses(host, port)

            transport = Public(resolver=lambda host, port: ["127.0.0.1"])
            ports = ("*", f"*:{public.port}", f"*:{internal.port}")
            http = Http(Reach(ports, plain_http=True), limits=QUICK, transport=transport)
            with pytest.raises(ToolError, match=r"inside\.example was not opened"):
                await http.open(f"http://public.example:{public.port}/")
            await transport.aclose()
        assert len(public.heads) == 1
        assert internal.heads == []


async def test_https_is_never_downgraded() -> None:
    opened = Opened(httpx.Response(302, headers={"location": "http://api.example.org/"}, stream=httpx.ByteStream(b"")))
    transport = PinnedTransport(resolver=lambda host, port: ["93.184.215.14"], inner=opened)
    with pytest.raises(ToolError, match="https to plain http"):
        await Http(Reach(("api.example.org",), plain_http=True), transport=transport).get("/")
    assert len(opened.urls) == 1


async def test_a_loop_of_redirects_ends_after_three() -> None:
    async def loop(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(302, location="/again"))

    async with serving(loop) as sink, client(sink.url) as http:
        with pytest.raises(ToolError, match="more than 3 times"):
            await http.get("https://api.example.org/")
    assert len(sink.heads) == 4


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_the_key_is_not_sent_to_another_origin(status: int) -> None:
    async with serving(ok) as second:

        async def point(head: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(response(status, location=f"http://other.example.org:{second.port}/there"))

        async with serving(point) as first:
            transport = PinnedTransport(allow_private=True, resolver=lambda host, port: ["127.0.0.1"])
            reach = Reach(("api.example.org", "other.example.org"), allow_private=True)
            for name in ("authorization", "x-key"):
                http = Http(reach, limits=QUICK, transport=transport, credential=Credential(name, value="s3cret"))
                await http.get(f"http://api.example.org:{first.port}/", headers={"Cookie": "session=1"})
            await transport.aclose()
        assert all(b"s3cret" in head for head in first.heads)
    assert len(second.heads) == 2
    assert not any(b"s3cret" in head or b"cookie" in head.lower() for head in second.heads)


class Growth:
    """How much larger than at its start this process was at its largest, in bytes (Linux keeps the high-water mark)."""

    def __enter__(self) -> "Growth":
        Path("/proc/self/clear_refs").write_text("5")  # the mark falls to what is in use now
        self.before = self._mark()
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = self._mark() - self.before

    @staticmethod
    def _mark() -> int:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024


def bomb(encoding: str) -> bytes:
    """64 MB of zeros, compressed to some 64 kB; sent over and over it stands for 10 GB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, {"gzip": 31, "deflate": 15, "raw": -15}[encoding])
    return b"".join(packer.compress(bytes(1_000_000)) for _ in range(64)) + packer.flush()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "raw"])
async def test_a_compression_bomb_stops_at_the_cap_without_taking_memory(encoding: str) -> None:
    packed = bomb(encoding)
    name = "deflate" if encoding == "raw" else encoding

    async def explode(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\ncontent-encoding: {name}\r\nconnection: close\r\n\r\n".encode())
        for _ in range(160):  # 10 GB unpacked
            writer.write(packed)
            await writer.drain()

    async with serving(explode) as sink, client(sink.url) as http:
        started = time.monotonic()
        with Growth() as growth, pytest.raises(ToolError, match="1,000,000 bytes"):
            await http.get("https://api.example.org/")
        assert time.monotonic() - started < QUICK.total + SLACK
        assert growth.bytes < 64_000_000


async def test_rubbish_after_a_compressed_body_is_capped_too() -> None:
    async def trailing(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n" + gzip.compress(b"hi"))
        for _ in range(10_000):
            writer.write(bytes(65536))
            await writer.drain()

    async with serving(trailing) as sink, client(sink.url) as http:
        with Growth() as growth, pytest.raises(ToolError, match="1,000,000 bytes"):
            await http.get("https://api.example.org/")
        assert growth.bytes < 64_000_000


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress"])
async def test_an_encoding_that_was_not_asked_for_is_refused(encoding: str) -> None:
    async def odd(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(200, b"xxxx", content_encoding=encoding))

    async with serving(odd) as sink, client(sink.url) as http:
        with pytest.raises(ToolError, match="not asked for"):
            await http.get("https://api.example.org/")


async def test_a_damaged_compressed_body_is_said() -> None:
    async def broken(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(200, b"\x1f\x8b\x08\x00garbage", content_encoding="gzip"))

    async with serving(broken) as sink, client(sink.url) as http:
        with pytest.raises(ToolError, match="damaged"):
            await http.get("https://api.example.org/")


async def drip(head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    for _ in range(1000):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.2)


async def drip_head(head: bytes, writer: asyncio.StreamWriter) -> None:
    for byte in b"HTTP/1.1 200 OK\r\n" + b"x-slow: 1\r\n" * 1000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.2)


async def endless(head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(100_000):
        writer.write(b"1\r\nx\r\n")
        await writer.drain()
        await asyncio.sleep(0.001)


async def events(head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
    for number in range(100_000):
        writer.write(f"data: {number}\n\n".encode())
        await writer.drain()
        await asyncio.sleep(0.05)


async def blackhole(head: bytes, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def empty_gzip_blocks(head: bytes, writer: asyncio.StreamWriter) -> None:
    """Compressed bytes that decode to nothing, for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n")
    block = zlib.compressobj(9, zlib.DEFLATED, 31).flush(zlib.Z_FULL_FLUSH)
    for _ in range(100_000):
        writer.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
        await writer.drain()
        block = b"\x00\x00\x00\xff\xff"  # one more stored block of no bytes
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("behave", [drip, drip_head, endless, events, blackhole, empty_gzip_blocks])
async def test_what_never_ends_ends_at_the_deadline(
    behave: Callable[[bytes, asyncio.StreamWriter], Awaitable[None]],
) -> None:
    async with serving(behave) as sink, client(sink.url, retry=Retry(attempts=3)) as http:
        started = time.monotonic()
        with pytest.raises(ToolError, match="within 1 seconds"):
            await http.get("https://api.example.org/")
        assert time.monotonic() - started < QUICK.total + SLACK


async def test_a_resolver_that_hangs_does_not_hold_up_the_deadline() -> None:
    release = threading.Event()

    def hanging(host: str, port: int) -> list[str]:
        release.wait(20)
        return ["127.0.0.1"]

    transport = PinnedTransport(resolver=hanging, lookup_timeout=0.3)
    started = time.monotonic()
    with pytest.raises(ToolError, match="took too long"):
        await Http(Reach(("slow.example",)), transport=transport).get("/")
    assert time.monotonic() - started < 0.3 + SLACK
    release.set()
    await transport.aclose()


async def test_a_refused_and_a_broken_connection_are_told_apart() -> None:
    async def reset(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")

    async with serving(reset) as sink, client(sink.url) as http:
        with pytest.raises(ToolError, match="broke off"):
            await http.get("https://api.example.org/")
    async with client(sink.url) as http:
        with pytest.raises(ToolError, match="nothing answers there"):
            await http.get("https://api.example.org/")


async def test_a_file_that_is_too_large_says_the_limit() -> None:
    async def large(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(response(200, bytes(1_000_001)))

    async with serving(large) as sink, client(sink.url) as http:
        with pytest.raises(ToolError, match="more than 1,000,000 bytes"):
            await http.get("https://api.example.org/")


async def test_gzip_and_deflate_in_every_form_are_read() -> None:
    bodies = [("gzip", gzip.compress(b'{"a": 1}')), ("deflate", zlib.compress(b'{"a": 1}'))]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bodies.append(("deflate", packer.compress(b'{"a": 1}') + packer.flush()))
    for encoding, body in bodies:

        async def send(head: bytes, writer: asyncio.StreamWriter, encoding: str = encoding, body: bytes = body) -> None:
            writer.write(response(200, body, content_encoding=encoding))

        async with serving(send) as sink, client(sink.url) as http:
            assert (await http.get("https://api.example.org/")).json() == {"a": 1}


def sink_of(statuses: list[int], **headers: str) -> Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]:
    left = list(statuses)

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        status = left.pop(0) if left else 200
        writer.write(response(status, b"{}", **(headers if status != 200 else {})))

    return answer


class Naps:
    """A sleep that writes down instead of sleeping."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)


async def attempts(behave: Behave, method: str, naps: Naps, **options: str) -> Sink:
    retry = Retry(attempts=3, base=0.1, cap=1.0, uniform=lambda low, high: high)
    async with serving(behave) as sink, client(sink.url, retry=retry, sleep=naps) as http:
        with contextlib.suppress(ToolError):
            await http.request(method, "https://api.example.org/", **options)  # type: ignore[arg-type]
        return sink


async def test_a_get_is_tried_again_with_growing_waits() -> None:
    naps = Naps()
    assert len((await attempts(sink_of([503, 502]), "GET", naps)).heads) == 3
    assert naps.taken == [0.1, 0.2]


@pytest.mark.parametrize(
    ("method", "key", "sent"), [("POST", "", 1), ("PATCH", "", 1), ("POST", "k1", 3), ("PUT", "", 3), ("DELETE", "", 3)]
)
async def test_only_what_is_safe_to_repeat_is_repeated(method: str, key: str, sent: int) -> None:
    sink = await attempts(sink_of([503] * 9), method, Naps(), idempotency_key=key)
    assert len(sink.heads) == sent
    assert all(b"idempotency-key: k1" in head for head in sink.heads) == bool(key)


async def test_a_thousand_posts_without_a_key_are_sent_once_each() -> None:
    async def cut(head: bytes, writer: asyncio.StreamWriter) -> None:
        return  # closes without an answer: nobody knows whether it was done

    async with serving(cut) as sink, client(sink.url, retry=Retry(attempts=3), limits=Limits(total=5.0)) as http:
        for _ in range(1000):
            with pytest.raises(ToolError):
                await http.post("https://api.example.org/", json={"n": 1})
        assert len(sink.heads) == 1000


async def test_retry_after_is_kept_when_there_is_time_for_it() -> None:
    naps = Naps()
    assert len((await attempts(sink_of([429], retry_after="0"), "GET", naps)).heads) == 2
    assert naps.taken == [0.0]


async def test_a_wait_longer_than_the_deadline_gives_up_at_once() -> None:
    naps = Naps()
    busy = sink_of([429] * 3, retry_after="3600")
    async with serving(busy) as sink, client(sink.url, retry=Retry(attempts=3), sleep=naps) as http:
        with pytest.raises(ToolError, match=r"Try again in 3600 seconds \(status 429\)"):
            await http.get("https://api.example.org/")
    assert len(sink.heads) == 1
    assert naps.taken == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 500])
async def test_what_would_fail_again_is_not_tried_again(status: int) -> None:
    assert len((await attempts(sink_of([status] * 3), "GET", Naps())).heads) == 1
