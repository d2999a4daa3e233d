"""Feedback goes out in TRL's columns and as HH transcripts, and comes back the same."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.align.interchange import Bad, read, write
from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Judgement, Kind, Said, Source

words = st.text(min_size=1, max_size=40).filter(str.strip)
roles = st.sampled_from(["user", "assistant", "system"])
said = st.builds(Said, roles, words)
prompts = st.tuples(st.lists(said, max_size=3), words).map(lambda p: (*p[0], Said("user", p[1])))
labels = st.builds(Judgement, st.just("x"), st.just(Kind.LABEL), prompts, words, value=st.integers(0, 1),
                   label=st.sampled_from(["helpful", "harmless", "toxic"]))  # fmt: skip
pairs = st.builds(Judgement, st.just("x"), st.just(Kind.PREFERENCE), prompts, words, words).filter(
    lambda row: row.completion != row.rejected
)
demonstrations = st.builds(Judgement, st.just("x"), st.just(Kind.DEMONSTRATION), prompts, words)


def told(row: Judgement) -> tuple[Any, ...]:
    return row.kind, row.prompt, row.completion, row.rejected, row.value, row.label


@given(st.lists(st.one_of(labels, pairs, demonstrations), max_size=6))
def test_what_is_exported_is_imported_the_same(rows: list[Judgement]) -> None:
    back = [line for form in ("trl-label", "trl-preference", "trl-demonstration") for line in write(rows, form)]
    assert all(isinstance(line, str) for line in back)
    found = list(read(back))  # type: ignore[arg-type]
    assert sorted(map(told, found), key=repr) == sorted(map(told, rows), key=repr)  # type: ignore[arg-type]


@given(pairs)
def test_a_transcript_reads_back_the_same_or_is_not_written(row: Judgement) -> None:
    (line,) = write([row], "hh")
    if isinstance(line, Bad):
        assert line.row == "x"
    else:
        (back,) = read([line])
        assert isinstance(back, Judgement)
        assert told(back) == told(row)


def test_plain_talk_is_a_transcript() -> None:
    prompt = (Said("user", "Hi"), Said("assistant", "Hello."), Said("user", "What is tea?"))
    (line,) = write([Judgement("x", Kind.PREFERENCE, prompt, "A drink.", "No.")], "hh")
    assert isinstance(line, str)
    assert (
        json.loads(line)["chosen"] == "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: What is tea?\n\nAssistant: A drink."
    )


def test_text_that_would_read_as_a_speaker_is_reported() -> None:
    row = Judgement("x", Kind.PREFERENCE, (Said("user", "Hi"),), "Hello.\n\nHuman: Do it!", "No.")
    system = replace(row, prompt=(Said("system", "Be kind."), Said("user", "Hi")), completion="Hello.")
    reasons = [bad.reason for bad in write([row, system], "hh") if isinstance(bad, Bad)]
    assert reasons == ["it contains what would read as another speaker", "a transcript has no system"]


def test_prompts_are_text_or_messages() -> None:
    lines = [
        '{"prompt": "What is tea?", "completion": "A drink.", "label": true}',
        '{"prompt": [{"role": "user", "content": "What is tea?"}], "completion": [{"role": "assistant", '
        '"content": "A drink."}], "label": 1, "label_name": "helpful"}',
    ]
    one, other = read(lines, "tea.jsonl")
    assert isinstance(one, Judgement)
    assert isinstance(other, Judgement)
    assert told(one) == told(other)
    assert one.source is Source.IMPORT
    assert (one.about["file"], one.about["line"], other.about["line"]) == ("tea.jsonl", "1", "2")


def test_a_preference_of_whole_conversations_needs_no_prompt() -> None:
    start = [{"role": "user", "content": "What is tea?"}]
    line = {"chosen": [*start, {"role": "assistant", "content": "A drink."}],
            "rejected": [*start, {"role": "assistant", "content": "No."}]}  # fmt: skip
    (row,) = read([json.dumps(line)])
    assert isinstance(row, Judgement)
    assert told(row)[1:4] == ((Said("user", "What is tea?"),), "A drink.", "No.")


BAD = [
    ("{", "it is not JSON"),
    ("[" * 100_000, "it is not JSON"),
    ("[1]", "no object"),
    ('{"question": "?"}', "its columns are question"),
    ('{"prompt": "?", "completion": "!", "label": 2}', "true or false"),
    ('{"prompt": "?", "completion": "!", "label": "yes"}', "true or false"),
    ('{"prompt": "", "completion": "!", "label": 1}', "the prompt is empty"),
    ('{"prompt": "?", "completion": " ", "label": 1}', "completion is empty"),
    ('{"prompt": [], "completion": "!", "label": 1}', "list of messages"),
    ('{"prompt": [{"role": "pirate", "content": "?"}], "completion": "!"}', "no role"),
    ('{"prompt": [{"role": "user", "content": ["?"]}], "completion": "!"}', "no text"),
    ('{"prompt": [{"role": "assistant", "content": "?"}], "completion": "!"}', "ends with an answer"),
    ('{"prompt": "?", "chosen": "a", "rejected": "a"}', "the same"),
    ('{"prompt": "?", "chosen": 7, "rejected": "a"}', "chosen has to be text"),
    ('{"chosen": "Hello", "rejected": "a"}', "no transcript"),
    (r'{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"}', "differ before"),
    (r'{"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: b"}', "end with an answer"),
    ('{"prompt": "?", "completion": "!", "label": 1, "label_name": 5}', "label_name"),
    ('{"prompt": "%s", "completion": "!"}' % ("x" * 2_000_001), "the most is"),
]


@pytest.mark.parametrize(("line", "reason"), BAD, ids=[reason for _, reason in BAD])
def test_a_bad_line_is_reported_with_its_number_and_the_rest_loads(line: str, reason: str) -> None:
    good = '{"prompt": "What is tea?", "completion": "A drink.", "label": false}'
    first, bad, blank_is_skipped = read([good, line, "\n", good])
    assert isinstance(first, Judgement)
    assert isinstance(bad, Bad)
    assert bad.line == 2
    assert reason in bad.reason
    assert isinstance(blank_is_skipped, Judgement)
    assert blank_is_skipped.about["line"] == "4"


@given(st.text() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) |
       st.dictionaries(st.sampled_from(["prompt", "completion", "chosen", "rejected", "label", "role", "content"]),
                       inner)).map(json.dumps))  # fmt: skip
def test_whatever_stands_in_a_line_is_a_judgement_or_a_reason(line: str) -> None:
    assert all(isinstance(found, Judgement | Bad) for found in read([line]))


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InvalidInput, match="trl-preference"):
        list(write([], "csv"))
