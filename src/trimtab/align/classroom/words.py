"""The words of reinforcement learning, in both worlds. The code means by them what stands here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Word:
    word: str
    tictactoe: str
    language_model: str


WORDS = (
    Word("agent, policy", "the player", "the language model"),
    Word("environment", "the 3x3 board", "the context window"),
    Word("state", "the current configuration of the board", "the text now in the context"),
    Word("action", "a position", "the next token"),
    Word("action space", "the free positions", "the vocabulary"),
    Word("reward", "winning", "the reward model's score of a completion, or a person's 0 or 1, less a KL penalty"),
    Word("rollout, playout", "states and actions of one game", "states and actions of one completion"),
    Word("value", "the result to expect from a board", "the reward to expect from a context"),
    Word("reference", "none: it starts from nothing", "the model before this alignment; the KL penalty keeps it near"),
)
