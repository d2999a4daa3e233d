"""A bad answer that retrieval or a tool caused is put down to them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from trimtab.align.blame import REASONS, Happened, after_replay, blame, of_reason, replay, replay_all
from trimtab.align.curation import curate
from trimtab.domain.judgement import Blame, Judgement, Kind, Said

ASKED = (Said("user", "Using the text above, answer: how long is the warranty?"),)
RIGHT = (Said("user", "The warranty is three years.\n\nUsing the text above, answer: how long is the warranty?"),)
DOWN = Judgement("fbk_1", Kind.LABEL, ASKED, "I do not know.", value=0)


@pytest.mark.parametrize(
    ("reason", "culprit"),
    [
        ("Wrong source", Blame.RETRIEVAL),
        ("wrong source: that is the old handbook", Blame.RETRIEVAL),
        ("The passage is outdated", Blame.RETRIEVAL),
        ("but it is in my documents!", Blame.RETRIEVAL),
        ("Tool failed", Blame.TOOL),
        ("the weather API returned an error", Blame.TOOL),
        ("Not true", Blame.MODEL),
        ("Too long", Blame.MODEL),
        ("I do not like it", None),
        ("", None),
        ("A document about tools is what I wanted", None),
    ],
)
def test_what_the_person_says_counts_first(reason: str, culprit: Blame | None) -> None:
    assert of_reason(reason) is culprit
    if culprit is not None:
        assert blame(Happened(failed=("weather",), not_found=True), reason).blame is culprit


def test_every_reason_that_is_offered_is_understood() -> None:
    for reason in REASONS:
        assert of_reason(reason.words) is reason.blame


def test_without_a_word_the_events_decide() -> None:
    assert blame(Happened()).blame is Blame.MODEL
    assert blame(Happened(passages=True)).blame is Blame.MODEL
    failed = blame(Happened(failed=("weather.today",)))
    assert (failed.blame, failed.why) == (Blame.TOOL, "weather.today failed in this turn")
    assert blame(Happened(passages=True, not_found=True)).blame is Blame.RETRIEVAL


def knows(prompt: Sequence[Said]) -> str:
    """A model that reads what it is given."""
    return "Three years." if "three years" in prompt[-1].content else "I do not know."


def right(prompt: Sequence[Said], text: str) -> float:
    return float("three" in text.lower())


def test_a_model_that_answers_well_with_the_right_context_is_not_trained_on_the_wrong_one() -> None:
    found = replay(RIGHT, knows, right)
    assert found.well
    row = after_replay(DOWN, found, Blame.RETRIEVAL)
    assert row.blame is Blame.RETRIEVAL
    assert "answered well" in row.about["blame"]
    assert curate([row]).counts == {"blame: retrieval": 1}


def test_a_model_that_fails_with_the_right_context_too_is_to_blame() -> None:
    def stubborn(prompt: Sequence[Said]) -> str:
        return "I do not know."

    blamed = Judgement("fbk_1", Kind.LABEL, ASKED, "No.", value=0, blame=Blame.RETRIEVAL, about={"blame": "a guess"})
    (row,) = replay_all([blamed], {"fbk_1": (RIGHT, Blame.RETRIEVAL)}, stubborn, right)
    assert (row.blame, dict(row.about)) == (Blame.MODEL, {})


def test_only_bad_rows_with_a_known_context_are_replayed() -> None:
    up = Judgement("fbk_2", Kind.LABEL, ASKED, "Three years.", value=1)
    asked: list[Sequence[Said]] = []

    def counting(prompt: Sequence[Said]) -> str:
        asked.append(prompt)
        return knows(prompt)

    other = Judgement("fbk_3", Kind.LABEL, ASKED, "No.", value=0)
    contexts = dict.fromkeys(("fbk_1", "fbk_2"), (RIGHT, Blame.RETRIEVAL))
    rows = replay_all([DOWN, up, other], contexts, counting, right)
    assert [row.blame for row in rows] == [Blame.RETRIEVAL, Blame.MODEL, Blame.MODEL]
    assert len(asked) == 3
