"""Searches over rates: the best rate, for `top_eigenvalue` too, and the stable rates above it."""

import math
from collections.abc import Iterator, Sequence
from statistics import median_low

from bnsuite.protocol.search import (
    AtLeast0,
    Batch,
    Fate,
    Fault,
    Findings,
    LaneRow,
    Positive,
    Search,
    Whole,
    best_rate,
    differences,
    grid,
    log_grid,
    phase_of,
    rounded,
)
from bnsuite.records import Json, Measurement, Outcome, Sample


class RateRow(LaneRow):
    """Lane with its first loss and its mean loss over the last 10 % of steps; None: not finite."""

    outcome: Fate
    loss: AtLeast0 | None
    first_loss: AtLeast0 | None


class RateTuning(Search[RateRow]):
    """Search for the best rate on the tuning seeds.

    Attributes:
        loss_ratio: a lane has learned at a loss of at most loss_ratio · ln C.
        classes: C; None: not known.
    """

    loss_ratio: Positive = 0.5
    classes: int | None = None

    @property
    def limit(self) -> float | None:
        """Loss of a lane that has learned, in nats."""
        return self.loss_ratio * math.log(self.classes) if self.classes else None

    def row_type(self, phase: str) -> type[RateRow]:  # noqa: ARG002
        return RateRow

    def faults(self, row: RateRow) -> Iterator[Fault]:
        if row.dead != (row.loss is None):
            yield Fault("outcome", row.outcome, "nonfinite iff there is no final loss")
        if not row.dead and row.first_loss is None:
            yield Fault("first_loss", None, "a number, as the lane stayed finite")
        if self.limit is not None and row.loss is not None:
            limit = rounded(self.limit) or 0.0  # rounded like losses
            ok = row.outcome is Outcome.OK
            if row.loss > limit if ok else row.loss < limit:
                yield Fault("outcome", row.outcome, f"ok iff the loss {row.loss} is at most {limit}")

    def wanted(self, trace: Sequence[RateRow]) -> Batch | None:
        return None if trace else Batch("tune", grid(self.rates, self.tuning))

    def best(self, trace: Sequence[RateRow]) -> float | None:
        """Find the best rate among those of which a lane stayed finite."""
        tuned = phase_of(trace, "tune")
        alive = [not row.dead for row in tuned]
        return best_rate([row.lane for row in tuned], [row.loss for row in tuned], alive)


class RateSearch(RateTuning):
    """Count of the stable rates in the two decades from the best rate upwards.

    Attributes:
        per_decade: number of rates per decade.
    """

    per_decade: Whole

    def wanted(self, trace: Sequence[RateRow]) -> Batch | None:
        if not trace:
            return super().wanted(trace)
        best = self.best(trace)
        if best is None or phase_of(trace, "confirm"):
            return None
        return Batch("confirm", grid(self._above(best), self.confirmation))

    def objections(self, measured: Measurement, trace: Sequence[RateRow]) -> Iterator[str]:
        yield from rate_objections(trace)
        yield from differences(measured, self.score(trace))

    def score(self, trace: Sequence[RateRow]) -> Findings:
        """Count the stable rates of each seed in the trace of a search that has ended."""
        best = self.best(trace)
        if best is None:
            dead = [Sample(seed=seed, value=None, outcome=Outcome.NONFINITE) for seed in self.confirmation]
            return Findings(dead, {"best_rate": None})
        tried = phase_of(trace, "confirm")
        alive = [row for row in tried if row.loss is not None]
        falling = [row for row in alive if (row.loss or 0.0) <= (row.first_loss or 0.0)]
        derived: dict[str, Json] = {
            "best_rate": best,
            "largest_finite_rate": self._median_of_largest(alive),
            "largest_not_rising_rate": self._median_of_largest(falling),
        }
        rates = self._above(best)
        return Findings([_sample(seed, tried, rates) for seed in self.confirmation], derived)

    def _above(self, best: float) -> list[float]:
        return log_grid(best, self.per_decade, 2 * self.per_decade + 1)

    def _median_of_largest(self, rows: Sequence[RateRow]) -> float | None:
        """Compute the lower median over seeds of their largest rate; 0 for seeds without rows."""
        largest = (max((r.rate for r in rows if r.seed == seed), default=0.0) for seed in self.confirmation)
        return median_low(largest) or None


def rate_objections(rows: Sequence[RateRow]) -> Iterator[str]:
    """Find rows that contradict each other.

    Lanes that learned and lanes that are stuck lie on either side of one loss, and a seed starts at one loss
    whatever its rate.
    """
    learned = max((r.loss for r in rows if r.outcome is Outcome.OK and r.loss is not None), default=0.0)
    stuck = min((r.loss for r in rows if r.outcome is Outcome.STUCK and r.loss is not None), default=math.inf)
    if learned > stuck:
        yield f"trace.outcome: got ok at a loss of {learned} and stuck at {stuck}, must be split by one limit"
    starts: dict[int, float] = {}
    for i, row in enumerate(rows):
        if row.first_loss is not None:
            start = starts.setdefault(row.seed, row.first_loss)
            # a stack of another size may add the terms of a loss in another order
            if not math.isclose(row.first_loss, start, rel_tol=1e-3):
                must = f"{start}, that of its seed at the first rate"
                yield f"trace[{i}].first_loss: got {row.first_loss}, must be {must}"


def _sample(seed: int, tried: Sequence[RateRow], rates: Sequence[float]) -> Sample:
    own = [row for row in tried if row.seed == seed]
    passing = sum(row.outcome is Outcome.OK for row in own)
    detail: dict[str, Json] = {"passing": passing, "tried": len(own)}
    if passing == 0:
        return Sample(seed=seed, value=None, outcome=Outcome.STUCK, detail=detail)
    capped = passing == len(rates)
    return Sample(
        seed=seed,
        value=rates[passing - 1],
        outcome=Outcome.CAPPED if capped else Outcome.OK,
        low=rates[passing - 1],
        high=None if capped else rates[passing],
        detail=detail,
    )
