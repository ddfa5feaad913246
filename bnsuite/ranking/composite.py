"""Composite: the ranked tasks in one number that no other entry can move, with its bounds."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from bnsuite.ranking.tracks import REFERENCE, Kept, newest, standard, tasks_of, track_of
from bnsuite.records import Record, Sample
from bnsuite.specs import RANKED, SPECS

CLIP = 2.0
"""A task gives at most this many of its scale units, and at least minus this many."""

SCALED = ("none", "layernorm", "residual-batchnorm")
"""The reference schemes over whose ratios to batchnorm a scale is taken."""


class Scales(NamedTuple):
    """Units of the composite (log2 of a ratio, one per task), frozen with a suite version."""

    suite_version: int
    units: Mapping[str, float]


class Score(NamedTuple):
    """A score known to lie in [low, high]; `value` takes every bound as met."""

    value: float
    low: float
    high: float

    @property
    def mark(self) -> str:
        """How the value is to be read: exactly, at least, at most, or open on both sides."""
        below, above = self.low < self.value, self.high > self.value
        return "~" if below and above else "≥" if above else "≤" if below else ""


FROZEN = Scales(1, {name: spec.scale for name, spec in SPECS.items() if spec.scale is not None})
"""Scales of suite version 1."""


def _push(one: Record | Sample) -> int:
    """Where the truth may lie beyond the value: above (1), below (-1), or nowhere (0)."""
    return {"lower": 1, "upper": -1, None: 0}[one.outcome.bound]


def task_score(one: Record | Sample, reference: Record, unit: float) -> Score | None:
    """± log2(value / reference) / unit, clipped to ±2; positive is better.

    A bound opens the score on the side that it leaves open, a bounded reference on the other; what lies
    beyond the clip is exact again. None where there is no value, or no logarithm.
    """
    if one is reference:
        return Score(0.0, 0.0, 0.0)
    if one.value is None or reference.value is None or min(one.value, reference.value) <= 0:
        return None
    sign = 1 if reference.better == "higher" else -1
    point = sign * math.log2(one.value / reference.value) / unit
    pushes = (sign * _push(one), -sign * _push(reference))
    ends = (point, -math.inf if -1 in pushes else point, math.inf if 1 in pushes else point)
    return Score(*(max(-CLIP, min(CLIP, end)) for end in ends))


def mean_score(scores: Iterable[Score | None]) -> Score | None:
    """The mean over the ranked tasks, its bounds with it; None unless every task has a score."""
    found = [score for score in scores if score is not None]
    if len(found) < len(RANKED):
        return None
    return Score(*(sum(parts) / len(RANKED) for parts in zip(*found, strict=True)))


def composite(
    records: Mapping[str, Record], references: Mapping[str, Record], scales: Scales
) -> Score | None:
    """The composite of one entry: the mean of its task scores."""
    tasks = [task for task in RANKED if task in records and task in references]
    return mean_score(task_score(records[task], references[task], scales.units[task]) for task in tasks)


def seed_composites(
    records: Mapping[str, Record], references: Mapping[str, Record], scales: Scales
) -> dict[int, Score]:
    """The composite of each seed that all ranked tasks share, against the reference's medians.

    A seed without a value scores the worst that there is, -2.
    """
    if any(task not in records or task not in references for task in RANKED):
        return {}
    worst = Score(-CLIP, -CLIP, -CLIP)
    by_task = [
        {s.seed: task_score(s, references[task], scales.units[task]) or worst for s in records[task].samples}
        for task in RANKED
    ]
    common = sorted(set.intersection(*(set(scores) for scores in by_task)))
    means = {seed: mean_score(scores[seed] for scores in by_task) for seed in common}
    return {seed: score for seed, score in means.items() if score is not None}


def derive_scales(records: Iterable[Record]) -> Scales:
    """The scales that the records of one track give: per task, over `SCALED`,

    unit = sqrt(mean of log2(value / value of batchnorm)²), a bound taken at its value.

    Raises ValueError where the records are of several tracks, or a reference scheme lacks a value.
    """
    kept = [Kept(record, "published") for record in records if record.scheme in (*SCALED, REFERENCE)]
    tracks = {track_of(one.record) for one in kept}
    if len(tracks) != 1:
        raise ValueError(f"scales are derived from the records of 1 track: got {len(tracks)}")
    units = {}
    for task in [task for task in RANKED if task in tasks_of(kept)]:
        group = [one for one in kept if one.record.task == task]
        reference = standard(group).record
        values = {entry.scheme: shown[task].value for entry, shown in newest(group).items()}
        ratios = [(values.get(scheme) or 0) / (reference.value or math.inf) for scheme in SCALED]
        if min(ratios) <= 0:
            raise ValueError(f"{task}: every reference scheme needs a positive value: got {values}")
        units[task] = math.sqrt(sum(math.log2(ratio) ** 2 for ratio in ratios) / len(ratios))
    if len(units) < len(RANKED):
        raise ValueError(f"scales need records of {', '.join(RANKED)}: got {', '.join(units) or 'none'}")
    return Scales(tracks.pop().suite_version, units)
