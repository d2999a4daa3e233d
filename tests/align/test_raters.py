"""Coefficients of agreement, on the examples their authors published."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.align.raters import agreement, cohen_kappa, krippendorff_alpha


def table(both_yes: int, only_first: int, only_second: int, both_no: int) -> tuple[list[int], list[int]]:
    one = [1] * both_yes + [1] * only_first + [0] * only_second + [0] * both_no
    other = [1] * both_yes + [0] * only_first + [1] * only_second + [0] * both_no
    return one, other


def test_cohen_on_grant_proposals() -> None:
    """Fifty proposals, two readers: 20 both yes, 5 and 10 split, 15 both no; kappa 0.4 (a common textbook example)."""
    assert cohen_kappa(*table(20, 5, 10, 15)) == pytest.approx(0.4)


def test_cohen_with_the_same_agreement_by_different_margins() -> None:
    """Feinstein and Cicchetti 1990: 60 % agreement twice, kappa 0.1304 and 0.2593."""
    assert cohen_kappa(*table(45, 15, 25, 15)) == pytest.approx(0.1304, abs=5e-5)
    assert cohen_kappa(*table(25, 35, 5, 35)) == pytest.approx(0.2593, abs=5e-5)


def test_krippendorff_on_binary_data_of_two_observers() -> None:
    """Krippendorff 2011, section A: ten articles, alpha 0.095."""
    one = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    other = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert krippendorff_alpha(zip(one, other, strict=True)) == pytest.approx(0.095, abs=5e-4)


def test_krippendorff_on_nominal_data_of_two_observers() -> None:
    """Krippendorff 2011, section B: twelve articles, five categories, alpha 0.692."""
    one = "a a b b d c c c e d d a".split()
    other = "b a b b b c c c e d d d".split()
    assert krippendorff_alpha(zip(one, other, strict=True)) == pytest.approx(0.692, abs=5e-4)


def test_krippendorff_with_four_observers_and_missing_data() -> None:
    """Krippendorff 2011, section C: alpha 0.743 for nominal data."""
    rows = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    units = [[row[unit] for row in rows if row[unit] is not None] for unit in range(12)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_two_raters_get_kappa_and_more_get_alpha() -> None:
    two = agreement([{"ann": 1, "bob": 1}, {"ann": 0, "bob": 0}, {"ann": 1}])
    assert (two.name, two.raters, two.items, two.percent, two.coefficient) == ("kappa", 2, 2, 1.0, 1.0)
    three = agreement([{"ann": 1, "bob": 1, "cy": 0}, {"ann": 0, "bob": 0, "cy": 0}])
    assert (three.name, three.raters, three.items) == ("alpha", 3, 2)
    assert three.percent == pytest.approx(4 / 6)
    assert three.coefficient == pytest.approx(1 - 5 * 2 / 16)


def test_nothing_judged_twice_gives_no_figure() -> None:
    nothing = agreement([{"ann": 1}, {"bob": 0}])
    assert (nothing.items, nothing.percent, nothing.coefficient) == (0, None, None)
    assert agreement([{"ann": 1, "bob": 1}, {"ann": 1, "bob": 1}]).coefficient is None


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=2, max_size=5), min_size=1, max_size=12))
def test_alpha_is_one_at_most_and_one_only_when_all_agree(units: list[list[str]]) -> None:
    alpha = krippendorff_alpha(units)
    if alpha is not None:
        assert alpha <= 1 + 1e-9
        assert (alpha > 1 - 1e-9) == all(len(set(unit)) == 1 for unit in units)
