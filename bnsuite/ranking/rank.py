"""Rank intervals: the places that an entry may have, by the paired test."""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from bnsuite.ranking.composite import Score
from bnsuite.records import Record
from bnsuite.statistics import MIN_SEEDS, differs_upwards

PENALTY = 2.0
"""Factor beyond the worst value of two records at which a seed without a value counts."""

TOLERANCE = 0.1
"""Relative difference of seconds per step up to which they are equal: clock drift that raises no flag."""

T = TypeVar("T", bound=Hashable)


class Rank(NamedTuple):
    """Lowest and highest place that an entry may have."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.low}" if self.low == self.high else f"{self.low}–{self.high}"


def rank_intervals(items: Sequence[T], beats: Callable[[T, T], bool]) -> dict[T, Rank]:
    """Compute for each of N items [1 + number that beat it, N − number that it beats]."""
    beaten = {item: [other for other in items if beats(item, other)] for item in items}
    above = Counter(loser for losers in beaten.values() for loser in losers)
    return {item: Rank(1 + above[item], len(items) - len(beaten[item])) for item in items}


def log_advantages(a: Record, b: Record) -> list[float]:
    """Compute by how much a is better than b on each common seed: ± log(a / b), with bounds at their value.

    A seed without a value takes the worst value that either record has on these seeds, times `PENALTY` in
    the bad direction. The rule treats a and b alike, so the sign-flip test stays exact, and it depends on no
    third entry. Empty if no seed has a value, or a value is not positive.
    """
    sign = 1 if a.better == "higher" else -1
    of_b = {sample.seed: sample.value for sample in b.samples}
    pairs = [(sample.value, of_b[sample.seed]) for sample in a.samples if sample.seed in of_b]
    values = [value for pair in pairs for value in pair if value is not None]
    if not values or min(values) <= 0:
        return []
    worst = min(sign * math.log(value) for value in values) - math.log(PENALTY)

    def good(value: float | None) -> float:
        return worst if value is None else sign * math.log(value)

    return [good(first) - good(second) for first, second in pairs]


def task_ranks(records: Mapping[T, Record]) -> dict[T, Rank]:
    """Rank the records of one task that have a value and at least `MIN_SEEDS` seeds."""
    items = [key for key, record in records.items() if record.value is not None and record.n >= MIN_SEEDS]
    return rank_intervals(items, lambda a, b: differs_upwards(log_advantages(records[a], records[b])))


def seconds_ranks(records: Mapping[T, Record]) -> dict[T, Rank]:
    """Rank the training seconds to the target, steps of each seed times seconds per step.

    Only records of accelerators that were idle and did not drift are ranked, among those of equal machines.
    """
    paces = {key: pace for key, record in records.items() if (pace := _pace(record)) is not None}
    machines: dict[tuple[str | None, ...], list[T]] = {}
    for key in paces:
        where = records[key].provenance
        machines.setdefault((where.gpu, where.driver, where.cpu, where.torch), []).append(key)

    def beats(a: T, b: T) -> bool:
        faster = math.log(paces[b]) - math.log(paces[a]) - math.log1p(TOLERANCE)
        return differs_upwards([fewer + faster for fewer in log_advantages(records[a], records[b])])

    return {key: rank for keys in machines.values() for key, rank in rank_intervals(keys, beats).items()}


def _pace(record: Record) -> float | None:
    """Read the seconds per step of a record; None: they cannot be ranked."""
    derived = record.derived
    pace = derived.get("seconds_per_step")
    settled = derived.get("idle") is True and derived.get("drift") is False
    if record.device == "cpu" or record.value is None or record.n < MIN_SEEDS or not settled:
        return None
    return pace if isinstance(pace, float) and pace > 0 else None


def overall_ranks(composites: Mapping[T, Mapping[int, Score]]) -> dict[T, Rank]:
    """Rank composites per seed: a beats b if its low ends lie above b's high ends."""

    def beats(a: T, b: T) -> bool:
        of_a, of_b = composites[a], composites[b]
        common = sorted(of_a.keys() & of_b.keys())
        return a != b and differs_upwards([of_a[seed].low - of_b[seed].high for seed in common])

    return rank_intervals([key for key, by_seed in composites.items() if len(by_seed) >= MIN_SEEDS], beats)
