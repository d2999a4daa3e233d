"""A smaller model made from a larger one: layers are dropped, and those above the first gap learn to make up for them.

The loss is KL(teacher || student) over the whole vocabulary at every token of the texts (Hinton et al. 2015,
arXiv:1503.02531; after pruning: Muralidharan et al. 2024, "Minitron", arXiv:2407.14679). The embedding, the output
matrix and the layers below the first gap stay the teacher's own, so what they make of a text is computed once for both,
and kept.

TRL's DistillationTrainer (1.16) is not used. It learns only from what the student itself writes while it trains
(on-policy, Agarwal et al. 2024, arXiv:2306.13649), and a student that has just lost a third of its layers writes
nothing worth an opinion; the teacher's texts cannot be handed to it. It runs every layer of both models in each step,
and its checkpoints are pickles, which we do not load.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from trimtab.domain.errors import InvalidInput

from .adapter import Adapter
from .base import Base, Weights
from .checkpoint import Checkpoints
from .epochs import Passes, descend
from .network import Layer, Network, by_length

_LINEARS = ("qkv", "o", "gate_up", "down")
_NORMS = ("before_attention", "before_mlp", "q_norm", "k_norm")
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")


@dataclass(frozen=True)
class StudentConfig(Passes):
    """What a person may turn. The rate is for whole matrices, not for an adapter; by trying three."""

    batch: int = 16
    microbatch: int = 4
    learning_rate: float = 3e-4
    checkpoint_every: int = 6
    """A checkpoint holds the trained layers three times (Adam), some 100 to 400 MB."""


@dataclass(frozen=True)
class StudentStep:
    step: int
    steps: int
    loss: float
    """KL(teacher || student), nats a token."""
    same: float
    """Share of tokens where both find the same next token likeliest."""
    learning_rate: float
    seconds: float


class Student:
    """The layers `kept` of a teacher; those above the first gap are copies that can be trained."""

    def __init__(self, teacher: Network, dropped: Sequence[int]) -> None:
        count = len(teacher.layers)
        self.teacher = teacher
        self.kept = tuple(i for i in range(count) if i not in set(dropped))
        if not self.kept or len(self.kept) == count or not set(dropped) <= set(range(count)):
            raise InvalidInput(f"Of {count} layers {sorted(dropped)} cannot be dropped. Name some, and leave some.")
        self.shared = min(dropped)
        """Layers below the first gap."""
        self.layers = [_trainable(teacher.layers[i]) for i in self.kept[self.shared :]]
        self.norm = teacher.norm.clone().requires_grad_()

    def upper(self, hidden: Tensor) -> Tensor:
        """What the shared layers made of a text ``[B, T, width]`` to the student's last output, normed."""
        x = self.teacher.through(self.layers, hidden)
        return torch.nn.functional.rms_norm(x, (x.shape[-1],), self.norm, self.teacher.shape.eps)

    def named(self) -> dict[str, Tensor]:
        """Everything that is trained."""
        found = {"norm": self.norm}
        for i, layer in enumerate(self.layers):
            found |= {f"{i}.{name}": getattr(layer, name).weight for name in _LINEARS}
            found |= {f"{i}.{name}": norm for name in _NORMS if (norm := getattr(layer, name)) is not None}
        return found

    def tensors(self) -> dict[str, Tensor]:
        """The trained tensors under their Hugging Face names, layers counted as the student counts them."""
        found = {"model.norm.weight": self.norm}
        for index, layer in enumerate(self.layers, self.shared):
            prefix = f"model.layers.{index}."
            found[prefix + "input_layernorm.weight"] = layer.before_attention
            found[prefix + "post_attention_layernorm.weight"] = layer.before_mlp
            for name, norm in (("q_norm", layer.q_norm), ("k_norm", layer.k_norm)):
                if norm is not None:
                    found[f"{prefix}self_attn.{name}.weight"] = norm
            for linear in (layer.qkv, layer.o, layer.gate_up, layer.down):
                for path, part in zip(linear.paths, torch.split(linear.weight, linear.sizes), strict=True):
                    found[f"{prefix}{path.split('.', 2)[2]}.weight"] = part
        return {name: tensor.detach() for name, tensor in found.items()}


def _trainable(layer: Layer) -> Layer:
    def norm(one: Tensor | None) -> Tensor | None:
        return None if one is None else one.detach().clone().requires_grad_()

    before_attention, before_mlp = norm(layer.before_attention), norm(layer.before_mlp)
    assert before_attention is not None
    assert before_mlp is not None
    return Layer(
        before_attention,
        before_mlp,
        layer.qkv.trainable(),
        layer.o.trainable(),
        layer.gate_up.trainable(),
        layer.down.trainable(),
        norm(layer.q_norm),
        norm(layer.k_norm),
    )


class Lessons:
    """What the teacher makes of texts: computed at the first use of each, and kept."""

    def __init__(self, student: Student) -> None:
        self._student = student
        self._kept: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def of(self, ids: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """What the shared layers made of it, and the teacher's last output, ``[T, width]`` each."""
        if ids not in self._kept:
            teacher, shared = self._student.teacher, self._student.shared
            hidden = torch.nn.functional.embedding(torch.tensor([ids]), teacher.embedding)
            hidden = teacher.through(teacher.layers[:shared], hidden)
            last = teacher.normed(teacher.through(teacher.layers[shared:], hidden))
            self._kept[ids] = hidden[0], last[0]
        return self._kept[ids]


def train(
    student: Student, texts: Sequence[tuple[int, ...]], config: StudentConfig, *, folder: Path | None = None
) -> Iterator[StudentStep]:
    """Train the student in place, one step for each value yielded.

    Args:
        texts: token ids, each at least two.
        folder: for checkpoints; a run that was killed goes on from there, to the same weights.

    Raises:
        InvalidInput: there is nothing to read.
        Conflict: the folder holds another run.
    """
    if not texts:
        raise InvalidInput("There is no text to learn from. Hold some conversations, or learn from the bundled ones.")
    run = repr((config, student.kept, [hash(ids) for ids in texts]))
    checkpoints = Checkpoints(folder, run) if folder else None
    lessons = Lessons(student)

    def learn(rows: list[tuple[int, ...]]) -> tuple[float, float]:
        total, loss, same = sum(map(len, rows)), 0.0, 0
        for group in by_length([len(ids) for ids in rows], config.microbatch):
            nats, alike = _apart(student, [lessons.of(rows[i]) for i in group])
            (nats / total).backward()  # type: ignore[no-untyped-call]
            loss += float(nats.detach()) / total
            same += alike
        return loss, same / total

    for told in descend(student.named(), texts, config, learn, checkpoints=checkpoints):
        yield StudentStep(*told)


@torch.no_grad()
def distance(student: Student, texts: Sequence[tuple[int, ...]]) -> tuple[float, float]:
    """How far the student is from its teacher on these texts: nats a token, and the share of the same likeliest."""
    lessons, nats, same = Lessons(student), 0.0, 0
    for ids in texts:
        apart, alike = _apart(student, [lessons.of(ids)])
        nats, same = nats + float(apart), same + alike
    tokens = max(1, sum(map(len, texts)))
    return nats / tokens, same / tokens


def _apart(student: Student, lessons: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, int]:
    """The sum of KL over all tokens of some texts, and how often both find the same next token likeliest."""
    hidden = torch.nn.utils.rnn.pad_sequence([one for one, _ in lessons], batch_first=True)
    there = torch.zeros(hidden.shape[:2], dtype=torch.bool)
    for row, (one, _) in enumerate(lessons):
        there[row, : len(one)] = True
    with torch.no_grad():
        wanted = torch.log_softmax(student.teacher.logits(torch.cat([last for _, last in lessons])), -1)
    got = torch.log_softmax(student.teacher.logits(student.upper(hidden)[there]), -1)
    same = int((got.argmax(-1) == wanted.argmax(-1)).sum())
    return torch.nn.functional.kl_div(got, wanted, reduction="sum", log_target=True), same


def merged(base: Base, adapter: Adapter, folder: Path) -> Path:
    """Write the base with an adapter's change in its matrices into `folder`, as float32, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, tensor in Weights(base.folder).items():
        path = name.removeprefix("model.").removesuffix(".weight")
        if path in adapter.a:
            tensor = tensor + adapter.config.scale * (adapter.b[path] @ adapter.a[path]).detach()
        found[name] = tensor.contiguous()
    _copied(base.folder, folder, base.config)
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def save(student: Student, base: Base, folder: Path) -> None:
    """Write the student as transformers reads it: float16 safetensors, configuration, and the teacher's tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    trained, found = student.tensors(), {}
    place = {old: new for new, old in enumerate(student.kept)}
    for name, tensor in Weights(base.folder).items():
        parts = name.split(".", 3)
        if name.startswith("model.layers."):
            if int(parts[2]) not in place:
                continue
            name = f"model.layers.{place[int(parts[2])]}.{parts[3]}"
        found[name] = trained.get(name, tensor).half().contiguous()
    _copied(base.folder, folder, base.config | {"num_hidden_layers": len(student.kept), "dtype": "float16"})
    save_file(found, folder / "model.safetensors", metadata={"format": "pt"})


def _copied(source: Path, folder: Path, config: dict[str, object]) -> None:
    for name in TOKENIZER:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    (folder / "config.json").write_text(json.dumps(config, indent=1), "utf-8")
