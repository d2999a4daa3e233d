"""What the model was given for an answer, rebuilt from the log, and whether the answer is the model's own words.

Training must see the prompt that the model saw. The log does not keep it, but all it was made of: the thread, the
question, the passages, the calls and their results. It is laid out here by the same rules as in
`orchestrator.request`; a test holds the two together by comparing with what a model was really sent. Two things cannot
be brought back: the random delimiter around outside text (any does as well), and calls, which a message here has no
field for and which are written out as text.

An answer is the model's own when all of it came from the model. Quotes, a tool's own sentence, a question for a missing
value and "not found in your documents" are ours, whatever the model said along with them: a thumb on those says nothing
about the model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from langchain_core.messages import BaseMessage

from trimtab.domain import events as ev
from trimtab.domain.judgement import Said
from trimtab.domain.model import Profile, TokenCounter
from trimtab.domain.passage import Citation, Passage, Span
from trimtab.orchestrator import answer as answers
from trimtab.orchestrator import prompts
from trimtab.orchestrator.context import Past
from trimtab.store.judgements import Answer
from trimtab.store.threads import text_digest

MARK = "0" * 16
SOURCE_CHARS = 1500
"""Of tools' results, when a small model phrases them (`Orchestrator._close_from_results`)."""


@dataclass(frozen=True)
class Given:
    """`composed` says why the answer is not the model's own wording; empty when it is."""

    prompt: tuple[Said, ...]
    composed: str = ""
    tainted: bool = False
    """The model had read passages, or results of tools that are not trusted."""


@dataclass(frozen=True)
class _Seen:
    """A turn as its events tell it."""

    passages: tuple[Passage, ...] = ()
    requests: tuple[ev.ToolRequested, ...] = ()
    results: tuple[ev.ToolFinished, ...] = ()
    end: ev.TurnFinished | None = None
    replaced: bool = False
    asked: bool = False
    """A tool was chosen, and instead of calling it the person was asked for a value."""
    early: bool = False
    """There was text before the last result."""
    text: str = ""

    @classmethod
    def of(cls, events: Sequence[ev.Event]) -> _Seen:
        passages: tuple[Passage, ...] = ()
        requests: list[ev.ToolRequested] = []
        results: list[ev.ToolFinished] = []
        end: ev.TurnFinished | None = None
        replaced = chosen = early = False
        text = ""
        for event in events:
            match event:
                case ev.PassagesFound():
                    passages = event.passages if event.used else ()
                case ev.ToolsConsidered():
                    chosen = chosen or (event.strategy == "guided" and bool(event.chosen))
                case ev.ToolRequested():
                    requests.append(event)
                case ev.ToolFinished():
                    results.append(event)
                    early = early or bool(text)
                case ev.TextDelta():
                    text += event.text
                case ev.TextReplaced():
                    text, replaced = event.text, True
                case ev.TurnFinished():
                    end = event
        return cls(passages, tuple(requests), tuple(results), end, replaced, chosen and not requests, early, text)


def given(answer: Answer, profile: Profile, count: TokenCounter) -> Given:
    """The prompt of one answer of our model, as `profile` has it asked."""
    if answer.origin:
        return Given(tuple(Said(role, text) for role, text in answer.path))
    seen = _Seen.of(answer.events)
    prompt = (
        _small(answer, seen, profile, count) if profile.grounding == "quote" else _capable(answer, seen, profile, count)
    )
    tainted = bool(seen.passages) or any(result.untrusted for result in seen.results)
    return Given(prompt, _composed(answer, seen, profile), tainted)


# ---------------------------------------------------------------------- whose words


def _composed(answer: Answer, seen: _Seen, profile: Profile) -> str:
    message = answer.message
    if seen.end is None or seen.end.status is not ev.TurnStatus.DONE:
        return "the answer was cut off"
    if text_digest(message["text"]) != message["text_digest"] or seen.text != message["text"]:
        return "the text is not what was generated"
    if seen.replaced:
        return "the model's wording was taken back"
    if profile.grounding == "write":
        return "some of it was said before a tool answered" if seen.early else ""
    return _composed_small(seen)


def _composed_small(seen: _Seen) -> str:
    if seen.asked:
        return "a missing value was asked for"
    if seen.results:
        citations = answers.cite_results(seen.results)
        if answers.tell(seen.results, citations):
            return "a tool's own sentence was told"
        return "a citation was put behind it" if citations else ""
    if seen.end is not None and seen.end.citations:
        return "documents were quoted"
    return "the documents did not answer" if seen.passages or answers.NOT_FOUND in seen.text else ""


# ---------------------------------------------------------------------- the prompt


def _small(answer: Answer, seen: _Seen, profile: Profile, count: TokenCounter) -> tuple[Said, ...]:
    question = answer.path[-1][1]
    if seen.results:
        source = "\n".join(r.text for r in seen.results if r.status is ev.CallStatus.OK)[:SOURCE_CHARS]
        return (Said("user", prompts.QUOTE.format(text=source, question=question)),)
    best = _best(seen)
    if best.supported:
        return (Said("user", prompts.QUOTE.format(text=best.surroundings(), question=question)),)
    return (*_history(answer, profile, count, [question]), Said("user", question))


def _best(seen: _Seen) -> answers.Best:
    """The quoted sentences, from the citations and the passages they are in."""
    found: list[tuple[Passage, Span, str, float]] = []
    for citation in seen.end.citations if seen.end is not None else ():
        passage = _home(citation, seen.passages)
        if passage is not None and citation.span is not None:
            found.append((passage, citation.span, citation.quote, citation.score))
    return answers.Best(tuple(found), found[0][3] if found else 0.0)


def _home(citation: Citation, passages: Sequence[Passage]) -> Passage | None:
    span = citation.span
    return next(
        (
            passage
            for passage in passages
            if span is not None
            and passage.document_id == citation.document_id
            and passage.span.start <= span.start
            and span.end <= passage.span.end
        ),
        None,
    )


def _capable(answer: Answer, seen: _Seen, profile: Profile, count: TokenCounter) -> tuple[Said, ...]:
    question = content = answer.path[-1][1]
    if seen.passages:
        content = prompts.WRITE.format(question=question, passages=prompts.numbered(seen.passages, MARK))
    steps = _steps(seen)
    # What a call costs is its result's text; the message that asks for it is empty.
    history = _history(answer, profile, count, [content, *(s.content for s in steps if s.role == "tool")])
    head = (Said("system", prompts.SYSTEM),) if profile.system_role else ()
    return (*head, *history, Said("user", content), *steps)


def _steps(seen: _Seen) -> list[Said]:
    """Calls and results, in the order in which the model was shown them."""
    results = {result.call_id: result for result in seen.results}
    said: list[Said] = []
    for step in sorted({request.step for request in seen.requests}):
        calls = [r for r in seen.requests if r.step == step and r.call_id in results]
        said.append(Said("assistant", "\n".join(_call(request) for request in calls)))
        for request in calls:
            result = results[request.call_id]
            said.append(Said("tool", prompts.as_data(result.text, MARK) if result.untrusted else result.text))
    return said


def _call(request: ev.ToolRequested) -> str:
    called = {"name": request.tool, "arguments": dict(request.arguments)}
    return f"<tool_call>\n{json.dumps(called, ensure_ascii=False)}\n</tool_call>"


def _history(answer: Answer, profile: Profile, count: TokenCounter, shown: Sequence[str]) -> tuple[Said, ...]:
    """What of the thread fitted beside `shown`."""
    used = sum(count(list(shown))) + profile.sampling.max_tokens + 256
    past = Past(answer.path[:-1], str(answer.message["owner_id"]), count)
    return tuple(_said(message) for message in past.within(profile.context_tokens - used))


def _said(message: BaseMessage) -> Said:
    return Said("user" if message.type == "human" else "assistant", message.text)
