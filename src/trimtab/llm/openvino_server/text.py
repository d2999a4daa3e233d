"""Token ids to text as they come: never half a character, never a piece of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def _letters() -> dict[str, int]:
    """Byte-level vocabularies write each byte as a visible letter; this is the way back."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {chr(b): b for b in visible}
    for number, byte in enumerate(b for b in range(256) if b not in visible):
        letters[chr(256 + number)] = byte
    return letters


class Vocabulary:
    """The bytes of every token. Special ones have none: they are not part of an answer."""

    def __init__(self, tokenizer: Tokenizer, special_ids: Collection[int], ends: Collection[int]) -> None:
        self.ends = frozenset(ends)
        """Tokens that end an answer; they are neither shown nor counted."""
        letters = _letters()
        by_id = {i: t for t, i in tokenizer.get_vocab(with_added_tokens=True).items()}
        self.size = max(by_id) + 1
        self.bytes = [b""] * self.size
        for i, token in by_id.items():
            if i not in special_ids:
                known = all(c in letters for c in token)
                self.bytes[i] = bytes(letters[c] for c in token) if known else token.encode()

    def of(self, token: int) -> bytes:
        return self.bytes[token] if 0 <= token < self.size else b""


class Writer:
    """The text of one answer, given out when it is sure.

    writer = Writer(vocabulary, ["END"])
    writer.write([17, 4])   # what may be shown now
    writer.stopped          # whether a stop string was reached; it is not shown
    """

    def __init__(self, vocabulary: Vocabulary, stops: Sequence[str]) -> None:
        self._vocabulary = vocabulary
        self._stops = [s for s in stops if s]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def write(self, tokens: Sequence[int], last: bool = False) -> str:
        if self.stopped:
            return ""
        data = b"".join(self._vocabulary.of(t) for t in tokens)
        self._held += self._decoder.decode(data, final=last)
        found = min((at for s in self._stops if (at := self._held.find(s)) >= 0), default=-1)
        if found >= 0:
            self.stopped = True
            return self._take(found)
        return self._take(len(self._held) - (0 if last else self._unsure()))

    def _take(self, size: int) -> str:
        shown, self._held = self._held[:size], self._held[size:]
        return shown

    def _unsure(self) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        longest = 0
        for stop in self._stops:
            for size in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:size]):
                    longest = size
                    break
        return longest
