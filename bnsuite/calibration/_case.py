"""KnownCase: one instrument on one experiment whose truth is known. Reading: the measured case."""

import math
from collections.abc import Callable
from typing import NamedTuple

SEEDS = (101, 102)
"""Seeds of the networks that known cases build."""


class Accept(NamedTuple):
    """Expected value (None: only bounds are known), and the ends between which a reading is right."""

    expected: float | None
    low: float
    high: float


class KnownCase(NamedTuple):
    """One instrument on one experiment, with its accepted values."""

    instrument: str
    experiment: str
    measure: Callable[[], float]
    accept: Accept


class Reading(NamedTuple):
    """Measured case; `tolerance` are the ends between which it is right (None: open)."""

    instrument: str
    experiment: str
    measured: float | None
    expected: float | None
    tolerance: tuple[float | None, float | None]
    ok: bool


def relative(expected: float, share: float) -> Accept:
    """Accept expected · (1 ± share)."""
    return Accept(expected, expected * (1 - share), expected * (1 + share))


def absolute(expected: float, by: float) -> Accept:
    """Accept expected ± by."""
    return Accept(expected, expected - by, expected + by)


def at_least(low: float) -> Accept:
    """Accept values from `low` up."""
    return Accept(None, low, math.inf)


def at_most(high: float) -> Accept:
    """Accept values up to `high`."""
    return Accept(None, -math.inf, high)


def value_of(value: object) -> float:
    """Convert a value of a record to a float; NaN if it is no number."""
    return float(value) if isinstance(value, int | float) else math.nan


def measure_case(case: KnownCase) -> Reading:
    """Measure one case; a value that is not finite is not right."""
    measured = float(case.measure())
    expected, low, high = case.accept
    ends = (low if math.isfinite(low) else None, high if math.isfinite(high) else None)
    shown = measured if math.isfinite(measured) else None
    return Reading(case.instrument, case.experiment, shown, expected, ends, low <= measured <= high)
