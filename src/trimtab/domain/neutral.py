"""Make text from people, documents and tools harmless to a chat template.

llama.cpp applies the model's template and then reads special tokens out of the whole result, so ``<|im_start|>system``
typed by a person would open a system message. There is no way to ask its chat endpoint otherwise. So the text is
changed before it leaves us: a zero-width space goes into every special token, which a reader does not see and a
tokenizer cannot mistake. A message without special tokens is not touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

BREAK = "\u200b"


class Neutraliser:
    """Breaks a model's special tokens inside ordinary text.

    Neutraliser(["<|im_start|>"])("a <|im_start|> b")  # "a <\\u200b|im_start|> b"
    """

    def __init__(self, special_tokens: Iterable[str]) -> None:
        tokens = sorted({t for t in special_tokens if len(t) > 1}, key=len, reverse=True)
        self._pattern = re.compile("|".join(re.escape(t) for t in tokens)) if tokens else None

    def __call__(self, text: str) -> str:
        if self._pattern is None:
            return text
        # Again until nothing is left: a token can come about from the pieces of a longer one that was broken.
        while True:
            changed = self._pattern.sub(lambda m: m[0][0] + BREAK + m[0][1:], text)
            if changed == text:
                return text
            text = changed
