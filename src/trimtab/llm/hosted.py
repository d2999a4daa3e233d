"""Hosted models by LangChain's own name for them, ``provider:model``.

Only for providers with a protocol of their own. One that speaks OpenAI's is better reached with `OpenAIChat`.
"""

from __future__ import annotations

from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel

from trimtab.domain.errors import InvalidInput, MissingExtra, Unavailable
from trimtab.domain.model import Sampling


def hosted_model(name: str, sampling: Sampling | None = None, **options: Any) -> BaseChatModel:
    """The model ``provider:model``, such as ``anthropic:claude-sonnet-4-5``. Its key comes
    from the provider's variable.

    Raises:
        InvalidInput: the name has no provider, or LangChain does not know it.
        MissingExtra: LangChain is not installed.
        Unavailable: the provider's own package is not installed, or its key is not set.
    """
    provider, colon, model = name.partition(":")
    if not (provider and colon and model):
        raise InvalidInput(f"{name!r} is no hosted model. Write provider:model, for example openai:gpt-5-mini.")
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise MissingExtra(f"The hosted model {name!r}", "hosted") from error
    if sampling is not None:
        options = {"temperature": sampling.temperature, "max_tokens": sampling.max_tokens, **options}
    try:
        chat: BaseChatModel = init_chat_model(model, model_provider=provider, **options)
    except ImportError as error:
        raise Unavailable(f"The provider {provider!r} needs its own package. {error}") from error
    except ValueError as error:
        raise InvalidInput(f"LangChain cannot make {name!r}: {error}") from error
    except Exception as error:  # each provider raises its own class when its key is missing
        raise Unavailable(f"The provider {provider!r} is not set up: {error}") from error
    return chat
