"""The engines that tests are run on, and what tests of engines share."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from trimtab.domain.model import Sampling
from trimtab.llm.llamacpp import LlamaCppEngine
from trimtab.llm.openai_chat import OpenAIChat
from trimtab.llm.openvino import OpenVinoEngine

Made = LlamaCppEngine | OpenVinoEngine
ENGINES: dict[str, type[Made]] = {"llamacpp": LlamaCppEngine, "openvino": OpenVinoEngine}
GREEDY = Sampling(temperature=0.0, max_tokens=24, seed=1)


def chat(engine: Made, sampling: Sampling = GREEDY) -> OpenAIChat:
    return OpenAIChat(
        base_url=engine.base_url,
        api_key=engine.key,
        model=engine.name,
        sampling=sampling,
        special_tokens=engine.special_tokens,
        extra_sampling=True,
    )


def headers(engine: Made) -> dict[str, str]:
    return {"Authorization": f"Bearer {engine.key.get_secret_value()}"}


async def until(condition: Callable[[], bool], seconds: float) -> float:
    """Seconds until the condition held; fails when it does not in time, or long after on a machine with other work."""
    start = time.monotonic()
    seconds *= max(3.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # the promise is for a machine of one's own
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds} s"
        await asyncio.sleep(0.05)
    return time.monotonic() - start
