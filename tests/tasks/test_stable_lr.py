"""stable_lr on lanes of known outcome: the sample is a count, whatever the order of passes."""

import dataclasses
import math
from typing import Any

import pytest

from bnsuite.audit import objections
from bnsuite.engine.lanes import Lane
from bnsuite.protocol.search import log_grid
from bnsuite.records import Outcome
from bnsuite.tasks import Subject
from bnsuite.tasks.stable_lr import StableLr

SEEDS = (101, 102, 103)
RATES = (0.01, 0.1, 1.0)
TASK = StableLr(width=8, batch=8, tuning=(1, 2), confirmation=SEEDS, rates=RATES)
GRID = log_grid(0.1, 12, 25)
LIMIT = math.log(4) / 2
STABLE, UNLEARNED, RISEN, DEAD = LIMIT, LIMIT + 1e-6, 1.5, math.nan


def ragged(passing: dict[int, set[int]], otherwise: float = UNLEARNED) -> Any:
    """Make the k-th rate of the grid stable for the seeds of `passing`; 0.1 is the best rate."""

    def fate(depth: int, lane: Lane) -> tuple[float, float]:
        assert depth == 8
        if lane.seed in (1, 2):
            return (0.3 if lane.rate == 0.1 else 0.4), 0.5
        return (STABLE if GRID.index(lane.rate) in passing[lane.seed] else otherwise), 0.5

    return fate


def test_the_sample_counts_stable_rates(subject: Subject, lanes_that: Any) -> None:
    passing = {101: set(range(6)), 102: {0, 1, 2, 5, 7, 9}, 103: {24}}
    asked = lanes_that(ragged(passing))
    measured = TASK(subject)
    assert [s.value for s in measured.samples] == [GRID[5], GRID[5], GRID[0]]
    assert [(s.low, s.high) for s in measured.samples] == [(GRID[n - 1], GRID[n]) for n in (6, 6, 1)]
    assert [s.detail for s in measured.samples] == [{"passing": n, "tried": 25} for n in (6, 6, 1)]
    assert (measured.value, measured.outcome) == (GRID[5], Outcome.OK)
    assert measured.value == pytest.approx(0.1 * 10 ** (5 / 12))
    assert measured.derived["best_rate"] == 0.1
    assert [steps for _, _, steps in asked] == [100, 100]
    assert sorted(asked[1][1]) == sorted(Lane(seed, rate) for seed in SEEDS for rate in GRID)
    assert len(measured.trace) == 6 + 75


def test_the_limit_of_the_loss_is_a_setting(subject: Subject, lanes_that: Any) -> None:
    task = dataclasses.replace(TASK, loss_ratio=0.9)
    limit = 0.9 * math.log(4)
    lanes_that(lambda depth, lane: (limit if lane.rate < 1 else limit + 1e-3, 0.5))
    measured = task(subject)
    assert [s.detail["passing"] for s in measured.samples] == [24, 24, 24]

    def against(loss_ratio: float) -> list[str]:
        settings = {**task.settings, "loss_ratio": loss_ratio}
        return objections(measured, "stable_lr", settings, better="higher", dataset="digits")

    assert against(limit / math.log(10)) == [], "and an audit knows it"
    assert "ok iff the loss" in against(0.5)[0]


def test_none_stable_is_stuck(subject: Subject, lanes_that: Any) -> None:
    lanes_that(ragged({101: {1}, 102: set(), 103: set()}))
    measured = TASK(subject)
    assert [s.outcome for s in measured.samples] == [Outcome.OK, Outcome.STUCK, Outcome.STUCK]
    assert (measured.value, measured.outcome) == (None, Outcome.STUCK)


def test_all_stable_is_capped(subject: Subject, lanes_that: Any) -> None:
    lanes_that(ragged({seed: set(range(25)) for seed in SEEDS}))
    measured = TASK(subject)
    assert (measured.value, measured.outcome, measured.high) == (GRID[24], Outcome.CAPPED, None)


def test_all_dead_in_tuning_is_nonfinite(subject: Subject, lanes_that: Any) -> None:
    asked = lanes_that(lambda depth, lane: (DEAD, DEAD))
    measured = TASK(subject)
    assert (measured.value, measured.outcome) == (None, Outcome.NONFINITE)
    assert [s.outcome for s in measured.samples] == [Outcome.NONFINITE] * 3
    assert len(asked) == 1
    assert measured.derived["best_rate"] is None


def test_dead_lanes_are_not_stable(subject: Subject, lanes_that: Any) -> None:
    lanes_that(ragged({101: {0}, 102: {0}, 103: {0}}, otherwise=DEAD))
    measured = TASK(subject)
    assert measured.value == GRID[0]
    assert {row["outcome"] for row in measured.trace if row["phase"] == "confirm"} == {"ok", "nonfinite"}


def test_beside_it_the_largest_finite_and_the_largest_not_rising(subject: Subject, lanes_that: Any) -> None:
    def fate(depth: int, lane: Lane) -> tuple[float, float]:
        if lane.seed in (1, 2):
            return (0.3 if lane.rate == 0.1 else 0.4), 0.5
        k = GRID.index(lane.rate) - (lane.seed - 102)
        return (STABLE if k <= 4 else UNLEARNED if k <= 8 else RISEN if k <= 12 else DEAD), 0.5

    lanes_that(fate)
    measured = TASK(subject)
    assert measured.value == GRID[4]
    assert measured.derived["largest_not_rising_rate"] == GRID[8]
    assert measured.derived["largest_finite_rate"] == GRID[12]


def test_a_finer_grid(subject: Subject, lanes_that: Any) -> None:
    fine = StableLr(width=8, batch=8, tuning=(1,), confirmation=SEEDS, rates=(0.1,), per_decade=24)
    asked = lanes_that(lambda depth, lane: (STABLE, 0.5))
    assert fine(subject).value == pytest.approx(10)
    assert len({lane.rate for lane in asked[1][1]}) == 49
