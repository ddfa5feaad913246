"""Re-runs: seeds are paired, bounds allow values, and a record is confirmed by re-runs that agree."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from bnsuite.records import Outcome, Record, Sample
from bnsuite.statistics import summarize
from bnsuite.verification import LOST, TOLERANCE, SecondOpinion, compare, sample_cells, tier

SEEDS = range(101, 107)
Make = Callable[..., Record]


@pytest.fixture
def measured(make_record: Any) -> Make:
    """Make a record of samples: numbers, or (value, outcome)."""

    def make(values: Sequence[Any], better: str = "higher", **changes: Any) -> Record:
        pairs = [v if isinstance(v, tuple) else (v, Outcome.OK) for v in values]
        samples = [Sample(seed=s, value=v, outcome=o) for s, (v, o) in zip(SEEDS, pairs, strict=False)]
        summary = summarize(samples, better)._asdict()  # type: ignore[arg-type]
        settings = {"confirmation": [*SEEDS]}
        more = {"settings": settings, "better": better, "samples": tuple(samples), **summary, **changes}
        record: Record = make_record(**more)
        return record

    return make


def test_the_same_numbers_agree(measured: Make) -> None:
    difference = compare(measured([8, 9, 10, 11, 12, 13]), measured([8, 9, 10, 11, 12, 13], threads=2))
    assert (difference.relative, difference.low, difference.high, difference.agrees) == (0.0, 0.0, 0.0, True)
    expected = "max_depth: reported 10.5, re-run 10.5 (+0.0 % [+0.0 %, +0.0 %], n 6 seeds): agrees"
    assert difference.words == expected
    assert (difference.task, difference.profile, difference.family, difference.dataset) == (
        "max_depth",
        "quick",
        "mlp",
        "digits",
    )


def test_a_second_opinion_in_words(measured: Make) -> None:
    assert compare(measured([8.0] * 6), measured([8.0] * 6)).second_opinion is None
    assert SecondOpinion(101, 3.75, 3.75 - 1e-9).words == (
        "second opinion: λ_max of seed 101 is 3.75 by our Lanczos and 3.75 by that of hessian-eigenthings, "
        "difference −1.0e−09"
    )


def test_the_interval_is_that_of_the_median_of_paired_ratios(measured: Make) -> None:
    difference = compare(measured([10] * 6), measured([9, 10, 10, 10, 11, 12]))
    assert difference.relative == 0
    assert (difference.low, difference.high) == (pytest.approx(-0.1), pytest.approx(0.2))
    assert "[−10.0 %, +20.0 %]" in difference.words
    assert difference.agrees


def test_every_seed_lower_is_a_difference(measured: Make) -> None:
    difference = compare(measured([10] * 6), measured([9.5] * 6))
    assert not difference.agrees
    assert difference.relative == pytest.approx(-0.05)
    assert difference.words.endswith("differs, on the same seeds (p 0.031)")


def test_rounding_of_one_sign_is_none(measured: Make) -> None:
    assert compare(measured([10] * 6), measured([10.001] * 6)).agrees


def test_two_seeds_tell_nothing_apart_but_the_tolerance_does(measured: Make) -> None:
    inside, outside = 10 * (1 + 0.9 * TOLERANCE), 10 * (1 + 1.1 * TOLERANCE)
    assert compare(measured([10, 10]), measured([inside, inside])).agrees
    difference = compare(measured([10, 10]), measured([outside, outside]))
    assert not difference.agrees
    assert "more than 25%" in difference.words


def test_one_seed_of_false_height_hides_nobody(measured: Make) -> None:
    """One reported seed is so low that the sum of differences, and the interval, allow anything."""
    difference = compare(measured([10, 10, 10, 10, 10, 0.001]), measured([5] * 6))
    assert not difference.agrees
    assert "on the median seed" in difference.words


def test_medians_far_apart_on_seeds_that_are_near(measured: Make) -> None:
    reported, again = [1, 1, 1, 1.1, 100, 100], [1, 1, 1, 100, 100, 100]
    difference = compare(measured(reported), measured(again))
    assert difference.relative is not None
    assert difference.relative > TOLERANCE
    assert difference.agrees  # within the reported interval, which says as much
    narrow = measured(reported).model_copy(update={"low": 1.0, "high": 1.1})
    assert "outside the reported interval" in compare(narrow, measured(again)).words


CAPPED, FLOOR = (128, Outcome.CAPPED), (4, Outcome.FLOOR)


@pytest.mark.parametrize(
    ("reported", "again", "agrees"),
    [
        ([CAPPED] * 6, [CAPPED] * 6, True),
        ([CAPPED] * 6, [120] * 6, False),
        ([CAPPED] * 6, [128] * 6, True),
        ([120] * 6, [CAPPED] * 6, False),
        ([120] * 2, [CAPPED] * 2, True),
        ([FLOOR] * 6, [FLOOR] * 6, True),
        ([FLOOR] * 6, [2] * 6, True),
        ([FLOOR] * 6, [8] * 6, False),
        ([10, 10, 10, 10, 10, CAPPED], [10, 10, 10, 10, 10, 100], True),
        ([(None, Outcome.STUCK)] * 6, [(None, Outcome.STUCK)] * 6, True),
        ([(None, Outcome.STUCK)] * 6, [(None, Outcome.NONFINITE)] * 6, False),
        ([(None, Outcome.STUCK)] * 6, [8] * 6, False),
        ([8] * 6, [(None, Outcome.STUCK)] * 6, False),
        ([8] * 6, [8, 8, 8, 8, 8, (None, Outcome.STUCK)], True),
    ],
)
def test_bounds_and_outcomes(measured: Make, reported: Any, again: Any, agrees: bool) -> None:
    difference = compare(measured(reported), measured(again))
    assert difference.agrees is agrees
    assert ("agrees" in difference.words) is agrees
    assert "\n" not in difference.words


def test_eigenvalues_below_zero(measured: Make) -> None:
    assert compare(measured([-2] * 2), measured([-2.2] * 2)).relative == pytest.approx(-0.1)
    assert compare(measured([-2] * 2), measured([-2.2] * 2)).agrees
    crossed = compare(measured([-2] * 2), measured([2] * 2))
    assert crossed.high == pytest.approx(math.expm1(LOST))
    assert not crossed.agrees
    assert compare(measured([0, 0]), measured([0, 0])).agrees
    assert not compare(measured([0, 0]), measured([1, 1])).agrees


def test_what_cannot_be_compared(measured: Make) -> None:
    record = measured([10] * 6)
    with pytest.raises(ValueError, match="one key"):
        compare(record, measured([10] * 6, scheme="layernorm"))
    assert "other seeds" in compare(record, measured([10] * 5)).words
    error = measured([], outcome=Outcome.ERROR)
    assert "an error is no result" in compare(record, error).words
    refused = measured([], outcome=Outcome.UNSUPPORTED)
    assert compare(refused, refused).agrees
    assert "unsupported is not ok" in compare(record, refused).words


def test_the_cells_to_measure_again(measured: Make) -> None:
    old = [
        measured([10], task=task, scheme=scheme, started=f"2026-01-0{day}T00:00:00+00:00")
        for task in ("max_depth", "stable_lr", "first_step")
        for scheme in ("a", "b", "c", "d")
        for day in (1, 2)
    ]
    error = measured(
        [], outcome=Outcome.ERROR, started="2026-02-01T00:00:00+00:00", task="max_depth", scheme="a"
    )
    drawn = sample_cells([*old, error], 5, seed=1)
    assert drawn == sample_cells([error, *reversed(old)], 5, seed=1)
    assert len({record.task for record in drawn[:3]}) == 3
    assert len({record.id for record in drawn}) == 5
    assert all(r.provenance.started.startswith("2026-01-02") for r in drawn)
    assert len(sample_cells(old, 100, seed=1)) == 12
    assert len({sample_cells(old, 1, seed)[0].task for seed in range(20)}) == 3
    assert sample_cells([], 3, seed=1) == []
    with pytest.raises(ValueError, match="at least 1 record"):
        sample_cells(old, 0, seed=1)


def test_the_tier_of_a_record(measured: Make) -> None:
    def at(day: int, value: float = 10, cpu: str = "a processor", **more: Any) -> Record:
        return measured([value] * 6, started=f"2026-01-0{day}T00:00:00+00:00", cpu=cpu, **more)

    record = at(1)
    assert tier(record, []) == tier(record, [record]) == "self-reported"
    assert tier(record, [at(2)]) == "re-run"
    assert tier(record, [at(2), at(3, cpu="another")]) == "re-run elsewhere"
    assert tier(record, [at(2, scheme="other")]) == "self-reported"
    assert tier(record, [at(2, value=5)]) == "self-reported"
    assert tier(record, [at(2), at(3, value=5, cpu="another")]) == "self-reported"
    assert tier(record, [at(2, value=5), at(3)]) == "re-run"
    error = measured([], outcome=Outcome.ERROR, started="2026-01-09T00:00:00+00:00")
    assert tier(record, [at(2), error]) == "re-run"
