"""The stronger model that a recipe names by URL: asked whether it is there before anything long begins."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from pydantic import SecretStr

from trimtab.align.recipe import Stronger
from trimtab.align.writer import ChatWriter, Writer
from trimtab.domain.errors import EngineRefused, InvalidInput, TooLarge, TrimtabError, Unavailable
from trimtab.domain.judgement import Said
from trimtab.domain.model import Sampling
from trimtab.llm.openai_chat import OpenAIChat

TOKENS = 256
"""Of a critique or a revision."""
TRIES = 3
WAIT = 2.0
"""Seconds before the second try; twice as long before each further one."""
SILENCE = 120.0


def stronger_writer(wanted: Stronger, wait: Callable[[float], None] = time.sleep) -> Writer | None:
    """The model that `wanted` names, None when it names none. It has answered once when this returns.

    Raises:
        InvalidInput: the variable that is to hold its key is not set.
        Unavailable: it cannot be reached, or does not answer.
    """
    if not wanted.base_url:
        return None
    model = OpenAIChat(
        base_url=wanted.base_url,
        api_key=_key(wanted.key_variable),
        model=wanted.model,
        sampling=Sampling(temperature=0.0, max_tokens=TOKENS),
        timeout=SILENCE,
    )
    place = urlsplit(wanted.base_url)
    name = f"{wanted.model!r} at {place.netloc}"
    found = _Patient(ChatWriter(model, at_once=wanted.at_once), name, wait, model.api_key)
    found([[Said("user", "Reply with the one word: ready")]])
    return found


def _key(variable: str) -> SecretStr | None:
    if not variable:
        return None
    if not (key := os.environ.get(variable, "")):
        raise InvalidInput(
            f"The recipe says that the stronger model's key is in {variable}, which is not set here. Set it where the "
            "server (or `trimtab align`) is started, or leave stronger.key_variable out."
        )
    return SecretStr(key)


class _Patient:
    """Asks again a few times: a run that asks for hours must not end with one busy moment."""

    def __init__(self, writer: Writer, name: str, wait: Callable[[float], None], key: SecretStr | None) -> None:
        self._writer, self._name, self._wait, self._key = writer, name, wait, key

    def __call__(self, asked: Sequence[Sequence[Said]]) -> list[str]:
        for attempt in range(TRIES):
            try:
                return self._writer(asked)
            except TrimtabError as error:
                final = isinstance(error, EngineRefused | InvalidInput | TooLarge)  # the same again would not help
                if final or attempt == TRIES - 1:
                    raise Unavailable(
                        f"The stronger model {self._name}, which the recipe names, did not answer: "
                        f"{self._told(error)} When it does, resume the job: it goes on where it was. Or order it "
                        "without `stronger`."
                    ) from None  # what it said is told above, without the key
            self._wait(WAIT * 2**attempt)
        raise AssertionError("unreachable")

    def _told(self, error: TrimtabError) -> str:
        """There are servers that repeat a key they do not know."""
        key = self._key.get_secret_value() if self._key else ""
        return error.message.replace(key, "(the key)") if key else error.message
