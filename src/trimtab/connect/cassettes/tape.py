"""One run of a tool as a file: what was asked of the service, what it answered, and what the tool made of it.

A tape is JSON that a person can read and correct: bodies stand as JSON where they are JSON, as lines where they are
text, in base64 where they are neither. Request headers are not kept (that is where keys travel), of the response's only
those that change what a client does.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trimtab.domain.errors import InvalidInput

from .scrub import Scrubber, suspicious

KEPT_HEADERS = frozenset(
    {"content-type", "location", "retry-after", "etag", "last-modified", "cache-control", "link", "vary", "age"}
)
TEXTUAL = (
    "text/",
    "application/xml",
    "application/rss",
    "application/atom",
    "application/xhtml",
    "application/javascript",
)

MEMBERS = frozenset(
    ("tool", "arguments", "options", "recorded_live", "note", "recorded_at", "expects", "error", "not_secret")
) | {"exchanges"}
REQUEST_MEMBERS = frozenset({"method", "url", "body", "ignore"})
RESPONSE_MEMBERS = frozenset({"status", "headers", "json", "text", "base64"})


@dataclass(frozen=True)
class Exchange:
    """A request and its response. `ignore` names query parameters and members of a JSON body that vary (a date)."""

    method: str
    url: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    sent: Any = None
    """The request's body: JSON, else text; None for none."""
    ignore: tuple[str, ...] = ()

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_json(self) -> bool:
        return self.content_type == "application/json" or self.content_type.endswith("+json")


@dataclass
class Tape:
    """`expects` is the text the tool gave the model, empty where it changes by itself (the time); `error` the code
    of the error it ended in."""

    tool: str
    arguments: dict[str, Any]
    live: bool
    """Recorded from the real service; else written after its documentation, and `note` says which."""
    note: str = ""
    recorded_at: str = ""
    exchanges: list[Exchange] = field(default_factory=list)
    expects: str = ""
    error: str = ""
    not_secret: tuple[str, ...] = ()
    """Strings that look like keys, of which a person said that they are none."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What the connector was set up with. ``{here}`` in a value is the folder of the cassette."""
    name: str = ""
    """The file's, for messages."""
    folder: str = ""
    """Where the file is."""

    @property
    def setup(self) -> dict[str, str]:
        """The options with their places filled in."""
        return {name: value.replace("{here}", self.folder) for name, value in self.options.items()}

    @staticmethod
    def new(tool: str, arguments: Mapping[str, Any], *, not_secret: Iterable[str] = ()) -> Tape:
        """An empty one, about to be recorded now."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        return Tape(tool, dict(arguments), live=True, recorded_at=at, not_secret=tuple(not_secret))

    def save(self, path: Path, scrubber: Scrubber = Scrubber()) -> None:
        """Write it, scrubbed.

        Raises:
            InvalidInput: something in it still looks like a secret; nothing was written.
        """
        clean = self.scrubbed(scrubber)
        if found := clean.secrets_left():
            told = "; ".join(f"{where} holds {string[:4]}… ({len(string)} characters)" for where, string in found[:5])
            raise InvalidInput(
                f"{path} was not written: it would hold what looks like a secret. {told}. Declare it as the "
                "connector's credential, or say that it is none with --not-secret.",
                fields=[where for where, _ in found],
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(clean.dump(), "utf-8")

    def secrets_left(self) -> list[tuple[str, str]]:
        """Where something looks like a secret, and what."""
        return [(where, found) for where, found in suspicious(self._document()) if found not in self.not_secret]

    def scrubbed(self, scrubber: Scrubber) -> Tape:
        return replace(
            self,
            arguments=scrubber.json(self.arguments),
            expects=scrubber.text(self.expects),
            exchanges=[_scrubbed(exchange, scrubber) for exchange in self.exchanges],
        )

    def dump(self) -> str:
        document = self._document() | ({"not_secret": list(self.not_secret)} if self.not_secret else {})
        return json.dumps(document, ensure_ascii=False, indent=2) + "\n"

    def _document(self) -> dict[str, Any]:
        about: dict[str, Any] = {"tool": self.tool, "arguments": self.arguments}
        about |= {"options": dict(self.options)} if self.options else {}
        about["recorded_live"] = self.live
        optional = {"note": self.note, "recorded_at": self.recorded_at, "expects": self.expects, "error": self.error}
        exchanges = [_written(exchange) for exchange in self.exchanges]
        return {**about, **{name: value for name, value in optional.items() if value}, "exchanges": exchanges}

    @staticmethod
    def read(path: Path) -> Tape:
        """From a file.

        Raises:
            InvalidInput: it is not a tape; the message says what is wrong with it.
        """
        try:
            found = json.loads(path.read_text("utf-8"))
            _known(found, MEMBERS, "it")
            return Tape(
                tool=found["tool"],
                arguments=found["arguments"],
                live=found["recorded_live"],
                note=found.get("note", ""),
                recorded_at=found.get("recorded_at", ""),
                exchanges=[_read(item) for item in found["exchanges"]],
                expects=found.get("expects", ""),
                error=found.get("error", ""),
                not_secret=tuple(found.get("not_secret", ())),
                options={str(name): str(value) for name, value in found.get("options", {}).items()},
                name=path.name,
                folder=str(path.parent.resolve()),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidInput(f"{path} is not a cassette: {_wrong(error)}.") from error


def _wrong(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def load(folder: Path) -> list[Tape]:
    """Every tape in a folder, by name. An absent folder has none."""
    return [Tape.read(path) for path in sorted(folder.glob("*.json"))]


def _scrubbed(exchange: Exchange, scrubber: Scrubber) -> Exchange:
    body = exchange.body
    if exchange.is_json:
        try:
            body = json.dumps(scrubber.json(json.loads(body)), ensure_ascii=False).encode()
        except ValueError:
            body = scrubber.text(body.decode("utf-8", "replace")).encode()
    elif exchange.content_type.startswith(TEXTUAL):
        body = scrubber.text(body.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    headers = {name: scrubber.url(value) if name == "location" else value for name, value in exchange.headers.items()}
    return replace(
        exchange, url=scrubber.url(exchange.url), body=body, headers=headers, sent=scrubber.json(exchange.sent)
    )


def _written(exchange: Exchange) -> dict[str, Any]:
    request: dict[str, Any] = {"method": exchange.method, "url": exchange.url}
    if exchange.sent is not None:
        request["body"] = exchange.sent
    if exchange.ignore:
        request["ignore"] = list(exchange.ignore)
    response = {"status": exchange.status, "headers": dict(exchange.headers), **_body(exchange)}
    return {"request": request, "response": response}


def _body(exchange: Exchange) -> dict[str, Any]:
    if not exchange.body:
        return {}
    if exchange.is_json:
        try:
            return {"json": json.loads(exchange.body)}
        except ValueError:
            pass
    try:
        return {"text": exchange.body.decode("utf-8").split("\n")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(exchange.body).decode()}


def _known(given: Mapping[str, Any], members: frozenset[str], what: str) -> None:
    """What a person wrote and nobody would read is an error, so that it is corrected."""
    if unknown := sorted(set(given) - members):
        raise ValueError(f"{what} has {unknown[0]!r}, which nobody reads; known are {', '.join(sorted(members))}")


def _read(item: Mapping[str, Any]) -> Exchange:
    request, response = item["request"], item["response"]
    _known(request, REQUEST_MEMBERS, "a request")
    _known(response, RESPONSE_MEMBERS, "a response")
    body = b""
    if "json" in response:
        body = json.dumps(response["json"], ensure_ascii=False).encode()
    elif "text" in response:
        text = response["text"]
        body = (text if isinstance(text, str) else "\n".join(text)).encode()
    elif "base64" in response:
        body = base64.b64decode(response["base64"])
    return Exchange(
        method=request["method"],
        url=request["url"],
        status=int(response["status"]),
        headers={name.lower(): value for name, value in response.get("headers", {}).items()},
        body=body,
        sent=request.get("body"),
        ignore=tuple(request.get("ignore", ())),
    )
