"""How fast something answers that speaks OpenAI's protocol, asked as its users would: streaming, several at once.

The clock is the asker's, so all there is between is in the figures. A gap is the time between two pieces of an answer;
engines send a piece a token, or two when they are quick. Whether the first piece holds text is looked at: the one that
only opens an answer does not count.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from trimtab.domain.errors import EngineError, EngineRefused
from trimtab.domain.lines import lines_of

from .interval import Interval, bootstrap, mean, quantile
from .workload import Request

ANSWER_SECONDS = 300.0


@dataclass(frozen=True)
class Endpoint:
    """Something to ask."""

    base_url: str
    """Up to and including ``/v1``."""
    model: str
    key: str = field(default="", repr=False)
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Fields that every request carries."""


@dataclass(frozen=True)
class Answer:
    first: float
    """Seconds from the question to the first text."""
    seconds: float
    """To the end of the answer."""
    gaps: tuple[float, ...]
    tokens: int
    prompt_tokens: int
    cached_tokens: int

    @property
    def rate(self) -> float:
        """Tokens a second, once it had begun."""
        return (self.tokens - 1) / (self.seconds - self.first) if self.tokens > 1 and self.seconds > self.first else 0.0


@dataclass(frozen=True)
class Speed:
    """What so many users at once saw. Seconds, and tokens a second."""

    users: int
    answers: int
    first_p50: float
    first_p95: float
    first_mean: Interval
    """Shows the noise of the run."""
    gap_p50: float
    gap_p95: float
    rate: Interval
    """Of each answer, in the mean."""
    total: float
    """Of all users together, from the first question to the last answer."""
    tokens: int
    """Of all questions and answers."""
    cached_share: float
    """Of the questions' tokens, those the engine remembered from earlier ones."""


async def measure(endpoint: Endpoint, requests: Sequence[Request], users: int) -> Speed:
    """`users` ask at once, each the next question as soon as its last is answered, until all are.

    Raises:
        EngineError: it cannot be reached, breaks off, or gives no text at all.
        EngineRefused: it refuses a question; says why.
    """
    waiting = list(enumerate(requests))[::-1]
    answers: list[Answer] = []
    headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
    timeout = httpx.Timeout(ANSWER_SECONDS, connect=10.0)
    tls = endpoint.base_url.startswith("https:")  # certificates are read only where there is something to verify
    # As the adapter does. llama.cpp's server closes idle connections, also just when the next question comes.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=20 if tls else 0)
    async with httpx.AsyncClient(
        timeout=timeout, headers=headers, limits=limits, trust_env=False, verify=tls
    ) as client:

        async def user() -> None:
            while waiting:
                number, request = waiting.pop()
                answers.append(await ask(client, endpoint, request, seed=number))

        began = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(users):
                    group.create_task(user())
        except ExceptionGroup as several:
            raise several.exceptions[0] from several  # one reason is enough for a person
        seconds = time.perf_counter() - began
    return _summed(answers, users, seconds)


def _summed(answers: Sequence[Answer], users: int, seconds: float) -> Speed:
    firsts = [a.first for a in answers]
    gaps = [gap for a in answers for gap in a.gaps]
    prompts = sum(a.prompt_tokens for a in answers)
    return Speed(
        users=users,
        answers=len(answers),
        first_p50=quantile(firsts, 0.5),
        first_p95=quantile(firsts, 0.95),
        first_mean=bootstrap(firsts, mean),
        gap_p50=quantile(gaps, 0.5),
        gap_p95=quantile(gaps, 0.95),
        rate=bootstrap([a.rate for a in answers if a.rate], mean),
        total=sum(a.tokens for a in answers) / seconds,
        tokens=prompts + sum(a.tokens for a in answers),
        cached_share=sum(a.cached_tokens for a in answers) / prompts if prompts else 0.0,
    )


async def ask(client: httpx.AsyncClient, endpoint: Endpoint, request: Request, seed: int) -> Answer:
    """One question, timed. Raises as `measure` does."""
    body = {
        "model": endpoint.model,
        "messages": [{"role": role, "content": text} for role, text in request.messages],
        "max_tokens": request.max_tokens,
        "temperature": 0.8,
        "seed": seed,
        "stream": True,
        "stream_options": {"include_usage": True},
        **endpoint.extra,
    }
    began = time.perf_counter()
    times: list[float] = []
    usage: dict[str, Any] = {}
    try:
        async with client.stream("POST", f"{endpoint.base_url}/chat/completions", json=body) as response:
            if response.status_code >= 400:
                said = (await response.aread())[:500].decode("utf-8", "replace")
                raise EngineRefused(f"{endpoint.model} refuses a question ({response.status_code}): {said}")
            async for line in lines_of(response.aiter_bytes()):
                text, told = _piece(line)
                usage = told or usage
                if text:
                    times.append(time.perf_counter() - began)
    except httpx.HTTPError as error:
        raise EngineError(
            f"{endpoint.model} at {endpoint.base_url} cannot be measured ({type(error).__name__}: {error}). "
            "See whether it runs, and measure again."
        ) from error
    if not times:
        raise EngineError(f"{endpoint.model} gave an answer without any text. Try other questions.")
    details = usage.get("prompt_tokens_details") or {}
    return Answer(
        first=times[0],
        seconds=times[-1],
        gaps=tuple(b - a for a, b in itertools.pairwise(times)),
        tokens=int(usage.get("completion_tokens") or len(times)),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        cached_tokens=int(details.get("cached_tokens") or 0),
    )


def _piece(line: str) -> tuple[str, dict[str, Any]]:
    """The text and the usage in a line of the stream. Raises EngineError when it is none, or says that it failed."""
    if not line.startswith("data:") or line.endswith("[DONE]"):
        return "", {}
    try:
        values = json.loads(line[5:])
        if "error" in values:
            raise EngineError(f"The answer broke off: {str(values['error'])[:300]}. Measure again.")
        choices = values.get("choices") or [{}]
        return str((choices[0].get("delta") or {}).get("content") or ""), values.get("usage") or {}
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise EngineError(f"What came back is no stream of OpenAI's protocol: {line[:200]}") from error
