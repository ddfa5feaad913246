"""Searches: what they ask for, and that their traces are followed and scored again to equal results."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bnsuite.audit import followed
from bnsuite.protocol.arrival import ArrivalSearch
from bnsuite.protocol.max_depth import DepthRow, DepthSearch
from bnsuite.protocol.search import Batch, FaultError, LaneRow, Search, grid
from bnsuite.protocol.stable_lr import RateRow, RateSearch
from bnsuite.records import Json, Outcome

SETTINGS: dict[str, Json] = {
    "tuning": [1, 2],
    "confirmation": [101, 102, 103],
    "rates": [0.01, 0.1, 1.0],
    "steps": 100,
    "depths": [4, 64],
    "ratio": 1.13,
    "target": 0.8,
    "per_decade": 3,
    "classes": 10,
    "every": 10,
    "batch": 8,
}
DEPTH, RATE = DepthSearch.model_validate(SETTINGS), RateSearch.model_validate(SETTINGS)
ARRIVAL = ArrivalSearch.model_validate(SETTINGS)


def depth_rows(draw: random.Random, batch: Batch) -> list[DepthRow]:
    """Rows that end at random: dead, stuck or trained."""
    assert batch.depth is not None
    rows = []
    for seed, rate in batch.lanes:
        accuracy = draw.choice([None, 0.4, 0.9])
        outcome = {None: Outcome.NONFINITE, 0.4: Outcome.STUCK, 0.9: Outcome.OK}[accuracy]
        loss = None if accuracy is None else round(draw.uniform(0.1, 2), 3)
        fields = {"depth": batch.depth, "accuracy": accuracy, "loss": loss, "outcome": outcome}
        rows.append(DepthRow.model_validate({"phase": batch.phase, "rate": rate, "seed": seed, **fields}))
    return rows


def rate_rows(draw: random.Random, batch: Batch) -> list[RateRow]:
    rows = []
    for seed, rate in batch.lanes:
        loss = draw.choice([None, 0.5, 2.0])
        outcome = {None: Outcome.NONFINITE, 0.5: Outcome.OK, 2.0: Outcome.STUCK}[loss]
        fields = {"loss": loss, "first_loss": 2.3, "outcome": outcome}
        rows.append(RateRow.model_validate({"phase": batch.phase, "rate": rate, "seed": seed, **fields}))
    return rows


def arrival_rows(draw: random.Random, batch: Batch) -> Sequence[LaneRow]:
    def curve() -> list[float]:
        evaluations = draw.randint(1, 10)
        return [0.5] * (evaluations - 1) + [0.9] if draw.random() < 0.7 else [0.5] * 10

    return [ARRIVAL.row(batch.phase, seed, rate, curve()) for seed, rate in batch.lanes]


SEARCHES: list[tuple[Search[Any], Callable[[random.Random, Batch], Sequence[Any]]]] = [
    (DEPTH, depth_rows),
    (RATE, rate_rows),
    (ARRIVAL, arrival_rows),
]
over_searches = pytest.mark.parametrize(("search", "rows"), SEARCHES, ids=["depth", "rate", "arrival"])


@pytest.mark.parametrize("name", ["tuning", "confirmation", "rates"])
@pytest.mark.parametrize("kind", [DepthSearch, RateSearch, ArrivalSearch], ids=lambda kind: kind.__name__)
def test_a_search_without_a_lane_is_refused(kind: type[Search[Any]], name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        kind.model_validate({**SETTINGS, name: []})


@over_searches
@given(st.integers(0, 10**6))
def test_a_trace_is_followed_again(search: Search[Any], rows: Any, seed: int) -> None:
    draw = random.Random(seed)
    trace = search.follow(lambda batch: rows(draw, batch))
    assert search.wanted(trace) is None
    assert followed(search, [row.as_json() for row in trace]) == trace


@over_searches
def test_a_trace_with_a_row_too_few_or_too_many_is_refused(search: Search[Any], rows: Any) -> None:
    draw = random.Random(1)
    told = [row.as_json() for row in search.follow(lambda batch: rows(draw, batch))]
    for changed in (told[:-1], told[1:], [*told, told[-1]], told[::-1]):
        with pytest.raises(FaultError, match=r"^trace"):
            followed(search, changed)


@given(st.integers(0, 10**6))
def test_every_seed_has_a_sample_whatever_happens(seed: int) -> None:
    draw = random.Random(seed)
    for search, rows in ((DEPTH, depth_rows), (RATE, rate_rows)):
        trace = search.follow(lambda batch, rows=rows: rows(draw, batch))  # type: ignore[misc]
        samples, derived = search.score(trace)
        assert [sample.seed for sample in samples] == [101, 102, 103]
        assert derived


def test_without_a_living_rate_nothing_is_confirmed() -> None:
    def dead(batch: Batch) -> list[RateRow]:
        rows = rate_rows(random.Random(0), batch)
        return [row.model_copy(update={"loss": None, "outcome": Outcome.NONFINITE}) for row in rows]

    trace = RATE.follow(dead)
    assert {row.phase for row in trace} == {"tune"}
    samples, derived = RATE.score(trace)
    assert {sample.outcome for sample in samples} == {Outcome.NONFINITE}
    assert derived == {"best_rate": None}


def test_the_fastest_rate_is_confirmed_or_the_one_that_was_chosen() -> None:
    tuning = [
        ARRIVAL.row("tune", seed, rate, [0.5, 0.9]) for seed, rate in map(tuple, grid([0.1, 1.0], [1, 2]))
    ]
    assert ARRIVAL.fastest(tuning) == [0.1, 1.0]
    for search, rate in ((ARRIVAL, 0.1), (ARRIVAL.model_copy(update={"chosen": 1.0}), 1.0)):
        assert search.wanted(tuning) == Batch("confirm", grid([rate], [101, 102, 103]))
