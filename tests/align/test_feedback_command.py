"""`trimtab feedback` as an operator uses it, on a real folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from scripted_app import app_with, follow, new_thread
from trimtab.align.dataset import load
from trimtab.cli.main import app as cli
from trimtab.domain.errors import NotFound, TrimtabError
from trimtab.store import feedback, people, threads, versions


def run(home: Path, *words: str, fails: bool = False) -> Result:
    result = CliRunner().invoke(cli, ["feedback", *words], env={"TRIMTAB_HOME": str(home), "COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert (result.exit_code != 0) == fails, result.output
    return result


def read(home: Path, *words: str) -> Any:
    return json.loads(run(home, *words, "--json").stdout)


async def said(home: Path, *about: tuple[str, str, int], user: str = "local") -> list[str]:
    """Answers that somebody got, and a thumb on each; returns the feedback's ids."""
    ids = []
    async with app_with([answer for _, answer, _ in about], home) as app:
        owner = await app.database.write(people.ensure_user, user)
        for question, _, value in about:
            thread = await new_thread(app, owner)
            await follow(app, await app.post(owner, thread, question))
            answer = (await app.database.read(threads.path, owner, thread))[-1]
            ids.append((await app.database.write(feedback.thumb, owner, answer["id"], value))["id"])
    return ids


TEA = ("What is tea?", "A drink made from leaves.", 1)
RUDE = ("Can you help me with my taxes?", "No. Write to ann@example.org.", 0)


async def test_feedback_is_listed_and_shown_with_what_becomes_of_it(tmp_path: Path) -> None:
    tea, rude = await said(tmp_path, TEA, RUDE)
    listed = run(tmp_path, "list").stdout
    assert "What is tea?" in listed
    assert [row["about"]["feedback"] for row in read(tmp_path, "list")] == [rude, tea]
    shown = run(tmp_path, "show", tea).stdout
    assert "[user]\nWhat is tea?" in shown
    assert "trains: yes" in shown
    with pytest.raises(NotFound):
        run(tmp_path, "show", "fbk_none")


async def test_a_row_is_left_out_and_brought_back(tmp_path: Path) -> None:
    tea, _ = await said(tmp_path, TEA, RUDE)
    run(tmp_path, "exclude", tea, "--reason", "only a test")
    assert read(tmp_path, "curate", "--dropped")["left_out"] == [
        {"id": tea, "rule": "by hand", "reason": "only a test"}
    ]
    assert "by hand: only a test" in run(tmp_path, "show", tea).stdout
    run(tmp_path, "undo", tea)
    told = read(tmp_path, "curate")
    assert (told["kept"], told["dropped"], told["scrubbed"]) == (2, {}, {"e-mail": 1})
    assert "2 judgements stay" in run(tmp_path, "curate").stdout


async def test_a_dataset_is_written_with_its_card(tmp_path: Path) -> None:
    await said(tmp_path, TEA, RUDE)
    printed = run(tmp_path, "dataset").stdout
    assert "2 judgements of 2 prompts by 1 people" in printed
    card = read(tmp_path, "dataset")
    made = load(Path(card["folder"]))
    assert made.id == card["hash"]
    assert "ann@example.org" not in "".join(file.read_text() for file in made.folder.iterdir())
    assert "[e-mail]" in "".join(row.completion for rows in made.splits.values() for row in rows)


def told(rows: Sequence[dict[str, Any]]) -> list[str]:
    keys = ("kind", "prompt", "completion", "rejected", "value", "label")
    return sorted(json.dumps({key: row[key] for key in keys}) for row in rows)


@pytest.mark.parametrize("form", ["trl-preference", "trl-label", "trl-demonstration", "hh"])
def test_what_was_imported_is_exported_and_imported_elsewhere_the_same(form: str, tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "What is tea?"}]  # fmt: skip
    lines = [
        {"prompt": talk, "chosen": "A drink.", "rejected": "No."},
        {"prompt": "What is coffee?", "chosen": "A drink made of beans.", "rejected": "Who knows?"},
        {"prompt": [{"role": "system", "content": "Be kind."}, *talk], "completion": "A drink.", "label": True},
        {"prompt": "Is it safe?", "completion": "No idea, try it!", "label": False, "label_name": "harmless"},
        {"prompt": talk, "completion": "Tea is a drink made from leaves."},
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    one, other = tmp_path / "one", tmp_path / "other"
    assert read(one, "import", str(tmp_path / "in.jsonl")) == {"added": 5, "known": 0, "bad": []}
    assert read(one, "import", str(tmp_path / "in.jsonl")) == {"added": 0, "known": 5, "bad": []}
    run(one, "export", "--format", form, "--to", str(tmp_path / "out.jsonl"))
    count = len((tmp_path / "out.jsonl").read_text().splitlines())
    assert count == {"trl-preference": 2, "trl-label": 2, "trl-demonstration": 1, "hh": 2}[form]
    assert read(other, "import", str(tmp_path / "out.jsonl"))["added"] == count
    kinds = {row["kind"] for row in read(other, "list")}
    assert told(read(other, "list")) == told([row for row in read(one, "list") if row["kind"] in kinds])


def test_bad_lines_are_named_and_the_rest_loads_and_can_be_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"prompt": "Hi", "completion": "Hello.", "label": true}\n{broken\n{"a": 1}\n')
    result = run(tmp_path, "import", str(file), "--name", "mine", fails=True)
    assert "1 added, 0 known already, 2 bad." in result.output
    assert f"{file}:2: it is not JSON" in result.output
    assert f"{file}:3: it has neither" in result.output
    assert "Nothing came from 'other'. Imported: mine." in run(tmp_path, "remove-import", "other").stdout
    assert "1 removed." in run(tmp_path, "remove-import", "mine").stdout
    assert read(tmp_path, "list") == []


async def test_a_deleted_persons_feedback_is_gone_and_the_versions_it_shaped_are_named(tmp_path: Path) -> None:
    await said(tmp_path, TEA)
    (hers,) = await said(tmp_path, RUDE, user="ann")
    folder = Path(read(tmp_path, "dataset")["folder"])
    async with app_with([], tmp_path) as app:
        add = versions.add
        await app.database.write(add, "ver_1", "kinder", {}, digest="0" * 64, shaped_by=load(folder).feedback_ids())
        await app.database.write(add, "ver_2", "other", {}, digest="1" * 64)
    gone = read(tmp_path, "delete-person", "ann", "--yes")
    assert gone["feedback"] == 1
    assert gone["datasets"] == [folder.name]
    assert [(version["name"], version["rows"]) for version in gone["versions"]] == [("kinder", 1)]
    assert not folder.exists()
    assert hers not in [row["about"]["feedback"] for row in read(tmp_path, "list")]
    assert "kinder" in run(tmp_path, "delete-person", "ann", "--yes").stdout
    with pytest.raises(TrimtabError, match="Nobody is called"):
        run(tmp_path, "delete-person", "nobody", "--yes")


async def test_agreement_is_printed(tmp_path: Path) -> None:
    assert "Nothing was judged yet." in run(tmp_path, "agreement").stdout
    await said(tmp_path, TEA)
    assert "helpful: no figure yet" in run(tmp_path, "agreement").stdout


def test_text_from_models_cannot_move_the_cursor(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text(json.dumps({"prompt": "\x1b[31m[bold]Hi", "completion": "\x1b[2JHello.", "label": True}) + "\n")
    run(tmp_path, "import", str(file))
    (row,) = read(tmp_path, "list")
    for words in (["list"], ["show", row["about"]["feedback"]]):
        assert "\x1b" not in run(tmp_path, *words).stdout
    assert "[bold]Hi" in run(tmp_path, "list").stdout
