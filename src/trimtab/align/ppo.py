"""Proximal policy optimisation, in one file, for anything that acts in steps: a Tic-Tac-Toe player, a language model.

Everything works on a batch of trajectories, tensors of shape ``[B, T]``: B games or completions, T steps each. `mask`
is true where the agent itself chose the action. Padding, the prompt and the results of tools are false there: they
count in no loss and in no statistic, whatever stands in them.

The maths, for state s, action a, policy pi, value V, reward r:

- **Penalty.** With a reference policy, each step costs ``beta * kl``: ``r_t <- r_t - beta * log(pi(a_t)/ref(a_t))``
  (Ziegler et al. 2019, arXiv:1909.08593, section 2.2; Stiennon et al. 2020, arXiv:2009.01325; Ouyang et al. 2022,
  arXiv:2203.02155). The sampled log ratio is the estimator k1, unbiased; k3 = ``ref/pi - 1 - log(ref/pi)`` is unbiased
  too, never negative, and varies less (Schulman 2020, "Approximating KL divergence"): we measure with k3 and pay with
  k1. beta follows the measured KL of a trajectory toward a target (Ziegler), by at most 2 % an update at the default
  gain: ``beta <- beta * (1 + K clip(kl/target - 1, -0.2, 0.2))``.
- **Advantage.** ``delta_t = r_t + gamma V(s_t+1) - V(s_t)`` and ``A_t = delta_t + gamma lambda A_t+1`` (GAE, Schulman
  et al. 2015, arXiv:1506.02438). The next state is the next one in which the agent acts, so a tool's tokens in between
  cost no discount. After the last action V is 0 where the trajectory ended, `bootstrap` where it was cut off. Then
  advantages are whitened over the whole batch (Ziegler's code; Huang et al. 2022, "The 37 implementation details of
  proximal policy optimization", does it a minibatch).
- **Policy.** ``rho = pi(a)/pi_old(a)``; loss ``-mean(min(rho A, clip(rho, 1-c, 1+c) A))`` (Schulman et al. 2017,
  arXiv:1707.06347, equation 7). When the rollouts came from an engine whose probabilities mu differ from pi_old's
  (another quantisation, another kernel), each step is weighted by the constant ``min(pi_old(a)/mu(a), C)``: truncated
  importance sampling (Ionides 2008; a token at a time for language models: Yao et al. 2025, "Your efficient RL
  framework secretly brings you off-policy RL training").
- **Value.** Target ``R = A + V_old`` (A before whitening); loss ``mean(max((V - R)^2, (V_clipped - R)^2)) / 2``, where
  V_clipped stays within `value_clip` of V_old (OpenAI baselines; the 37 details found no gain, so None turns it off).
- **Entropy** of the policy over the allowed actions, times its coefficient, is taken off the loss (2017, equation 9).
- **Stopping.** The approximate KL between pi_old and pi, k3 again, is looked at before every step: over `kl_stop` the
  rest of the update is left out (OpenAI Spinning Up; the 37 details). Over `kl_cap`, a whole trajectory against the
  reference, the same; and rollouts that already lie over the cap earn nothing but the penalty: the only way is back.

Where it departs from the papers: losses are means over the agent's steps of a whole minibatch, so micro-batches change
memory and nothing else; rewards are not whitened or clipped; importance weights touch the policy's loss and the
measured KL, not the value's target; one row is one episode, never a cut through several (2017 cuts). A temperature of
sampling is the actor's business: its logits are those that were sampled from. The optimizer is the caller's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from trimtab.domain.errors import InvalidInput

States = Mapping[str, Tensor]
"""What the actor reads, as it likes it. Every tensor's first axis is the trajectory: B rows."""


class Actor(Protocol):
    """Policy and value in one call: logits ``[B, T, A]`` over the A actions and values ``[B, T]``, with gradients."""

    def __call__(self, states: States) -> tuple[Tensor, Tensor]: ...


@runtime_checkable
class Chooser(Protocol):
    """An actor that looks its actions up itself: all logits of a vocabulary at once would be the most memory of all."""

    def choose(self, states: States, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities of `actions`, entropies and values, all ``[B, T]``, with gradients."""
        ...


@dataclass(frozen=True)
class PPOConfig:
    """What a person may turn. The defaults are for language models; the classroom has its own beside it."""

    gamma: float = 1.0
    """Discount a step. 1 for completions and short games (Ziegler)."""
    lam: float = 0.95
    """GAE's lambda (2015, 2017, Ziegler)."""
    epochs: int = 4
    """Passes over a batch (Ziegler; 2017 has 3 to 10)."""
    minibatches: int = 4
    """Steps a pass (2017, Atari; "N+ implementation details of RLHF with PPO" has 1)."""
    microbatch: int | None = None
    """Rows that go through the actor at once; None means a whole minibatch. Memory only: the gradient is the same."""
    clip: float = 0.2
    """How far the ratio may move before it earns nothing more (2017)."""
    value_clip: float | None = 0.2
    """(Ziegler). None does not clip."""
    value_coefficient: float = 0.1
    """(Ziegler; 2017 has 1 where policy and value share weights.)"""
    entropy_coefficient: float = 0.0
    """(Ziegler; 2017 has 0.01 for Atari.)"""
    max_gradient_norm: float | None = 1.0
    """(Ouyang and most LLM trainers; the 37 details have 0.5 for games.)"""
    whiten: bool = True
    learning_rate: float | None = None
    """Set on the optimizer before every update, so that a schedule reaches it. None leaves the optimizer's own."""
    kl_coefficient: float = 0.15
    """beta at the start (Ziegler's code, and "N+": 0.15; Ouyang 0.02). Used only where there is a reference."""
    kl_target: float | None = 6.0
    """Nats a trajectory that beta steers to (Ziegler). None keeps beta as it is."""
    kl_gain: float = 0.1
    """K (Ziegler): with a clipped error of at most 0.2, 2 % an update."""
    kl_coefficient_range: tuple[float, float] = (1e-4, 10.0)
    """beta stays inside (taste): a quiet stretch must not switch the penalty off for good."""
    kl_cap: float | None = None
    """Nats a trajectory from the reference at which an update stops (no source: the operator's promise)."""
    kl_estimator: Literal["k1", "k3"] = "k1"
    """What a step pays. k1's gradient is that of the KL; k3's is not, but its penalty is never negative."""
    kl_stop: float | None = None
    """Nats a step between the policy before and now at which the rest of the epochs is left out. Spinning Up: 0.015."""
    importance_cap: float = 2.0
    """C, for rollouts from an engine that rounds differently (Yao et al.)."""


Schedule = Callable[[PPOConfig, float], PPOConfig]
"""From the config at the start and the share of training done (0 to 1) to the config of the next update."""


def linear(**until: float) -> Schedule:
    """A schedule in which the named fields walk in a straight line to these values.

    >>> linear(learning_rate=0.0)(PPOConfig(learning_rate=2.0), 0.25).learning_rate
    1.5

    Raises:
        InvalidInput: a name is no field of `PPOConfig`.
    """
    if unknown := set(until) - {field.name for field in fields(PPOConfig)}:
        raise InvalidInput(f"PPOConfig has no field {sorted(unknown)[0]!r}; see its documentation for the names.")

    def at(start: PPOConfig, done: float) -> PPOConfig:
        done = min(max(done, 0.0), 1.0)
        values: dict[str, float] = {name: getattr(start, name) for name in until}
        return replace(start, **{name: value + done * (until[name] - value) for name, value in values.items()})  # type: ignore[arg-type]

    return at


@dataclass(frozen=True)
class Rollouts:
    """A batch of trajectories, one a row. Float tensors ``[B, T]`` unless said; actions integer, mask boolean.

    A reward belongs to the action that earned it: what stands at a step that the mask leaves out is not paid.
    """

    states: States
    actions: Tensor
    mask: Tensor
    logprobs: Tensor
    """log pi_old(a): by the weights that are about to be trained, see `look`."""
    values: Tensor
    """V_old."""
    rewards: Tensor
    allowed: Tensor | None = None
    """Boolean ``[B, T, A]``: the actions there were to choose from. None: all."""
    reference_logprobs: Tensor | None = None
    """log ref(a). None: no penalty."""
    engine_logprobs: Tensor | None = None
    """log mu(a) as the engine that wrote the rollout said. None: pi_old wrote it itself."""
    bootstrap: Tensor | None = None
    """``[B]``: the value after the last action where a trajectory was cut off, 0 where it ended. None: all ended."""

    def __len__(self) -> int:
        return int(self.actions.shape[0])

    def rows(self, index: Tensor) -> Rollouts:
        """The trajectories at `index` ``[b]``."""

        def pick(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[index]

        return Rollouts(
            {name: tensor[index] for name, tensor in self.states.items()},
            self.actions[index], self.mask[index], self.logprobs[index], self.values[index], self.rewards[index],
            pick(self.allowed), pick(self.reference_logprobs), pick(self.engine_logprobs), pick(self.bootstrap),
        )  # fmt: skip


@dataclass(frozen=True)
class UpdateStats:
    """What an update did. Means are over the agent's own steps of all minibatches that were taken in."""

    reward: float
    """A trajectory, before any penalty."""
    policy_loss: float
    value_loss: float
    entropy: float
    approx_kl: float
    """Nats a step between the policy that wrote the rollouts and the one now, of the last minibatch looked at."""
    clip_fraction: float
    explained_variance: float
    """Of the returns by V_old: 1 is perfect, 0 as good as their mean, below 0 worse."""
    gradient_norm: float
    """Before clipping."""
    kl: float
    """Nats a trajectory from the reference, k3, when the rollouts were written; 0 without one."""
    kl_coefficient: float
    """beta that was paid."""
    next_kl_coefficient: float
    """beta for the next update."""
    importance: float
    """Mean truncated weight: 1 when the engine is faithful."""
    steps: int
    """Optimizer steps taken."""
    tokens: int
    """Steps of the agent in the batch."""
    stopped: str
    """Why it ended early: ``"kl_stop"``, ``"kl_cap"``, ``"not_finite"``; empty if it did not."""


# ---------------------------------------------------------------------- pieces, each of them pure


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of `x` where `mask`; 0 when nowhere. What is masked may even be nan."""
    return torch.where(mask, x, 0.0).sum() / mask.sum().clamp(min=1)


def whiten(x: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """`x` with mean 0 and deviation 1 over the mask, 0 outside it."""
    centred = torch.where(mask, x - masked_mean(x, mask), 0.0)
    return centred / (masked_mean(centred**2, mask) + eps).sqrt()


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float, bootstrap: Tensor | None = None
) -> Tensor:
    """Advantages ``[B, T]``, 0 outside the mask. The recursion runs from one step of the agent to its next."""
    advantages = torch.zeros_like(values)
    following = values.new_zeros(len(values)) if bootstrap is None else bootstrap
    running = values.new_zeros(len(values))
    for t in reversed(range(values.shape[1])):
        here = mask[:, t]
        running = torch.where(here, rewards[:, t] + gamma * following - values[:, t] + gamma * lam * running, running)
        following = torch.where(here, values[:, t], following)
        advantages[:, t] = torch.where(here, running, 0.0)
    return advantages


def kl_estimate(logprobs: Tensor, reference: Tensor, estimator: Literal["k1", "k3"] = "k3") -> Tensor:
    """KL(pi || ref) a step, estimated at actions drawn from pi."""
    ratio = logprobs - reference
    return ratio if estimator == "k1" else torch.expm1(-ratio) + ratio


def next_kl_coefficient(coefficient: float, measured: float, config: PPOConfig) -> float:
    """beta after a batch whose trajectories lay `measured` nats from the reference."""
    if config.kl_target is None or not math.isfinite(measured):
        return coefficient
    error = min(max(measured / config.kl_target - 1.0, -0.2), 0.2)
    low, high = config.kl_coefficient_range
    return min(max(coefficient * (1.0 + config.kl_gain * error), low), high)


def importance_weights(rollouts: Rollouts, cap: float) -> Tensor:
    """Truncated pi_old / mu ``[B, T]``; ones when the policy wrote its rollouts itself."""
    if rollouts.engine_logprobs is None:
        return torch.ones_like(rollouts.logprobs)
    apart = torch.where(rollouts.mask, rollouts.logprobs - rollouts.engine_logprobs, 0.0)
    return apart.clamp(max=math.log(cap)).exp()


def choices(logits: Tensor, actions: Tensor, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Log-probabilities of `actions` and the policy's entropy, both ``[B, T]``, among the allowed actions."""
    if allowed is not None:
        # Not -inf: 0 * -inf is nan in the entropy. A step with nothing allowed (padding) comes out uniform.
        logits = logits.masked_fill(~allowed, torch.finfo(logits.dtype).min)
    normal = torch.log_softmax(logits, -1)
    return normal.gather(-1, actions.unsqueeze(-1)).squeeze(-1), -(normal.exp() * normal).sum(-1)


def policy_losses(logprobs: Tensor, old: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """The clipped objective a step, to be made small."""
    ratio = (logprobs - old).exp()
    return torch.max(-advantages * ratio, -advantages * ratio.clamp(1.0 - clip, 1.0 + clip))


def value_losses(values: Tensor, old: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """Half the squared error a step, or that of the clipped value where it is larger."""
    plain = (values - returns) ** 2
    if clip is None:
        return 0.5 * plain
    near = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.max(plain, (near - returns) ** 2)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """Share of the returns' variance that the values account for; 0 when the returns do not vary."""
    spread = masked_mean((returns - masked_mean(returns, mask)) ** 2, mask)
    left = returns - values
    unexplained = masked_mean((left - masked_mean(left, mask)) ** 2, mask)
    return float(1.0 - unexplained / spread) if float(spread) > 1e-12 else 0.0


def paid(rollouts: Rollouts, coefficient: float, config: PPOConfig) -> tuple[Tensor, float]:
    """Rewards less the penalty ``[B, T]``, and the measured nats a trajectory (k3)."""
    rewards = torch.where(rollouts.mask, rollouts.rewards, 0.0)
    if rollouts.reference_logprobs is None or len(rollouts) == 0:
        return rewards, 0.0
    measured = kl_of(rollouts.logprobs, rollouts, importance_weights(rollouts, config.importance_cap))
    cost = kl_estimate(rollouts.logprobs, rollouts.reference_logprobs, config.kl_estimator)
    if config.kl_cap is not None and measured > config.kl_cap:
        rewards = torch.zeros_like(rewards)
    return torch.where(rollouts.mask, rewards - coefficient * cost, 0.0), measured


def kl_of(logprobs: Tensor, rollouts: Rollouts, weights: Tensor) -> float:
    """Nats a trajectory from the reference of the policy that gives `logprobs`, at these rollouts' actions."""
    if rollouts.reference_logprobs is None:
        return 0.0
    nats = weights * kl_estimate(logprobs, rollouts.reference_logprobs)
    return float(torch.where(rollouts.mask, nats, 0.0).sum() / max(len(rollouts), 1))


def chosen(
    actor: Actor | Chooser, states: States, actions: Tensor, allowed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities of `actions`, entropies and values, all ``[B, T]``."""
    if isinstance(actor, Chooser):
        if allowed is not None:
            raise InvalidInput("Rollouts: `allowed` needs an actor that gives all logits. Leave it out.")
        return actor.choose(states, actions)
    logits, values = actor(states)
    return (*choices(logits, actions, allowed), values)


@torch.no_grad()
def look(
    actor: Actor | Chooser,
    states: States,
    actions: Tensor,
    allowed: Tensor | None = None,
    microbatch: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of `actions` and values, both ``[B, T]``, without gradients: pi_old and V_old of `Rollouts`.

    Taken from the weights that will be trained, even if an engine said its own, so that the first ratio is exactly 1
    ("N+ implementation details").
    """
    parts = []
    for rows in torch.split(torch.arange(len(actions)), microbatch or max(len(actions), 1)):
        here = {name: tensor[rows] for name, tensor in states.items()}
        logprobs, _, values = chosen(actor, here, actions[rows], None if allowed is None else allowed[rows])
        parts.append((logprobs, values))
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


# ---------------------------------------------------------------------- the update


def update(
    actor: Actor | Chooser,
    optimizer: torch.optim.Optimizer,
    rollouts: Rollouts,
    config: PPOConfig,
    *,
    kl_coefficient: float | None = None,
    generator: torch.Generator | None = None,
    also: Callable[[], Tensor] | None = None,
) -> UpdateStats:
    """Take in one batch: `epochs` passes in shuffled minibatches of trajectories. Changes `actor` through `optimizer`.

    Args:
        kl_coefficient: beta now: the last update's `next_kl_coefficient`; None starts with the config's.
        generator: shuffles. The same generator, weights and rollouts give the same weights again.
        also: another loss that every minibatch's gradient takes in.

    Raises:
        InvalidInput: tensors of the rollouts do not fit each other, or an action was not allowed.
    """
    rollouts = _cleaned(rollouts)
    beta = config.kl_coefficient if kl_coefficient is None else kl_coefficient
    mask = rollouts.mask
    rewards, kl = paid(rollouts, beta, config)
    advantages = gae(rewards, rollouts.values, mask, config.gamma, config.lam, rollouts.bootstrap)
    returns = advantages + rollouts.values
    weights = importance_weights(rollouts, config.importance_cap)
    targets = _Targets(whiten(advantages, mask) if config.whiten else advantages, returns, weights)
    if config.learning_rate is not None:
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate
    over_already = config.kl_cap is not None and kl > config.kl_cap
    tally = _Tally()
    for rows in _minibatches(len(rollouts), config, generator):
        if not bool(mask[rows].any()):
            continue
        seen = _gradients(actor, optimizer, rollouts, targets, rows, config, also)
        tally.stopped = _reason_to_stop(seen, config, over_already)
        if tally.stopped:
            optimizer.zero_grad(set_to_none=True)
            tally.last_kl = seen.approx_kl
            break
        optimizer.step()
        tally.add(seen)
    optimizer.zero_grad(set_to_none=True)
    return UpdateStats(
        reward=float(torch.where(mask, rollouts.rewards, 0.0).sum() / max(len(rollouts), 1)),
        policy_loss=tally.mean("policy_loss"),
        value_loss=tally.mean("value_loss"),
        entropy=tally.mean("entropy"),
        approx_kl=tally.last_kl,
        clip_fraction=tally.mean("clipped"),
        explained_variance=explained_variance(rollouts.values, returns, mask),
        gradient_norm=tally.mean("gradient_norm"),
        kl=kl,
        kl_coefficient=beta,
        next_kl_coefficient=next_kl_coefficient(beta, kl, config) if rollouts.reference_logprobs is not None else beta,
        importance=float(masked_mean(weights, mask)),
        steps=tally.steps,
        tokens=int(mask.sum()),
        stopped=tally.stopped,
    )


def _cleaned(rollouts: Rollouts) -> Rollouts:
    """The same, checked, with zeros where the mask is false: 0 * nan would be nan in a gradient."""
    shape, mask = rollouts.actions.shape, rollouts.mask
    clean: dict[str, Tensor] = {}
    for name in ("logprobs", "values", "rewards", "reference_logprobs", "engine_logprobs"):
        tensor = getattr(rollouts, name)
        if tensor is None:
            continue
        if tensor.shape != shape or mask.shape != shape:
            raise InvalidInput(f"Rollouts: `{name}` and `mask` must have the shape of `actions`, {tuple(shape)}.")
        clean[name] = torch.where(mask, tensor, 0.0)
    clean["actions"] = torch.where(mask, rollouts.actions, 0)
    if rollouts.allowed is not None:
        chosen = rollouts.allowed.gather(-1, clean["actions"].unsqueeze(-1)).squeeze(-1)
        if bool((mask & ~chosen).any()):
            raise InvalidInput("Rollouts: an action was taken that `allowed` forbids. Mask the step, or allow it.")
    return replace(rollouts, **clean)  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Targets:
    """All ``[B, T]``."""

    advantages: Tensor
    returns: Tensor
    weights: Tensor


@dataclass(frozen=True)
class _Seen:
    """One minibatch; means over its steps of the agent."""

    tokens: int
    policy_loss: float
    value_loss: float
    entropy: float
    approx_kl: float
    clipped: float
    kl: float
    gradient_norm: float


class _Tally:
    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._tokens = 0
        self.steps = 0
        self.last_kl = 0.0
        self.stopped = ""

    def add(self, seen: _Seen) -> None:
        self.steps += 1
        self._tokens += seen.tokens
        self.last_kl = seen.approx_kl
        for field in fields(seen):
            self._sums[field.name] = self._sums.get(field.name, 0.0) + seen.tokens * float(getattr(seen, field.name))

    def mean(self, name: str) -> float:
        return self._sums.get(name, 0.0) / max(self._tokens, 1)


def _minibatches(count: int, config: PPOConfig, generator: torch.Generator | None) -> list[Tensor]:
    passes = (torch.randperm(count, generator=generator) for _ in range(config.epochs if count else 0))
    return [rows for order in passes for rows in order.chunk(config.minibatches)]


def _reason_to_stop(seen: _Seen, config: PPOConfig, over_already: bool) -> str:
    if not math.isfinite(seen.gradient_norm):
        return "not_finite"
    if config.kl_stop is not None and seen.approx_kl > config.kl_stop:
        return "kl_stop"
    if config.kl_cap is not None and not over_already and seen.kl > config.kl_cap:
        return "kl_cap"
    return ""


def _gradients(
    actor: Actor | Chooser,
    optimizer: torch.optim.Optimizer,
    rollouts: Rollouts,
    targets: _Targets,
    rows: Tensor,
    config: PPOConfig,
    also: Callable[[], Tensor] | None,
) -> _Seen:
    """Leave the minibatch's clipped gradient in the parameters. Micro-batches add up to the same mean."""
    optimizer.zero_grad(set_to_none=True)
    tokens = int(rollouts.mask[rows].sum())
    sums = torch.zeros(6, dtype=torch.float64)
    for part in torch.split(rows, config.microbatch or len(rows)):
        batch, mask = rollouts.rows(part), rollouts.mask[part]
        advantages, returns, weights = targets.advantages[part], targets.returns[part], targets.weights[part]
        logprobs, entropies, values = chosen(actor, batch.states, batch.actions, batch.allowed)
        logprobs = torch.where(mask, logprobs, 0.0)
        policy = _total(weights * policy_losses(logprobs, batch.logprobs, advantages, config.clip), mask)
        value = _total(value_losses(values, batch.values, returns, config.value_clip), mask)
        entropy = _total(entropies, mask)
        loss = policy + config.value_coefficient * value - config.entropy_coefficient * entropy
        (loss / tokens).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            ratio = (logprobs - batch.logprobs).exp()
            clipped = _total(((ratio - 1.0).abs() > config.clip).float(), mask)
            moved = _total(kl_estimate(batch.logprobs, logprobs), mask)
            # The actions are pi_old's: weighted by the ratio they stand for the policy now.
            kl = kl_of(logprobs, batch, weights * ratio) * len(batch)
            sums[:5] += torch.stack([policy, value, entropy, moved, clipped]).double()
            sums[5] += kl
    if also is not None:
        also().backward()  # type: ignore[no-untyped-call]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.max_gradient_norm or math.inf)
    policy_loss, value_loss, surprise, approx_kl, share = (sums[:5] / tokens).tolist()
    return _Seen(tokens, policy_loss, value_loss, surprise, approx_kl, share, float(sums[5]) / len(rows), float(norm))


def _total(x: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, x, 0.0).sum()
