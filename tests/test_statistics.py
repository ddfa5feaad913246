"""Median and interval: exact coverage, bounds as bounds. The sign-flip test: equal to SciPy's, and exact."""

import math
import random
from collections.abc import Sequence
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, permutation_test

from bnsuite.records import Outcome, Sample
from bnsuite.records.record import Better
from bnsuite.statistics import ALPHA, MIN_SEEDS, differs_upwards, median_interval, sign_flip_p, summarize

VALUED = [Outcome.OK, Outcome.CAPPED, Outcome.FLOOR, Outcome.TIMEOUT]
VALUELESS = [Outcome.STUCK, Outcome.NONFINITE, Outcome.UNCONVERGED, Outcome.UNSUPPORTED, Outcome.OOM]

numbers = st.floats(-1e6, 1e6)
valued = st.builds(lambda v, o: Sample(seed=0, value=v, outcome=o), numbers, st.sampled_from(VALUED))
valueless = st.builds(lambda o: Sample(seed=0, value=None, outcome=o), st.sampled_from(VALUELESS))
samples = st.lists(valued | valueless, min_size=1, max_size=12)
better = st.sampled_from(["higher", "lower"])


def ok(*values: float) -> list[Sample]:
    return [Sample(seed=i, value=value) for i, value in enumerate(values)]


def timeout(budget: float) -> Sample:
    return Sample(seed=0, value=budget, outcome=Outcome.TIMEOUT)


def stuck() -> Sample:
    return Sample(seed=0, value=None, outcome=Outcome.STUCK)


def test_between_an_upper_and_a_lower_bound_lies_no_median() -> None:
    bounds = [
        Sample(seed=0, value=4, outcome=Outcome.FLOOR),
        Sample(seed=1, value=128, outcome=Outcome.CAPPED),
    ]
    summary = summarize(bounds, "higher")
    assert (summary.value, summary.outcome) == (None, Outcome.UNCONVERGED)
    assert (summary.low, summary.high) == (None, None)
    assert summarize([*bounds, Sample(seed=2, value=8)], "higher").value == 8


@pytest.mark.parametrize("n", range(1, 41))
def test_coverage_is_that_of_the_binomial(n: int) -> None:
    low, high, coverage = median_interval(n)
    assert high == n - 1 - low
    k = low + 1
    assert coverage == pytest.approx(1 - 2 * binom.cdf(k - 1, n, 0.5) if n > 1 else 0, abs=1e-12)
    if coverage >= 0.95:
        assert 1 - 2 * binom.cdf(k, n, 0.5) < 0.95 or 2 * (k + 1) > n
    else:
        assert (k, n) == (1, min(n, 5))


@pytest.mark.parametrize("n", [3, 6, 10, 20])
def test_measured_coverage(n: int) -> None:
    draw = random.Random(n)
    interval = median_interval(n)
    inside = 0
    for _ in range(4000):
        ranked = sorted(draw.lognormvariate(0, 1) for _ in range(n))
        inside += ranked[interval.low] <= 1 <= ranked[interval.high]
    spread = 3 * math.sqrt(interval.coverage * (1 - interval.coverage) / 4000)
    assert inside / 4000 == pytest.approx(interval.coverage, abs=spread)


def test_an_interval_needs_a_sample() -> None:
    with pytest.raises(ValueError, match="at least 1 sample: got 0"):
        median_interval(0)


@given(st.lists(numbers, min_size=1, max_size=12), better)
def test_of_plain_samples_the_median(values: list[float], better: Better) -> None:
    summary = summarize(ok(*values), better)
    low, high, coverage = median_interval(len(values))
    ranked = sorted(values)
    assert summary.value == pytest.approx(median(values), rel=1e-12, abs=1e-12)
    assert summary[1:] == (Outcome.OK, ranked[low], ranked[high], coverage)


@given(samples, better, st.randoms(use_true_random=False))
def test_order_of_samples_does_not_matter(
    drawn: list[Sample], better: Better, shuffle: random.Random
) -> None:
    mixed = drawn.copy()
    shuffle.shuffle(mixed)
    assert summarize(drawn, better) == summarize(mixed, better)


@given(samples, better)
def test_a_value_goes_with_its_outcome_and_lies_in_its_interval(drawn: list[Sample], better: Better) -> None:
    summary = summarize(drawn, better)
    assert summary.outcome.has_value == (summary.value is not None)
    if summary.value is not None and Outcome.TIMEOUT not in [s.outcome for s in drawn]:
        if summary.low is not None:
            assert summary.low <= summary.value + 1e-9
        if summary.high is not None:
            assert summary.high >= summary.value - 1e-9


@given(st.lists(numbers, min_size=1, max_size=9), better, st.data())
def test_a_worse_sample_never_makes_the_value_better(
    values: list[float], better: Better, data: st.DataObject
) -> None:
    before = summarize(ok(*values), better)
    hit = data.draw(st.integers(0, len(values) - 1))
    after = summarize([*ok(*values)[:hit], stuck(), *ok(*values)[hit + 1 :]], better)
    assert before.value is not None
    if after.value is not None:
        assert after.value >= before.value if better == "lower" else after.value <= before.value


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_a_seed_without_a_value_counts_as_the_worst(better: Better) -> None:
    summary = summarize([*ok(10, 20), stuck()], better)
    assert summary.value == (20 if better == "lower" else 10)
    assert summary.outcome is Outcome.OK
    assert (summary.low, summary.high) == ((10, None) if better == "lower" else (None, 20))


@pytest.mark.parametrize("better", ["higher", "lower"])
@pytest.mark.parametrize("dead", [2, 3, 4])
def test_a_median_that_rests_on_no_value_is_none(better: Better, dead: int) -> None:
    summary = summarize([*ok(*range(4 - dead)), *[stuck()] * dead], better)
    assert summary[:2] == (None, Outcome.STUCK)


def test_a_timeout_stands_behind_every_time() -> None:
    summary = summarize([*ok(500, 300), timeout(400)], "lower")
    assert summary[:4] == (500, Outcome.OK, 300, None)


def test_a_median_that_rests_on_a_timeout_is_a_lower_bound() -> None:
    assert summarize([*ok(30), timeout(400), timeout(400)], "lower")[:4] == (400, Outcome.TIMEOUT, 30, None)
    assert summarize([*ok(30), timeout(400)], "lower")[:2] == (215, Outcome.TIMEOUT)


def test_bounds_leave_their_side_open() -> None:
    capped = [Sample(seed=i, value=128, outcome=Outcome.CAPPED) for i in range(6)]
    assert summarize(capped, "higher")[:4] == (128, Outcome.CAPPED, 128, None)
    floor = [Sample(seed=i, value=2, outcome=Outcome.FLOOR) for i in range(6)]
    assert summarize(floor, "higher")[:4] == (2, Outcome.FLOOR, None, 2)
    mixed = [*ok(16, 24, 24, 30), *capped[:2]]
    assert summarize(mixed, "higher")[:4] == (27, Outcome.OK, 16, None)


def test_a_bound_ranks_on_its_open_side_of_an_equal_value() -> None:
    def outcome(*drawn: Sequence[Sample]) -> Outcome:
        return summarize([sample for part in drawn for sample in part], "higher").outcome

    capped = [Sample(seed=9, value=8, outcome=Outcome.CAPPED)]
    floor = [Sample(seed=9, value=8, outcome=Outcome.FLOOR)]
    assert outcome(ok(8, 8), capped) is Outcome.OK
    assert outcome(ok(8, 8), floor) is Outcome.OK
    assert outcome(ok(8, 2), capped) is Outcome.OK
    assert outcome(ok(9, 8), floor) is Outcome.OK


def test_no_samples_no_value() -> None:
    assert summarize([], "lower") == (None, Outcome.ERROR, None, None, None)


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
    """Heavy tails, no difference: the share in 2,000 tests may be off by three standard errors, .0146."""
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
