"""stable_lr: how large a step does it stand?"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import ClassVar, final

from bnsuite.engine.lanes import Curves, Lane
from bnsuite.engine.lanes import final as final_mean
from bnsuite.engine.search import log_grid
from bnsuite.records import Better, Json, Measurement, Outcome, Sample
from bnsuite.tasks._task import Subject, Task, best_rate, fates, grid, number


@final
@dataclass(frozen=True, kw_only=True)
class StableLr(Task):
    """Largest learning rate at which a network of fixed depth still learns.

    A lane is stable when every loss is finite and its loss, mean over the last 10 % of `steps` steps, is
    at most ½ ln C. From the best rate b of the tuning seeds, the rates b · 10^{k / per_decade} up to two
    decades above b run on each confirmation seed; with n of them stable, its sample is
    b · 10^{(n − 1) / per_decade}. (Counted, since the boundary of stability is ragged and a first
    failure is an extreme value.)
    """

    name: ClassVar[str] = "stable_lr"
    version: ClassVar[int] = 1
    unit: ClassVar[str] = "learning rate"
    better: ClassVar[Better] = "higher"
    question: ClassVar[str] = "How large a learning rate does it stand, and still learn?"

    rates: tuple[float, ...]
    depth: int = 8
    steps: int = 100
    per_decade: int = 12

    def __call__(self, subject: Subject) -> Measurement:
        limit = math.log(subject.data.classes) / 2
        tuning = grid(self.rates, self.tuning)
        trace, losses, outcomes = self._try(subject, tuning, limit, "tune")
        best = best_rate(tuning, losses, [outcome is not Outcome.NONFINITE for outcome in outcomes])
        if best is None:
            dead = [Sample(seed=seed, value=None, outcome=Outcome.NONFINITE) for seed in self.confirmation]
            return self.measurement(dead, {"best_rate": None}, trace)
        subject.report(f"learns best at {best:.3g}")

        rates = log_grid(best, self.per_decade, 2 * self.per_decade + 1)
        lanes = grid(rates, self.confirmation)
        rows, losses, outcomes = self._try(subject, lanes, limit, "confirm")
        starts = [float(row["first_loss"] or 0.0) for row in rows]  # type: ignore[arg-type]
        alive = [outcome is not Outcome.NONFINITE for outcome in outcomes]
        falling = [ok and loss <= start for ok, loss, start in zip(alive, losses, starts, strict=True)]
        derived: dict[str, Json] = {
            "best_rate": best,
            "largest_finite_rate": _median_of_largest(lanes, alive, self.confirmation),
            "largest_not_rising_rate": _median_of_largest(lanes, falling, self.confirmation),
        }
        samples = [self._sample(seed, lanes, outcomes, rates) for seed in self.confirmation]
        return self.measurement(samples, derived, [*trace, *rows])

    def _try(
        self, subject: Subject, lanes: Sequence[Lane], limit: float, phase: str
    ) -> tuple[list[dict[str, Json]], list[float], list[Outcome]]:
        curves = self.sweep(subject, self.depth, lanes, self.steps)
        return rate_rows(curves, lanes, phase, lambda loss, accuracy: loss <= limit)

    def _sample(
        self, seed: int, lanes: Sequence[Lane], outcomes: Sequence[Outcome], rates: Sequence[float]
    ) -> Sample:
        own = [o for lane, o in zip(lanes, outcomes, strict=True) if lane.seed == seed]
        passing = sum(outcome is Outcome.OK for outcome in own)
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


def rate_rows(
    curves: Curves, lanes: Sequence[Lane], phase: str, passes: Callable[[float, float], bool]
) -> tuple[list[dict[str, Json]], list[float], list[Outcome]]:
    """Trace rows, final losses and outcomes of lanes that differ in rate and seed."""
    outcomes = fates(curves, passes)
    losses = final_mean(curves.losses)
    rows: list[dict[str, Json]] = [
        {
            "phase": phase,
            "rate": lane.rate,
            "seed": lane.seed,
            "loss": number(loss),
            "first_loss": number(float(first)),
            "outcome": outcome,
        }
        for lane, loss, first, outcome in zip(lanes, losses, curves.losses[0], outcomes, strict=True)
    ]
    return rows, losses, outcomes


def _median_of_largest(lanes: Sequence[Lane], passing: Sequence[bool], seeds: Sequence[int]) -> float | None:
    """Lower median over seeds of the largest passing rate; a seed without one counts as smallest."""
    largest = (
        max(
            (lane.rate for lane, ok in zip(lanes, passing, strict=True) if ok and lane.seed == seed),
            default=0.0,
        )
        for seed in seeds
    )
    return median_low(largest) or None
