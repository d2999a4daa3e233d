"""Smaller models made of a larger one: which layers go, what is learned again, and what is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tiny_decoder import adapter, decoder, logp
from trimtab.align import depth
from trimtab.align.adapter import read_adapter
from trimtab.align.base import load_base
from trimtab.align.frozen import Frozen
from trimtab.align.network import Network
from trimtab.align.student import Student, StudentConfig, distance, merged, save, train
from trimtab.domain.errors import InvalidInput

TEXTS = [tuple((7 * i + 3 * j) % 250 + 3 for j in range(12 + i % 5)) for i in range(24)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return decoder(tmp_path_factory.mktemp("teacher"), layers=6)


@pytest.fixture
def teacher(folder: Path) -> Network:
    torch.set_num_threads(1)
    return Network(load_base(folder), trunk_layers=0, bf16=False)


def test_a_layer_that_changes_nothing_is_the_first_to_go(teacher: Network) -> None:
    idle = teacher.layers[3]
    for linear in (idle.o, idle.down):
        linear.product = Frozen(torch.zeros_like(linear.weight))
    scores = depth.influence(teacher, TEXTS)
    assert scores[3] == pytest.approx(0, abs=1e-5)
    assert min(score for layer, score in enumerate(scores) if layer != 3) > 0.001
    assert depth.least(scores, 1) == (3,)
    kl, same = distance(Student(teacher, (3,)), TEXTS)
    assert (kl, same) == (pytest.approx(0, abs=1e-4), 1.0)


def test_a_student_comes_nearer_to_its_teacher_and_the_teacher_stays_as_it_was(teacher: Network) -> None:
    weights = [layer.down.weight.clone() for layer in teacher.layers]
    student = Student(teacher, (2, 4))
    before, _ = distance(student, TEXTS)
    steps = list(train(student, TEXTS, StudentConfig(epochs=6, batch=8, learning_rate=2e-3)))
    after, _ = distance(student, TEXTS)
    assert after < before / 2
    assert steps[-1].loss < steps[0].loss
    assert all(torch.equal(a, layer.down.weight) for a, layer in zip(weights, teacher.layers, strict=True))


def test_a_training_that_was_killed_ends_at_the_same_weights(teacher: Network, tmp_path: Path) -> None:
    config = StudentConfig(epochs=1, batch=4, checkpoint_every=2)
    whole = Student(teacher, (3,))
    list(train(whole, TEXTS, config))
    killed = train(Student(teacher, (3,)), TEXTS, config, folder=tmp_path)
    for _ in range(5):
        next(killed)
    again = Student(teacher, (3,))
    assert [step.step for step in train(again, TEXTS, config, folder=tmp_path)] == [5, 6]
    for name, tensor in whole.named().items():
        assert torch.allclose(tensor, again.named()[name], atol=1e-6), name


def test_what_is_written_is_what_was_trained_and_transformers_reads_it(
    teacher: Network, folder: Path, tmp_path: Path
) -> None:
    student = Student(teacher, (1, 3))
    list(train(student, TEXTS, StudentConfig(epochs=1, batch=8)))
    save(student, load_base(folder), tmp_path / "student")
    assert json.loads((tmp_path / "student" / "config.json").read_text())["num_hidden_layers"] == 4
    assert load_base(tmp_path / "student").prompt_text is not None
    ids = TEXTS[0]
    theirs = torch.tensor(logp(tmp_path / "student", [list(ids)])[0]).float()
    hidden = teacher.through(teacher.layers[:1], torch.nn.functional.embedding(torch.tensor([ids]), teacher.embedding))
    ours = torch.log_softmax(teacher.logits(student.upper(hidden)[0]), -1)
    assert torch.allclose(theirs, ours, atol=0.05)  # written as float16


def test_an_aligned_teacher_is_the_base_with_its_adapter_inside(folder: Path, tmp_path: Path) -> None:
    lora = adapter(folder, tmp_path / "lora", seed=3)
    whole = merged(load_base(folder), read_adapter(lora)[0], tmp_path / "merged")
    apart = logp(folder, [list(TEXTS[0])], lora)[0]
    assert torch.tensor(logp(whole, [list(TEXTS[0])])[0]).allclose(torch.tensor(apart), atol=1e-3)


def test_too_many_layers_cannot_be_dropped(teacher: Network) -> None:
    assert depth.spread(30, 10) == (10, 12, 14, 16, 18, 20, 22, 24, 26, 28)
    assert all(10 <= layer <= 28 for layer in depth.spread(30, 7))
    for wrong in (0, 5, 6):
        with pytest.raises(InvalidInput, match="can be dropped"):
            depth.least([0.1] * 6, wrong)
    with pytest.raises(InvalidInput, match="at even distances"):
        depth.spread(30, 25)
    with pytest.raises(InvalidInput, match="cannot be dropped"):
        Student(teacher, (9,))
