"""What a smaller model is made by: pruning or distillation, with every key checked."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtab.domain.checking import checked_as


class StudentRecipe(BaseModel):
    """`prune`: the layers that matter least go, and a short training makes up for them. `distil`: more go, at even
    distances, and the student learns longer from its teacher."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    method: Literal["prune", "distil"] = "prune"
    name: str = Field("", pattern=r"^([a-z0-9][a-z0-9-]{0,30})?$")
    """Empty: the method and how many layers are left. The beginning of its content's hash is added."""
    layers: int = Field(0, ge=0, le=1000)
    """To drop; 0 is a fifth of them to prune and a third to distil."""
    teacher: str = Field("", max_length=100)
    """Id of the version to learn from; empty is the one that answers now."""
    bundled: bool = True
    """Learn on the texts that come with Trimtab."""
    conversations: int = Field(0, ge=0, le=500)
    """Learn on so many of the last conversations held here, too. Weights can remember what they read."""
    tokens: int = Field(0, ge=0, le=100_000_000)
    """To read in training; 0 is 30,000 to prune and 60,000 to distil."""
    written: int = Field(96, ge=0, le=100_000)
    """Texts that the teacher writes for it: answers to own prompts, and plain text."""
    length: int = Field(64, ge=8, le=1024)
    """Tokens of each of those."""
    learning_rate: float = Field(3e-4, gt=0.0, le=0.1)
    seed: int = Field(0, ge=0, lt=2**31)

    def dropped(self, layers: int) -> int:
        """How many of so many layers go."""
        return self.layers or max(1, layers // (5 if self.method == "prune" else 3))

    @property
    def budget(self) -> int:
        return self.tokens or (30_000 if self.method == "prune" else 60_000)


def checked(values: Any) -> StudentRecipe:
    """Raises:
    InvalidInput: names each key that is wrong, and what it may be.
    """
    return checked_as(StudentRecipe, values, "recipe", told_in="docs/deployment.md")
