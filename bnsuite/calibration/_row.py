"""Row: one instrument on one experiment whose truth is known; Reading: what it gave."""

import math
from collections.abc import Callable
from typing import NamedTuple

SEEDS = (101, 102)
"""Of the networks that rows build."""


class Accept(NamedTuple):
    """What a row expects, and the ends between which a reading is right."""

    expected: float | None
    low: float
    high: float


class Row(NamedTuple):
    """One instrument on one experiment."""

    instrument: str
    experiment: str
    measure: Callable[[], float]
    accept: Accept


class Reading(NamedTuple):
    """A row that was measured. `tolerance` are the ends between which it is right; None: open."""

    instrument: str
    experiment: str
    measured: float | None
    expected: float | None
    tolerance: tuple[float | None, float | None]
    ok: bool


def relative(expected: float, share: float) -> Accept:
    return Accept(expected, expected * (1 - share), expected * (1 + share))


def absolute(expected: float, by: float) -> Accept:
    return Accept(expected, expected - by, expected + by)


def at_least(low: float) -> Accept:
    return Accept(None, low, math.inf)


def at_most(high: float) -> Accept:
    return Accept(None, -math.inf, high)


def value_of(found: object) -> float:
    return float(found) if isinstance(found, int | float) else math.nan


def read(row: Row) -> Reading:
    """Measure one row; what is not finite is not right."""
    measured = float(row.measure())
    expected, low, high = row.accept
    ends = (low if math.isfinite(low) else None, high if math.isfinite(high) else None)
    shown = measured if math.isfinite(measured) else None
    return Reading(row.instrument, row.experiment, shown, expected, ends, low <= measured <= high)
