"""The constitution as a person edits it: faults are named by line, versions are kept, nothing is overwritten."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.align.amendments import Amendments
from trimtab.align.constitution import DEFAULT, EXPECTED, Constitution
from trimtab.domain.errors import Conflict, InvalidInput, NotFound, TooLarge

SMALL = """\
# ours
name: small
principles:
  - id: kind
    title: Is kind
    text: Be kind.
    critique: What is unkind?
    revise: Make it kind.
    question: Is it kind?
    good: You are kind.
    bad: You are rude.
"""


def test_the_bundled_constitution_has_a_principle_for_every_kind_of_prompt() -> None:
    constitution = Constitution.load()
    assert 8 <= len(constitution.principles) <= 12
    for expected in EXPECTED:
        assert constitution.for_prompt(expected)
    assert constitution["harmless"].templates
    assert all(principle.evidence for principle in constitution.principles)


def test_its_version_is_its_text() -> None:
    text = DEFAULT.read_text("utf-8")
    assert Constitution.parse(text).version == Constitution.load().version
    assert Constitution.parse(text + "# a remark\n").version != Constitution.load().version


@pytest.mark.parametrize(
    ("edit", "line", "says"),
    [
        (("    text: Be kind.\n", ""), 4, "this principle has no text"),
        (("title: Is kind", "titel: Is kind"), 5, "no field 'titel'"),
        (("text: Be kind.", "text: [Be, kind]"), 6, "text must be text"),
        (("text: Be kind.", "text: '  '"), 6, "text must be text and not be empty"),
        (("critique: What", "text: What"), 7, "text is given twice"),
        (("id: kind", "id: Very Kind!"), 4, "an id is made of a-z"),
        (
            ("bad: You are rude.", "bad: You are rude.\n    judge: guess"),
            12,
            "judge is 'guess'; it can be auto, likelihood",
        ),
        (("bad: You are rude.", "bad: You are rude.\n    for: [answer, shout]"), 12, "for is 'shout'"),
        (("bad: You are rude.", "bad: You are rude.\n    templates: none"), 12, "templates must be a list"),
        (("bad: You are rude.", 'bad: "You are rude.'), 11, "not YAML"),
        (("  - id: kind", "  - &one\n    id: kind"), 4, "anchors and aliases"),
        (("text: Be kind.", "text: !!python/name:os.system x"), 6, "the tag"),
        (("text: Be kind.", "text: [[[[[[[[1]]]]]]]]"), 6, "nested too deeply"),
        (("principles:", "principles: 3\nother:"), 4, "no field 'other'"),
    ],
)
def test_a_fault_is_named_with_its_line(edit: tuple[str, str], line: int, says: str) -> None:
    broken = SMALL.replace(*edit, 1)
    assert broken != SMALL
    with pytest.raises(InvalidInput) as caught:
        Constitution.parse(broken, source="mine.yaml")
    assert says in caught.value.message
    assert caught.value.detail["line"] == line, caught.value.message
    assert f"mine.yaml, line {line}:" in caught.value.message


def test_two_principles_cannot_share_an_id() -> None:
    twice = SMALL + SMALL.split("principles:\n")[1]
    with pytest.raises(InvalidInput, match=r"line 12: there is already a principle 'kind' in line 4"):
        Constitution.parse(twice)


def test_what_is_no_text_or_too_much_of_it_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"line 2: this is not UTF-8"):
        Constitution.parse(b"name: x\n\xff\xfe")
    with pytest.raises(TooLarge):
        Constitution.parse("#" * 300_000)
    with pytest.raises(InvalidInput, match="nested too deeply"):
        Constitution.parse("[" * 100_000)
    with pytest.raises(NotFound, match="no constitution at"):
        Constitution.load(Path("/nowhere/at/all.yaml"))


@settings(max_examples=150)
@given(st.text(st.characters(), max_size=200) | st.binary(max_size=200))
def test_whatever_is_typed_is_read_or_refused_by_its_line(text: str | bytes) -> None:
    with contextlib.suppress(InvalidInput):
        Constitution.parse(text)


def test_an_edit_makes_a_new_version_and_the_old_one_stays(tmp_path: Path) -> None:
    kept = Amendments(tmp_path)
    assert kept.current().version == Constitution.load().version, "the bundled one, until there is another"

    first = kept.save(SMALL, by="p-1")
    second = kept.save(SMALL.replace("Be kind.", "Be very kind."), after=first.version, by="p-2", note="more of it")

    assert kept.current().version == second.version
    assert kept.version(first.version).text == SMALL, "with its comment"
    assert [(line.version, line.by) for line in kept.history()] == [(first.version, "p-1"), (second.version, "p-2")]

    kept.restore(first.version, by="p-1")
    assert kept.current().text == SMALL
    assert kept.history()[-1].note == f"restored {first.version}"


def test_nobody_overwrites_what_they_have_not_seen(tmp_path: Path) -> None:
    kept = Amendments(tmp_path)
    opened = kept.current().version
    kept.save(SMALL, after=opened, by="p-1")
    with pytest.raises(Conflict, match="Open it again and repeat your change"):
        kept.save(SMALL.replace("kind.", "nice."), after=opened, by="p-2")
    assert kept.current().text == SMALL


def test_a_broken_edit_changes_nothing(tmp_path: Path) -> None:
    kept = Amendments(tmp_path)
    kept.save(SMALL)
    with pytest.raises(InvalidInput):
        kept.save(SMALL.replace("title", "titel"))
    assert kept.current().text == SMALL
    assert len(kept.history()) == 1


def test_a_version_changed_on_disk_is_not_used(tmp_path: Path) -> None:
    kept = Amendments(tmp_path)
    saved = kept.save(SMALL)
    (tmp_path / f"{saved.version}.yaml").write_text(SMALL.replace("rude", "nice"), "utf-8")
    with pytest.raises(InvalidInput, match="was changed after it was saved"):
        kept.current()


def test_an_unknown_version_is_not_a_path(tmp_path: Path) -> None:
    (tmp_path.parent / "outside.yaml").write_text(SMALL, "utf-8")
    with pytest.raises(NotFound, match="no version"):
        Amendments(tmp_path).version("../outside")


def test_a_history_torn_by_a_crash_is_read_up_to_the_tear_and_goes_on(tmp_path: Path) -> None:
    kept = Amendments(tmp_path)
    first = kept.save(SMALL)
    log = tmp_path / "history.jsonl"
    log.write_bytes(log.read_bytes() + b'{"version": "ab')
    second = kept.save(SMALL.replace("Be kind.", "Be nice."))
    assert [line.version for line in kept.history()] == [first.version, second.version]
