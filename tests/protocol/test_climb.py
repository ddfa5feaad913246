"""Climbs against synthetic thresholds: brackets are right, with few probes."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bnsuite.protocol.climb import Climb, Probe, bracket, climb, ladder
from bnsuite.protocol.search import log_grid

RATIO = 1.13
lows = st.integers(1, 8)
spans = st.integers(0, 1000)
Passes = Callable[[int], Sequence[bool]]
Tried = dict[int, tuple[bool, ...]]


def drive(low: int, high: int, passes: Passes, ratio: float = RATIO) -> tuple[Climb, list[Probe], Tried]:
    """Run a climb against verdicts per depth; return its result, its probes and their verdicts."""
    probes: list[Probe] = []
    tried: Tried = {}

    def attempt(probe: Probe) -> Sequence[bool]:
        assert probe.depth not in tried, "a depth is asked for once"
        probes.append(probe)
        tried[probe.depth] = tuple(passes(probe.depth))
        return tried[probe.depth]

    return climb(low, high, ratio, attempt), probes, tried


def majority(verdicts: Sequence[bool]) -> bool:
    return not sum(not ok for ok in verdicts) > len(verdicts) / 2


def budget(low: int, high: int) -> int:
    """Count rungs, the rung above the first fail, and the halvings of a doubling to 13 % in whole layers."""
    return math.ceil(math.log2(high / low)) + 1 + 1 + 4


def check_samples(found: Climb, tried: Tried) -> None:
    """Find each seed's bracket by definition: the deepest pass with a fail above it."""
    for i, (passed, failed) in enumerate(found.brackets):
        passes = {depth for depth, verdicts in tried.items() if verdicts[i]}
        fails = tried.keys() - passes
        under_a_fail = {depth for depth in passes if any(above > depth for above in fails)}
        if not passes:
            assert (passed, failed) == (None, min(tried))
        elif not under_a_fail:
            assert (passed, failed) == (max(passes), None)
        else:
            assert passed == max(under_a_fail)
            assert failed == min(depth for depth in fails if depth > passed)


@given(lows, spans, st.lists(st.integers(0, 1100), min_size=1, max_size=7))
def test_thresholds_are_bracketed(low: int, span: int, thresholds: list[int]) -> None:
    high = low + span
    result, probes, tried = drive(low, high, lambda depth: [depth <= t for t in thresholds])
    check_samples(result, tried)
    assert not result.non_monotone
    assert len(probes) <= budget(low, high)
    assert all(low <= depth <= high for depth in tried)
    for (passed, failed), threshold in zip(result.brackets, thresholds, strict=True):
        assert passed is None or passed <= threshold
        assert failed is None or failed > threshold
        assert passed is not None or threshold < low

    middle = sorted(thresholds, reverse=True)[math.ceil(len(thresholds) / 2) - 1]  # half pass up to here
    of_majority = bracket({depth: majority(verdicts) for depth, verdicts in tried.items()})
    if middle >= high:
        assert of_majority == (high, None)
    elif middle < low:
        assert of_majority == (None, low)
    else:
        passed, failed = of_majority
        assert passed is not None
        assert failed is not None
        assert passed <= middle < failed
        assert failed - passed == 1 or failed / passed <= RATIO


@given(lows, spans, st.integers(1, 7), st.randoms(use_true_random=False))
def test_whatever_passes_the_sample_is_the_deepest_pass_under_a_fail(
    low: int, span: int, seeds: int, draw: object
) -> None:
    high = low + span

    def passes(depth: int) -> list[bool]:
        return [draw.random() < 0.6 for _ in range(seeds)]  # type: ignore[attr-defined]

    result, probes, tried = drive(low, high, passes)
    check_samples(result, tried)
    assert len(result.brackets) == seeds
    assert len(probes) <= budget(low, high)
    assert [probe.depth for probe in probes if not probe.tune] == probes_above_the_first_fail(
        low, high, tried
    )
    above = [tried[probe.depth] for probe in probes if not probe.tune]
    assert result.non_monotone == any(majority(verdicts) for verdicts in above)


def probes_above_the_first_fail(low: int, high: int, tried: Tried) -> list[int]:
    rungs = ladder(low, high)
    first = next((i for i, depth in enumerate(rungs) if not majority(tried[depth])), len(rungs))
    return rungs[first + 1 : first + 2]


@given(lows, spans, st.integers(1, 6))
def test_what_passes_everywhere_is_capped_at_the_top(low: int, span: int, seeds: int) -> None:
    result, probes, _ = drive(low, low + span, lambda depth: [True] * seeds)
    assert result == Climb(((low + span, None),) * seeds, False)
    assert [probe.depth for probe in probes] == ladder(low, low + span)


@given(lows, spans, st.integers(1, 6))
def test_what_fails_everywhere_is_below_the_floor(low: int, span: int, seeds: int) -> None:
    result, probes, _ = drive(low, low + span, lambda depth: [False] * seeds)
    assert result == Climb(((None, low),) * seeds, False)
    assert [probe.depth for probe in probes] == ladder(low, low + span)[:2]


def test_a_pass_above_the_first_fail_is_flagged_and_not_climbed() -> None:
    result, probes, _ = drive(4, 128, lambda depth: [depth <= 9 or depth == 32])
    assert result.non_monotone
    assert result.brackets == ((9, 10),)
    assert probes == [
        Probe(4, True),
        Probe(8, True),
        Probe(16, True),
        Probe(32, False),
        Probe(11, True),
        Probe(9, True),
        Probe(10, True),
    ]


def test_half_of_the_seeds_are_no_failing_majority() -> None:
    _, _, tried = drive(4, 64, lambda depth: [True, depth < 16])
    assert max(tried) == 64
    _, _, tried = drive(4, 64, lambda depth: [True, depth < 16, depth < 16])
    assert max(tried) == 32


@pytest.mark.parametrize("arguments", [(0, 4, 1.1), (5, 4, 1.1), (1, 4, 1.0)])
def test_an_impossible_ladder_is_refused(arguments: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="a ladder needs 1 <= low <= high and ratio > 1"):
        climb(*arguments, lambda probe: [True])


@given(lows, spans)
def test_a_ladder_doubles_to_its_top(low: int, span: int) -> None:
    rungs = ladder(low, low + span)
    assert (rungs[0], rungs[-1]) == (low, low + span)
    assert all(b == 2 * a for a, b in pairwise(rungs[:-1]))
    assert all(a < b <= 2 * a for a, b in pairwise(rungs))


@given(st.floats(1e-6, 1e6), st.integers(1, 48), st.integers(0, 100))
def test_a_log_grid_has_equal_ratios(start: float, per_decade: int, count: int) -> None:
    grid = log_grid(start, per_decade, count)
    assert len(grid) == count
    assert all(b / a == pytest.approx(10 ** (1 / per_decade)) for a, b in pairwise(grid))
    if grid:
        assert grid[0] == pytest.approx(start, rel=1e-15)
    if count > per_decade:
        assert grid[per_decade] == pytest.approx(10 * start, rel=1e-14)
