"""max_depth on lanes of known outcome: the sample is the prescribed threshold."""

import math
from collections.abc import Callable
from typing import Any

import pytest

from bnsuite.engine.lanes import Lane
from bnsuite.records import Outcome
from bnsuite.tasks import Subject
from bnsuite.tasks.max_depth import MaxDepth

RATES = (0.01, 0.1, 1.0)
SEEDS = (101, 102, 103, 104, 105, 106)
TASK = MaxDepth(width=8, batch=8, tuning=(1, 2), confirmation=SEEDS, depths=(4, 128), rates=RATES)
TRAINED, STUCK, DEAD = (0.5, 0.8), (2.3, 0.79), (math.nan, math.nan)


def falling(thresholds: dict[int, int], good: float = 0.1, tuning: int = 1000) -> Callable[..., Any]:
    """Train only at the rate `good`, and each seed only down to its threshold."""

    def fate(depth: int, lane: Lane) -> tuple[float, float]:
        if lane.rate > good:
            return DEAD
        return TRAINED if lane.rate == good and depth <= thresholds.get(lane.seed, tuning) else STUCK

    return fate


def test_the_sample_is_the_seeds_threshold_within_the_bracket(subject: Subject, lanes_that: Any) -> None:
    thresholds = dict(zip(SEEDS, (20, 21, 22, 23, 24, 25), strict=True))
    asked = lanes_that(falling(thresholds))
    measured = TASK(subject)
    for sample in measured.samples:
        assert sample.outcome is Outcome.OK
        assert sample.low == sample.value
        assert sample.value is not None
        assert sample.high is not None
        assert sample.value <= thresholds[sample.seed] < sample.high
        assert (sample.detail["accuracy_passed"], sample.detail["accuracy_failed"]) == (0.8, 0.79)
    values = sorted(sample.value for sample in measured.samples if sample.value)
    assert measured.value == (values[2] + values[3]) / 2
    assert (measured.low, measured.high, measured.coverage) == (values[0], values[-1], 0.96875)
    assert measured.derived["non_monotone"] is False
    assert {steps for _, _, steps in asked} == {200}


def test_the_threshold_of_the_majority_is_met_to_13_percent(subject: Subject, lanes_that: Any) -> None:
    lanes_that(falling(dict.fromkeys(SEEDS, 41)))
    measured = TASK(subject)
    low, high = measured.samples[0].low, measured.samples[0].high
    assert low is not None
    assert high is not None
    assert low <= 41 < high
    assert high / low <= 1.13


def test_tuning_and_confirmation(subject: Subject, lanes_that: Any) -> None:
    asked = lanes_that(falling(dict.fromkeys(SEEDS, 20)))
    measured = TASK(subject)
    probe = [(depth, lanes) for depth, lanes, _ in asked if depth == 64]
    assert probe == [(64, [Lane(seed, 0.1) for seed in SEEDS])]  # confirmation only, at a known rate
    at_16 = [lanes for depth, lanes, _ in asked if depth == 16]
    assert at_16 == [[Lane(s, r) for r in RATES for s in (1, 2)], [Lane(seed, 0.1) for seed in SEEDS]]
    assert set(measured.derived["best_rates"].values()) == {0.1}  # type: ignore[union-attr]
    phases = {(row["depth"], row["phase"]) for row in measured.trace}
    assert {(16, "tune"), (16, "confirm"), (64, "probe")} <= phases
    assert len(measured.trace) == sum(len(lanes) for _, lanes, _ in asked)
    assert {row["outcome"] for row in measured.trace} == {"ok", "stuck", "nonfinite"}


def test_capped(subject: Subject, lanes_that: Any) -> None:
    lanes_that(falling({}))
    measured = TASK(subject)
    assert (measured.value, measured.outcome, measured.low, measured.high) == (128, Outcome.CAPPED, 128, None)
    assert {(s.value, s.outcome) for s in measured.samples} == {(128, Outcome.CAPPED)}


@pytest.mark.parametrize("tuning", [0, 1000], ids=["no rate trains", "only tuning seeds train"])
def test_floor(subject: Subject, lanes_that: Any, tuning: int) -> None:
    asked = lanes_that(falling(dict.fromkeys(SEEDS, 0), tuning=tuning))
    measured = TASK(subject)
    assert (measured.value, measured.outcome, measured.low, measured.high) == (4, Outcome.FLOOR, None, 4)
    confirmed = [lanes for _, lanes, _ in asked if lanes[0].seed in SEEDS]
    assert bool(confirmed) == bool(tuning)


def test_a_pass_above_the_first_fail_is_flagged(subject: Subject, lanes_that: Any) -> None:
    def fate(depth: int, lane: Lane) -> tuple[float, float]:
        return TRAINED if lane.rate == 0.1 and (depth <= 16 or depth == 64) else STUCK

    lanes_that(fate)
    measured = TASK(subject)
    assert measured.derived["non_monotone"] is True
    assert {s.value for s in measured.samples} == {16}


def test_the_best_rate_is_chosen_among_trained_lanes(subject: Subject, lanes_that: Any) -> None:
    def fate(depth: int, lane: Lane) -> tuple[float, float]:
        return {0.01: (0.1, 0.7), 0.1: (0.3, 0.9), 1.0: (0.2, 0.9)}[lane.rate]

    lanes_that(fate)
    measured = MaxDepth(width=8, batch=8, tuning=(1,), confirmation=SEEDS, depths=(4, 4), rates=RATES)(
        subject
    )
    assert measured.derived["best_rates"] == {"4": 1.0}
