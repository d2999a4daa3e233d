"""Nothing that is tested was trained on: laws of the split."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.align.dataset import load, write
from trimtab.align.rows import from_line, line_of
from trimtab.align.similarity import alike, likeness, shingles
from trimtab.align.splits import ALIKE, Shares, split, text_of
from trimtab.domain.judgement import Blame, Judgement, Kind, Said, Source

HALF = Shares(validation=0.25, test=0.25)

texts = st.text(min_size=1, max_size=60)
bases = st.sampled_from(
    ["What is the capital of France, and how many people live in it?", "How do I boil an egg so that it stays soft?",
     "Write a poem about the sea.", "Why is the sky blue?", "aaaaaaaaaa", ""]
)  # fmt: skip
prompts = st.builds(lambda base, more, up: (base + more).upper() if up else base + more, bases, st.text(max_size=8),
                    st.booleans()).filter(str.strip)  # fmt: skip


@st.composite
def rows(draw: st.DrawFn) -> list[Judgement]:
    found = []
    for number in range(draw(st.integers(1, 14))):
        said = draw(st.lists(prompts, min_size=1, max_size=3))
        prompt = tuple(Said("assistant" if place % 2 else "user", text) for place, text in enumerate(said))
        thread = draw(st.sampled_from(["", "thr_1", "thr_2", f"thr_x{number}"]))
        about = {"thread": thread} if thread else {}
        found.append(Judgement(f"fbk_{number}", Kind.LABEL, prompt, "Yes.", value=1, about=about, at=float(number)))
    return found


@given(rows())
@settings(max_examples=300)
def test_no_two_splits_share_a_prompt_or_one_like_it_or_a_thread(found: list[Judgement]) -> None:
    places = split(found, HALF)
    for one, here in zip(found, places, strict=True):
        for other, there in zip(found, places, strict=True):
            if here != there:
                near = likeness(shingles(text_of(one.prompt)), shingles(text_of(other.prompt)))
                assert near < ALIKE
                assert one.about.get("thread", 1) != other.about.get("thread", 2)
                assert other.prompt[: len(one.prompt)] != one.prompt


@given(rows(), st.randoms())
@settings(max_examples=100)
def test_the_order_of_rows_does_not_matter(found: list[Judgement], chance: object) -> None:
    before = dict(zip([row.id for row in found], split(found, HALF), strict=True))
    chance.shuffle(found)  # type: ignore[attr-defined]
    assert dict(zip([row.id for row in found], split(found, HALF), strict=True)) == before


@given(st.lists(texts, max_size=12), st.floats(0.3, 1.0))
@settings(max_examples=300)
def test_every_pair_that_is_alike_is_in_one_group(found: list[str], threshold: float) -> None:
    groups = alike(found, threshold)
    for one, here in zip(found, groups, strict=True):
        for other, there in zip(found, groups, strict=True):
            if likeness(shingles(one), shingles(other)) >= threshold:
                assert here == there


def test_prompts_stay_where_they_are_when_more_come_in() -> None:
    old = [
        Judgement(f"fbk_{n}", Kind.LABEL, (Said("user", f"{'abcdefghij'[n % 10] * 9} {n * n * 7919}"),), "Yes.", at=n)
        for n in range(200)
    ]
    new = [Judgement(f"new_{n}", Kind.LABEL, (Said("user", f"{n * n * 104729} zzz"),), "No.", at=1000.0 + n)
           for n in range(200)]  # fmt: skip
    assert split([*old, *new], HALF)[: len(old)] == split(old, HALF)


def test_the_shares_are_met_roughly() -> None:
    many = [Judgement(f"f{n}", Kind.LABEL, (Said("user", f"{n * 7919 % 10007} {n**3}"),), "Yes.") for n in range(3000)]
    places = split(many, Shares(validation=0.1, test=0.2))
    assert 0.07 < places.count("validation") / 3000 < 0.13
    assert 0.16 < places.count("test") / 3000 < 0.24


judgements = st.builds(
    Judgement,
    id=texts,
    kind=st.sampled_from(Kind),
    prompt=st.lists(st.builds(Said, st.sampled_from(["user", "assistant", "system"]), st.text()), min_size=1).map(
        tuple
    ),
    completion=st.text(),
    rejected=st.text(),
    value=st.sampled_from([None, 0, 1]),
    source=st.sampled_from(Source),
    blame=st.sampled_from(Blame),
    at=st.floats(0, 4e9),
    weight=st.floats(0, 1),
    about=st.dictionaries(texts, st.text(), max_size=3),
)


@given(judgements)
def test_a_line_reads_back_as_the_judgement_it_was(row: Judgement) -> None:
    assert from_line(line_of(row)) == row
    assert "\n" not in line_of(row)


@given(st.lists(judgements, min_size=1, max_size=5, unique_by=lambda row: row.id))
@settings(max_examples=30)
def test_a_dataset_reads_back_as_it_was_written(tmp_path_factory: object, found: list[Judgement]) -> None:
    folder: Path = tmp_path_factory.mktemp("datasets")  # type: ignore[attr-defined]
    made = write(found, folder)
    assert load(made.folder) == made
    assert sum(made.card["splits"].values()) == len(found)
