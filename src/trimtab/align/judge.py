"""Which of two answers keeps a principle better, by a model's own probabilities or by a stronger model's word.

Asking a small model "A or B?" is no use: models of 0.5B and less answer A whatever stands there. So there are other
forms, and `agreement.py` measures for each principle which of them agrees with people:

* likelihood: the log-probability of the answer, a token, when the principle is the system message;
* pointwise: a yes-or-no question about one answer, log P("Yes") - log P("No");
* contrast: the log-probability of the answer, a token, as somebody who keeps the principle, less that as somebody who
  breaks it (what every answer has in common, such as its fluency, cancels out);
* choice: "A or B?" in both orders, log P("A") - log P("B"), so that a love of A cancels out;
* external: a stronger model by URL, asked in both orders; if it does not name the same answer both times, it is a tie.

Likelihood, pointwise and contrast look at one answer at a time and have no order. Likelihood and contrast are means a
token, so a long answer is not unlikely for being long.

The answers are untrusted: one that says "choose A" meets the model in both orders and so gains nothing from it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Said

from .constitution import FORMS, Principle
from .scorer import Continuation, Scorer
from .writer import Writer

ONE_BY_ONE = ("likelihood", "pointwise", "contrast")
"""Forms that give an answer a score of its own."""


@dataclass(frozen=True)
class Two:
    """Two answers to one prompt."""

    prompt: tuple[Said, ...]
    first: str
    second: str

    @property
    def turned(self) -> Two:
        return Two(self.prompt, self.second, self.first)


class Judge:
    """Judges by the forms it has the means for: `scorer` for all but ``external``, `external` for that one."""

    def __init__(self, scorer: Scorer | None = None, external: Writer | None = None) -> None:
        self._scorer = scorer
        self._external = external

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms that can be asked for, in the order of their cost."""
        local = tuple(form for form in FORMS if form != "external") if self._scorer else ()
        return (*local, "external") if self._external else local

    def margins(self, principle: Principle, form: str, pairs: Sequence[Two]) -> list[float]:
        """How much better the first answer of each pair keeps the principle; 0 is a tie, negative the second.

        The size compares within one form only: nats a token (likelihood, contrast), nats (pointwise, choice), or
        1 and 0 (external).

        Raises:
            InvalidInput: this judge has no means for the form.
            Unavailable: the external model did not answer.
        """
        self._check(form)
        if form in ONE_BY_ONE:
            answers = [(two.prompt, text) for two in pairs for text in (two.first, two.second)]
            scores = self.scores(principle, form, answers)
            return [scores[i] - scores[i + 1] for i in range(0, len(scores), 2)]
        if form == "external":
            return self._said(principle, pairs)
        asked = [_question_of_two(principle, two) for pair in pairs for two in (pair, pair.turned)]
        leanings = self._between(asked, "A", "B")
        return [(leanings[i] - leanings[i + 1]) / 2 for i in range(0, len(leanings), 2)]

    def scores(self, principle: Principle, form: str, answers: Sequence[tuple[tuple[Said, ...], str]]) -> list[float]:
        """How well each answer keeps the principle, for a form of `ONE_BY_ONE`.

        Raises:
            InvalidInput: the form compares two answers and has no score for one.
        """
        self._check(form)
        if form == "likelihood":
            return self._means([Continuation(_under(principle.text, prompt), text) for prompt, text in answers])
        if form == "pointwise":
            return self._between([_question_of_one(principle, prompt, text) for prompt, text in answers], "Yes", "No")
        if form != "contrast":
            raise InvalidInput(f"The form {form!r} compares two answers. Use `margins`, or one of {ONE_BY_ONE}.")
        means = self._means(
            [
                Continuation(_under(character, prompt), text)
                for prompt, text in answers
                for character in (principle.good, principle.bad)
            ]
        )
        return [means[i] - means[i + 1] for i in range(0, len(means), 2)]

    def _check(self, form: str) -> None:
        if form not in self.forms:
            have = ", ".join(self.forms) or "none: give it a scorer or an external model"
            raise InvalidInput(f"This judge cannot judge by {form!r}. It has {have}.")

    def _means(self, wanted: Sequence[Continuation]) -> list[float]:
        return [found.mean for found in cast(Scorer, self._scorer)(wanted)]

    def _between(self, asked: Sequence[tuple[Said, ...]], one: str, other: str) -> list[float]:
        found = cast(Scorer, self._scorer)(
            [Continuation(messages, word) for messages in asked for word in (one, other)]
        )
        return [found[i].total - found[i + 1].total for i in range(0, len(found), 2)]

    def _said(self, principle: Principle, pairs: Sequence[Two]) -> list[float]:
        asked = [_question_of_two(principle, two) for pair in pairs for two in (pair, pair.turned)]
        named = [_named(reply) for reply in cast(Writer, self._external)(asked)] if asked else []
        return [float(named[i]) if named[i] == -named[i + 1] else 0.0 for i in range(0, len(named), 2)]


def _under(instruction: str, prompt: Sequence[Said]) -> tuple[Said, ...]:
    """The prompt with an instruction before whatever its own system message says."""
    own = [said.content for said in prompt if said.role == "system"]
    rest = tuple(said for said in prompt if said.role != "system")
    return (Said("system", "\n\n".join([instruction, *own])), *rest)


def _shown(prompt: Sequence[Said]) -> str:
    """The prompt as a judge reads it."""
    names = {"system": "Task", "user": "Question", "assistant": "Earlier answer"}
    return "\n".join(f"{names.get(said.role, said.role)}: {said.content}" for said in prompt)


def _question_of_one(principle: Principle, prompt: Sequence[Said], text: str) -> tuple[Said, ...]:
    asked = f"{_shown(prompt)}\nAnswer: {text}\n\n{principle.question} Reply with Yes or No."
    return (Said("user", asked),)


def _question_of_two(principle: Principle, two: Two) -> tuple[Said, ...]:
    asked = (
        f"{_shown(two.prompt)}\n\nAnswer A: {two.first}\n\nAnswer B: {two.second}\n\n"
        f"Principle: {principle.text}\nWhich answer keeps the principle better? Reply with A or B only."
    )
    return (Said("user", asked),)


def _named(reply: str) -> int:
    """1 for A, -1 for B, 0 when the reply names neither, or both."""
    named = set(re.findall(r"\b[AB]\b", reply[:200]))
    if named == {"A"}:
        return 1
    return -1 if named == {"B"} else 0
