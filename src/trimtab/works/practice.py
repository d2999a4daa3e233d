"""Training the policy by the recipe's method. It leaves ``work/policy/adapter``."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from trimtab.align import rlhf, sft, trl_methods
from trimtab.align.adapter import Adapter, LoraConfig
from trimtab.align.policy import Policy
from trimtab.align.recipe import Rewards
from trimtab.align.reward_model import RewardModel
from trimtab.align.rewards import Part, Weighted, length
from trimtab.align.rewards import named as function
from trimtab.align.rollouts import Draw

from .material import Material, place
from .run import Run


def practise(run: Run, material: Material, reward: RewardModel, *, start: Adapter | None = None) -> None:
    """Train the policy, unless it was trained before.

    Args:
        start: what PPO's policy begins with; None is the base. Its reference is the base either way, see `revising`.
    """
    if (run.work / "policy" / "adapter" / "adapter_model.safetensors").exists():
        return
    match run.recipe.method:
        case "ppo":
            _ppo(run, material, reward, start)
        case "sft":
            _sft(run, material)
        case _:
            _trl(run, material, reward)


def _ppo(run: Run, material: Material, reward: RewardModel, start: Adapter | None) -> None:
    settings = run.recipe.policy
    defaults = rlhf.RlhfConfig()
    config = replace(
        defaults,
        steps=settings.steps,
        rollouts=settings.rollouts,
        draw=Draw(1.0, settings.max_tokens),
        ppo=replace(defaults.ppo, kl_target=settings.kl_target, kl_cap=settings.kl_cap),
        learning_rate=settings.learning_rate,
        seed=run.recipe.seed,
    )
    policy = Policy.fresh(run.network, LoraConfig(rank=settings.rank), run.recipe.seed)
    if start is not None:
        policy.adapter.load_named(start.named())
    steps = rlhf.train(
        policy,
        run.base,
        [rlhf.Prompt(p) for p in material.prompts["train"]],
        _rewards(run.recipe.rewards, reward),
        config,
        validation=[rlhf.Prompt(p) for p in sorted(material.prompts["validation"], key=place)[:32]],
        folder=run.work / "policy",
    )
    for step in steps:
        run.report.tell("policy", **rlhf.as_dict(step))
        run.moved("policy", step.step, step.steps)


def _sft(run: Run, material: Material) -> None:
    policy = Policy.fresh(run.network, LoraConfig(rank=run.recipe.policy.rank), run.recipe.seed)
    rows = sft.demonstrations_of(run.base, material.train)
    config = sft.SftConfig(learning_rate=run.recipe.policy.learning_rate, seed=run.recipe.seed)
    for step in sft.train(policy, rows, config, folder=run.work / "sft"):
        run.report.tell("policy", **asdict(step))
        run.moved("policy", step.step, step.steps)
    rlhf.write_adapter(policy.adapter, run.work / "policy" / "adapter")


def _trl(run: Run, material: Material, reward: RewardModel) -> None:
    settings = run.recipe.policy
    method: Any = run.recipe.method
    config = trl_methods.TrlConfig(
        method=method,
        steps=settings.steps,
        max_tokens=settings.max_tokens,
        lora=LoraConfig(rank=settings.rank),
        trunk_layers=settings.trunk_layers,
        seed=run.recipe.seed,
    )
    steps = trl_methods.train(
        run.base,
        config,
        folder=run.work / "policy",
        judgements=material.train,
        prompts=[rlhf.Prompt(p) for p in material.prompts["train"]],
        reward=_rewards(run.recipe.rewards, reward),
    )
    for step in steps:
        run.report.tell("policy", step=step.step, steps=step.steps, seconds=step.seconds, **step.metrics)
        run.moved("policy", step.step, step.steps)


def _rewards(weights: Rewards, reward: RewardModel) -> Weighted:
    parts = [Part("reward model", weights.reward_model, reward.reward)] if weights.reward_model else []
    if weights.length:
        parts.append(Part("length", weights.length, length(limit=weights.length_limit)))
    parts += [Part(path, weight, function(path)) for path, weight in weights.functions.items()]
    return Weighted(parts)
