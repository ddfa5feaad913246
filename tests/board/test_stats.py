"""The sign-flip test against SciPy's, and against its promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test

from bnsuite.board.stats import ALPHA, MIN_SEEDS, differs_upwards, sign_flip_p


@pytest.mark.parametrize("n", [6, 7, 10])
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_equals_scipys_exact_test(n: int, shift: float) -> None:
    d = np.random.default_rng(n).normal(shift, 1, n)
    theirs = permutation_test((d,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(d.tolist()) == pytest.approx(theirs.pvalue, abs=1e-12)


def test_six_seeds_are_the_fewest_that_can_tell_apart() -> None:
    assert sign_flip_p([1.0] * (MIN_SEEDS - 1)) > ALPHA
    assert sign_flip_p([1.0] * MIN_SEEDS) == pytest.approx(2 / 2**MIN_SEEDS)


def test_false_positives_are_at_most_alpha() -> None:
    """Heavy tails, no difference: 2,000 tests may be off by three standard errors, .0146."""
    rng = np.random.default_rng(0)
    found = [sign_flip_p(rng.standard_t(2, 8).tolist()) < ALPHA for _ in range(2_000)]
    assert np.mean(found) <= ALPHA + 0.0146


def test_power_where_there_is_a_difference() -> None:
    rng = np.random.default_rng(0)
    assert np.mean([differs_upwards(rng.normal(2, 1, 8).tolist()) for _ in range(200)]) > 0.9


def test_many_pairs_are_sampled_and_agree() -> None:
    d = np.random.default_rng(1).normal(0.4, 1, 22)
    sums = np.zeros(1)
    for x in d:
        sums = np.concatenate([sums + x, sums - x])
    assert sign_flip_p(d.tolist()) == pytest.approx(np.mean(np.abs(sums) >= abs(d.sum())), abs=0.005)
    assert sign_flip_p(d.tolist()) == sign_flip_p(d.tolist())


@given(st.lists(st.floats(-5, 5), max_size=8))
def test_symmetric_and_a_probability(d: list[float]) -> None:
    p = sign_flip_p(d)
    assert p == sign_flip_p([-x for x in d])
    assert 0 < p <= 1


def test_no_difference_is_none() -> None:
    assert sign_flip_p([]) == sign_flip_p([0.0] * 8) == 1


def test_direction_and_number() -> None:
    assert differs_upwards([1.0] * 6)
    assert not differs_upwards([-1.0] * 6)
    assert not differs_upwards([1.0] * 5)
