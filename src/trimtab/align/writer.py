"""A model that answers messages with text: the policy itself, or a stronger one behind a URL.

Critics, revisers and the external judge need no more of a model than this, so anything that can be called with messages
will do. `ChatWriter` makes one of any LangChain chat model, which carries its own deadline and retries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from trimtab.domain.errors import TrimtabError, Unavailable
from trimtab.domain.judgement import Said

MOST_CHARACTERS = 20_000
"""What is kept of an answer. Nobody revises a longer one, and a judge by URL may send anything."""


class Writer(Protocol):
    def __call__(self, asked: Sequence[Sequence[Said]]) -> list[str]:
        """The answer to each conversation, in their order: several at once cost a model far less than one by one. The
        answers are untrusted text."""
        ...


class ChatWriter:
    """A `Writer` from a LangChain chat model.

    judge = Judge(external=ChatWriter(ChatOpenAI(base_url=url, model=name, timeout=30)))

    Args:
        at_once: conversations that are asked at the same time.
    """

    def __init__(self, model: BaseChatModel, *, at_once: int = 1) -> None:
        self._model = model
        self._at_once = at_once

    def __call__(self, asked: Sequence[Sequence[Said]]) -> list[str]:
        """Raises:
        Unavailable: the model did not answer; its own error is the cause.
        """
        conversations: list[LanguageModelInput] = [[as_message(said) for said in messages] for messages in asked]
        try:
            answers = self._model.batch(conversations, {"max_concurrency": self._at_once})
        except TrimtabError:
            raise
        except Exception as error:
            # Only the kind of error: the text of a client's error may hold the address with its key.
            raise Unavailable(
                f"The model that was asked to judge or to write did not answer ({type(error).__name__}). "
                "Check its URL and key, or leave it out to go on with the local model."
            ) from error
        return [str(answer.text)[:MOST_CHARACTERS].strip() for answer in answers]


def as_message(said: Said) -> BaseMessage:
    """As LangChain's models take it."""
    if said.role == "system":
        return SystemMessage(said.content)
    return AIMessage(said.content) if said.role == "assistant" else HumanMessage(said.content)
