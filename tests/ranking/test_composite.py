"""Composite: its formula and bounds; no other entry changes it."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_records import MEDIANS, measured, record, sample, without_value

from bnsuite.ranking.composite import (
    CLIP,
    FROZEN,
    Score,
    composite,
    derive_scales,
    mean_score,
    seed_composites,
    task_score,
)
from bnsuite.ranking.tables import Row, make_tables
from bnsuite.ranking.tracks import Kept
from bnsuite.records import SUITE_VERSION, Outcome, Record
from bnsuite.specs import RANKED

SCALES = FROZEN


def capped(value: float) -> Record:
    return record(samples=[sample(100 + k, value, Outcome.CAPPED) for k in range(6)])


def floor(value: float) -> Record:
    return record(samples=[sample(100 + k, value, Outcome.FLOOR) for k in range(6)])


def timeout(value: float) -> Record:
    return record("time_to_accuracy", samples=[sample(100 + k, value, Outcome.TIMEOUT) for k in range(6)])


def test_scales_are_of_this_suite() -> None:
    assert SCALES.suite_version == SUITE_VERSION
    assert set(SCALES.units) == set(RANKED)


def test_signed_log2_ratio_over_the_unit() -> None:
    deeper = task_score(record(samples=[40] * 6), record(samples=[20] * 6), 2.0)
    faster = task_score(
        record("time_to_accuracy", samples=[20] * 6), record("time_to_accuracy", samples=[40] * 6), 2.0
    )
    assert deeper == faster == Score(0.5, 0.5, 0.5)
    assert deeper.mark == ""


@pytest.mark.parametrize(
    ("compared", "reference", "score", "mark"),
    [
        (capped(40), record(samples=[20] * 6), Score(1, 1, CLIP), "≥"),
        (capped(400), record(samples=[20] * 6), Score(CLIP, CLIP, CLIP), ""),
        (floor(10), record(samples=[20] * 6), Score(-1, -CLIP, -1), "≤"),
        (timeout(40), record("time_to_accuracy", samples=[20] * 6), Score(-1, -CLIP, -1), "≤"),
        (timeout(400), record("time_to_accuracy", samples=[20] * 6), Score(-CLIP, -CLIP, -CLIP), ""),
        (record(samples=[40] * 6), capped(20), Score(1, -CLIP, 1), "≤"),
        (record("time_to_accuracy", samples=[20] * 6), timeout(40), Score(1, 1, CLIP), "≥"),
        (capped(40), capped(20), Score(1, -CLIP, CLIP), "~"),
    ],
)
def test_bounds_go_through_in_their_direction(
    compared: Record, reference: Record, score: Score, mark: str
) -> None:
    computed = task_score(compared, reference, 1.0)
    assert computed == score
    assert computed.mark == mark


def test_the_reference_itself_is_zero_even_where_it_is_a_bound() -> None:
    reference = capped(20)
    assert task_score(reference, reference, 1.0) == Score(0, 0, 0)


def test_three_of_four_give_no_composite() -> None:
    assert mean_score([Score(1, 1, 1)] * 3 + [None]) is None
    assert mean_score([Score(1, 1, 2)] * 4) == Score(1, 1, 2)


def references() -> dict[str, Record]:
    return {r.task: r for r in measured("batchnorm")}


def test_reference_scores_zero_and_better_is_positive() -> None:
    reference = references()
    assert composite(reference, reference, SCALES) == Score(0, 0, 0)
    better = composite({r.task: r for r in measured("residual-batchnorm")}, reference, SCALES)
    worse = composite({r.task: r for r in measured("none")}, reference, SCALES)
    assert better is not None
    assert better.mark == "≥"
    assert worse is not None
    assert worse.value < 0 < better.value


def test_a_seed_without_a_value_scores_the_worst() -> None:
    reference = {task: record(task, samples=[29] * 6) for task in RANKED}
    holes = record(samples=[sample(100, None, Outcome.STUCK), 29, 29, 29, 29, 29])
    scores = seed_composites({**reference, "max_depth": holes}, reference, SCALES)
    assert scores[100] == Score(-0.5, -0.5, -0.5), "−2 in one of four tasks, 0 in the others"
    assert scores[101] == Score(0, 0, 0)


def row(kept: list[Kept], scheme: str) -> Row:
    return next(r for r in make_tables(kept, SCALES)[0].rows if r.entry.scheme == scheme)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.sampled_from(["none", "layernorm", "residual-batchnorm", "new"]), unique=True))
def test_no_other_entry_moves_a_composite(others: list[str]) -> None:
    mine = [Kept(r, "local") for r in measured("batchnorm") + measured("mine")]
    extra = [Kept(r, "local") for scheme in others for r in measured(scheme)]
    alone, among = row(mine, "mine"), row(extra + mine, "mine")
    assert alone.composite is not None
    assert among.composite == alone.composite


def test_submitted_records_move_no_composite() -> None:
    ours = [Kept(r, "published") for r in measured("batchnorm") + measured("none")]
    theirs = [Kept(r, "submitted") for r in measured("batchnorm", seed=5) + measured("none", seed=5)]
    among = [r for r in make_tables(theirs + ours, SCALES)[0].rows if r.entry.origin == "published"]
    alone = make_tables(ours, SCALES)[0].rows
    assert {r.entry: r.composite for r in among} == {r.entry: r.composite for r in alone}


def test_without_a_value_or_a_reference_there_is_none() -> None:
    stuck = without_value("max_depth", "mine", Outcome.STUCK)
    mine = [r for r in measured("mine") if r.task != "max_depth"]
    with_hole = row([Kept(r, "local") for r in [*measured("batchnorm"), *mine, stuck]], "mine")
    assert (with_hole.composite, with_hole.coverage, with_hole.overall) == (None, 3, None)
    assert row([Kept(r, "local") for r in measured("mine")], "mine").composite is None


def test_scales_of_another_suite_are_not_used() -> None:
    kept = [Kept(r, "local") for r in measured("batchnorm", suite_version=SUITE_VERSION + 1)]
    assert row(kept, "batchnorm").composite is None


def test_derived_scale_is_the_root_mean_square_of_log_ratios() -> None:
    medians = {"batchnorm": 8, "none": 4, "layernorm": 16, "residual-batchnorm": 64}
    records = [record(task, s, [m] * 6) for task in RANKED for s, m in medians.items()]
    derived = derive_scales([*records, record("max_depth", "other", [1000] * 6)])
    assert derived.suite_version == SUITE_VERSION
    assert derived.units == pytest.approx(dict.fromkeys(RANKED, math.sqrt((1 + 1 + 9) / 3)))


def test_frozen_scales_are_near_those_of_the_prototype_medians() -> None:
    exact = [
        record(task, scheme, [medians[k]] * 6)
        for scheme, medians in MEDIANS.items()
        for k, task in enumerate(RANKED)
    ]
    for task, unit in derive_scales(exact).units.items():
        assert 0.3 < unit / SCALES.units[task] < 3


def test_scales_need_one_track_and_every_reference() -> None:
    records = [r for scheme in MEDIANS for r in measured(scheme)]
    with pytest.raises(ValueError, match="1 track: got 2"):
        derive_scales(records + measured("none", profile="smoke"))
    with pytest.raises(ValueError, match="max_depth: every reference scheme"):
        derive_scales([r for r in records if r.scheme != "none"])
    wanted = "scales need records of max_depth, stable_lr, top_eigenvalue, time_to_accuracy: got "
    with pytest.raises(ValueError, match=f"^{wanted}max_depth, top_eigenvalue, time_to_accuracy$"):
        derive_scales([r for r in records if r.task != "stable_lr"])
    with pytest.raises(ValueError, match=f"^{wanted}none$"):
        derive_scales([record("gradient_growth")])


def test_a_value_of_zero_has_no_score() -> None:
    assert task_score(record("stable_lr", samples=[0] * 6), record("stable_lr"), 1.0) is None
    assert task_score(
        record("stable_lr", samples=[0.5] * 6), record("stable_lr", samples=[0.25] * 6), 1.0
    ) == (Score(1, 1, 1))
