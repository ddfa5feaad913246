"""stable_lr: the stable rates are counted again in the trace."""

from collections.abc import Iterator, Mapping, Sequence

from bnsuite.audit._trace import (
    ROUNDING,
    Learning,
    RateRow,
    Trace,
    Whole,
    differences,
    differing,
    lost,
    one_limit,
    rate_rows,
    read,
)
from bnsuite.protocol import Findings, Tried, stable
from bnsuite.protocol.search import Lane
from bnsuite.records import Json, Measurement


class _Settings(Learning):
    per_decade: Whole


NOT_RISING = "largest_not_rising_rate"


def objections(
    measured: Measurement, settings: Mapping[str, Json], *, classes: int | None = None, **_: object
) -> Iterator[str]:
    """What does not follow from the trace."""
    own = read(_Settings, settings, "settings")
    limit = own.limit(classes)
    best = measured.derived.get("best_rate")

    def counted(factor: float) -> tuple[Findings, list[RateRow]]:
        """The protocol on losses that rounding may have hidden: the best rate's a little lower in tuning,
        and all a factor off in confirmation."""
        trace = Trace(measured.trace)
        seen: list[RateRow] = []

        def attempt(phase: str, lanes: Sequence[Lane]) -> Tried:
            rows = rate_rows(trace, phase, lanes, limit)
            seen.extend(rows)
            scale = {row.rate: factor if phase == "confirm" else 1.0 for row in rows}
            if phase == "tune" and isinstance(best, float) and best in scale:
                scale[best] = 1 - ROUNDING
            return Tried(
                [row.model_dump() for row in rows],
                [lost(row.loss, scale[row.rate]) for row in rows],
                [row.outcome for row in rows],
            )

        found = stable(
            rates=own.rates,
            per_decade=own.per_decade,
            tuning=own.tuning,
            confirmation=own.confirmation,
            attempt=attempt,
            report=lambda found: None,
        )
        trace.end()
        return found, seen

    found, rows = counted(1 - ROUNDING)
    yield from one_limit(rows)
    yield from differences(measured, found.samples)
    must = dict(found.derived)
    if NOT_RISING in must:  # a final loss equal to the first in its rounded digits may have risen or not
        either = must[NOT_RISING], counted(1 + ROUNDING)[0].derived[NOT_RISING]
        got = measured.derived.get(NOT_RISING)
        high, low = (value if isinstance(value, float) else 0.0 for value in either)
        value = 0.0 if got is None else got
        if isinstance(value, float) and low <= value <= high and (value in grid_of(rows) or got is None):
            must[NOT_RISING] = got
    yield from differing(measured.derived, must)


def grid_of(rows: Sequence[RateRow]) -> set[float]:
    """The rates that were tried."""
    return {row.rate for row in rows}
