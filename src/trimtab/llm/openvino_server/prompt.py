"""Messages to token ids, with the model's own chat template, and no special token out of anybody's text.

The template is rendered twice: with the messages as they are, and with every character that begins a special token
replaced by a private one. If both have the same special tokens, those are the template's own and the first text counts.
If not, somebody wrote one into a message (or two messages made one between them); then the second text counts, with the
characters put back after it has been cut at its special tokens. Everything between special tokens is encoded as plain
text, which for texts without special tokens is exactly what the tokenizer does itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..openvino_folder import TOKENIZER, ModelCard
from .refusal import Refusal

if TYPE_CHECKING:
    from jinja2.parser import Parser
    from tokenizers import Tokenizer

_ROLE = re.compile(r"[a-z_]{1,32}")
_PRIVATE = range(0xF0000, 0xFFFFE)


class Prompter:
    """A model's template and tokenizer."""

    def __init__(self, folder: Path, card: ModelCard) -> None:
        from tokenizers import Tokenizer

        self.tokenizer: Tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self.tokenizer.encode_special_tokens = True  # special tokens in a text are text; ours are looked up below
        self._special = {t: i for t in card.special_tokens if (i := self.tokenizer.token_to_id(t)) is not None}
        longest_first = sorted(self._special, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._begins = {t[0] for t in self._special}
        self._bos = card.bos_id if card.adds_bos else None
        known = {i: t for t, i in self._special.items()}
        self._names = {
            "bos_token": known.get(card.bos_id, "") if card.bos_id is not None else "",
            "eos_token": known.get(card.end_ids[0], "") if card.end_ids else "",
        }
        self._template = _environment().from_string(card.chat_template) if card.chat_template else None

    @property
    def special_ids(self) -> frozenset[int]:
        return frozenset(self._special.values())

    def chat(self, messages: Sequence[Any], more: Mapping[str, Any]) -> list[int]:
        """The prompt for these messages. `more` goes to the template too (`tools`, `add_generation_prompt`).

        Raises:
            Refusal: no messages, of a wrong shape, or the template refuses them.
        """
        checked = [_message(m) for m in messages]
        if self._template is None:
            raise Refusal(400, "this model has no chat template; ask /v1/completions")
        plain = self._render(checked, more)
        private = self._private_characters(plain)
        hidden = self._render(_mapped(checked, private), _mapped(more, private))
        if self._specials(hidden) == self._specials(plain):
            return self._encode(plain, {})
        return self._encode(hidden, {ord(v): k for k, v in private.items()})

    def text(self, text: str) -> list[int]:
        """A plain text's ids, led by the beginning-of-text token where the model wants one."""
        ids = list(self.tokenizer.encode(text, add_special_tokens=False).ids)
        return ids if self._bos is None else [self._bos, *ids]

    def tokenize(self, text: str, *, special: bool, parse: bool) -> list[int]:
        """As llama.cpp's ``/tokenize``: with the beginning token, and with special tokens read, only when asked."""
        ids = (
            self._encode(text, {}, lead=False)
            if parse
            else list(self.tokenizer.encode(text, add_special_tokens=False).ids)
        )
        return [self._bos, *ids] if special and self._bos is not None else ids

    def _render(self, messages: Any, more: Mapping[str, Any]) -> str:
        assert self._template is not None
        try:
            given = {"add_generation_prompt": True, "tools": None, "documents": None, **self._names, **more}
            return self._template.render(messages=messages, **given)
        except TemplateError as error:
            raise Refusal(400, f"the model's chat template refuses these messages ({_short(error)})") from None
        except Exception as error:  # a template is a program: on a message of a strange shape anything may come
            raise Refusal(400, f"the model's chat template cannot take these messages ({_short(error)})") from None

    def _specials(self, text: str) -> list[str]:
        return self._pattern.findall(text) if self._pattern else []

    def _private_characters(self, text: str) -> dict[str, str]:
        """For each character that begins a special token, one that occurs nowhere in the text."""
        free = (chr(c) for c in _PRIVATE if chr(c) not in text)
        return {begin: next(free) for begin in sorted(self._begins)}

    def _encode(self, text: str, back: Mapping[int, str], lead: bool = True) -> list[int]:
        ids: list[int] = []
        at = 0
        for found in self._pattern.finditer(text) if self._pattern else ():
            ids += self._plain(text[at : found.start()], back)
            ids.append(self._special[found[0]])
            at = found.end()
        ids += self._plain(text[at:], back)
        if lead and self._bos is not None and ids[:1] != [self._bos]:
            ids.insert(0, self._bos)
        return ids

    def _plain(self, text: str, back: Mapping[int, str]) -> list[int]:
        restored = text.translate(back) if back else text
        return list(self.tokenizer.encode(restored, add_special_tokens=False).ids) if restored else []


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise Refusal(400, "each message needs a `role` and a `content`")
    if not _ROLE.fullmatch(message["role"]):
        raise Refusal(400, "a message's `role` must be system, user, assistant or tool")
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(_part(p) for p in content)
    if content is not None and not isinstance(content, str):
        raise Refusal(400, "a message's `content` must be a text or a list of text parts")
    calls = message.get("tool_calls")
    checked = {**message, "content": "" if content is None and not calls else content}
    if calls:
        checked["tool_calls"] = [_call(c) for c in calls] if isinstance(calls, list) else None
    return checked


def _part(part: Any) -> str:
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise Refusal(400, "this model takes text only; leave other parts of the message out")


def _call(call: Any) -> Any:
    """A call whose arguments are an object, as templates want them; the protocol has them as JSON in a string."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise Refusal(400, "a tool call needs a `function` with a name and arguments")
    arguments = function.get("arguments")
    try:
        parsed = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError):
        parsed = arguments
    return {**call, "function": {**function, "arguments": parsed}}


def _mapped(value: Any, private: Mapping[str, str], depth: int = 0) -> Any:
    """`value` with the private characters in all its texts."""
    if depth > 64:
        raise Refusal(400, "a message is nested too deeply")
    if isinstance(value, str):
        return value.translate({ord(k): v for k, v in private.items()})
    if isinstance(value, list):
        return [_mapped(v, private, depth + 1) for v in value]
    if isinstance(value, Mapping):
        return {_mapped(k, private, depth + 1): _mapped(v, private, depth + 1) for k, v in value.items()}
    return value


def _short(error: Exception) -> str:
    """What went wrong without what was asked: a template's own words are kept, others may quote the messages."""
    return str(error)[:200] if isinstance(error, TemplateError) else type(error).__name__


class _Generation(Extension):
    """``{% generation %}`` marks the model's own words for training; for asking it means nothing."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def _environment() -> ImmutableSandboxedEnvironment:
    """Jinja as transformers sets it up for chat templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _tojson(value: Any, indent: int | None = None, sort_keys: bool = False) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)
