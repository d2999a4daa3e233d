"""A client's request, checked: every field has a type and limits, and what the engine lacks is said, not ignored."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from . import gbnf, regex, schema
from .grammar import Rules
from .refusal import Refusal

_IGNORED = frozenset(
    "model user metadata store cache_prompt stream_options service_tier parallel_tool_calls safety_identifier "
    "prompt_cache_key id_slot timings_per_token".split()
)
"""Fields that ask for nothing which could differ here."""
_STOPS, _STOP_CHARS = 16, 256
_STRUCTURE_CHARS = 64_000
_NONE: Mapping[str, Any] = {"logit_bias": {}, "echo": False, "suffix": "", "best_of": 1, "functions": []}
"""Fields of the protocol that this engine does not have, with the value that asks for nothing."""


@dataclass
class Wanted:
    """How to answer."""

    settings: dict[str, Any]
    """For GenAI's `GenerationConfig`, but the number of tokens."""
    max_tokens: int | None
    stops: list[str]
    count: int
    stream: bool
    usage_in_stream: bool
    logprobs: bool
    grammar: str = ""
    """In the compiler's notation, right by construction."""
    adapter: int | None = None
    seed: int = 0


def parse(data: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(data)
    except ValueError:
        raise Refusal(400, "the request is no valid JSON in UTF-8") from None
    if not isinstance(body, dict):
        raise Refusal(400, "the request must be a JSON object")
    return body


def wanted(body: dict[str, Any], *, chat: bool) -> Wanted:
    """The request without its texts.

    Raises:
        Refusal: a field is unknown, out of its limits, or asks for what this engine does not have.
    """
    rest = {k: v for k, v in body.items() if k not in _IGNORED and v is not None}
    options = body.get("stream_options")
    found = _Fields(rest)
    found.skip(*("messages", "tools") if chat else ("prompt",))
    for name, nothing in _NONE.items():
        if found.raw(name, nothing) != nothing:
            raise Refusal(400, f"this engine has no `{name}`; leave it out")
    if found.raw("tool_choice", "auto") not in ("auto", "none"):
        raise Refusal(400, "this engine forces no tool calls; use `response_format` with a schema")
    limit = _max_tokens(found)
    result = Wanted(
        settings=_sampling(found),
        max_tokens=limit,
        stops=_stops(found.raw("stop", [])),
        count=found.whole("n", 1, 1, 16),
        stream=found.flag("stream"),
        usage_in_stream=isinstance(options, dict) and options.get("include_usage") is True,
        logprobs=_logprobs(found, chat),
        grammar=_grammar(found),
        adapter=_adapter(found.raw("lora", [])),
        seed=found.whole("seed", secrets.randbits(31), -1, (1 << 64) - 1) % (1 << 31),
    )
    found.nothing_left()
    return result


class _Fields:
    """The fields not yet looked at."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def raw(self, name: str, default: Any) -> Any:
        return self._values.pop(name, default)

    def skip(self, *names: str) -> None:
        for name in names:
            self._values.pop(name, None)

    def flag(self, name: str) -> bool:
        value = self.raw(name, False)
        if not isinstance(value, bool):
            raise Refusal(400, f"`{name}` must be true or false")
        return value

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        value = self.raw(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise Refusal(400, f"`{name}` must be a whole number from {low} to {high}")
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        value = self.raw(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            raise Refusal(400, f"`{name}` must be a number from {low:g} to {high:g}")
        return float(value)

    def nothing_left(self) -> None:
        if self._values:
            name = next(iter(self._values))[:40]
            raise Refusal(400, f"this engine does not know the field `{name}`; leave it out")


def _max_tokens(found: _Fields) -> int | None:
    given = [found.whole(n, -1, -1, 1 << 31) for n in ("max_tokens", "max_completion_tokens", "n_predict")]
    if 0 in given:
        raise Refusal(400, "`max_tokens` must be at least 1")
    return max(given) if max(given) > 0 else None


def _sampling(found: _Fields) -> dict[str, Any]:
    temperature = found.number("temperature", 0.8, 0.0, 100.0)
    top_p = found.number("top_p", 1.0, 0.0, 1.0)
    min_p = found.number("min_p", 0.0, 0.0, 1.0)
    top_k = found.whole("top_k", 0, -1, 1 << 31)
    repeat = [found.number(n, 1.0, 0.01, 100.0) for n in ("repeat_penalty", "repetition_penalty")]
    settings: dict[str, Any] = {
        "repetition_penalty": repeat[0] if repeat[0] != 1.0 else repeat[1],
        "presence_penalty": found.number("presence_penalty", 0.0, -2.0, 2.0),
        "frequency_penalty": found.number("frequency_penalty", 0.0, -2.0, 2.0),
    }
    if temperature < 1e-4 or top_p <= 0.0 or top_k == 1:
        return settings
    settings |= {"do_sample": True, "temperature": temperature, "top_p": top_p, "min_p": min(min_p, 0.999)}
    if top_k > 0:
        settings["top_k"] = top_k
    return settings


def _stops(value: Any) -> list[str]:
    stops = [value] if isinstance(value, str) else value
    fits = isinstance(stops, list) and len(stops) <= _STOPS
    if not fits or not all(isinstance(s, str) and len(s) <= _STOP_CHARS for s in stops):
        raise Refusal(400, f"`stop` must be up to {_STOPS} texts of up to {_STOP_CHARS} characters")
    return [s for s in stops if s]


def _logprobs(found: _Fields, chat: bool) -> bool:
    more = found.whole("top_logprobs", 0, 0, 20)
    if more:
        raise Refusal(400, "this engine gives the log probability of the chosen token only; leave `top_logprobs` out")
    if chat:
        return found.flag("logprobs")
    value = found.raw("logprobs", None)
    if value not in (None, False, 0, True):
        raise Refusal(400, "this engine gives the log probability of the chosen token only: `logprobs` may be 0")
    return value is not None and value is not False


def _grammar(found: _Fields) -> str:
    """What the answer must look like, by at most one of: a JSON schema, a grammar, a regular expression."""
    given: dict[str, str] = {}
    form = found.raw("response_format", {"type": "text"})
    kind = str(form.get("type")) if isinstance(form, dict) else ""
    readers: dict[str, Callable[[Any], Any]] = {
        "text": lambda _: None,
        "json_object": lambda f: f.get("schema", {"type": "object"}),
        "json_schema": lambda f: _inner(f).get("schema", f.get("schema")),
    }
    if kind not in readers:
        raise Refusal(400, "`response_format` must be of type text, json_object or json_schema")
    asked = readers[kind](form)
    if kind == "json_schema" and asked is None:
        raise Refusal(400, "`response_format` of type json_schema needs a `schema`")
    plain = found.raw("json_schema", None)
    if (chosen := asked if asked is not None else plain) is not None:
        given["json_schema"] = _as_json(chosen)
    for name in ("grammar", "regex"):
        value = found.raw(name, "")
        if not isinstance(value, str):
            raise Refusal(400, f"`{name}` must be a text")
        if value:
            given[name] = value
    if len(given) > 1:
        raise Refusal(400, "give one of `response_format`, `grammar` and `regex`, not several")
    return _built(*given.popitem()) if given else ""


@lru_cache(maxsize=256)
def _built(kind: str, text: str) -> str:
    if len(text) > _STRUCTURE_CHARS:
        raise Refusal(400, f"a schema or grammar may have {_STRUCTURE_CHARS} characters at most")
    try:
        if kind == "json_schema":
            return schema.read(orjson.loads(text)).text()
        if kind == "grammar":
            return gbnf.read(text).text()
        rules = Rules()
        rules.rules["root"] = regex.read(text)
        return rules.text()
    except RecursionError:
        raise Refusal(400, "the schema or grammar is nested too deeply") from None


def _inner(form: dict[str, Any]) -> dict[str, Any]:
    inner = form.get("json_schema")
    return inner if isinstance(inner, dict) else {}


def _as_json(value: Any) -> str:
    if not isinstance(value, dict | bool):
        raise Refusal(400, "a JSON schema must be an object")
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        raise Refusal(400, "the schema is nested too deeply") from None


def _adapter(value: Any) -> int | None:
    """The id of the adapter that a request wants."""
    entries = value if isinstance(value, list) and len(value) <= 64 else [None]
    pairs = []
    for entry in entries:
        number, scale = (entry.get("id"), entry.get("scale", 1.0)) if isinstance(entry, dict) else (None, None)
        if isinstance(number, bool) or not isinstance(number, int):
            number = -1
        if number < 0 or not isinstance(scale, int | float) or not -16 <= scale <= 16:
            raise Refusal(400, '`lora` must be a list of {"id": number, "scale": number}')
        pairs.append([float(number), float(scale)])
    if len({number for number, _ in pairs}) < len(pairs):
        raise Refusal(400, "`lora` names an adapter twice")
    active = [p for p in pairs if p[1] != 0.0]
    if len(active) > 1 or any(scale != 1.0 for _, scale in active):
        raise Refusal(400, "this engine applies one adapter to a request, with the scale 1")
    return int(active[0][0]) if active else None
