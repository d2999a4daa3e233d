"""From judgements to a version with evidence: reward model, policy, examination, gate.

The recipe comes with what the server resolved (`Resolved`): paths, and which version answers now. Each stage leaves
its result in the job's folder, so a job that was killed or paused goes on in the stage it was in.

Two reward models are trained, on prompts that have nothing in common: the policy is trained against one, and the other
judges whether it got better. Neither saw the test prompts.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from trimtab.align import bundled, dataset, reward_model, rlhf, sft, trl_methods
from trimtab.align.adapter import Adapter, LoraConfig, read_adapter
from trimtab.align.agreement import choose_forms
from trimtab.align.ai_preferences import Responses, mix, preferences_from
from trimtab.align.base import Base, load_base
from trimtab.align.constitution import Constitution
from trimtab.align.evaluation import Examiner, Prompt
from trimtab.align.gate import Evidence, Rules, Verdict, decide
from trimtab.align.jobs import Job
from trimtab.align.judge import Judge
from trimtab.align.network import Network
from trimtab.align.policy import Policy
from trimtab.align.recipe import Recipe, checked
from trimtab.align.reward_model import RewardConfig, RewardModel, rows_of
from trimtab.align.reward_report import RewardReport
from trimtab.align.reward_report import report as reward_report
from trimtab.align.rewards import Part, Weighted, length
from trimtab.align.rewards import named as function
from trimtab.align.rollouts import Draw
from trimtab.align.rows import from_line, line_of
from trimtab.align.scorer import NetworkScorer
from trimtab.align.worker import Report
from trimtab.domain.durable import replace_file
from trimtab.domain.errors import InvalidInput
from trimtab.domain.judgement import Judgement, Kind, Said
from trimtab.llm.engine import physical_cores
from trimtab.llm.lora import adapter_gguf
from trimtab.llm.served import ServingOptions
from trimtab.llm.tensors import open_tensors
from trimtab.llm.unpacked import safetensors_folder
from trimtab.registry.manifest import Lineage, Manifest
from trimtab.registry.registry import Registry

from . import parity

CONTEXT = 2048
"""Tokens a conversation may have when the served model is asked what it says."""


@dataclass(frozen=True)
class Resolved:
    """What the server knew when the job was ordered. Paths are absolute."""

    base_name: str
    base_sha256: str
    weights: str
    """The base's GGUF file."""
    models_dir: str
    versions_dir: str
    engine: str
    parent: str
    """Id of the base as a version."""
    serving: str = ""
    """Id of the version that answers now; empty when that is the base."""
    dataset: str = ""
    """Folder of people's feedback, curated; empty when none is used."""
    constitution: str = ""
    """A constitution of the operator's own; empty is the bundled one."""

    def base(self, *, threads: int | None = None) -> Base:
        """The base's weights, unpacked beside them the first time."""
        folder = Path(self.models_dir) / "prepared" / f"{self.base_name}.{self.base_sha256[:16]}.fp32"
        return load_base(safetensors_folder(Path(self.weights), folder), threads=threads)


def work(job: Job, report: Report) -> Mapping[str, Any]:
    """What a job of the kind `align` does. Returns the version, the verdict and the feedback that shaped it."""
    recipe = checked(job.recipe["recipe"])
    return Alignment(recipe, Resolved(**job.recipe["resolved"]), job, report).run()


@dataclass(frozen=True)
class Material:
    """What is learned from, and what it is tried on."""

    train: list[Judgement]
    test: list[Judgement]
    prompts: Mapping[str, list[Prompt]]
    """By split. Test prompts are those of no training row."""
    datasets: Mapping[str, str]
    """Name to content hash."""
    feedback_ids: list[str]


class Alignment:
    """One run. Each stage looks for its own result first."""

    def __init__(self, recipe: Recipe, resolved: Resolved, job: Job, report: Report) -> None:
        self.recipe, self.resolved, self.job, self.report = recipe, resolved, job, report
        self.work = job.work
        self.report.tell("base", text="Unpacking the base model")
        self.base = resolved.base(threads=physical_cores())
        self.network = Network(self.base, trunk_layers=recipe.policy.trunk_layers)
        self.examiner = Examiner(self.network, self.base, seed=recipe.seed + 7)
        self.registry = Registry(Path(resolved.versions_dir))

    def run(self) -> dict[str, Any]:
        material = self._material()
        if self.recipe.data.constitution:
            material = self._with_constitution(material)
        for_policy, for_judge = _apart(material.train)
        reward = self._reward_model("reward", for_policy, material)
        judge = self._reward_model("judge", for_judge, material)
        self._policy(material, reward)
        evidence, extras = self._examine(material, reward, judge)
        verdict = decide(evidence, Rules(kl=self.recipe.policy.kl_cap * 2))
        return self._version(material, evidence, verdict, extras)

    # ------------------------------------------------------------------ what is learned from

    def _material(self) -> Material:
        data = self.recipe.data
        splits: dict[str, list[Judgement]] = {"train": [], "validation": [], "test": []}
        prompts: dict[str, list[Prompt]] = {"train": [], "validation": [], "test": []}
        datasets, feedback_ids = {}, []
        if data.bundled:
            datasets["bundled"] = bundled.content_hash()
            for name in splits:
                splits[name] += bundled.load_bundled(name)
                prompts[name] += [p.prompt for p in bundled.prompts(name)]
        if self.resolved.dataset:
            found = dataset.load(Path(self.resolved.dataset))
            datasets["feedback"], feedback_ids = found.id, found.feedback_ids()
            for name in splits:
                splits[name] += found.rows(name)
                prompts[name] += [row.prompt for row in found.rows(name)]
        for name, rows in splits.items():
            splits[name] = self._wanted(rows)
        seen = set(prompts["train"]) | set(prompts["validation"])
        prompts["test"] = [p for p in dict.fromkeys(prompts["test"]) if p not in seen]
        prompts = {name: list(dict.fromkeys(few)) for name, few in prompts.items()}
        if data.prompts:
            prompts["train"] = sorted(prompts["train"], key=_place)[: data.prompts]
        if not splits["train"] or not prompts["train"] or not prompts["test"]:
            raise InvalidInput(
                f"There is too little to learn from: {len(splits['train'])} judgements to train on and "
                f"{len(prompts['test'])} prompts to test on. Rate some answers, or set data.bundled = true."
            )
        self.report.tell("data", rows={name: len(rows) for name, rows in splits.items()}, datasets=datasets)
        return Material(splits["train"], splits["test"], prompts, datasets, feedback_ids)

    def _wanted(self, rows: Iterable[Judgement]) -> list[Judgement]:
        if self.recipe.data.labels_only:
            return [row for row in rows if row.kind is Kind.LABEL]
        return [row for row in rows if row.kind in (Kind.LABEL, Kind.PREFERENCE, Kind.DEMONSTRATION)]

    # ------------------------------------------------------------------ the constitution

    def _with_constitution(self, material: Material) -> Material:
        """The model's own judgement under the principles, beside people's or instead of them."""
        data = self.recipe.data
        path = self.resolved.constitution
        constitution = Constitution.load(Path(path)) if path else Constitution.load()
        made = self._kept("constitution-train", partial(self._ai_rows, constitution, material))
        if not made:
            raise InvalidInput(
                "No principle of the constitution has a judge that agrees with people better than chance. Name a "
                "stronger judge, or leave data.constitution out."
            )
        # Only the principles' say shapes the model when people's weight is zero; people's test rows still test it.
        people = material.train if data.human_weight else []
        train = mix(people, made, human_weight=data.human_weight, ai_weight=data.ai_weight)
        datasets = {**material.datasets, "constitution": constitution.version}
        return replace(material, train=[row for row in train if row.weight > 0], datasets=datasets)

    def _ai_rows(self, constitution: Constitution, material: Material) -> list[Judgement]:
        judge = Judge(NetworkScorer(self.base, self.network))
        chosen = self._forms(constitution, material, judge)
        prompts = sorted(material.prompts["train"], key=_place)[: self.recipe.gate.test_prompts * 2]
        draws = [self.examiner.answers(prompts, None, max_tokens=self.recipe.policy.max_tokens)]
        other = Examiner(self.network, self.base, seed=self.recipe.seed + 8)
        draws.append(other.answers(prompts, None, max_tokens=self.recipe.policy.max_tokens))
        texts = [self.examiner.texts(draw) for draw in draws]
        responses = [
            Responses(prompt, tuple(said), self.resolved.parent) for prompt, *said in zip(prompts, *texts, strict=True)
        ]
        rows: list[Judgement] = []
        for name, form in chosen.items():
            rows += preferences_from(responses, constitution[name], judge, form, constitution=constitution.version)
            self.report.tell("constitution", principle=name, form=form, split="train", rows=len(rows))
            self.report.checkpointed()
        return rows

    def _forms(self, constitution: Constitution, material: Material, judge: Judge) -> dict[str, str]:
        """Which principles have a judge worth listening to, and in which form; measured once against people."""
        kept = self.work / "forms.json"
        if not kept.exists():
            named = self.recipe.data.principles
            wanted = [constitution[name] for name in named] if named else list(constitution.principles)
            pairs = self.recipe.data.judge_pairs
            found = choose_forms(wanted, material.train, judge, most=pairs, least=min(10, pairs // 4))
            told = [{"principle": a.principle, "form": a.form, "usable": a.usable, "why": a.why} for a in found]
            self.report.tell("judges", agreement=told)
            replace_file(kept, json.dumps({a.principle: a.form for a in found if a.usable}))
        chosen: dict[str, str] = json.loads(kept.read_text("utf-8"))
        return chosen

    # ------------------------------------------------------------------ the two reward models

    def _reward_model(self, name: str, rows: Sequence[Judgement], material: Material) -> RewardModel:
        folder = self.work / name
        if (folder / "reward.json").exists():
            return RewardModel.load(self.network, self.base, folder)
        settings = self.recipe.reward
        seed = self.recipe.seed + (0 if name == "reward" else 1000)
        model = RewardModel.fresh(self.network, self.base, LoraConfig(rank=settings.rank), seed)
        config = RewardConfig(
            epochs=settings.epochs, batch=settings.batch, learning_rate=settings.learning_rate, seed=seed
        )
        most = settings.rows or len(rows)
        chosen = rows_of(self.base, sorted(rows, key=_row_place)[:most])
        for step in reward_model.train(model, chosen, config, folder=self.work / f"{name}-run"):
            self.report.tell(name, **asdict(step))
            self._moved(name, step.step, step.steps, {"reward": (0.0, 0.25), "judge": (0.25, 0.35)}[name])
        first = sorted(material.prompts["train"], key=_place)[:64]
        model.normalise(self.examiner.answers(first, None, max_tokens=self.recipe.policy.max_tokens))
        found = self._tested(name, model, material)
        if found:
            self.report.tell(f"{name} report", **found)
        part = self.work / f".{name}"
        model.save(part)
        part.rename(folder)
        return model

    def _tested(self, name: str, model: RewardModel, material: Material) -> dict[str, Any]:
        """How a reward model does on held-out judgements, measured once; empty when there are none."""
        kept = self.work / f"{name}-report.json"
        if not kept.exists():
            judged = [row for row in material.test if row.kind is not Kind.DEMONSTRATION]
            rows = rows_of(self.base, sorted(judged, key=_row_place)[: self.recipe.gate.test_rows])
            replace_file(kept, json.dumps(_short(reward_report(model, rows)) if rows else {}))
        found: dict[str, Any] = json.loads(kept.read_text("utf-8"))
        return found

    # ------------------------------------------------------------------ the policy

    def _policy(self, material: Material, reward: RewardModel) -> None:
        """Leaves ``work/policy/adapter``."""
        if (self.work / "policy" / "adapter" / "adapter_model.safetensors").exists():
            return
        match self.recipe.method:
            case "ppo":
                self._ppo(material, reward)
            case "sft":
                self._sft(material)
            case _:
                self._trl(material, reward)

    def _ppo(self, material: Material, reward: RewardModel) -> None:
        settings = self.recipe.policy
        defaults = rlhf.RlhfConfig()
        config = replace(
            defaults,
            steps=settings.steps,
            rollouts=settings.rollouts,
            draw=Draw(1.0, settings.max_tokens),
            ppo=replace(defaults.ppo, kl_target=settings.kl_target, kl_cap=settings.kl_cap),
            learning_rate=settings.learning_rate,
            seed=self.recipe.seed,
        )
        policy = Policy.fresh(self.network, LoraConfig(rank=settings.rank), self.recipe.seed)
        steps = rlhf.train(
            policy,
            self.base,
            [rlhf.Prompt(p) for p in material.prompts["train"]],
            self._rewards(reward),
            config,
            validation=[rlhf.Prompt(p) for p in sorted(material.prompts["validation"], key=_place)[:48]],
            folder=self.work / "policy",
        )
        for step in steps:
            self.report.tell("policy", **rlhf.as_dict(step))
            self._moved("policy", step.step, step.steps, (0.35, 0.9))

    def _sft(self, material: Material) -> None:
        policy = Policy.fresh(self.network, LoraConfig(rank=self.recipe.policy.rank), self.recipe.seed)
        rows = sft.demonstrations_of(self.base, material.train)
        config = sft.SftConfig(learning_rate=self.recipe.policy.learning_rate, seed=self.recipe.seed)
        for step in sft.train(policy, rows, config, folder=self.work / "sft"):
            self.report.tell("policy", **asdict(step))
            self._moved("policy", step.step, step.steps, (0.35, 0.9))
        rlhf.write_adapter(policy.adapter, self.work / "policy" / "adapter")

    def _trl(self, material: Material, reward: RewardModel) -> None:
        settings = self.recipe.policy
        method: Any = self.recipe.method
        config = trl_methods.TrlConfig(
            method=method,
            steps=settings.steps,
            max_tokens=settings.max_tokens,
            lora=LoraConfig(rank=settings.rank),
            trunk_layers=settings.trunk_layers,
            seed=self.recipe.seed,
        )
        prompts = [rlhf.Prompt(p) for p in material.prompts["train"]]
        steps = trl_methods.train(
            self.base,
            config,
            folder=self.work / "policy",
            judgements=material.train,
            prompts=prompts,
            reward=self._rewards(reward),
        )
        for step in steps:
            self.report.tell("policy", step=step.step, steps=step.steps, seconds=step.seconds, **step.metrics)
            self._moved("policy", step.step, step.steps, (0.35, 0.9))

    def _rewards(self, reward: RewardModel) -> Weighted:
        weights = self.recipe.rewards
        parts = [Part("reward model", weights.reward_model, reward.reward)] if weights.reward_model else []
        if weights.length:
            parts.append(Part("length", weights.length, length(limit=weights.length_limit)))
        parts += [Part(path, weight, function(path)) for path, weight in weights.functions.items()]
        return Weighted(parts)

    # ------------------------------------------------------------------ the examination

    def _examine(self, material: Material, reward: RewardModel, judge: RewardModel) -> tuple[Evidence, dict[str, Any]]:
        self.report.tell("examination", text="Old and new answer prompts that training did not see")
        new, _ = read_adapter(self.work / "policy" / "adapter")
        old = self._serving_adapter()
        prompts = sorted(material.prompts["test"], key=_place)[: self.recipe.gate.test_prompts]
        compared = self.examiner.compare(prompts, old, new)
        found = self._tested("reward", reward, material)
        self._moved("examination", 1, 3, (0.9, 0.97))
        probes = bundled.probes()
        evidence = Evidence(
            rows=len([r for r in material.train if r.kind is not Kind.DEMONSTRATION]),
            tested=found.get("rows", 0),
            right=round(found.get("accuracy", 0.0) * found.get("rows", 0)),
            wins=compared.wins(judge.scores),
            longer_by=compared.longer_by(),
            gains=compared.gains(reward.scores),
            lengths=compared.lengths(),
            kl=compared.kl,
            perplexity=(
                self.examiner.perplexity(probes.plain_text, old),
                self.examiner.perplexity(probes.plain_text, new),
            ),
            distinct=compared.distinct(),
            sets=self.examiner.sets(probes, old, new) if self.recipe.gate.probes else {},
            length_bias=found.get("length_correlation"),
        )
        self._moved("examination", 2, 3, (0.9, 0.97))
        evidence = self._served(evidence, prompts, new)
        extras = {
            "samples": compared.samples(),
            "reward": found,
            "judge": self._tested("judge", judge, material),
        }
        return evidence, extras

    def _serving_adapter(self) -> Adapter | None:
        if not self.resolved.serving:
            return None
        folder = self.registry.verified(self.resolved.serving).adapter
        return read_adapter(folder)[0] if folder else None

    def _served(self, evidence: Evidence, prompts: Sequence[Prompt], new: Adapter) -> Evidence:
        """With what the engine that serves makes of the adapter."""
        peft = self.work / "policy" / "adapter"
        gguf = self.work / "adapter.gguf"
        if not gguf.exists():
            adapter_gguf(peft, gguf, open_tensors(Path(self.resolved.weights)).architecture)
        options = ServingOptions(
            models_dir=Path(self.resolved.models_dir),
            model=self.resolved.weights,
            engine=self.resolved.engine,  # type: ignore[arg-type]
            log_path=self.work / "engine.log",
            context=CONTEXT,
            tools_mode="none",
            api_key=SecretStr(""),
        )
        few = prompts[: self.recipe.gate.parity_prompts]
        adapters: list[tuple[str, Adapter | None, Path | None, Path | None]] = [
            ("base", None, None, None),
            ("candidate", new, peft, gguf),
        ]
        base, candidate = parity.measure(options, self.network, self.base, few, adapters)
        self._moved("examination", 3, 3, (0.9, 0.97))
        return replace(evidence, parity=candidate.alike, parity_drift=candidate.drift, base_drift=base.drift)

    # ------------------------------------------------------------------ the version

    def _version(
        self, material: Material, evidence: Evidence, verdict: Verdict, extras: Mapping[str, Any]
    ) -> dict[str, Any]:
        source = self.work / "version"
        (source / "adapter").mkdir(parents=True, exist_ok=True)
        for file in (self.work / "policy" / "adapter").iterdir():
            (source / "adapter" / file.name).write_bytes(file.read_bytes())
        (source / "adapter.gguf").write_bytes((self.work / "adapter.gguf").read_bytes())
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            if (self.base.folder / name).exists():
                (source / name).write_bytes((self.base.folder / name).read_bytes())
        metrics = _metrics(evidence)
        lineage = Lineage(
            method=self.recipe.method,
            parent=self.resolved.parent,
            datasets=dict(material.datasets),
            rows=evidence.rows,
            recipe=self.recipe.model_dump(),
            seed=self.recipe.seed,
            code=version("trimtab"),
            job=self.job.id,
        )
        manifest = Manifest(
            self.recipe.name,
            self.resolved.base_name,
            self.resolved.base_sha256,
            {},
            lineage=lineage,
            metrics=metrics,
            created_at=self.job.created_at,  # a job that was cut off here makes the same version again
        )
        made = self.registry.add(source, manifest)
        told = verdict.to_json() | metrics | dict(extras)
        self.report.tell("verdict", verdict=verdict.outcome.value, reason=verdict.reason, version=made.id)
        return {"version": made.id, "evidence": told, "feedback_ids": material.feedback_ids}

    def _moved(self, stage: str, step: int, steps: int, share: tuple[float, float]) -> None:
        """How far the whole job is, in thousandths, and whether somebody wants it to rest."""
        begin, end = share
        self.report.moved(stage, round(1000 * (begin + (end - begin) * step / max(1, steps))), 1000)
        self.report.checkpointed()

    def _kept(self, name: str, make: Callable[[], list[Judgement]]) -> list[Judgement]:
        """Rows that were made before, or are made now and kept."""
        path = self.work / f"{name}.jsonl"
        if not path.exists():
            replace_file(path, "".join(line_of(row) + "\n" for row in make()))
        return [from_line(line) for line in path.read_text("utf-8").splitlines()]


def _place(prompt: Sequence[Said]) -> int:
    """A number that a prompt keeps: an order that has nothing to do with the order of the file."""
    return zlib.crc32(repr([(s.role, s.content) for s in prompt]).encode())


def _row_place(row: Judgement) -> int:
    return zlib.crc32(row.id.encode())


def _apart(rows: Sequence[Judgement]) -> tuple[list[Judgement], list[Judgement]]:
    """Two thirds of the prompts for the reward model, one third for the judge of the result."""
    policy = [row for row in rows if _place(row.prompt) % 3]
    judge = [row for row in rows if not _place(row.prompt) % 3]
    return (policy, judge) if policy and judge else (list(rows), list(rows))


def _short(found: RewardReport) -> dict[str, Any]:
    """A report without the texts, for progress and evidence."""
    told = asdict(found)
    told["mistakes"] = [
        {"prompt": m.judgement.prompt[-1].content, "better": m.judgement.completion, "worse": m.judgement.rejected,
         "margin": m.margin} for m in found.mistakes
    ]  # fmt: skip
    return told


def _metrics(evidence: Evidence) -> dict[str, Any]:
    n = max(1, len(evidence.wins))
    return {
        "win rate": sum(evidence.wins) / n,
        "reward gain": sum(evidence.gains) / n,
        "KL a completion": evidence.kl,
        "reward model accuracy": evidence.right / evidence.tested if evidence.tested else None,
        "tokens before": evidence.lengths[0],
        "tokens after": evidence.lengths[1],
        "perplexity before": evidence.perplexity[0] if evidence.perplexity else None,
        "perplexity after": evidence.perplexity[1] if evidence.perplexity else None,
        "served as trained": evidence.parity,
    }
