"""Composite: the ranked tasks in one number with bounds, which no other entry can change."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from bnsuite.ranking.tracks import REFERENCE, Kept, newest, standard, tasks_of, track_of
from bnsuite.records import Record, Sample
from bnsuite.specs import RANKED, SPECS

CLIP = 2.0
"""Largest magnitude of a task's score, in its scale units."""

SCALED = ("none", "layernorm", "residual-batchnorm")
"""Reference schemes whose ratios to batchnorm give the scale of a task."""


class Scales(NamedTuple):
    """Units of the composite (log2 of a ratio, one per task), frozen with a suite version."""

    suite_version: int
    units: Mapping[str, float]


class Score(NamedTuple):
    """Score that is known to lie in [low, high]; `value` is its value if every bound is met exactly."""

    value: float
    low: float
    high: float

    @property
    def mark(self) -> str:
        """Sign before the value: none (exact), ≥, ≤, or ~ (open on both sides)."""
        below, above = self.low < self.value, self.high > self.value
        return "~" if below and above else "≥" if above else "≤" if below else ""


FROZEN = Scales(1, {name: spec.scale for name, spec in SPECS.items() if spec.scale is not None})
"""Scales of suite version 1."""


def _open_side(measured: Record | Sample) -> int:
    """Tell on which side of the value the truth may lie: above (1), below (-1), or neither (0)."""
    return {"lower": 1, "upper": -1, None: 0}[measured.outcome.bound]


def task_score(measured: Record | Sample, reference: Record, unit: float) -> Score | None:
    """Compute ± log2(value / reference) / unit, clipped to ±2; positive is better.

    A bound opens the score on the side that it leaves open, a bounded reference on the other; a score beyond
    the clip is exact again.

    Args:
        measured: record, or sample of a record.
        reference: record of the reference scheme.
        unit: scale of the task.

    Returns:
        None if a value is missing, or not positive.
    """
    if measured is reference:
        return Score(0.0, 0.0, 0.0)
    if measured.value is None or reference.value is None or min(measured.value, reference.value) <= 0:
        return None
    sign = 1 if reference.better == "higher" else -1
    point = sign * math.log2(measured.value / reference.value) / unit
    open_sides = (sign * _open_side(measured), -sign * _open_side(reference))
    ends = (point, -math.inf if -1 in open_sides else point, math.inf if 1 in open_sides else point)
    return Score(*(max(-CLIP, min(CLIP, end)) for end in ends))


def mean_score(scores: Iterable[Score | None]) -> Score | None:
    """Average scores and their bounds over the ranked tasks; None: a task has no score."""
    known = [score for score in scores if score is not None]
    if len(known) < len(RANKED):
        return None
    return Score(*(sum(numbers) / len(RANKED) for numbers in zip(*known, strict=True)))


def composite(
    records: Mapping[str, Record], references: Mapping[str, Record], scales: Scales
) -> Score | None:
    """Compute the composite of one entry, the mean of its task scores.

    Args:
        records: task → record of the entry.
        references: task → record of the reference scheme.
        scales: units of the tasks.

    Returns:
        None if a ranked task has no score.
    """
    tasks = [task for task in RANKED if task in records and task in references]
    return mean_score(task_score(records[task], references[task], scales.units[task]) for task in tasks)


def seed_composites(
    records: Mapping[str, Record], references: Mapping[str, Record], scales: Scales
) -> dict[int, Score]:
    """Compute the composite of each seed that all ranked tasks share, against the reference's medians.

    A seed without a value scores −2, the worst score.

    Args:
        records: task → record of the entry.
        references: task → record of the reference scheme.
        scales: units of the tasks.
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
    """Derive the scale of each task from the records of one track.

    unit = sqrt(mean over `SCALED` of log2(value / value of batchnorm)²), with bounds at their value.

    Raises:
        ValueError: the records are of several tracks, or a reference scheme has no positive value.
    """
    kept = [Kept(record, "published") for record in records if record.scheme in (*SCALED, REFERENCE)]
    tracks = {track_of(record) for record, _ in kept}
    if len(tracks) != 1:
        raise ValueError(f"scales are derived from the records of 1 track: got {len(tracks)}")
    units = {}
    for task in [task for task in RANKED if task in tasks_of(kept)]:
        group = [k for k in kept if k.record.task == task]
        reference = standard(group).record
        values = {entry.scheme: shown[task].value for entry, shown in newest(group).items()}
        ratios = [(values.get(scheme) or 0) / (reference.value or math.inf) for scheme in SCALED]
        if min(ratios) <= 0:
            raise ValueError(f"{task}: every reference scheme needs a positive value: got {values}")
        units[task] = math.sqrt(sum(math.log2(ratio) ** 2 for ratio in ratios) / len(ratios))
    if len(units) < len(RANKED):
        raise ValueError(f"scales need records of {', '.join(RANKED)}: got {', '.join(units) or 'none'}")
    return Scales(tracks.pop().suite_version, units)
