"""Was it the model, or what it was given? The question of a thumb down is asked again with the right text.

The right text is given by a person; without one the documents are searched again, and what was not shown the first time
is tried (a document may have come since). The version that answers now says it three times. An answer is good when it
keeps to that text (`orchestrator.grounding`: its numbers, names and subject). When half of them are, the blame is
retrieval's or the tool's, and the thumb does not train the model; else it is the model's. Either way what was found is
kept with the thumb, and curation goes by it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import HumanMessage, SystemMessage
from sqlalchemy import Connection

from trimtab.align.blame import replay
from trimtab.domain import events as ev
from trimtab.domain.errors import InvalidInput, NotFound
from trimtab.domain.judgement import Blame, Said
from trimtab.domain.model import Profile
from trimtab.given import MARK
from trimtab.orchestrator import grounding, prompts
from trimtab.orchestrator.turn import Search
from trimtab.store import judgements
from trimtab.store.database import Database
from trimtab.store.judgements import Answer
from trimtab.versions import Versions

TRIES = 3
MOST_TOKENS = 128
MOST_CHARS = 6000
"""Of the right text."""
SEARCHED = 8


@dataclass(frozen=True)
class _Down:
    """A thumb down on an answer that rests on something."""

    feedback_id: str
    answer: Answer

    @property
    def question(self) -> str:
        return self.answer.path[-1][1]

    @property
    def culprit(self) -> Blame | None:
        """Who else it may have been; None where the model had nothing from outside."""
        if any(isinstance(event, ev.ToolFinished) for event in self.answer.events):
            return Blame.TOOL
        searched = any(isinstance(event, ev.PassagesFound) for event in self.answer.events)
        return Blame.RETRIEVAL if searched else None

    @property
    def shown(self) -> set[tuple[str, int]]:
        """Where the passages stand that the model was given."""
        found = (event for event in self.answer.events if isinstance(event, ev.PassagesFound) and event.used)
        return {(p.document_id, p.span.start) for event in found for p in event.passages}


class Replays:
    """One for an installation; one replay at a time."""

    def __init__(self, database: Database, versions: Versions, search: Search | None) -> None:
        self._database = database
        self._versions = versions
        self._search = search
        self._one = asyncio.Lock()

    async def replay(self, feedback_id: str, context: str = "") -> dict[str, Any]:
        """``{"feedback_id", "blame", "why", "context", "answers", "score"}``, kept with the thumb.

        Args:
            context: the right text; empty searches the documents again.

        Raises:
            NotFound: no such feedback.
            InvalidInput: it is no thumb down on an answer from documents or a tool, or there is no other text.
        """
        down = await self._database.read(_down, feedback_id)
        culprit = down.culprit
        if culprit is None:
            raise InvalidInput(
                "The model was given nothing from outside for this answer, so there is nothing to replay."
            )
        async with self._one:
            right = (context.strip() or await self._other_text(down))[:MOST_CHARS]
            texts, said = await self._answers(right, down.question)
        drawn = iter(texts)
        found = replay(
            said,
            lambda _: next(drawn),
            lambda _, text: float(not grounding.keeps_to(text, [right], down.question)),
            tries=TRIES,
        )
        good = f"{round(sum(found.scores))} of {TRIES} answers kept to it"
        told = {
            "blame": culprit if found.well else Blame.MODEL,
            "why": f"replayed with the right text, {good}",
            "context": right,
            "answers": list(found.answers),
            "score": found.mean,
        }
        return await self._database.write(judgements.keep_replay, feedback_id, told)

    async def _answers(self, right: str, question: str) -> tuple[list[str], list[Said]]:
        """What the version that answers now says to that, and what it was told."""
        with self._versions.asking():
            voice = self._versions.voice()
            said = _prompt(right, question, voice.profile)
            asked = [SystemMessage(s.content) if s.role == "system" else HumanMessage(s.content) for s in said]
            texts: list[str] = [
                (await voice.bare.ainvoke(asked, max_tokens=MOST_TOKENS, seed=number)).text
                for number in range(1, TRIES + 1)
            ]
        return texts, said

    async def _other_text(self, down: _Down) -> str:
        """What a search finds now and did not show then."""
        found = []
        if self._search is not None and down.culprit is Blame.RETRIEVAL:
            owner = str(down.answer.message["owner_id"])
            found = list(await asyncio.to_thread(self._search.search, down.question, owner, SEARCHED))
        fresh = [p.text for p in found if (p.document_id, p.span.start) not in down.shown]
        if not fresh:
            raise InvalidInput("Say what the right text is: there is no other than the model was given.")
        return fresh[0]


def _down(connection: Connection, feedback_id: str) -> _Down:
    row = judgements.feedback_row(connection, feedback_id)
    if row is None:
        raise NotFound(f"No feedback {feedback_id}. It may have been withdrawn.")
    found = judgements.answers(connection, {row["message_id"]}).get(row["message_id"])
    if row["kind"] != "thumb" or row["value"] or found is None or found.origin:
        raise InvalidInput("Only a thumb down on an answer that was given here can be replayed.")
    return _Down(feedback_id, found)


def _prompt(right: str, question: str, profile: Profile) -> list[Said]:
    """As a turn would lay it out that had found this text."""
    if profile.grounding == "quote":
        return [Said("user", prompts.QUOTE.format(text=right, question=question))]
    given = prompts.WRITE.format(question=question, passages=f"[1]\n{prompts.as_data(right, MARK)}")
    return [*([Said("system", prompts.SYSTEM)] if profile.system_role else []), Said("user", given)]
