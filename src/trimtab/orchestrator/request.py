"""What the model is shown for one of its replies: system text, the thread, the question, the calls made for it."""

from __future__ import annotations

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from trimtab.domain.model import EVIDENCE_KEY, QUESTION_KEY, Profile, TokenCounter

from . import answer, prompts
from .context import Past, message
from .state import State, Turn


def messages(turn: Turn, state: State, best: answer.Best, profile: Profile, count: TokenCounter) -> list[BaseMessage]:
    """All of it, oldest first: the thread is cut so that the whole fits the model's context."""
    writing = profile.grounding == "write"
    head = _head(turn, profile, plain=not best.supported)
    if state.asked is None:
        state.asked = _question(turn, state, best, writing)
    steps = _calls(state, writing)
    used = sum(count([state.asked.text, *(m.text for m in steps)])) + profile.sampling.max_tokens + 256
    # A small model answers a document's question best from the text alone.
    if state.past is None:
        history = () if best.supported and not writing else turn.history
        state.past = Past(history, turn.owner, count)
    return [*head, *state.past.within(profile.context_tokens - used), state.asked, *steps]


def _head(turn: Turn, profile: Profile, *, plain: bool) -> list[BaseMessage]:
    """The system message. A small model gets one only for plain talk, and only what the client says: with a passage it
    answers worse under any system text."""
    if not profile.system_role:
        return []
    if profile.grounding == "write":
        return [message(turn.owner, "system", "\n\n".join(filter(None, (prompts.SYSTEM, turn.instructions))))]
    return [message(turn.owner, "system", turn.instructions)] if turn.instructions and plain else []


def _question(turn: Turn, state: State, best: answer.Best, writing: bool) -> HumanMessage:
    """The question with what was found for it."""
    content, evidence = turn.question, 0.0
    if state.passages and writing:
        content = prompts.WRITE.format(question=turn.question, passages=prompts.numbered(state.passages, state.mark))
    elif best.supported:
        content, evidence = prompts.QUOTE.format(text=best.surroundings(), question=turn.question), best.score
    return HumanMessage(content, additional_kwargs={QUESTION_KEY: turn.question, EVIDENCE_KEY: evidence})


def _calls(state: State, writing: bool) -> list[BaseMessage]:
    """The calls so far with their results, step by step."""
    shown: list[BaseMessage] = []
    for step in sorted({c.request.step for c in state.calls}):
        calls = [c for c in state.calls if c.request.step == step and c.result is not None]
        shown.append(
            AIMessage(
                "",
                tool_calls=[
                    {"name": c.request.tool, "args": dict(c.request.arguments), "id": c.request.call_id} for c in calls
                ],
            )
        )
        for call in calls:
            result = call.message()
            if call.result is not None and call.result.untrusted and writing:
                result.content = prompts.as_data(result.text, state.mark)
            shown.append(result)
    return shown
