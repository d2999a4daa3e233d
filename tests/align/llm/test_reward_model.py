"""The reward model ranks a planted preference, from pairs and from labels alike, and says how good it is."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from trimtab.align import reward_model as rm
from trimtab.align.base import Base
from trimtab.align.network import Network
from trimtab.align.reward_report import report as report_on
from trimtab.align.reward_training import RewardConfig, train
from trimtab.align.rollouts import Completion, Draw, TorchSampler
from trimtab.domain.errors import Conflict, InvalidInput, ModelFileError
from trimtab.domain.judgement import Judgement, Kind, Said

WORDS = "harbour keeper lamp walked over there other one".split()
CONFIG = RewardConfig(batch=8, seed=1)


def sentence(rng: random.Random, polite: bool) -> str:
    """Six words; a polite one has "the lamp" in it somewhere."""
    words = [rng.choice(WORDS[3:]) for _ in range(5)]
    words.insert(rng.randrange(5), "lamp" if polite else "keeper")
    return " ".join(words)


def preference(name: str, prompt: str, better: str, worse: str) -> Judgement:
    return Judgement(name, Kind.PREFERENCE, (Said("user", prompt),), better, worse)


def pairs(count: int, seed: int) -> list[Judgement]:
    rng = random.Random(seed)
    return [
        Judgement(
            f"p{seed}-{i}",
            Kind.PREFERENCE,
            (Said("user", rng.choice(WORDS)),),
            sentence(rng, True),
            sentence(rng, False),
        )
        for i in range(count)
    ]


def labels(count: int, seed: int, name: str = "helpful", turned: bool = False) -> list[Judgement]:
    rng = random.Random(seed)
    found = []
    for i in range(count):
        polite = bool(i % 2)
        text = sentence(rng, polite)
        prompt = (Said("user", rng.choice(WORDS)),)
        found.append(Judgement(f"l{seed}-{i}", Kind.LABEL, prompt, text, value=int(polite != turned), label=name))
    return found


def answers(base: Base, network: Network, count: int) -> list[Completion]:
    prompt = base.prompt_ids([Said("user", "x")])
    return TorchSampler(network, base.end_ids)([prompt] * count, None, Draw(max_tokens=8), seed=0)


def fresh(network: Network, base: Base) -> rm.RewardModel:
    return rm.RewardModel(network, base)


@pytest.mark.parametrize("kind", ["pairs", "labels", "both"])
def test_a_planted_preference_is_ranked(kind: str, tiny: Base, network: Network) -> None:
    judged = {"pairs": pairs(120, 1), "labels": labels(200, 1), "both": pairs(80, 1) + labels(120, 2)}[kind]
    model = fresh(network, tiny)
    steps = list(train(model, rm.rows_of(tiny, judged), CONFIG))
    assert [step.step for step in steps] == list(range(1, steps[0].steps + 1))
    assert steps[-1].loss < 0.5 * steps[0].loss
    report = report_on(model, rm.rows_of(tiny, pairs(30, 9) + labels(30, 8)))
    assert report.preference_accuracy is not None
    assert report.preference_accuracy >= 0.9
    if kind != "pairs":
        assert report.label_accuracy is not None
        assert report.label_accuracy >= 0.85


def test_a_label_that_means_bad_is_turned_around(tiny: Base, network: Network) -> None:
    toxic = labels(120, 3, name="toxic", turned=True)
    model = fresh(network, tiny)
    for _ in train(model, rm.rows_of(tiny, toxic, bad=["toxic"]), CONFIG):
        pass
    assert (report_on(model, rm.rows_of(tiny, pairs(30, 9))).preference_accuracy or 0) >= 0.9


def test_the_report_finds_a_model_that_pays_for_length(tiny: Base, network: Network) -> None:
    rng = random.Random(5)
    long_is_better = [
        Judgement(
            f"n{i}", Kind.PREFERENCE, (Said("user", "x"),), sentence(rng, True) + " " + sentence(rng, False), "one"
        )
        for i in range(60)
    ]
    model = fresh(network, tiny)
    for _ in train(model, rm.rows_of(tiny, long_is_better), CONFIG):
        pass
    turned = [
        Judgement(f"t{i}", Kind.PREFERENCE, j.prompt, j.rejected, j.completion)
        for i, j in enumerate(long_is_better[:10])
    ]
    report = report_on(model, rm.rows_of(tiny, long_is_better[:20] + turned))
    assert report.length_correlation > 0.8
    assert report.accuracy_longer_better == 1.0
    assert report.accuracy_shorter_better == 0.0
    assert {m.judgement.id for m in report.mistakes} == {f"t{i}" for i in range(10)}
    assert sum(b.rows for b in report.bins) == report.rows == 30
    assert report.calibration_error > 0.2  # sure, and wrong of a third


def test_a_row_of_weight_two_counts_like_two_rows(tiny: Base, network: Network) -> None:
    from dataclasses import replace

    rows = rm.rows_of(tiny, pairs(3, 1))
    doubled = [replace(rows[0], judgement=replace(rows[0].judgement, weight=2.0)), *rows[1:]]
    one, other = fresh(network, tiny), fresh(network, tiny)
    once = RewardConfig(batch=8)
    for model, given in ((one, doubled), (other, [rows[0], *rows])):
        for _ in train(model, given, once):
            pass
    for mine, theirs in zip(one.named().values(), other.named().values(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-3)


def test_a_saved_model_scores_the_same(tiny: Base, network: Network, tmp_path: Path) -> None:
    model = fresh(network, tiny)
    for _ in train(model, rm.rows_of(tiny, pairs(8, 1) + labels(8, 1)), RewardConfig()):
        pass
    drawn = TorchSampler(network, tiny.end_ids)(
        [tiny.prompt_ids([Said("user", "x")])] * 20, None, Draw(max_tokens=8), 0
    )
    model.normalise(drawn)
    scores = torch.tensor(model.scores_of(drawn))
    torch.testing.assert_close(scores.mean(), torch.tensor(0.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(scores.std(correction=0), torch.tensor(1.0), atol=1e-3, rtol=0)
    model.save(tmp_path / "rm")
    again = rm.RewardModel.load(network, tiny, tmp_path / "rm")
    question = [Said("user", "Who?")]
    best, scores = again.best_of(question, ["a", "the lamp", "b"])
    assert (best, scores) == (1, pytest.approx(model.best_of(question, ["a", "the lamp", "b"])[1], abs=1e-5))
    (tmp_path / "rm" / "reward.json").unlink()
    with pytest.raises(ModelFileError):
        rm.RewardModel.load(network, tiny, tmp_path / "rm")


def test_the_best_of_several_answers_is_the_one_that_scores_most(tiny: Base, network: Network) -> None:
    model = fresh(network, tiny)
    for _ in train(model, rm.rows_of(tiny, pairs(80, 1)), CONFIG):
        pass
    best, scores = model.best_of([Said("user", "other")], ["over keeper there", "over lamp there", "keeper keeper one"])
    assert best == 1
    assert scores[1] == max(scores)
    with pytest.raises(InvalidInput):
        model.best_of([Said("user", "other")], [])


def test_scores_of_rollouts_are_those_of_their_tokens(tiny: Base, network: Network) -> None:
    from dataclasses import replace

    model = fresh(network, tiny)
    drawn = answers(tiny, network, 5)
    bare = [replace(completion, trunk=None) for completion in drawn]
    torch.testing.assert_close(
        torch.tensor(model.scores_of(drawn)), torch.tensor(model.scores_of(bare)), atol=1e-4, rtol=0
    )


def test_training_goes_on_where_it_stopped_and_ends_the_same(tiny: Base, network: Network, tmp_path: Path) -> None:
    rows = rm.rows_of(tiny, pairs(20, 1) + labels(12, 1))
    config = RewardConfig(batch=6, checkpoint_every=2)
    whole = fresh(network, tiny)
    count = len(list(train(whole, rows, config)))
    stopped = fresh(network, tiny)
    for step in train(stopped, rows, config, folder=tmp_path):
        if step.step == 5:
            break
    resumed = fresh(network, tiny)
    assert [step.step for step in train(resumed, rows, config, folder=tmp_path)] == list(range(5, count + 1))
    for mine, theirs in zip(resumed.named().values(), whole.named().values(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=0)
    with pytest.raises(Conflict):
        next(train(fresh(network, tiny), rows[:-1], config, folder=tmp_path))


def test_nothing_to_learn_from_is_said(tiny: Base, network: Network) -> None:
    with pytest.raises(InvalidInput, match="Rate some answers"):
        next(train(fresh(network, tiny), [], CONFIG))
