"""The lines about arguments: whatever a model sends, requests go where they always go, and each is one request.

Arguments are made from the tool's schema by Hypothesis, from the cassettes' arguments, and from a list of strings that
have broken clients before. What is sent is looked at on the wire, byte by byte.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from trimtab.domain.errors import InvalidInput, MissingExtra, TrimtabError

from ..cassettes.playing import SignedIn, placeholder, without_network
from ..declare import Declaration
from ..reach import _matches
from ..toolbox import ConnectOptions, Override, Toolbox
from .bench import Bench, Stuck
from .faults import Routed, Site, honest, serving
from .requirement import Finding, Requirement, does_not_apply, verdict
from .source import token_urls
from .trial import STRAY
from .watch import watching

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

NASTY = [
    "..", ".", "/", "//", "\\", "../../admin", "..%2f..%2fadmin", "%2e%2e", "@evil.example", "//evil.example/",
    "http://evil.example", "https://evil.example/x", ".evil.example/", ":8443/", ":80", "x\r\nHost: evil.example",
    "x\nX-Injected: 1", "\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n", "\x00", "?admin=1", "#fragment", ";admin",
    "&admin=1", "{0.__class__}", "%0d%0aX: 1", "\u2028", "\u560d\u560a", "１２７.0.0.1", "127.0.0.1", "[::1]",
    "' OR 1=1 --", "$(id)", "`id`", "a" * 4000, " ", "", "\t", "é", "𝕏", "javascript:alert(1)", "file:///etc/passwd",
]  # fmt: skip
SECONDS = 60.0


@dataclass
class Seen:
    """What fuzzing one connector brought to light."""

    tried: int = 0
    requests: int = 0
    moved: list[str] = field(default_factory=list)
    smuggled: list[str] = field(default_factory=list)
    untyped: list[str] = field(default_factory=list)


def fuzzed(bench: Bench) -> Seen:
    """Run it once; the three lines look at the same run."""
    kept: Seen | None = bench.__dict__.get("_fuzzed")
    if kept is None:
        kept = bench.__dict__["_fuzzed"] = Seen()
        for tool in bench.tools():
            _tool(bench, tool, kept)
        bench.count("argument sets", kept.tried)
        bench.count("requests of argument sets", kept.requests)
    return kept


def _tool(bench: Bench, tool: Declaration, seen: Seen) -> None:
    try:
        from hypothesis import HealthCheck, Phase, given, settings
    except ImportError as error:
        raise MissingExtra("Checking a connector", "check") from error
    session = _Session(bench, tool, seen)
    quiet = settings(
        max_examples=bench.examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # findings are collected, not shrunk
    )

    @quiet
    @given(arguments(tool, session.known, session.hosts))
    def attempt(sent: dict[str, Any]) -> None:
        if not session.stuck:
            try:
                bench.run(lambda: session.once(sent), tool.timeout + 3.0)
            except Stuck as stuck:
                session.stuck = True
                seen.untyped.append(f"{tool.dotted} with {_shown(sent)}: {stuck}.")

    attempt()
    if not session.stuck:
        bench.run(session.close, 5.0)


class _Session:
    """One tool's server and toolbox, used for every argument set. They live on the bench's thread."""

    def __init__(self, bench: Bench, tool: Declaration, seen: Seen) -> None:
        self.tool, self.seen, self.stuck = tool, seen, False
        self.known = [tape.arguments for tape in bench.tapes_for(tool)]
        self._bench = bench
        self._site = Site([e for tape in bench.tapes_for(tool) for e in tape.exchanges], any_answer=True)
        self._origins = {urlsplit(exchange.url)[:2] for exchange in self._site.exchanges}
        if not self.known:  # that a cassette is missing is said by another line
            schemes = ("https", "http") if bench.connector.plain_http else ("https",)
            self._origins |= {(scheme, host) for scheme in schemes for host in bench.connector.hosts if "*" not in host}
        self._origins |= {urlsplit(url)[:2] for url in token_urls(bench.connector)}
        self.hosts = sorted({*bench.connector.hosts, *(netloc for _, netloc in self._origins)} - {"*"})
        self._options = next((tape.setup for tape in bench.tapes_for(tool) if tape.options), {})
        self._stack: contextlib.AsyncExitStack | None = None

    async def once(self, sent: dict[str, Any]) -> None:
        if self._stack is None:
            self._stack = contextlib.AsyncExitStack()
            await self._stack.enter_async_context(serving(self._site, honest, None))
        self._site.ask.clear()
        routed: list[Routed] = []

        def below() -> Routed:
            routed.append(Routed(self._site, self._bench.certificates, tls=False))
            return routed[-1]

        overrides = {self._bench.connector.name: Override(options=self._options)}
        toolbox = Toolbox(
            ConnectOptions(
                resolver=without_network, below=below, secret=placeholder, keeper=SignedIn(), overrides=overrides
            )
        )
        toolbox.add(self._bench.connector)
        self.seen.tried += 1
        with watching({self._site.port}) as watch:
            refused = await self._call(toolbox, sent)
        await toolbox.aclose()
        for transport in routed:
            await transport.aclose()
        await self._arrived()
        dialed = [url for transport in routed for _, _, url in transport.dialed]
        told = f"{self.tool.dotted} with {_shown(sent)}"
        if refused and self._site.ask:
            self.seen.untyped.append(f"{told}: refused its arguments and asked all the same.")
        self.seen.requests += len(self._site.ask)
        self.seen.moved += [f"{told} asked {url[:120]}." for url in dialed if not self._expected(url, sent)]
        self.seen.moved += [f"{told} opened {what} past its client." for what in watch.reached]
        self.seen.smuggled += [
            f"{told}: {problem}" for asked in self._site.ask for problem in one_request(asked.head, asked.extra)
        ]

    async def _call(self, toolbox: Toolbox, sent: dict[str, Any]) -> bool:
        """Whether the arguments themselves were refused."""
        try:
            await toolbox.call(self.tool.dotted, sent)
        except InvalidInput:
            return True
        except TrimtabError as error:
            if STRAY in error.message:
                self.seen.untyped.append(f"{self.tool.dotted} with {_shown(sent)}: {error.message[:200]}")
        except Exception as error:
            self.seen.untyped.append(f"{self.tool.dotted} with {_shown(sent)}: {type(error).__name__}: {error}")
        return False

    async def _arrived(self) -> None:
        """Let the server see the end of each connection, and with it what came after a request."""
        for _ in range(3):
            await asyncio.sleep(0)

    def _expected(self, url: str, sent: Mapping[str, Any]) -> bool:
        """Where this tool always goes; or where an argument may send it (a label of ``*.x``, a host of ``*``)."""
        scheme, host = urlsplit(url)[:2]
        if (scheme, host) in self._origins:
            return True
        values = {str(value).strip().lower() for value in sent.values()}
        for pattern in self._bench.connector.hosts:
            if pattern == "*" and any(host in _hosts_named(value) for value in values):
                return True
            if pattern.startswith("*.") and _matches(pattern, host) and host.removesuffix(pattern[1:]) in values:
                return any(scheme == known for known, _ in self._origins)
        return False

    async def close(self) -> None:
        if self._stack:
            await self._stack.aclose()


def one_request(head: bytes, extra: bytes) -> list[str]:
    """What makes these bytes more than one plain request."""
    line, *headers = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    found = []
    if len(line.split(b" ")) != 3 or not line.endswith(b" HTTP/1.1"):
        found.append(f"its request line is {line[:80]!r}.")
    names = [header.partition(b":")[0].strip().lower() for header in headers]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        found.append(f"header {sorted(twice)[0]!r} was sent twice.")
    if any(byte < 32 and byte != 9 for header in (line, *headers) for byte in header):
        found.append("a control character was sent in the head.")
    if {b"x-injected", b"x"} & set(names) or (extra and b"HTTP/1.1" in extra):
        found.append("an argument became a header or a second request.")
    return found


def _hosts_named(value: str) -> set[str]:
    """The hosts that a text names in full: as an address, with or without its scheme."""
    found = set()
    for text in (value, f"https://{value}"):
        with contextlib.suppress(ValueError, httpx.InvalidURL):
            parts = httpx.URL(text)
            found.add(
                f"{parts.raw_host.decode('ascii')}:{parts.port}" if parts.port else parts.raw_host.decode("ascii")
            )
    return found


def _shown(sent: Mapping[str, Any]) -> str:
    return repr(dict(sent))[:120]


# ---------------------------------------------------------------------- arguments


def arguments(tool: Declaration, known: list[dict[str, Any]], hosts: list[str]) -> SearchStrategy[dict[str, Any]]:
    """Argument sets: after the schema, or recorded ones with one value replaced."""
    from hypothesis import strategies as st

    schema = tool.json_schema()
    whole = shaped(schema, schema.get("$defs", {}), hosts)
    if not known or not schema.get("properties"):
        return whole
    names = sorted(schema["properties"])
    parts = {name: shaped(schema["properties"][name], schema.get("$defs", {}), hosts) for name in names}

    @st.composite
    def changed(draw: Any) -> dict[str, Any]:
        sent = dict(draw(st.sampled_from(known)))
        name = draw(st.sampled_from(names))
        if isinstance(sent.get(name), str) and draw(st.booleans()):
            before, after = draw(st.sampled_from(["", *NASTY])), draw(st.sampled_from([*NASTY, *hosts * 6]))
            return {**sent, name: f"{before}{sent[name]}{after}" if draw(st.booleans()) else f"{sent[name]}{after}"}
        return {**sent, name: draw(parts[name])}

    return st.one_of(changed(), changed(), whole)


def shaped(schema: Mapping[str, Any], defs: Mapping[str, Any], hosts: list[str]) -> SearchStrategy[Any]:
    """Values after a JSON schema; where one is of text, mostly nasty ones."""
    from hypothesis import strategies as st

    if "$ref" in schema:
        return shaped(defs.get(str(schema["$ref"]).rpartition("/")[2], {}), {}, hosts)
    if "enum" in schema or "const" in schema:
        return st.sampled_from([*schema.get("enum", [schema.get("const")]), *NASTY[:8]])
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return st.one_of([shaped(part, defs, hosts) for part in schema[key]])
    kind = schema.get("type")
    if kind == "object":
        return _object(schema, defs, hosts)
    if kind == "array":
        most = min(int(schema.get("maxItems", 4)), 4)
        return st.lists(shaped(schema.get("items", {}), defs, hosts), max_size=most)
    if kind == "boolean":
        return st.booleans()
    if kind == "integer":
        return st.one_of(st.integers(schema.get("minimum"), schema.get("maximum")), st.integers())
    if kind == "number":
        return st.floats(schema.get("minimum"), schema.get("maximum"), allow_nan=False, allow_infinity=False)
    if kind == "null":
        return st.none()
    return _text(schema, hosts)


def _object(schema: Mapping[str, Any], defs: Mapping[str, Any], hosts: list[str]) -> SearchStrategy[Any]:
    from hypothesis import strategies as st

    needed = set(schema.get("required", ()))
    parts = {name: shaped(part, defs, hosts) for name, part in schema.get("properties", {}).items()}
    return st.fixed_dictionaries(
        {name: part for name, part in parts.items() if name in needed},
        optional={name: part for name, part in parts.items() if name not in needed},
    )


def _text(schema: Mapping[str, Any], hosts: list[str]) -> SearchStrategy[str]:
    from hypothesis import strategies as st

    most = min(int(schema.get("maxLength", 4000)), 4000)
    ways: list[SearchStrategy[str]] = [
        st.text(max_size=min(most, 40)),
        st.sampled_from([*NASTY, *hosts * 4, *(f"https://{host}/" for host in hosts), *(f"@{host}" for host in hosts)]),
        st.builds(lambda left, right: left + right, st.sampled_from(NASTY), st.text(max_size=10)),
        st.text(alphabet="./\\%@:?#&\r\n\x00{}[]0aA2eEfF \t", max_size=30),
    ]
    if schema.get("pattern"):
        ways += [st.from_regex(schema["pattern"], fullmatch=True)] * 2
    if schema.get("format") in ("date", "date-time"):
        ways += [st.dates().map(str), st.datetimes().map(lambda at: at.isoformat())]
    return st.one_of(ways)


# ---------------------------------------------------------------------- lines


def goes_nowhere_else(bench: Bench) -> Finding:
    if not bench.connector.hosts:
        return does_not_apply("It reaches no host.")
    seen = fuzzed(bench)
    return verdict(seen.moved, f"{seen.tried} argument sets, {seen.requests} requests.")


def smuggles_nothing(bench: Bench) -> Finding:
    if not bench.connector.hosts:
        return does_not_apply("It reaches no host.")
    seen = fuzzed(bench)
    return verdict(seen.smuggled, f"{seen.requests} requests, read byte by byte.")


def answers_typed(bench: Bench) -> Finding:
    seen = fuzzed(bench)
    return verdict(seen.untyped, f"{seen.tried} argument sets.")


def requirements() -> list[Requirement]:
    return [
        Requirement(
            "ARGS-ORIGIN",
            "no argument changes scheme, host or port",
            "arguments from the schema (Hypothesis), looked at under the guard",
            goes_nowhere_else,
        ),
        Requirement(
            "ARGS-CRLF",
            "no argument becomes a header, a line or a second request",
            "the same arguments, looked at on the wire",
            smuggles_nothing,
        ),
        Requirement(
            "ARGS-TYPED",
            "every argument set ends in a result or an error that names what is wrong",
            "the same arguments",
            answers_typed,
        ),
    ]
