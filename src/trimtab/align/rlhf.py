"""Reinforcement learning from feedback for the language model: the loop around `ppo.update`.

One step: draw a completion for each prompt of the batch, score them, read what the reference would have said, update.
The reward stands at a completion's last token, each token pays its share of the KL penalty, and a completion that was
cut before its end pays `missing_end_penalty` (TRL's PPO had the same; "N+ implementation details", Huang et al. 2024,
arXiv:2403.17031). Tokens that the model did not choose (the prompt, a tool's result) are in no loss.

The trunk's output of each completion comes out of drawing it and serves reference, reward model and every epoch. When
the sampler is exact its probabilities and values are the old policy's; otherwise both are read again from the weights
that are trained and the difference is corrected for by importance weights.

Choosing the stopping point: every few steps the policy answers the validation prompts, always with the same random
numbers. The best step by their mean reward is kept (only steps under the KL cap count); after `patience` looks without
a better one the run ends. Validation prompts are not the test: whoever judges the version needs others.

A run is a function of its settings: what is drawn in step n follows from (seed, n). So a checkpoint is weights,
optimizer, the KL coefficient and the number of the step, and a run that was killed ends in the same weights.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Said

from . import ppo
from .adapter import Adapter, save_adapter
from .base import Base
from .checkpoint import Checkpoints, State, load_optimizer, optimizer_tensors, publish
from .plain import PlainText
from .policy import Policy, kl_of_drawn, logprobs_of, states_of
from .rewards import Scored, Weighted
from .rollouts import Completion, Draw, Sampler, TorchSampler, with_trunk


@dataclass(frozen=True)
class Prompt:
    """A conversation to answer, and what a reward may want to know of it."""

    messages: tuple[Said, ...]
    context: Mapping[str, Any] = field(default_factory=dict)


def _ppo() -> ppo.PPOConfig:
    return ppo.PPOConfig(
        # As many updates as with two passes in two parts, for half the reading.
        epochs=1,
        minibatches=4,
        microbatch=8,
        kl_coefficient=0.1,
        kl_target=4.0,
        kl_gain=0.5,
        # Every run begins under its target, which pulls the coefficient down; without a floor it is gone when needed.
        kl_coefficient_range=(0.05, 10.0),
        kl_cap=12.0,
        kl_stop=0.1,
        value_clip=None,
    )


@dataclass(frozen=True)
class RlhfConfig:
    """What a person may turn. The defaults were measured with the default model on two cores."""

    steps: int = 30
    rollouts: int = 32
    """Completions a step."""
    draw: Draw = field(default_factory=Draw)
    ppo: ppo.PPOConfig = field(default_factory=_ppo)
    learning_rate: float = 1e-3
    missing_end_penalty: float = 0.5
    """In deviations of the reward. At 1 it outweighed the reward model: answers got shorter before they got better."""
    plain_coefficient: float = 0.2
    """Weight of the divergence on plain text (`plain`); 0 leaves it out. At equal distance from the base on prompts,
    perplexity on plain text rose by 2 % with it and by 5 % without; at 2 nothing else was learned."""
    evaluate_every: int = 5
    patience: int = 3
    """Looks at the validation prompts without a better one before the run ends."""
    samples: int = 3
    """Completions that a step shows."""
    seed: int = 0


@dataclass(frozen=True)
class Sample:
    prompt: str
    """The last message of the conversation."""
    completion: str
    reward: float


@dataclass(frozen=True)
class Step:
    """What one step did. Means are over this step's completions, drawn before its update."""

    step: int
    steps: int
    reward: float
    """Weighted sum of the parts, without penalties."""
    parts: dict[str, float]
    """Each part's own mean."""
    kl_sequence: float
    """Nats from the reference a completion (k3 estimate)."""
    kl_token: float
    kl_coefficient: float
    policy_loss: float
    value_loss: float
    entropy: float
    clip_fraction: float
    explained_variance: float
    gradient_norm: float
    importance: float
    tokens: float
    """Mean length of a completion."""
    ended: float
    """Share that came to their end."""
    distinct: float
    """Different pairs of neighbouring words, as a share of all: near 0 when all say the same."""
    self_similarity: float
    """Mean share of word pairs that two completions have in common: near 1 when all say the same."""
    held_out: float | None
    """Mean reward on the validation prompts after this step, when they were asked."""
    best_step: int | None
    """The step whose weights are kept."""
    stopped: str
    """Why the update ended early (`ppo.UpdateStats.stopped`), or ``rejected``: the last step went over the KL cap and
    was taken back."""
    samples: tuple[Sample, ...]
    seconds: dict[str, float]
    """CPU seconds of this process: rollouts, scoring, update, evaluation."""


def train(
    policy: Policy,
    base: Base,
    prompts: Sequence[Prompt],
    reward: Weighted,
    config: RlhfConfig,
    *,
    validation: Sequence[Prompt] = (),
    folder: Path,
    sampler: Sampler | None = None,
) -> Iterator[Step]:
    """Align `policy`, one step for each value yielded. At the end `folder/adapter` holds the best step's adapter.

    A run that was stopped or killed goes on from its last complete step when started again with the same arguments.

    Args:
        policy: usually `Policy.fresh`, or one that starts from an adapter (SFT). Changed in place.
        validation: prompts that choose the stopping point; without any, the last step is kept.
        folder: for checkpoints and the adapter; a folder for each run.
        sampler: None draws with the policy's own network.

    Raises:
        InvalidInput: there are no prompts, or a prompt is too long for the model.
        Conflict: the folder holds another run.
    """
    yield from _Run(policy, base, prompts, reward, config, validation, folder, sampler).steps()


class _Run:
    def __init__(
        self,
        policy: Policy,
        base: Base,
        prompts: Sequence[Prompt],
        reward: Weighted,
        config: RlhfConfig,
        validation: Sequence[Prompt],
        folder: Path,
        sampler: Sampler | None,
    ) -> None:
        if not prompts:
            raise InvalidInput("There is no prompt to answer. Give at least one.")
        self._policy, self._base, self._reward, self._config = policy, base, reward, config
        self._policy.temperature = config.draw.temperature
        self._prompts, self._validation, self._folder = prompts, validation, folder
        self._ids = [base.prompt_ids(prompt.messages) for prompt in prompts]
        self._validation_ids = [base.prompt_ids(prompt.messages) for prompt in validation]
        self._sampler = sampler or TorchSampler(policy.network, base.end_ids, policy.value)
        longest = max(map(len, [*self._ids, *self._validation_ids])) + config.draw.max_tokens
        if longest > policy.network.shape.context:
            raise InvalidInput(
                f"Prompt and answer come to {longest} tokens; the model reads {policy.network.shape.context}."
            )
        self._optimizer = torch.optim.Adam(policy.parameters(), lr=config.learning_rate, eps=1e-5)
        # The reference is the base model without an adapter, also when the policy starts from one.
        self._beta = config.ppo.kl_coefficient
        self._plain = PlainText(policy.network, base, seed=config.seed) if config.plain_coefficient else None
        self._best: tuple[float, int] | None = None
        self._best_tensors = {name: t.detach().clone() for name, t in policy.adapter.named().items()}
        self._looks = 0
        self._slower = 1.0
        """Share of the learning rate that is left after rejected steps."""
        self._safe = self._now()
        """The last weights and optimizer that were seen under the cap."""

    def steps(self) -> Iterator[Step]:
        checkpoints = Checkpoints(self._folder / "checkpoints", self._identity())
        done = self._resume(checkpoints.latest())
        for number in range(done + 1, self._config.steps + 1):
            if self._looks >= self._config.patience:
                break
            step = self._step(number)
            checkpoints.save(number, self._tensors(), self._facts())
            yield step
        self._finish()

    # ------------------------------------------------------------------ one step

    def _step(self, number: int) -> Step:
        clock = _Clock()
        chosen = self._batch(number)
        completions = self._draw([self._ids[i] for i in chosen], number)
        clock.lap("rollouts")
        scored, texts = self._score([self._prompts[i] for i in chosen], completions)
        rollouts = self._rollouts(completions, scored)
        clock.lap("scoring")
        refused = self._over_the_cap(rollouts)
        stats = ppo.update(
            self._policy,
            self._optimizer,
            rollouts,
            replace(
                self._config.ppo,
                learning_rate=self._config.learning_rate * self._slower,
                epochs=0 if refused else self._config.ppo.epochs,
            ),
            kl_coefficient=self._beta,
            generator=torch.Generator().manual_seed(self._seed(number)),
            also=self._plain_loss(number),
        )
        self._beta = stats.next_kl_coefficient
        clock.lap("update")
        held_out = self._look(number)
        clock.lap("evaluation")
        lengths = [len(c.ids) for c in completions]
        shown = range(0, len(chosen), max(1, len(chosen) // max(1, self._config.samples)))
        return Step(
            step=number,
            steps=self._config.steps,
            reward=sum(scored.totals) / len(chosen),
            parts=scored.means(),
            kl_sequence=stats.kl,
            kl_token=stats.kl * len(chosen) / max(1, stats.tokens),
            kl_coefficient=stats.kl_coefficient,
            policy_loss=stats.policy_loss,
            value_loss=stats.value_loss,
            entropy=stats.entropy,
            clip_fraction=stats.clip_fraction,
            explained_variance=stats.explained_variance,
            gradient_norm=stats.gradient_norm,
            importance=stats.importance,
            tokens=sum(lengths) / len(lengths),
            ended=sum(c.ended for c in completions) / len(completions),
            **diversity(texts),
            held_out=held_out,
            best_step=self._best[1] if self._best else None,
            stopped="rejected" if refused else stats.stopped,
            samples=tuple(
                Sample(self._prompts[chosen[i]].messages[-1].content, texts[i], scored.totals[i])
                for i in list(shown)[: self._config.samples]
            ),
            seconds=clock.laps,
        )

    def _plain_loss(self, number: int) -> Callable[[], torch.Tensor] | None:
        plain = self._plain
        if plain is None:
            return None
        plain.rewind(number - 1, self._config.ppo.epochs * self._config.ppo.minibatches)
        return lambda: self._config.plain_coefficient * plain.kl(self._policy.adapter)

    def _over_the_cap(self, rollouts: ppo.Rollouts) -> bool:
        """If the policy that wrote these is over the KL cap: back to the last that was not, and on at half the rate.

        `ppo.update` stops before a step when it sees the cap passed; this takes the step back that jumped over it.
        """
        cap = self._config.ppo.kl_cap
        weights = ppo.importance_weights(rollouts, self._config.ppo.importance_cap)
        if cap is None or ppo.kl_of(rollouts.logprobs, rollouts, weights) <= cap:
            self._safe = self._now()
            return False
        self._policy.load_named(self._safe)
        load_optimizer(self._optimizer, self._safe)
        self._slower *= 0.5
        return True

    def _now(self) -> dict[str, torch.Tensor]:
        tensors = {**self._policy.named(), **optimizer_tensors(self._optimizer)}
        return {name: tensor.detach().clone() for name, tensor in tensors.items()}

    def _batch(self, number: int) -> list[int]:
        """Which prompts step `number` answers: the next of an endless run of shuffled passes."""
        count, size = len(self._prompts), self._config.rollouts
        first = (number - 1) * size
        orders: dict[int, list[int]] = {}
        for turn in range(first // count, (first + size - 1) // count + 1):
            orders[turn] = list(range(count))
            random.Random(f"{self._config.seed}/{turn}").shuffle(orders[turn])  # noqa: S311 (an order, not a secret)
        return [orders[at // count][at % count] for at in range(first, first + size)]

    def _seed(self, number: int) -> int:
        return self._config.seed * 1_000_003 + number

    def _draw(self, ids: Sequence[tuple[int, ...]], number: int) -> list[Completion]:
        completions = self._sampler(ids, self._policy.adapter, self._config.draw, self._seed(number))
        return with_trunk(self._policy.network, completions)

    def _score(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> tuple[Scored, list[str]]:
        texts = [self._base.text_of(c.ids) for c in completions]
        context = [{**p.context, "rollout": c} for p, c in zip(prompts, completions, strict=True)]
        return self._reward([p.messages for p in prompts], texts, context), texts

    def _rollouts(self, completions: Sequence[Completion], scored: Scored) -> ppo.Rollouts:
        config, pad = self._config, torch.nn.utils.rnn.pad_sequence
        actions = pad([torch.tensor(c.ids) for c in completions], batch_first=True)
        mask = pad([c.mask for c in completions], batch_first=True)
        drawn = pad([c.logprobs for c in completions], batch_first=True)
        rewards = torch.zeros(actions.shape)
        for row, (completion, total) in enumerate(zip(completions, scored.totals, strict=True)):
            # Paid at the last token that the model chose itself.
            last = int(completion.mask.nonzero()[-1])
            rewards[row, last] = total - (0.0 if completion.ended else config.missing_end_penalty)
        states = states_of(completions)
        kept = [c.values for c in completions if c.values is not None]
        if self._sampler.exact and len(kept) == len(completions):
            logprobs, values, engine = drawn, pad(kept, batch_first=True), None
        else:
            logprobs, values = ppo.look(self._policy, states, actions, microbatch=config.ppo.microbatch)
            engine = drawn
        reference = logprobs_of(self._policy.network, completions, None, temperature=config.draw.temperature)
        return ppo.Rollouts(
            states, actions, mask, logprobs, values, rewards, reference_logprobs=reference, engine_logprobs=engine
        )

    # ------------------------------------------------------------------ choosing the stopping point

    def _look(self, number: int) -> float | None:
        due = number % self._config.evaluate_every == 0 or number == self._config.steps
        if not self._validation or not due:
            return None
        completions = self._draw(self._validation_ids, 0)
        scored, _ = self._score(self._validation, completions)
        penalties = [0.0 if c.ended else self._config.missing_end_penalty for c in completions]
        mean = (sum(scored.totals) - sum(penalties)) / len(completions)
        cap = self._config.ppo.kl_cap
        if (self._best is None or mean > self._best[0]) and (cap is None or self._kl(completions) <= cap):
            self._best, self._looks = (mean, number), 0
            self._best_tensors = {name: t.detach().clone() for name, t in self._policy.adapter.named().items()}
        else:
            self._looks += 1
        return mean

    def _kl(self, completions: Sequence[Completion]) -> float:
        return kl_of_drawn(self._policy.network, completions, temperature=self._config.draw.temperature)

    # ------------------------------------------------------------------ state

    def _identity(self) -> str:
        """Settings and data of this run, as a digest: a checkpoint of any other is not continued."""
        told = repr((
            replace(self._config, steps=0), self._ids, self._validation_ids,
            [(part.name, part.weight) for part in self._reward.parts], self._policy.network.trunk_layers,
            self._policy.network.bf16, self._policy.adapter.config,
        ))  # fmt: skip
        return hashlib.sha256(told.encode()).hexdigest()

    def _tensors(self) -> dict[str, torch.Tensor]:
        best = {f"best.{name}": tensor for name, tensor in self._best_tensors.items()} if self._best else {}
        safe = {f"safe.{name}": tensor for name, tensor in self._safe.items()}
        return {**self._policy.named(), **optimizer_tensors(self._optimizer), **best, **safe}

    def _facts(self) -> dict[str, Any]:
        return {"beta": self._beta, "best": self._best, "looks": self._looks, "slower": self._slower}

    def _resume(self, state: State | None) -> int:
        if state is None:
            return 0
        self._policy.load_named(state.tensors)
        load_optimizer(self._optimizer, state.tensors)
        self._beta, self._looks = float(state.facts["beta"]), int(state.facts["looks"])
        self._slower = float(state.facts["slower"])
        self._safe = {n.removeprefix("safe."): t for n, t in state.tensors.items() if n.startswith("safe.")}
        if state.facts["best"] is not None:
            self._best = (float(state.facts["best"][0]), int(state.facts["best"][1]))
            self._best_tensors = {name: state.tensors[f"best.{name}"] for name in self._best_tensors}
        return state.step

    def _finish(self) -> None:
        kept = self._policy.adapter.copy()
        if self._best:
            kept.load_named(self._best_tensors)
        write_adapter(kept, self._folder / "adapter")


def write_adapter(adapter: Adapter, folder: Path) -> None:
    """An adapter in PEFT's files, all of it or nothing."""
    part = folder.with_name(f".{folder.name}.part")
    save_adapter(adapter, part)
    publish(part, folder)


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.process_time()

    def lap(self, name: str) -> None:
        now = time.process_time()
        self.laps[name], self._last = now - self._last, now


def diversity(texts: Sequence[str]) -> dict[str, float]:
    """`distinct` and `self_similarity` of a batch of texts, see `Step`."""
    pairs = [Counter(pairwise(words)) for words in (text.casefold().split() for text in texts)]
    total = sum(sum(counter.values()) for counter in pairs)
    different = len(set().union(*pairs)) if pairs else 0
    sets = [set(counter) for counter in pairs if counter]
    shared = [
        len(one & other) / math.sqrt(len(one) * len(other))
        for i, one in enumerate(sets)
        for other in sets[i + 1 : i + 9]
    ]
    return {
        "distinct": different / total if total else 0.0,
        "self_similarity": sum(shared) / len(shared) if shared else 0.0,
    }


def as_dict(step: Step) -> dict[str, Any]:
    """A step as JSON takes it."""
    return asdict(step)
