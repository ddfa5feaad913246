"""Statistics: the median over seeds with its exact interval, and the paired test of two entries."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bnsuite.records import Better, Outcome, Sample

ALPHA = 0.05
"""Two entries differ if p is below this."""

ENUMERATED = 20
"""Largest number of pairs n for which all 2^n sign vectors are enumerated."""

DRAWS = 2**16
"""Number of sign vectors drawn, from a fixed seed, if there are too many to enumerate."""

MIN_SEEDS = 6
"""Number of common seeds below which no difference is found: with 5 the smallest p is 2/32 > ALPHA."""


class Interval(NamedTuple):
    """Ranks (from 0) of the order statistics that bound the median, and their coverage probability."""

    low: int
    high: int
    coverage: float


class Summary(NamedTuple):
    """Value of a cell: the median, its outcome, and its interval with coverage; None: open, or no value."""

    value: float | None
    outcome: Outcome
    low: float | None
    high: float | None
    coverage: float | None


def median_interval(n: int, level: float = 0.95) -> Interval:
    """Find the exact interval of the median from n independent samples of any distribution.

    [x_(k), x_(n+1-k)] misses the median with probability 2 P(Binomial(n, 1/2) < k). The largest k with a
    coverage of at least `level` is taken; if there is none, the range and its coverage.

    Raises:
        ValueError: n is below 1.

    >>> median_interval(6)
    Interval(low=0, high=5, coverage=0.96875)
    """
    if n < 1:
        raise ValueError(f"an interval needs at least 1 sample: got {n}")

    def coverage(k: int) -> float:
        return 1 - 2 * sum(math.comb(n, i) for i in range(k)) / float(2**n)

    k = max((k for k in range(1, n // 2 + 1) if coverage(k) >= level), default=1)
    return Interval(k - 1, n - k, coverage(k) if n > 1 else 0.0)


def summarize(samples: Sequence[Sample], better: Better) -> Summary:
    """Compute the median over seeds with its interval; no sample is dropped.

    A seed without a value (`stuck`, `unconverged`, …) counts as the worst possible value, a `timeout` as
    +inf, a bound as a bound; if the median depends on one of these, the outcome says so. An end of the
    interval is None if it is unbounded or has no value.
    """
    if not samples:
        return Summary(None, Outcome.ERROR, None, None, None)
    worst = math.inf if better == "lower" else -math.inf

    def place(sample: Sample) -> tuple[float, int]:
        if sample.value is None:
            return worst, 0
        if sample.outcome is Outcome.TIMEOUT:
            return math.inf, -1
        return sample.value, {"upper": -1, None: 0, "lower": 1}[sample.outcome.bound]

    ranked = sorted(samples, key=lambda s: (*place(s), s.outcome, s.value or 0.0))  # a total order
    n = len(ranked)
    interval = median_interval(n)
    first, second = ranked[(n - 1) // 2], ranked[n // 2]
    low, high = ranked[interval.low], ranked[interval.high]
    outcome = next((s.outcome for s in (second, first) if s.outcome is not Outcome.OK), Outcome.OK)
    if first.value is None or second.value is None:
        value = None
        outcome = first.outcome if first.value is None else second.outcome
    else:
        value = (first.value + second.value) / 2
    if {first.outcome.bound, second.outcome.bound} == {"upper", "lower"}:  # the median may be anything
        value, outcome = None, Outcome.UNCONVERGED
    return Summary(
        value,
        outcome,
        None if low.outcome.bound == "upper" else low.value,
        None if high.outcome.bound == "lower" else high.value,
        interval.coverage,
    )


def sign_flip_p(differences: Sequence[float]) -> float:
    """Compute the two-sided p-value of the paired sign-flip permutation test of no difference.

    p = #{s in {-1, 1}^n : |Σ s_i d_i| >= |Σ d_i|} / 2^n

    Exact if each d_i is as likely to have had the other sign (Fisher, The Design of Experiments, 1935,
    section 21). Beyond `ENUMERATED` pairs a fixed sample of sign vectors is used, with the observed one
    counted, which is still a valid test. Without pairs, or if all differences are zero, p is 1.

    >>> sign_flip_p([1, 2, 3, 4, 5, 6])
    0.03125
    """
    d = np.asarray(differences, dtype=float)
    if not d.size:
        return 1.0
    observed = abs(d.sum()) - 1e-9 * np.abs(d).sum()  # equal sums stay equal whatever their rounding
    if d.size > ENUMERATED:
        signs = np.random.default_rng(0).integers(0, 2, (DRAWS, d.size), dtype=np.int8) * 2 - 1
        return float((1 + np.count_nonzero(np.abs(signs @ d) >= observed)) / (1 + DRAWS))
    sums = d[:1]  # the first sign is fixed: s and -s give one |sum|
    for difference in d[1:]:
        sums = np.concatenate([sums + difference, sums - difference])
    return float(np.count_nonzero(np.abs(sums) >= observed) / sums.size)


def differs_upwards(differences: Sequence[float]) -> bool:
    """Tell whether differences are positive on average and significant, with at least `MIN_SEEDS` of them."""
    return len(differences) >= MIN_SEEDS and sum(differences) > 0 and sign_flip_p(differences) < ALPHA
