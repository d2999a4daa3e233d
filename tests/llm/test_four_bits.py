"""Four bits that know what a matrix reads lose less of what it computes; nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

import tiny_decoder
from paged import EXACT, Paged
from trimtab.domain.errors import InvalidInput
from trimtab.llm.four_bits import FourBits, fitted, nearest
from trimtab.llm.openvino_folder import read_card
from trimtab.llm.openvino_weights import calibrate_openvino, prepare_openvino

TALKS = [
    [{"role": "user", "content": f"the {a} of it in {b}"}, {"role": "assistant", "content": f"{b} and the {a}"}]
    for a in ("sea", "ship", "land", "hand", "thing")
    for b in ("the end", "it all", "what is there", "an hour")
]


def read(count: int, width: int, seed: int) -> Any:
    """What a layer reads: a few things at once, seen through many numbers, some much stronger than others."""
    things = np.random.default_rng(99).normal(size=(12, width)) * np.random.default_rng(98).lognormal(0, 1, width)
    dice = np.random.default_rng(seed)
    return (dice.normal(size=(count, 12)) @ things + 0.2 * dice.normal(size=(count, width))).astype(np.float32)


def exact(four: FourBits) -> Any:
    """The matrix again, as it is computed with."""
    numbers = (four.whole - four.zero.astype(np.float32)) * four.scale.astype(np.float32)
    return numbers.reshape(len(numbers), -1)


def test_what_a_matrix_computes_of_new_texts_changes_less() -> None:
    matrix = np.random.default_rng(1).normal(0, 0.05, (80, 96)).astype(np.float32)
    seen, new = read(2000, 96, 2), read(500, 96, 3)

    def loss(four: FourBits) -> float:
        return float(np.square(new @ (exact(four) - matrix).T).mean() / np.square(new @ matrix.T).mean())

    plain, fit = nearest(matrix), fitted(matrix, seen.T @ seen / len(seen))
    assert plain.whole.shape == fit.whole.shape == (80, 3, 32)
    assert plain.scale.shape == fit.zero.shape == (80, 3, 1)
    assert loss(fit) < loss(plain) / 3
    assert np.abs(exact(fit) - matrix).mean() > np.abs(exact(plain) - matrix).mean()  # not nearer by itself


def test_inputs_that_are_never_there_or_always_the_same_do_no_harm() -> None:
    matrix = np.random.default_rng(1).normal(0, 0.05, (8, 64)).astype(np.float32)
    for x in (np.zeros((10, 64), np.float32), np.ones((10, 64), np.float32), read(3, 64, 1) * (np.arange(64) % 2)):
        found = exact(fitted(matrix, (x.T @ x / len(x)).astype(np.float32)))
        assert np.isfinite(found).all()
        assert np.abs(x @ (found - matrix).T).max() <= np.abs(x @ (exact(nearest(matrix)) - matrix).T).max() + 1e-4
    assert not exact(fitted(np.zeros((4, 32), np.float32), np.eye(32, dtype=np.float32))).any()


def test_a_model_that_is_fitted_to_conversations_is_nearer_to_itself_in_16_bits(tmp_path: Path) -> None:
    folder = tiny_decoder.decoder(tmp_path / "model")
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [
        tokens.encode(text).ids for text in ("the hand of the ship is in the sea", "what is there at the end of it all")
    ]
    right = tiny_decoder.logp(folder, ids)

    def away(made: Path) -> float:
        found = Paged(made, EXACT).logp(ids)
        return float(np.mean([np.abs(f - r).mean() for f, r in zip(found, right, strict=True)]))

    plain = prepare_openvino(folder, tmp_path / "cache", precision="int4")
    before = away(plain)
    assert read_card(plain).fitted_to == 0
    steps: list[str] = []
    fit = calibrate_openvino(folder, tmp_path / "cache", TALKS, on_progress=lambda step: steps.append(step.what))
    assert fit == plain == prepare_openvino(folder, tmp_path / "cache", precision="int4")
    assert read_card(fit).fitted_to > 100
    assert set(steps) == {"Reading texts", "OpenVINO model"}
    assert away(fit) < 0.85 * before
    assert [f.name for f in (tmp_path / "cache").iterdir() if not f.name.endswith(".lock")] == [fit.name]


def test_layers_that_are_read_for_in_several_passes_are_fitted_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_decoder.decoder(tmp_path / "model")
    once = calibrate_openvino(folder, tmp_path / "once", TALKS)
    monkeypatch.setattr("trimtab.llm.calibration.AT_ONCE", 1)
    twice = calibrate_openvino(folder, tmp_path / "twice", TALKS)
    assert (once / "openvino_model.bin").read_bytes() == (twice / "openvino_model.bin").read_bytes()


@pytest.mark.model
def test_a_model_that_comes_in_four_bits_is_left_as_it_is(chat_model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="few bits already"):
        calibrate_openvino(chat_model_path, tmp_path, TALKS)
    with pytest.raises(InvalidInput, match="no text to fit"):
        calibrate_openvino(tiny_decoder.decoder(tmp_path / "model"), tmp_path, [])
