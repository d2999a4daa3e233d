"""What the gate lets through, what it holds back, and what it says about either."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trimtab.align.gate import Evidence, Outcome, Rules, Share, decide
from trimtab.align.statistics import bootstrap, length_controlled, more_needed, wilson


def good(seed: int = 0, prompts: int = 80, win: float = 0.8) -> Evidence:
    """What a version that is really better looks like."""
    random = np.random.default_rng(seed)
    wins = (random.random(prompts) < win).astype(float)
    return Evidence(
        rows=320,
        tested=60,
        right=54,
        wins=list(wins),
        longer_by=list(random.normal(-5, 10, prompts)),
        gains=list(random.normal(0.6, 0.5, prompts)),
        lengths=(40.0, 35.0),
        kl=4.0,
        perplexity=(30.0, 30.5),
        distinct=(0.9, 0.8),
        parity=0.98,
        sets={"safety": Share([True] * 40, [True] * 40), "tool calls": Share([True] * 30, [True] * 30)},
        length_bias=0.1,
    )


def test_a_better_version_is_promoted() -> None:
    verdict = decide(good())
    assert verdict.outcome is Outcome.PROMOTE, verdict.reason
    assert all(c.passed for c in verdict.checks)


@pytest.mark.parametrize("seed", range(10))
def test_a_reward_model_that_pays_for_length_does_not_get_a_version_through(seed: int) -> None:
    """Its reward rises, and so would a win rate by a judge that likes length: at equal length nothing is won."""
    random = np.random.default_rng(seed)
    longer = random.normal(30, 20, 100)
    wins = (random.random(100) < 1 / (1 + np.exp(-longer / 20))).astype(float)
    hacked = replace(
        good(seed),
        wins=list(wins),
        longer_by=list(longer),
        gains=list(longer / 10),
        lengths=(35.0, 65.0),
        length_bias=0.9,
    )
    verdict = decide(hacked)
    assert verdict.outcome is Outcome.HOLD
    failed = {c.name for c in verdict.checks if not c.passed}
    assert {"length", "preferred at equal length", "reward model's length bias"} & failed
    assert "length" in verdict.reason


def test_with_twenty_judgements_it_says_how_many_more_are_needed() -> None:
    early = replace(good(prompts=4), rows=16, tested=4, right=4)
    verdict = decide(early)
    assert verdict.outcome is Outcome.NOT_ENOUGH
    assert 50 < verdict.more < 1000
    assert str(verdict.more) in verdict.reason


def test_a_length_bias_of_four_judgements_is_no_reason_yet_and_of_sixty_it_is() -> None:
    """Four answers' scores and lengths go together by chance."""
    early = replace(good(prompts=4), rows=16, tested=4, right=4, length_bias=0.59)
    verdict = decide(early)
    assert verdict.outcome is Outcome.NOT_ENOUGH
    assert not next(c for c in verdict.checks if c.name == "reward model's length bias").passed
    later = decide(replace(good(prompts=4), rows=40, tested=60, right=36, length_bias=0.86))
    assert later.outcome is Outcome.HOLD
    assert "length bias" in later.reason


def test_nothing_at_all_is_not_enough() -> None:
    empty = replace(good(), rows=0, tested=0, right=0, wins=(), longer_by=(), gains=())
    assert decide(empty).outcome is Outcome.NOT_ENOUGH


@pytest.mark.parametrize(
    ("harm", "check"),
    [
        ({"kl": 31.0}, "divergence"),
        ({"perplexity": (30.0, 33.0)}, "plain text"),
        ({"distinct": (0.9, 0.1)}, "variety"),
        ({"parity": 0.5, "parity_drift": 0.4}, "served as trained"),
        ({"parity": None}, "served as trained"),
        ({"perplexity": None}, "plain text"),
        ({"sets": {"safety": Share([True] * 40, [True] * 25 + [False] * 15)}}, "safety"),
        ({"wins": [0.5] * 80}, "preferred"),
        ({"rows": 2500, "tested": 500, "right": 270}, "reward model"),
        ({"gains": [-0.1] * 80}, "reward"),
    ],
)
def test_what_a_version_paid_with_holds_it_back_and_is_named(harm: dict[str, object], check: str) -> None:
    verdict = decide(replace(good(), **harm))  # type: ignore[arg-type]
    assert verdict.outcome is Outcome.HOLD
    assert check in verdict.reason
    assert {c.name for c in verdict.checks if not c.passed} >= {check}


def test_one_lost_question_of_thirty_is_chance_and_ten_are_not() -> None:
    one = Share([True] * 30, [True] * 29 + [False])
    ten = Share([True] * 30, [True] * 20 + [False] * 10)
    assert decide(replace(good(), sets={"tool calls": one})).outcome is Outcome.PROMOTE
    assert decide(replace(good(), sets={"tool calls": ten})).outcome is Outcome.HOLD


def test_quantization_noise_does_not_hold_a_version_back_and_a_wrong_adapter_does() -> None:
    assert decide(replace(good(), parity=0.6, parity_drift=0.06, base_drift=0.05)).outcome is Outcome.PROMOTE
    assert decide(replace(good(), parity=0.6, parity_drift=0.5, base_drift=0.05)).outcome is Outcome.HOLD


def test_the_verdict_can_be_kept_as_json() -> None:
    told = decide(good()).to_json()
    assert told["verdict"] == "promote"
    assert {c["name"] for c in told["checks"]} >= {"preferred", "reward", "length", "divergence", "served as trained"}


def test_stricter_rules_hold_back_what_looser_ones_let_through() -> None:
    assert decide(good(), replace(Rules(), kl=1.0)).outcome is Outcome.HOLD


def test_a_bootstrap_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    covered = sum(
        (found := bootstrap(list(random.normal(0.3, 1.0, 60)), seed=i, draws=800)).low <= 0.3 <= found.high
        for i in range(200)
    )
    assert 180 <= covered <= 198


def test_an_interval_of_nothing_excludes_nothing() -> None:
    assert bootstrap([]).low == float("-inf")
    assert bootstrap([3.0]).high == float("inf")
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)


def test_wilson_agrees_with_the_published_example() -> None:
    """8 of 10: 0.490 to 0.943 (Newcombe 1998, method 3)."""
    found = wilson(8, 10)
    assert (found.low, found.high) == (pytest.approx(0.490, abs=1e-3), pytest.approx(0.943, abs=1e-3))


def test_a_win_rate_that_is_all_length_is_a_half_at_equal_length() -> None:
    random = np.random.default_rng(4)
    longer = random.normal(40, 30, 400)
    wins = (random.random(400) < 1 / (1 + np.exp(-longer / 10))).astype(float)
    assert float(np.mean(wins)) > 0.8
    found = length_controlled(list(wins), list(longer))
    assert found.low < 0.62
    fair = length_controlled([1.0] * 75 + [0.0] * 25, list(random.normal(0, 10, 100)))
    assert fair.mean == pytest.approx(0.75, abs=0.05)


def test_how_much_more_is_needed_follows_from_what_there_is() -> None:
    assert more_needed([-0.1, -0.2, -0.3]) == -1
    assert more_needed([1.0, 1.1, 0.9, 1.0]) == 0
    few = list(np.random.default_rng(2).normal(0.2, 1.0, 20))
    if np.mean(few) > 0:
        assert more_needed(few) > 0
