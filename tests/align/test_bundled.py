"""The data set that ships is what its card says it is."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from trimtab.align import bundled
from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Judgement, Kind, Source

REPOSITORY = Path(__file__).parent.parent.parent
COMMON = set(
    "how do i a the to my what is in of it can for an me you your so that with and or not does from get on at make "
    "write help tell give should when why which who be this one".split()
)


@pytest.fixture(scope="module")
def rows() -> list[Judgement]:
    return bundled.load_bundled()


def _words(prompt: Any) -> frozenset[str]:
    text = " ".join(said.content for said in prompt if said.role == "user").lower()
    return frozenset(re.findall(r"[a-z0-9]+", text)) - COMMON


def test_a_newcomer_finds_enough_to_start_with_in_every_area(rows: list[Judgement]) -> None:
    areas = Counter(prompt.area for prompt in bundled.prompts())
    assert areas["helpful"] >= 200
    assert areas["harmless"] >= 110
    assert areas["on-topic"] >= 80
    kinds = Counter((row.kind, row.about["origin"]) for row in rows)
    assert kinds[Kind.PREFERENCE, "written"] >= 350
    assert kinds[Kind.PREFERENCE, "sampled"] >= 350
    assert kinds[Kind.DEMONSTRATION, "written"] >= 150
    assert {row.label for row in rows if row.kind is Kind.LABEL} == {"helpful", "harmless"}


def test_the_counts_and_the_hash_in_the_card_are_those_of_the_files() -> None:
    card = (bundled.DATA / "README.md").read_text("utf-8")
    counted = re.search(r"<!-- counted: .*? -->\n(.*?)<!-- /counted -->", card, re.S)
    assert counted is not None
    assert counted[1].strip() == bundled.card_table().strip(), "Run python -m trimtab.align.bundled and put it there."


def test_every_row_is_complete_and_no_two_have_the_same_id(rows: list[Judgement]) -> None:
    assert len({row.id for row in rows}) == len(rows)
    for row in rows:
        assert row.source is Source.BUNDLED
        assert row.prompt[-1].role == "user"
        assert row.completion.strip(), row.id
        if row.kind is Kind.PREFERENCE:
            assert row.rejected.strip(), row.id
            assert row.rejected != row.completion, row.id
        assert (row.value in (0, 1)) == (row.kind is Kind.LABEL), row.id


def test_only_text_of_the_model_is_said_to_be_the_models(rows: list[Judgement]) -> None:
    assert {row.about["origin"] for row in rows if row.ours} == {"sampled"}
    assert {row.version for row in rows if row.ours} == {bundled.MODEL}


def test_no_prompt_is_in_two_splits(rows: list[Judgement]) -> None:
    known = {prompt.id: prompt for prompt in bundled.prompts()}
    splits: dict[str, set[str]] = {}
    for row in rows:
        prompt = known[row.about["prompt_id"]]
        assert row.prompt == prompt.prompt
        assert row.about["split"] == prompt.split
        splits.setdefault(prompt.group, set()).add(prompt.split)
    assert all(len(found) == 1 for found in splits.values())
    shares = Counter(prompt.split for prompt in known.values())
    assert 0.65 <= shares["train"] / len(known) <= 0.75
    assert shares["test"] / len(known) >= 0.15


def test_nothing_near_a_test_prompt_or_a_probe_is_in_train() -> None:
    asked = bundled.probes()
    train = [_words(prompt.prompt) for prompt in bundled.prompts("train")]
    held_out = [prompt.prompt for split in ("validation", "test") for prompt in bundled.prompts(split)]
    held_out += [probe.prompt for probe in (*asked.harmful, *asked.lookalikes, *asked.sycophancy)]
    for prompt, seen in itertools.product(held_out, train):
        words = _words(prompt)
        assert len(words & seen) / len(words | seen) < 0.67, prompt[-1].content


def test_length_does_not_tell_which_answer_is_better(rows: list[Judgement]) -> None:
    """Neither "shorter wins" nor "longer wins" is right for much more than half of the pairs."""
    pairs = [row for row in rows if row.kind is Kind.PREFERENCE]
    longer = sum(len(row.completion) > len(row.rejected) for row in pairs) / len(pairs)
    assert 0.4 <= longer <= 0.6
    lengths = [(len(text), good) for row in pairs for text, good in ((row.completion, 1), (row.rejected, 0))]
    mean = sum(length for length, _ in lengths) / len(lengths)
    spread = (sum((length - mean) ** 2 for length, _ in lengths) / len(lengths)) ** 0.5
    correlation = sum((length - mean) * (good - 0.5) for length, good in lengths) / len(lengths) / spread / 0.5
    assert abs(correlation) < 0.1


def test_labels_are_about_balanced(rows: list[Judgement]) -> None:
    for name in ("helpful", "harmless"):
        values = [row.value for row in rows if row.kind is Kind.LABEL and row.label == name]
        assert 0.4 <= sum(value or 0 for value in values) / len(values) <= 0.6


def test_a_look_alike_is_answered_and_a_harmful_request_is_not(rows: list[Judgement]) -> None:
    known = {prompt.id: prompt for prompt in bundled.prompts()}
    declined = re.compile(
        r"\b(can't|won't|don't want to|rather not|no race is better)\b|^No, I|I'm (really|very) sorry", re.I
    )
    refused = 0
    for row in rows:
        prompt = known[row.about["prompt_id"]]
        if row.kind is not Kind.DEMONSTRATION:
            continue
        if prompt.expected == "decline":
            assert declined.search(row.completion), row.completion
            refused += 1
        if prompt.lookalike:
            assert not re.search(r"\bI (can't|won't)|I'm sorry", row.completion), row.completion
    assert refused >= 30


def test_the_gate_has_its_probes() -> None:
    asked = bundled.probes()
    assert (len(asked.harmful), len(asked.lookalikes), len(asked.sycophancy)) == (40, 40, 30)
    assert {probe.expected for probe in asked.harmful} == {"decline"}
    assert all(probe.correct for probe in asked.sycophancy)
    assert len(asked.plain_text.split()) >= 2500


def test_one_split_can_be_asked_for_and_a_wrong_name_is_explained(rows: list[Judgement]) -> None:
    parts = [bundled.load_bundled(split) for split in bundled.SPLITS]
    assert sum(map(len, parts)) == len(rows)
    with pytest.raises(InvalidInput, match=r"no split 'dev'\. Splits: train, validation, test"):
        bundled.load_bundled("dev")
    with pytest.raises(InvalidInput, match="no area 'rude'"):
        bundled.prompts(area="rude")


def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (bundled.DATA / "prompts.jsonl").read_text("utf-8").splitlines()
    lines[2] = lines[2][:20]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines), "utf-8")
    monkeypatch.setattr(bundled, "DATA", tmp_path)
    with pytest.raises(InvalidInput, match=r"Line 3 of the bundled prompts\.jsonl"):
        bundled.prompts()


def test_other_tools_read_the_files_as_trls_conversations() -> None:
    for name, columns in (
        ("preferences_written", {"prompt", "chosen", "rejected"}),
        ("labels", {"prompt", "completion", "label"}),
        ("demonstrations", {"prompt", "completion"}),
    ):
        first = json.loads((bundled.DATA / f"{name}.jsonl").read_text("utf-8").splitlines()[0])
        assert columns <= set(first)
        assert [message["role"] for message in first["prompt"]][-1] == "user"
    kinds = list(bundled.DATA.glob("preferences_*.jsonl"))
    columns_of = {tuple(json.loads(line)) for path in kinds for line in path.read_text("utf-8").splitlines()}
    assert len(columns_of) == 1, "or no table can be made of all of them"


@pytest.mark.skipif(shutil.which("git") is None or not (REPOSITORY / ".git").exists(), reason="not a git checkout")
def test_no_data_file_is_left_out_of_the_wheel() -> None:
    """The build takes what git tracks or would track; an ignore rule that catches a data file would drop it."""
    files = [str(path) for path in bundled.DATA.iterdir()]
    ignored = subprocess.run(
        ["git", "check-ignore", *files], cwd=REPOSITORY, capture_output=True, text=True, timeout=30
    )
    assert ignored.stdout == ""
    assert ignored.returncode == 1, ignored.stderr
