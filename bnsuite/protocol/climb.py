"""Climb: search for the greatest depth that passes. No torch.

One climb serves all seeds in lockstep: a depth is tried for all of them, and fails when a majority fails.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Probe(NamedTuple):
    """Depth to try next; with `tune` its best rate is searched first, otherwise a known rate is used."""

    depth: int
    tune: bool


class Bracket(NamedTuple):
    """Threshold of one seed: the deepest pass that has a fail above it, and the nearest such fail.

    No fail above any pass: `failed` is None, the threshold lies at or above `passed`.
    No pass: `passed` is None, the threshold lies below `failed`.
    """

    passed: int | None
    failed: int | None


class Climb(NamedTuple):
    """Result of a climb: a bracket per seed, and whether a deeper rung passed after a fail."""

    brackets: tuple[Bracket, ...]
    non_monotone: bool


Tried = Mapping[int, Sequence[bool]]
"""depth → whether each seed passed"""


def climb(low: int, high: int, ratio: float, attempt: Callable[[Probe], Sequence[bool]]) -> Climb:
    """Search for the greatest passing depth in low … high.

    Args:
        low: lowest rung of the ladder, at least 1.
        high: highest rung, at least `low`.
        ratio: bisection ends when fail / pass is at most this; above 1.
        attempt: probe → whether each seed passes at its depth.

    Raises:
        ValueError: impossible rungs or ratio.
    """
    tried: dict[int, Sequence[bool]] = {}
    while probe := next_probe(tried, low, high, ratio):
        tried[probe.depth] = attempt(probe)
    return climbed(tried, low, high)


def next_probe(tried: Tried, low: int, high: int, ratio: float) -> Probe | None:
    """Choose the depth to try next; None when the climb has ended.

    A doubling ladder climbs until a majority of seeds fails; the next rung is then tried without tuning
    (a majority passing there makes the climb `non_monotone`); then the gap between the last pass and the
    first fail of the majority is bisected, geometrically, to `ratio`.

    Args:
        tried: results so far.
        low: lowest rung of the ladder, at least 1.
        high: highest rung, at least `low`.
        ratio: bisection ends when fail / pass is at most this; above 1.

    Raises:
        ValueError: impossible rungs or ratio.
    """
    if not 1 <= low <= high or ratio <= 1:
        raise ValueError(f"a ladder needs 1 <= low <= high and ratio > 1: got {low}, {high}, {ratio}")
    rungs = ladder(low, high)
    passed = None
    for rung in rungs:
        if rung not in tried:
            return Probe(rung, tune=True)
        if not _majority(tried[rung]):
            break
        passed = rung
    else:
        return None
    failed, above = rung, _above(rungs, rung)
    if above is not None and above not in tried:
        return Probe(above, tune=False)
    while passed and failed / passed > ratio and failed - passed > 1:
        middle = min(max(round(math.sqrt(passed * failed)), passed + 1), failed - 1)
        if middle not in tried:
            return Probe(middle, tune=True)
        passed, failed = (middle, failed) if _majority(tried[middle]) else (passed, middle)
    return None


def climbed(tried: Tried, low: int, high: int) -> Climb:
    """Read the result of a climb that has ended.

    Args:
        tried: every depth that was tried.
        low: lowest rung of the ladder.
        high: highest rung.
    """
    rungs = ladder(low, high)
    first_fail = next((rung for rung in rungs if not _majority(tried[rung])), high)
    above = _above(rungs, first_fail)
    seeds = len(tried[low])
    brackets = (bracket({depth: passes[i] for depth, passes in tried.items()}) for i in range(seeds))
    return Climb(tuple(brackets), above is not None and _majority(tried[above]))


def ladder(low: int, high: int) -> list[int]:
    """List the rungs of a climb: low, 2 low, 4 low, … and finally `high`.

    >>> ladder(4, 48)
    [4, 8, 16, 32, 48]
    """
    rungs = [low]
    while rungs[-1] < high:
        rungs.append(min(2 * rungs[-1], high))
    return rungs


def bracket(passes_at: Mapping[int, bool]) -> Bracket:
    """Find the bracket of one seed from all depths at which it was tried."""
    passes = [depth for depth, ok in passes_at.items() if ok]
    fails = [depth for depth, ok in passes_at.items() if not ok]
    if not passes:
        return Bracket(None, min(fails))
    below_a_fail = [depth for depth in passes if fails and depth < max(fails)]
    if not below_a_fail:
        return Bracket(max(passes), None)
    deepest = max(below_a_fail)
    return Bracket(deepest, min(depth for depth in fails if depth > deepest))


def _above(rungs: Sequence[int], rung: int) -> int | None:
    return next((other for other in rungs if other > rung), None)


def _majority(passes: Sequence[bool]) -> bool:
    """Tell whether at least half of the seeds pass: a depth fails when a majority of them fails."""
    return 2 * sum(passes) >= len(passes)
