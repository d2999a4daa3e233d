"""Taking secrets out of what is recorded, and finding those that were missed.

Three ways, one after another: what is declared as a credential is replaced wherever it stands, in every form in which
it may travel (`credentials.forms`); what stands under a name that secrets have (``access_token``, ``password``) is
replaced whatever it is; and what is left is searched for strings that look like keys, by the beginnings that services
give theirs and by their entropy. The last way finds too much rather than too little: a hash or an id of a service looks
like a key. Only a person can say that it is none.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from ..credentials import forms

REMOVED = "{{removed}}"
NAMES = re.compile(
    r"(?:^|[_.-])(?:api[_-]?key|apikey|appid|token|secret|password|passwd|pwd|authorization|credential|signature|sig|"
    r"session(?:[_-]?id)?|cookie|jwt|private[_-]?key)s?$",
    re.I,
)
KNOWN = re.compile(
    r"gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|sk-[\w-]{16,}|sk_(?:live|test)_\w{8,}|AKIA[A-Z0-9]{12,}|"
    r"AIza[\w-]{20,}|xox[abprs]-[\w-]{8,}|eyJ[\w-]{8,}\.[\w-]{8,}|-----BEGIN [A-Z ]*PRIVATE KEY|ya29\.[\w-]{16,}|"
    r"(?i:bearer|basic) [\w+/=.-]{12,}"
)
RUN = re.compile(r"[A-Za-z0-9+=]{16,}")
MIN_ENTROPY = 3.2
"""Bits a character. Sixteen random hexadecimal digits have 3.3 and more, words and numbers less."""


@dataclass(frozen=True)
class Scrubber:
    """`secrets` are values by their names; a name takes the value's place as ``{{NAME}}``."""

    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    def text(self, text: str) -> str:
        for name, value in self.secrets.items():
            for form in sorted(forms(value), key=len, reverse=True):
                text = text.replace(form, "{{" + name + "}}")
        return text

    def url(self, url: str) -> str:
        """Parameters whose names are those of secrets lose their values; the rest stays as it was."""
        parts = urlsplit(self.text(url))
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        if not any(NAMES.search(name) for name, _ in pairs):
            return urlunsplit(parts)
        kept = [(name, value if not NAMES.search(name) or "{{" in value else REMOVED) for name, value in pairs]
        return urlunsplit(parts._replace(query=urlencode(kept, quote_via=quote, safe="{},:")))

    def json(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.json(item) for item in value]
        if isinstance(value, dict):
            return {
                name: REMOVED if NAMES.search(name) and isinstance(inner, str) and inner else self.json(inner)
                for name, inner in value.items()
            }
        return value


def suspicious(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Each string inside `value` that looks like a secret, with the path to it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from suspicious(inner, f"{where}.{name}" if where else str(name))
            yield from suspicious(str(name), f"{where} (a name)")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from suspicious(inner, f"{where}[{number}]")
    elif isinstance(value, str):
        for match in KNOWN.finditer(value):
            yield where, match[0]
        for match in RUN.finditer(KNOWN.sub(" ", value)):
            if looks_random(match[0]):
                yield where, match[0]


def looks_random(run: str) -> bool:
    """Whether letters and digits stand together as only a machine puts them."""
    digits = sum(char.isdigit() for char in run)
    letters = sum(char.isalpha() for char in run)
    if entropy(run) < MIN_ENTROPY:
        return False
    if digits >= 2 and letters >= 2:
        return True
    turns = sum(a.islower() != b.islower() for a, b in itertools.pairwise(run))
    return letters >= 20 and turns >= 8


def entropy(text: str) -> float:
    """Shannon's, in bits a character, of the characters as they occur."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)
