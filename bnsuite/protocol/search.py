"""Searches as generators: they yield what to try, are sent verdicts, and return what was found. No torch.

One generator serves all seeds in lockstep: it yields one setting and is sent one verdict a seed.
"""

import math
from collections.abc import Generator, Sequence
from typing import NamedTuple


class Lane(NamedTuple):
    """One network in training."""

    seed: int
    rate: float


class Probe(NamedTuple):
    """A depth to try; `tune` asks for the best rate at this depth first, else a known one serves."""

    depth: int
    tune: bool


class Bracket(NamedTuple):
    """One seed's threshold: the deepest pass that has a fail above it, and the nearest such fail.

    No fail above any pass: `failed` is None, the threshold lies at or above `passed`.
    No pass: `passed` is None, it lies below `failed`.
    """

    passed: int | None
    failed: int | None


class Climb(NamedTuple):
    """What a search over depth found: a bracket a seed, and whether a deeper rung passed after a fail."""

    brackets: tuple[Bracket, ...]
    non_monotone: bool


def climb(low: int, high: int, ratio: float) -> Generator[Probe, Sequence[bool], Climb]:
    """Search for the greatest passing depth in low … high.

    A doubling ladder climbs until a majority of seeds fails; the next rung is then tried without tuning
    (a majority passing there makes the search `non_monotone`); then the gap between the last pass and
    the first fail of the majority is bisected, geometrically, to `ratio`.
    """
    if not 1 <= low <= high or ratio <= 1:
        raise ValueError(f"a ladder needs 1 <= low <= high and ratio > 1: got {low}, {high}, {ratio}")
    tried: dict[int, Sequence[bool]] = {}
    rungs = ladder(low, high)
    non_monotone = False
    passed = failed = None
    for position, depth in enumerate(rungs):
        tried[depth] = yield Probe(depth, tune=True)
        if not _majority(tried[depth]):
            failed = depth
            if position + 1 < len(rungs):
                above = rungs[position + 1]
                tried[above] = yield Probe(above, tune=False)
                non_monotone = _majority(tried[above])
            break
        passed = depth
    while passed and failed and failed / passed > ratio and failed - passed > 1:
        middle = min(max(round(math.sqrt(passed * failed)), passed + 1), failed - 1)
        tried[middle] = yield Probe(middle, tune=True)
        if _majority(tried[middle]):
            passed = middle
        else:
            failed = middle
    seeds = len(next(iter(tried.values())))
    brackets = (bracket({depth: verdicts[i] for depth, verdicts in tried.items()}) for i in range(seeds))
    return Climb(tuple(brackets), non_monotone)


def ladder(low: int, high: int) -> list[int]:
    """low, 2 low, 4 low, … and at last `high` itself.

    >>> ladder(4, 48)
    [4, 8, 16, 32, 48]
    """
    rungs = [low]
    while rungs[-1] < high:
        rungs.append(min(2 * rungs[-1], high))
    return rungs


def bracket(verdicts: dict[int, bool]) -> Bracket:
    """The bracket of one seed from everything it tried."""
    passes = [depth for depth, ok in verdicts.items() if ok]
    fails = [depth for depth, ok in verdicts.items() if not ok]
    if not passes:
        return Bracket(None, min(fails))
    below_a_fail = [depth for depth in passes if fails and depth < max(fails)]
    if not below_a_fail:
        return Bracket(max(passes), None)
    deepest = max(below_a_fail)
    return Bracket(deepest, min(depth for depth in fails if depth > deepest))


def _majority(verdicts: Sequence[bool]) -> bool:
    """Whether at least half of the seeds pass: a depth fails when a majority does."""
    return 2 * sum(verdicts) >= len(verdicts)


def log_grid(start: float, per_decade: int, count: int) -> list[float]:
    """start · 10^{k / per_decade}, k = 0 … count − 1.

    >>> log_grid(0.01, 2, 3)
    [0.01, 0.0316227766016838, 0.1]
    """
    return [float(f"{start * 10 ** (k / per_decade):.16g}") for k in range(count)]


def grid(rates: Sequence[float], seeds: Sequence[int]) -> list[Lane]:
    """One lane a (rate, seed)."""
    return [Lane(seed, rate) for rate in rates for seed in seeds]


def best_rate(lanes: Sequence[Lane], losses: Sequence[float], allowed: Sequence[bool]) -> float | None:
    """The rate of lowest mean final loss over its seeds, ties to the smaller; None if none is allowed.

    A rate is allowed where any of its lanes is; a lane that died makes its mean infinite.
    """
    mean: dict[float, float] = {}
    for rate in {lane.rate for lane, ok in zip(lanes, allowed, strict=True) if ok}:
        of_rate = [loss for lane, loss in zip(lanes, losses, strict=True) if lane.rate == rate]
        mean[rate] = sum(of_rate) / len(of_rate) if all(map(math.isfinite, of_rate)) else math.inf
    return min(mean, key=lambda rate: (mean[rate], rate), default=None)
