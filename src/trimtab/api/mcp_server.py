"""What Trimtab offers to MCP clients: a search in the documents, and the tools of the enabled connectors.

The protocol is the SDK's. Here is what is offered and under which policy, the same as in a turn: only what reads runs
at once. For anything else the person is asked through the client, where it can ask (elicitation); where it cannot, the
call does not run and the answer says how to allow it. An approval is for one call with exactly these arguments, once.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import mcp_types as types
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

import trimtab
from trimtab.domain.errors import TrimtabError
from trimtab.domain.tool import Effect

SEARCH, DOCUMENTS = "search_documents", "list_documents"
MOST_DOCUMENTS = 200
PASSAGE_CHARS = 2000
APPROVAL_SECONDS = 600.0
MOST_PENDING = 1000
ANSWER = "approve"

Context = Any
"""The SDK's `ServerRequestContext`."""


@dataclass(frozen=True)
class Offer:
    """A tool of a connector. `name` is what models see, `dotted` what people do."""

    name: str
    dotted: str
    description: str
    schema: Mapping[str, Any]
    effect: str


class Desk(Protocol):
    """What the server needs of Trimtab, for one caller. It raises `TrimtabError`s."""

    @property
    def has_documents(self) -> bool: ...
    async def tools(self) -> list[Offer]: ...
    async def search(self, question: str, k: int) -> list[dict[str, Any]]: ...
    async def documents(self) -> list[dict[str, Any]]: ...
    async def call(self, offer: Offer, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Run a tool that may run: `text`, `data`, and `sources` with `title` and `url`."""
        ...


@dataclass
class _Pending:
    """Approvals that were asked for and not yet answered, in the version of the protocol without sessions."""

    asked: dict[str, tuple[str, float]] = field(default_factory=dict)

    def ask(self, digest: str) -> str:
        now = time.monotonic()
        self.asked = {t: (d, until) for t, (d, until) in self.asked.items() if until > now}
        while len(self.asked) >= MOST_PENDING:
            del self.asked[next(iter(self.asked))]
        token = secrets.token_urlsafe(24)
        self.asked[token] = digest, now + APPROVAL_SECONDS
        return token

    def answered(self, token: str, digest: str) -> bool:
        """Whether this was asked about exactly this call; good for one time."""
        found = self.asked.pop(token, None)
        return found is not None and found[0] == digest and found[1] > time.monotonic()


def make_server(desk_of: Callable[[Context], Desk]) -> Server[Any]:
    """The SDK's server over a desk, which may depend on who asks."""
    pending = _Pending()

    async def list_tools(ctx: Context, params: Any) -> types.ListToolsResult:
        desk = desk_of(ctx)
        offers = await _typed(desk.tools())
        return types.ListToolsResult(tools=[*(OWN if desk.has_documents else ()), *map(_tool, offers)])

    async def call_tool(
        ctx: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        desk, arguments = desk_of(ctx), dict(params.arguments or {})
        try:
            if params.name == SEARCH:
                return await _search(desk, arguments)
            if params.name == DOCUMENTS:
                return await _documents(desk)
            offer = next((offer for offer in await desk.tools() if offer.name == params.name), None)
            if offer is None:
                raise MCPError(types.INVALID_PARAMS, f"There is no tool {params.name[:100]!r}.")
            if offer.effect != Effect.READ and (held := await _held(ctx, params, offer, arguments, pending)):
                return held
            return _result(await desk.call(offer, arguments))
        except TrimtabError as error:
            return _failed(error.message)

    return Server(
        "trimtab",
        version=trimtab.__version__,
        title="Trimtab",
        instructions="Search the person's own documents with search_documents before you answer about them.",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


# ---------------------------------------------------------------------- approval


async def _held(
    ctx: Context, params: types.CallToolRequestParams, offer: Offer, arguments: Mapping[str, Any], pending: _Pending
) -> types.CallToolResult | types.InputRequiredResult | None:
    """None when a person has just allowed this call; otherwise what to answer instead of running it."""
    wanted = types.ClientCapabilities(elicitation=types.ElicitationCapability())
    if not ctx.session.check_client_capability(wanted):
        return _failed(_how_to_allow(offer, arguments))
    form = types.ElicitRequestFormParams(message=_question(offer, arguments), requested_schema=FORM)
    if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        said = await ctx.session.elicit_form(form.message, FORM, related_request_id=ctx.request_id)
        return None if _allows(said) else _failed(f"{offer.dotted} was not run: the person did not allow it.")
    digest = _digest(offer, arguments)
    if params.request_state is None:
        asked: Any = {ANSWER: types.ElicitRequest(params=form)}
        return types.InputRequiredResult(input_requests=asked, request_state=pending.ask(digest))
    if not pending.answered(params.request_state, digest):
        return _failed(f"{offer.dotted} was not run: this approval is for another call, was used, or is too old.")
    said = (params.input_responses or {}).get(ANSWER)
    return None if _allows(said) else _failed(f"{offer.dotted} was not run: the person did not allow it.")


FORM = {
    "type": "object",
    "properties": {ANSWER: {"type": "boolean", "title": "Run it", "description": "Whether this call may run, once."}},
    "required": [ANSWER],
}


def _allows(said: Any) -> bool:
    return isinstance(said, types.ElicitResult) and said.action == "accept" and (said.content or {}).get(ANSWER) is True


def _digest(offer: Offer, arguments: Mapping[str, Any]) -> str:
    exactly = json.dumps([offer.name, offer.effect, arguments], sort_keys=True)
    return hashlib.sha256(exactly.encode()).hexdigest()


def _question(offer: Offer, arguments: Mapping[str, Any]) -> str:
    shown = json.dumps(arguments, ensure_ascii=True)[:2000]
    return f"Run {offer.dotted}? It is declared '{offer.effect}': it changes something outside. Arguments: {shown}"


def _how_to_allow(offer: Offer, arguments: Mapping[str, Any]) -> str:
    given = " ".join(f"--arg {name}=..." for name in arguments)
    return (
        f"{offer.dotted} was not run: it is declared '{offer.effect}', so a person allows each call, and this client "
        f"cannot ask one. The person can run it in Trimtab's chat, or with: "
        f"trimtab connectors call {offer.dotted} {given}".rstrip()
    )


# ---------------------------------------------------------------------- tools


def _own(name: str, description: str, properties: dict[str, Any], required: list[str]) -> types.Tool:
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    hints = types.ToolAnnotations(read_only_hint=True, open_world_hint=False)
    return types.Tool(name=name, description=description, input_schema=schema, annotations=hints)


OWN = (
    _own(
        SEARCH,
        "Search the documents in Trimtab's library. Gives the best passages with the document and place they are from.",
        {
            "question": {"type": "string", "minLength": 1, "maxLength": 4000, "description": "What to look for."},
            "k": {"type": "integer", "minimum": 1, "maximum": 20, "default": 5, "description": "Passages at most."},
        },
        ["question"],
    ),
    _own(DOCUMENTS, "List the documents in Trimtab's library.", {}, []),
)


def _tool(offer: Offer) -> types.Tool:
    reads = offer.effect == Effect.READ
    return types.Tool(
        name=offer.name,
        title=offer.dotted,
        description=offer.description,
        input_schema={"additionalProperties": False, **offer.schema, "type": "object"},
        annotations=types.ToolAnnotations(
            read_only_hint=reads,
            destructive_hint=None if reads else offer.effect == Effect.IRREVERSIBLE,
            open_world_hint=True,
        ),
    )


async def _search(desk: Desk, arguments: Mapping[str, Any]) -> types.CallToolResult:
    question, k = arguments.get("question"), arguments.get("k", 5)
    if not isinstance(question, str) or not question.strip() or len(question) > 4000:
        return _failed("search_documents needs a question of at most 4000 characters.")
    if not isinstance(k, int) or isinstance(k, bool) or not 1 <= k <= 20:
        return _failed("search_documents: k is a whole number from 1 to 20.")
    passages = [_passage(found) for found in await desk.search(question, k)]
    text = "\n\n".join(
        f"[{n}] {p['place']} (similarity {p['score']:.2f})\n{p['text']}" for n, p in enumerate(passages, 1)
    )
    return _text(text or "Nothing was found.", {"passages": passages})


def _passage(found: Mapping[str, Any]) -> dict[str, Any]:
    place = " > ".join([found["name"], *found["heading"]])
    score, text = round(float(found["score"]), 4), str(found["text"])[:PASSAGE_CHARS]
    return {"place": place, "score": score, "text": text, "document_id": found["document_id"]}


async def _documents(desk: Desk) -> types.CallToolResult:
    all_of_them = await desk.documents()
    shown = [{"id": d["id"], "name": d["name"], "type": d["mime"]} for d in all_of_them[:MOST_DOCUMENTS]]
    lines = [f"{d['name']} ({d['type']})" for d in shown]
    if len(all_of_them) > MOST_DOCUMENTS:
        lines.append(f"[cut: {len(all_of_them) - MOST_DOCUMENTS} of {len(all_of_them)} left out]")
    return _text("\n".join(lines) or "There are no documents.", {"documents": shown, "total": len(all_of_them)})


def _result(outcome: Mapping[str, Any]) -> types.CallToolResult:
    sources = [f"Source: {s['title']} {s['url']}".rstrip() for s in outcome["sources"]]
    data = outcome["data"]
    return _text("\n".join([outcome["text"], *sources]), data if isinstance(data, dict) else None)


def _text(text: str, data: dict[str, Any] | None = None) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text)], structured_content=data)


def _failed(message: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=message)], is_error=True)


async def _typed(asked: Any) -> Any:
    try:
        return await asked
    except TrimtabError as error:
        raise MCPError(types.INTERNAL_ERROR, error.message) from None
