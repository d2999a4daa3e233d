"""What did my thumb change? The version that answers now is asked again what people were dissatisfied with.

In the background, one question at a time and only while nobody waits for an answer, the newest thumbs down that an
earlier version got are answered by the version that serves. That is kept beside the thumb, shown to who gave it, and
deleted with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from sqlalchemy import Connection

from trimtab.domain.errors import TrimtabError
from trimtab.domain.judgement import Said
from trimtab.gathering import Reading
from trimtab.given import given
from trimtab.store import judgements, second_answers, versions
from trimtab.store.database import Database
from trimtab.versions import Versions

_log = logging.getLogger(__name__)

MOST = 20
"""Thumbs down that one version answers."""
MOST_TOKENS = 256
PAUSE_SECONDS = 1.0
PAUSES = 20
"""Looks at whether somebody is being answered, before this waits for another time."""


class SecondAnswers:
    """One for an installation. Call `go_on` now and then; nothing is done twice."""

    def __init__(self, database: Database, versions: Versions, reading: Reading, busy: Callable[[], bool]) -> None:
        self._database = database
        self._versions = versions
        self._reading = reading
        self._busy = busy
        self.pauses = PAUSES

    async def go_on(self) -> int:
        """Answer what the serving version has not answered yet; how many those were."""
        version, done = self._versions.voice().version, 0
        try:
            for feedback_id in await self._database.read(_waiting, version):
                if not await self._quiet() or self._versions.voice().version != version:
                    break
                prompt = await self._database.read(self._prompt, feedback_id)
                if not prompt:
                    continue
                with self._versions.asking():
                    voice = self._versions.voice()
                    told = await voice.bare.ainvoke(_messages(prompt), max_tokens=MOST_TOKENS, seed=1)
                await self._database.write(second_answers.keep, voice.version, feedback_id, told.text)
                done += 1
        except TrimtabError as error:
            _log.warning("thumbs down are not answered again now: %s", error.message)
        return done

    async def _quiet(self) -> bool:
        """Wait until nobody is being answered; False when that does not come."""
        for _ in range(self.pauses):
            if not self._busy():
                return True
            await asyncio.sleep(PAUSE_SECONDS)
        return False

    def _prompt(self, connection: Connection, feedback_id: str) -> tuple[Said, ...]:
        """What the model was given the first time; nothing when the answer is gone."""
        message_id = second_answers.message_of(connection, feedback_id)
        found = judgements.answers(connection, {message_id}) if message_id else {}
        if message_id not in found:
            return ()
        return given(found[message_id], self._reading.profile, self._reading.count).prompt


def _waiting(connection: Connection, version_id: str) -> list[str]:
    now = versions.serving_or_none(connection)
    if not version_id or now is None or versions.get(connection, version_id)["kind"] == "base":
        return []
    return second_answers.waiting(connection, version_id, MOST)


def _messages(prompt: Sequence[Said]) -> list[BaseMessage]:
    """A tool's result is given as a person's words: there is no call here that it would answer."""
    kinds = {"system": SystemMessage, "assistant": AIMessage}
    return [kinds.get(said.role, HumanMessage)(said.content) for said in prompt]
