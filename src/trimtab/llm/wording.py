"""Words of a message: tokens with their place in the text, stop words, a light stem, and the mask for embeddings.

English only, and meant for short messages. What is not English falls back to whole spans of the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(r"https?://\S+|[^\W_]+(?:['’.@\-][^\W_]+)*(?:['’])?|[^\w\s]", re.UNICODE)
_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_NUMBER = re.compile(r"\d[\d,.]*\d|\d")
_NUMBER_WORD = re.compile(
    r"\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen"
    r"|seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand)\b",
    re.IGNORECASE,
)

STOP = frozenset(
    """a an the this that these those it its it's is are was were be been am do does did can could would will should
    shall may might must i i'm i'd i've i'll you your u me my mine we us our he she his her they them their of in on at
    to for from by with and or but if so as than then there here what what's whats which who who's whom whose when where
    why how how's hows not no nor just also too very some any please pls plz thanks thank let lets let's get got give
    want wanna need like tell know show about into out up down over hey hi hello yo ok okay now right rn""".split()
)
"""Words that say nothing about which tool is meant."""


@dataclass(frozen=True)
class Token:
    """A word or one punctuation mark; `start` and `end` are characters of the message."""

    text: str
    start: int
    end: int

    @property
    def low(self) -> str:
        return self.text.lower().replace("’", "'")

    @property
    def word(self) -> bool:
        return self.text[0].isalnum()


def tokens(text: str) -> list[Token]:
    """Words and punctuation of `text`, in order."""
    return [Token(m.group(), m.start(), m.end()) for m in _TOKEN.finditer(text)]


def stem(word: str) -> str:
    """The word without its commonest endings; only for comparing words with each other."""
    word = word.lower().replace("’", "'").removesuffix("'s").removesuffix("'")
    for ending in ("ing", "ies", "ied", "ers", "er", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            base = word[: -len(ending)]
            return base + "y" if ending in ("ies", "ied") else base.removesuffix("e")
    return word.removesuffix("e") if len(word) > 3 else word


def content_stems(text: str) -> set[str]:
    """Stems of the words of `text` that are not stop words or numbers."""
    return {stem(t.low) for t in tokens(text) if t.word and t.low not in STOP and not t.text[0].isdigit()}


def spaced(identifier: str) -> str:
    """``"getStock_price"`` as words: ``"get stock price"``."""
    return re.sub(r"[_\W]+", " ", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", identifier)).strip().lower()


def masked(text: str) -> str:
    """`text` with every number as 5 and every address as one same address.

    Two sums with different numbers are the same kind of question, but an embedding model does not see that.
    """
    text = _URL.sub("https://example.com", text)
    return _NUMBER_WORD.sub("5", _NUMBER.sub("5", text))


def named_masked(text: str, keep: frozenset[str] | set[str]) -> str:
    """`masked`, and each run of capitalised words after the first one as "something", except stems in `keep`.

    "What does Wikipedia say about Ada Lovelace?" and "... about Marie Curie?" are then the same question.
    """
    out: list[str] = []
    at, first = 0, True
    for token in tokens(text):
        name = token.word and token.text[0].isupper() and not first and token.low not in STOP
        if name and stem(token.low) not in keep:
            gap = text[at : token.start]
            if not (out and out[-1] == "something" and not gap.strip()):
                out += [gap, "something"]
        else:
            out.append(text[at : token.end])
        at = token.end
        first = token.text in ".?!" if not token.word else False
    return masked("".join(out) + text[at:])
