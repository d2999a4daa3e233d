"""PPO on toys where the answer is known: by a loop written out, by the formula, or because there is only one bandit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from trimtab.align import ppo
from trimtab.domain.errors import InvalidInput

PLAIN = ppo.PPOConfig(
    epochs=1, minibatches=1, whiten=False, value_clip=None, value_coefficient=0.0, max_gradient_norm=None
)


class Table(nn.Module):
    """A policy of one row of logits and one value a state: the smallest actor there is."""

    def __init__(self, states: int = 1, actions: int = 2) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(states, actions))
        self.worth = nn.Parameter(torch.zeros(states))

    def forward(self, states: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return self.logits[states["at"]], self.worth[states["at"]]


def batch(actor: Table, rewards: Any, actions: Any, *, at: Any = None, mask: Any = None, **more: Any) -> ppo.Rollouts:
    rewards, actions = torch.tensor(rewards, dtype=torch.float32), torch.tensor(actions)
    states = {"at": torch.zeros_like(actions) if at is None else torch.tensor(at)}
    mask = torch.ones_like(actions, dtype=torch.bool) if mask is None else torch.tensor(mask)
    logprobs, values = ppo.look(actor, states, actions, more.get("allowed"))
    return ppo.Rollouts(states, actions, mask, logprobs, values, rewards, **more)


def sgd(actor: nn.Module, rate: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD(actor.parameters(), lr=rate)


# ---------------------------------------------------------------------- advantages


def gae_by_hand(rewards: Any, values: Any, mask: Any, gamma: float, lam: float, after: float) -> list[float]:
    """The definition, over the agent's own steps only: a sum of discounted errors, forward."""
    mine = [t for t in range(len(rewards)) if mask[t]]
    advantages = [0.0] * len(rewards)
    for i, t in enumerate(mine):
        for k in range(i, len(mine)):
            following = values[mine[k + 1]] if k + 1 < len(mine) else after
            error = rewards[mine[k]] + gamma * following - values[mine[k]]
            advantages[t] += (gamma * lam) ** (k - i) * error
    return advantages


@settings(max_examples=150)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 9), st.floats(0, 1), st.floats(0, 1))
def test_advantages_are_those_of_the_definition(seed: int, rows: int, steps: int, gamma: float, lam: float) -> None:
    rng = np.random.default_rng(seed)
    rewards, values = rng.normal(size=(2, rows, steps))
    mask, after = rng.random((rows, steps)) < 0.7, rng.normal(size=rows)
    expected = [gae_by_hand(rewards[b], values[b], mask[b], gamma, lam, after[b]) for b in range(rows)]
    got = ppo.gae(*map(torch.tensor, (rewards, values, mask)), gamma, lam, torch.tensor(after))
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_a_tool_result_between_two_actions_costs_no_discount() -> None:
    values = torch.zeros(1, 5)
    long = ppo.gae(
        torch.tensor([[0.0, 9, 9, 9, 1]]), values, torch.tensor([[True, False, False, False, True]]), 0.5, 1.0
    )
    short = ppo.gae(torch.tensor([[0.0, 1]]), values[:, :2], torch.ones(1, 2, dtype=torch.bool), 0.5, 1.0)
    assert long[0, 0] == short[0, 0] == 0.5


def test_whitened_advantages_have_mean_0_and_deviation_1_over_the_mask_alone() -> None:
    x, mask = torch.randn(6, 7, generator=torch.Generator().manual_seed(0)), torch.rand(6, 7) < 0.6
    white = ppo.whiten(x.masked_fill(~mask, 1e9), mask)
    assert float(white[mask].mean()) == pytest.approx(0, abs=1e-6)
    assert float(white[mask].std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert float(white[~mask].abs().sum()) == 0


# ---------------------------------------------------------------------- the objective


def test_at_ratio_1_the_gradient_is_that_of_the_policy_gradient() -> None:
    logits = torch.tensor([[[0.3, -0.2, 0.9]]] * 4, requires_grad=True)
    actions, advantages = torch.tensor([[0], [1], [2], [2]]), torch.tensor([[1.0], [-2.0], [0.5], [3.0]])
    logprobs, _ = ppo.choices(logits, actions)
    (clipped,) = torch.autograd.grad(
        ppo.policy_losses(logprobs, logprobs.detach(), advantages, 0.2).mean(), logits, retain_graph=True
    )
    (plain,) = torch.autograd.grad(-(logprobs * advantages).mean(), logits)
    torch.testing.assert_close(clipped, plain)


@pytest.mark.parametrize(
    ("ratio", "advantage", "moves"),
    [(1.3, 1.0, False), (1.3, -1.0, True), (0.7, -1.0, False), (0.7, 1.0, True), (1.1, 1.0, True), (0.9, -1.0, True)],
)
def test_clipping_stops_the_gradient_only_where_it_would_lead_further_away(
    ratio: float, advantage: float, moves: bool
) -> None:
    logprob = torch.tensor([[math.log(ratio) - 1.0]], requires_grad=True)
    loss = ppo.policy_losses(logprob, torch.tensor([[-1.0]]), torch.tensor([[advantage]]), 0.2).sum()
    (gradient,) = torch.autograd.grad(loss, logprob)
    assert (float(gradient) != 0) == moves


def test_a_value_that_jumped_past_the_clip_is_judged_by_the_worse_of_both() -> None:
    values, old, returns = torch.tensor([[1.0]]), torch.tensor([[0.0]]), torch.tensor([[1.0]])
    assert float(ppo.value_losses(values, old, returns, None)) == 0
    assert float(ppo.value_losses(values, old, returns, 0.2)) == pytest.approx(0.5 * 0.8**2)


def test_what_is_not_allowed_has_no_probability_no_entropy_and_no_gradient() -> None:
    logits = torch.tensor([[[0.0, 50.0, 0.0]]], requires_grad=True)
    logprobs, entropy = ppo.choices(logits, torch.tensor([[0]]), torch.tensor([[[True, False, True]]]))
    assert float(logprobs.detach()) == pytest.approx(math.log(0.5))
    assert float(entropy.detach()) == pytest.approx(math.log(2))
    (gradient,) = torch.autograd.grad(logprobs.sum() + entropy.sum(), logits)
    assert gradient[0, 0, 1] == 0
    assert bool(torch.isfinite(gradient).all())


def test_the_two_estimators_agree_on_average_with_the_true_divergence() -> None:
    torch.manual_seed(0)
    pi, ref = torch.log_softmax(torch.tensor([1.0, 0.0, -1.0]), 0), torch.log_softmax(torch.tensor([0.0, 0.5, 0.0]), 0)
    drawn = torch.multinomial(pi.exp(), 200_000, replacement=True)
    exact = float((pi.exp() * (pi - ref)).sum())
    k1, k3 = (ppo.kl_estimate(pi[drawn], ref[drawn], name) for name in ("k1", "k3"))  # type: ignore[arg-type]
    assert float(k1.mean()) == pytest.approx(exact, abs=0.01)
    assert float(k3.mean()) == pytest.approx(exact, abs=0.01)
    assert float(k3.min()) >= 0 > float(k1.min())
    assert float(k3.std()) < float(k1.std())


# ---------------------------------------------------------------------- an update


def test_whatever_stands_outside_the_mask_changes_nothing() -> None:
    torch.manual_seed(3)
    outcomes = []
    mask = [[True, True, False, False], [True, False, True, False]]
    for junk in (0.0, float("nan"), 1e6):
        actor = Table(3, 2)
        clean = batch(
            actor, [[0.0, 1, 0, 0], [0, 0, -1, 0]], [[0, 1, 0, 0], [1, 0, 0, 1]],
            at=[[0, 1, 2, 2], [0, 2, 1, 2]], mask=mask,
            reference_logprobs=torch.full((2, 4), -1.0), engine_logprobs=torch.full((2, 4), -0.8),
        )  # fmt: skip
        keep = clean.mask
        dirty = replace(
            clean,
            actions=clean.actions.where(keep, torch.tensor(0 if junk == 0 else -100)),
            **{
                name: getattr(clean, name).where(keep, torch.tensor(junk))
                for name in ("rewards", "values", "logprobs", "reference_logprobs", "engine_logprobs")
            },
        )
        config = replace(PLAIN, whiten=True, value_coefficient=1.0, value_clip=0.2, entropy_coefficient=0.1)
        stats = ppo.update(actor, sgd(actor), dirty, config, generator=torch.Generator().manual_seed(1))
        outcomes.append((stats, torch.cat([p.detach().flatten() for p in actor.parameters()])))
    for stats, weights in outcomes[1:]:
        assert stats == outcomes[0][0]
        assert torch.equal(weights, outcomes[0][1])
    assert outcomes[0][0].tokens == 4
    assert outcomes[0][0].reward == 0
    assert bool((outcomes[0][1][4:6] == 0).all()), "the state that only masked steps visit must not be learnt from"


def test_micro_batches_change_memory_and_not_the_weights() -> None:
    after = []
    for rows in (None, 1, 3):
        torch.manual_seed(0)
        actor = Table(4, 3)
        rollouts = batch(
            actor, np.arange(10.0).reshape(5, 2).tolist(), [[0, 1], [2, 0], [1, 1], [0, 2], [2, 2]],
            at=[[0, 1], [2, 3], [1, 1], [3, 0], [2, 0]], mask=[[True, True], [True, False]] + [[True, True]] * 3,
        )  # fmt: skip
        config = replace(PLAIN, minibatches=2, epochs=3, value_coefficient=0.5, microbatch=rows)
        stats = ppo.update(actor, sgd(actor, 0.1), rollouts, config, generator=torch.Generator().manual_seed(1))
        after.append((stats, actor.logits.detach().clone(), actor.worth.detach().clone()))
    for stats, logits, worth in after[1:]:
        torch.testing.assert_close(logits, after[0][1])
        torch.testing.assert_close(worth, after[0][2])
        assert stats.approx_kl == pytest.approx(after[0][0].approx_kl, abs=1e-6)


def test_the_better_arm_of_a_bandit_is_learnt_and_the_value_is_its_mean() -> None:
    torch.manual_seed(0)
    actor, rng = Table(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(actor.parameters(), lr=0.05)
    config = ppo.PPOConfig(value_coefficient=1.0, value_clip=None, entropy_coefficient=0.01)
    for _ in range(40):
        chances = torch.softmax(actor.logits[0].detach(), 0)
        actions = torch.multinomial(chances, 256, replacement=True, generator=rng).view(256, 1)
        paid = torch.bernoulli(torch.tensor([0.3, 0.7])[actions], generator=rng)
        stats = ppo.update(actor, optimizer, batch(actor, paid.tolist(), actions.tolist()), config, generator=rng)
    assert float(torch.softmax(actor.logits[0].detach(), 0)[1]) > 0.95
    assert float(actor.worth[0].detach()) == pytest.approx(0.7, abs=0.1)
    assert stats.reward == pytest.approx(0.7, abs=0.1)
    assert stats.steps == 16


def test_the_same_seed_gives_the_same_weights_again() -> None:
    def run() -> Tensor:
        actor = Table(2, 3)
        rollouts = batch(actor, [[1.0], [0.0], [2.0], [-1.0]], [[0], [1], [2], [0]], at=[[0], [1], [1], [0]])
        ppo.update(actor, sgd(actor), rollouts, ppo.PPOConfig(), generator=torch.Generator().manual_seed(5))
        return actor.logits.detach()

    assert torch.equal(run(), run())


def test_epochs_end_when_the_policy_has_moved_far_enough() -> None:
    actor = Table()
    rollouts = batch(actor, [[1.0], [0.0]], [[0], [1]])
    config = replace(PLAIN, epochs=50, clip=10.0, kl_stop=0.01)
    stats = ppo.update(actor, sgd(actor, 0.5), rollouts, config)
    assert stats.stopped == "kl_stop"
    assert 0 < stats.steps < 50
    assert stats.approx_kl > 0.01
    assert all(p.grad is None for p in actor.parameters())


def test_a_gradient_that_is_not_a_number_is_not_taken() -> None:
    actor = Table()
    stats = ppo.update(actor, sgd(actor), batch(actor, [[math.nan]], [[0]]), PLAIN)
    assert stats.stopped == "not_finite"
    assert stats.steps == 0
    assert float(actor.logits.detach().abs().sum()) == 0


def test_gradients_are_clipped_to_their_norm() -> None:
    actor = Table()
    stats = ppo.update(actor, sgd(actor), batch(actor, [[1000.0]], [[0]]), replace(PLAIN, max_gradient_norm=0.5))
    assert stats.gradient_norm > 100
    assert float(actor.logits.detach().norm()) == pytest.approx(0.5, rel=1e-3)


def test_the_entropy_bonus_alone_makes_the_policy_even() -> None:
    actor = Table(1, 3)
    with torch.no_grad():
        actor.logits.copy_(torch.tensor([[2.0, 0.0, -1.0]]))
    optimizer = sgd(actor)
    for _ in range(100):
        ppo.update(actor, optimizer, batch(actor, [[0.0]], [[0]]), replace(PLAIN, entropy_coefficient=1.0))
    assert float(torch.softmax(actor.logits[0].detach(), 0).max()) < 0.35


# ---------------------------------------------------------------------- the reference


def drifted(nats: float, rows: int = 8) -> tuple[Table, ppo.Rollouts]:
    """Trajectories of two steps whose k3 from the reference adds up to about `nats`."""
    actor = Table()
    apart = next(x / 1000 for x in range(1, 20_000) if 2 * (math.expm1(-x / 1000) + x / 1000) >= nats)
    reference = torch.full((rows, 2), math.log(0.5) - apart)
    actions = [[row % 2, row % 2] for row in range(rows)]
    return actor, batch(actor, [[0.0, 1.0]] * rows, actions, reference_logprobs=reference)


@pytest.mark.parametrize(("nats", "direction"), [(12.0, 1), (1.0, -1)])
def test_the_price_of_leaving_the_reference_follows_the_target(nats: float, direction: int) -> None:
    actor, rollouts = drifted(nats)
    stats = ppo.update(actor, sgd(actor), rollouts, replace(PLAIN, kl_target=6.0, kl_coefficient=0.1))
    assert stats.kl == pytest.approx(nats, rel=0.01)
    assert stats.next_kl_coefficient == pytest.approx(0.1 * (1 + direction * 0.02))


def test_the_coefficient_settles_where_the_target_is_met() -> None:
    beta, config = 0.01, replace(PLAIN, kl_target=6.0, kl_gain=0.5)
    for _ in range(300):
        kl = 1.2 / beta  # the more it costs, the less of it there is
        beta = ppo.next_kl_coefficient(beta, kl, config)
    assert 1.2 / beta == pytest.approx(6.0, rel=0.01)


def test_the_coefficient_stays_within_its_range_and_ignores_what_is_no_number() -> None:
    config = replace(PLAIN, kl_target=1.0, kl_gain=5.0, kl_coefficient_range=(0.05, 0.2))
    assert ppo.next_kl_coefficient(0.19, 100.0, config) == 0.2
    assert ppo.next_kl_coefficient(0.051, 0.0, config) == 0.05
    assert ppo.next_kl_coefficient(0.1, math.nan, config) == 0.1


def test_each_step_pays_for_its_own_distance() -> None:
    _, rollouts = drifted(4.0)
    rewards, _ = ppo.paid(rollouts, 0.5, PLAIN)
    assert rollouts.reference_logprobs is not None
    torch.testing.assert_close(rewards, rollouts.rewards - 0.5 * (rollouts.logprobs - rollouts.reference_logprobs))


def test_over_the_cap_the_task_pays_nothing_and_the_policy_goes_back() -> None:
    actor = Table()
    with torch.no_grad():
        actor.logits.copy_(torch.tensor([[5.0, 0.0]]))
    reference = torch.full((4, 1), math.log(0.5))
    config = replace(PLAIN, kl_cap=0.1, kl_coefficient=1.0, whiten=True)
    rollouts = batch(actor, [[100.0]] * 3 + [[0.0]], [[0]] * 3 + [[1]], reference_logprobs=reference)
    stats = ppo.update(actor, sgd(actor, 0.1), rollouts, config)
    assert stats.kl > 0.1
    assert stats.reward == 75
    assert stats.steps == 1
    assert float(actor.logits[0, 0].detach()) < 5.0, "the reward of 100 must not pull it further"


def test_an_update_stops_at_the_cap() -> None:
    actor = Table()
    rollouts = batch(actor, [[1.0], [0.0]], [[0], [1]], reference_logprobs=torch.full((2, 1), math.log(0.5)))
    stats = ppo.update(actor, sgd(actor, 1.0), rollouts, replace(PLAIN, epochs=50, clip=10.0, kl_cap=0.05))
    assert stats.stopped == "kl_cap"
    chance = torch.softmax(actor.logits[0].detach(), 0)
    before_the_last_step = float((chance * (chance / 0.5).log()).sum())
    assert 0.05 < before_the_last_step < 0.2


# ---------------------------------------------------------------------- another engine


def test_steps_from_an_engine_that_rounds_differently_are_weighted_and_truncated() -> None:
    actor = Table()
    engine = torch.tensor([[math.log(0.5)], [math.log(0.8)], [math.log(0.05)]])
    rollouts = batch(actor, [[1.0]] * 3, [[0]] * 3, engine_logprobs=engine)
    weights = ppo.importance_weights(rollouts, 2.0)
    torch.testing.assert_close(weights, torch.tensor([[1.0], [0.5 / 0.8], [2.0]]))
    stats = ppo.update(actor, sgd(actor, 0.0), rollouts, PLAIN)
    assert stats.importance == pytest.approx((1 + 0.625 + 2) / 3)
    assert stats.policy_loss == pytest.approx(-stats.importance)


def test_the_weights_undo_a_biased_engine() -> None:
    """Drawn with chances (0.8, 0.2) but weighted, the mean gradient is that of the policy's own (0.5, 0.5)."""
    actor, drawn = Table(), [[0]] * 800 + [[1]] * 200
    engine = torch.tensor([[math.log(0.8)]] * 800 + [[math.log(0.2)]] * 200)
    biased = batch(actor, [[1.0]] * 1000, drawn)
    ppo.update(actor, sgd(actor), biased, PLAIN)
    assert float((actor.logits[0, 0] - actor.logits[0, 1]).detach()) > 0.5
    fair = Table()
    weighted = batch(fair, [[1.0]] * 1000, drawn, engine_logprobs=engine)
    ppo.update(fair, sgd(fair), weighted, replace(PLAIN, importance_cap=10.0))
    assert float((fair.logits[0, 0] - fair.logits[0, 1]).detach().abs()) < 1e-5


# ---------------------------------------------------------------------- the rest


def test_explained_variance_knows_a_perfect_critic_from_a_useless_one() -> None:
    returns, mask = torch.tensor([[1.0, 2.0, 3.0, 99.0]]), torch.tensor([[True, True, True, False]])
    assert ppo.explained_variance(returns, returns, mask) == 1
    assert ppo.explained_variance(torch.full((1, 4), 2.0), returns, mask) == pytest.approx(0)
    assert ppo.explained_variance(-returns, returns, mask) < 0
    assert ppo.explained_variance(returns, torch.ones(1, 4), mask) == 0


def test_a_schedule_walks_in_a_straight_line_and_reaches_the_optimizer() -> None:
    start = replace(PLAIN, learning_rate=1.0, entropy_coefficient=0.4)
    half = ppo.linear(learning_rate=0.0, entropy_coefficient=0.2)(start, 0.5)
    assert half.learning_rate == 0.5
    assert half.entropy_coefficient == pytest.approx(0.3)
    actor = Table()
    optimizer = sgd(actor)
    ppo.update(actor, optimizer, batch(actor, [[0.0]], [[0]]), half)
    assert optimizer.param_groups[0]["lr"] == 0.5
    with pytest.raises(InvalidInput, match="no field 'speed'"):
        ppo.linear(speed=1.0)


def test_rollouts_that_do_not_fit_are_refused() -> None:
    actor = Table()
    good = batch(actor, [[1.0]], [[0]])
    with pytest.raises(InvalidInput, match="`rewards`"):
        ppo.update(actor, sgd(actor), replace(good, rewards=torch.zeros(1, 2)), PLAIN)
    with pytest.raises(InvalidInput, match="`allowed` forbids"):
        ppo.update(actor, sgd(actor), replace(good, allowed=torch.tensor([[[False, True]]])), PLAIN)


def test_a_batch_without_a_single_step_of_the_agent_changes_nothing() -> None:
    actor = Table()
    stats = ppo.update(actor, sgd(actor), batch(actor, [[1.0]], [[0]], mask=[[False]]), PLAIN)
    assert (stats.steps, stats.tokens, stats.reward) == (0, 0, 0.0)
    assert float(actor.logits.detach().abs().sum()) == 0
