"""Search of `time_to_accuracy`: the fastest rate, then the steps of each seed to the target."""

import math
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field

from bnsuite.protocol.search import (
    Batch,
    Count,
    Fault,
    Findings,
    LaneRow,
    Positive,
    Search,
    Share,
    Strict,
    differences,
    grid,
    phase_of,
    read_part,
    rounded,
)
from bnsuite.records import Json, Measurement, Outcome, Sample

ROUNDS, STEPS_PER_ROUND = 10, 5
"""Rounds of the race against `batchnorm` that gives the seconds, and training steps per round."""

Flag = Annotated[bool, Field(strict=True)]


class ArrivalRow(LaneRow):
    """Lane of a race to the target, with its steps; None: it did not arrive."""

    outcome: Literal[Outcome.OK, Outcome.TIMEOUT, Outcome.NONFINITE]
    steps: Count | None


class ConfirmedRow(ArrivalRow):
    """Lane with its accuracies (4 digits) at every evaluation; None once a loss is not finite."""

    every: Count
    accuracy: list[Share | None]


class _Derived(Strict):
    rate: Positive
    target: Share


class _Costs(_Derived):
    examples: Positive
    epochs: Positive
    seconds_per_step: Positive
    train_s: Positive
    eval_s: Positive
    ratio_to_batchnorm: Positive
    drift: Flag
    idle: Flag | None = None
    joules_per_step: Positive | None = None
    energy_j: Positive | None = None


class ArrivalSearch(Search[ArrivalRow]):
    """Race to the target on the tuning seeds at every rate, then on the confirmation seeds at the fastest.

    Of two rates with equal mean steps the task takes the one of higher accuracy in tuning, which no trace
    has.

    Attributes:
        target: test accuracy to reach.
        every: steps between evaluations.
        batch: training examples per step.
        chosen: rate of confirmation; None: the fastest, ties to the first.
        duration_s: seconds that the measurement took by the auditor's clock; None: not known.
    """

    target: Share
    every: Count
    batch: Count
    chosen: Positive | None = None
    duration_s: float | None = None

    def row_type(self, phase: str) -> type[ArrivalRow]:
        return ConfirmedRow if phase == "confirm" else ArrivalRow

    def wanted(self, trace: Sequence[ArrivalRow]) -> Batch | None:
        if not trace:
            return Batch("tune", grid(self.rates, self.tuning))
        if phase_of(trace, "confirm"):
            return None
        return Batch("confirm", grid([self.chosen or self.fastest(trace)[0]], self.confirmation))

    def fastest(self, trace: Sequence[ArrivalRow]) -> list[float]:
        """Find the rates of fewest mean steps over the tuning seeds, a miss counting +inf."""
        steps: dict[float, list[int | None]] = {}
        for row in phase_of(trace, "tune"):
            steps.setdefault(row.rate, []).append(row.steps)
        means = {rate: mean_steps(arrivals) for rate, arrivals in steps.items()}
        return [rate for rate, mean in means.items() if mean == min(means.values())]

    def row(self, phase: str, seed: int, rate: float, curve: Sequence[float]) -> ArrivalRow:
        """Build the row of a lane.

        Args:
            phase: "tune" or "confirm".
            seed: seed of the lane.
            rate: its learning rate.
            curve: its accuracies at every evaluation, the last at the target or at its end.
        """
        common = {
            "phase": phase,
            "rate": rate,
            "seed": seed,
            "steps": self.reached(curve),
            "outcome": self.outcome(curve),
        }
        if phase != "confirm":
            return ArrivalRow.model_validate(common)
        return ConfirmedRow.model_validate(
            {**common, "every": self.every, "accuracy": [rounded(value, 4) for value in curve]}
        )

    def reached(self, curve: Sequence[float]) -> int | None:
        """Count the steps to the target; None: not reached."""
        return len(curve) * self.every if curve and curve[-1] >= self.target else None

    def outcome(self, curve: Sequence[float]) -> Outcome:
        """Whether a lane arrived, ran out of steps, or left the finite numbers."""
        if self.reached(curve) is not None:
            return Outcome.OK
        survived = len(curve) == self.steps // self.every and math.isfinite(curve[-1])
        return Outcome.TIMEOUT if survived else Outcome.NONFINITE

    def sample(self, row: ArrivalRow, best: float) -> Sample:
        """Build a sample from the row of its seed and the highest accuracy `best`."""
        detail: dict[str, Json] = {"best_accuracy": rounded(best)}
        if row.dead:
            return Sample(seed=row.seed, value=None, outcome=row.outcome, detail=detail)
        if row.steps is None:
            return Sample(seed=row.seed, value=self.steps, outcome=row.outcome, low=self.steps, detail=detail)
        return Sample(
            seed=row.seed, value=row.steps, low=row.steps - self.every, high=row.steps, detail=detail
        )

    def faults(self, row: ArrivalRow) -> Iterator[Fault]:
        if (row.outcome is Outcome.OK) != (row.steps is not None):
            yield Fault("outcome", row.outcome, "ok iff steps")
        if row.steps is not None and (row.steps % self.every or row.steps > self.steps):
            yield Fault("steps", row.steps, f"a multiple of {self.every} up to {self.steps}")
        if isinstance(row, ConfirmedRow):
            yield from self._curve_faults(row)

    def _curve_faults(self, row: ConfirmedRow) -> Iterator[Fault]:
        """Check that a curve ends at the target, with the budget, or where a loss is not finite."""
        target = rounded(self.target, 4) or 0.0  # rounded like the points: one at the target may lie below it
        most = self.steps // self.every
        *earlier, last = row.accuracy or [None]
        below = [value for value in (earlier if row.steps else row.accuracy) if value is not None]
        if row.every != self.every:
            yield Fault("every", row.every, f"{self.every}")
        if len(row.accuracy) > most:
            yield Fault("accuracy", len(row.accuracy), f"at most {most} points")
        if any(value > target for value in below):
            yield Fault("accuracy", max(below), f"below {target} before the end")
        if row.steps is not None:
            steps = len(row.accuracy) * self.every
            if row.steps != steps:
                yield Fault("steps", row.steps, f"{steps}, where the accuracies end")
            if last is None or last < target:
                yield Fault("accuracy", last, f"at least {self.target} at the end")
        elif (len(row.accuracy) == most and last is not None) != (row.outcome is Outcome.TIMEOUT):
            must = "timeout iff the accuracies are numbers to the last step, else nonfinite"
            yield Fault("outcome", row.outcome, must)
        alive = row.accuracy[: len(row.accuracy) - row.accuracy.count(None)]
        if None in alive:
            yield Fault("accuracy", None, "a number until a loss is not finite")

    def objections(self, measured: Measurement, trace: Sequence[ArrivalRow]) -> Iterator[str]:
        derived = read_part(_Derived if measured.value is None else _Costs, measured.derived, "derived")
        if derived.rate not in (fastest := self.fastest(trace)):
            yield f"derived.rate: got {derived.rate}, must be the fastest in tuning, {fastest}"
        if derived.target != self.target:
            yield f"derived.target: got {derived.target}, must be {self.target}"
        samples = []
        for row, sample in zip(phase_of(trace, "confirm"), measured.samples, strict=False):
            assert isinstance(row, ConfirmedRow)
            best = max((value for value in row.accuracy if value is not None), default=0.0)
            reported = sample.detail.get("best_accuracy")
            if isinstance(reported, float) and rounded(reported, 4) == best:
                best = reported  # the curve has 4 digits of it
            samples.append(self.sample(row, best))
        yield from differences(measured, Findings(samples, measured.derived))
        if isinstance(derived, _Costs) and measured.value is not None:
            yield from self._cost_objections(derived, measured.value)

    def _cost_objections(self, derived: _Costs, steps: float) -> Iterator[str]:
        """Check that costs follow from each other, and that a clock can give them within the measurement."""
        joules = derived.joules_per_step
        expected = {
            "examples": steps * self.batch,
            "train_s": derived.seconds_per_step * steps,
            "energy_j": None if joules is None else joules * steps,
        }
        for name, value in expected.items():
            if (got := getattr(derived, name)) != value:
                yield f"derived.{name}: got {got}, must be {value}"
        size = derived.examples / derived.epochs
        if size < self.batch - 0.5 or abs(size - round(size)) > 1e-6:
            yield f"derived.epochs: got {derived.epochs}, must be examples over a whole number of them"
        tick = time.get_clock_info("perf_counter").resolution
        if derived.seconds_per_step < tick:
            got = derived.seconds_per_step
            yield f"derived.seconds_per_step: got {got}, must be at least a clock's tick, {tick}"
        if derived.eval_s * self.every / steps < tick:
            yield f"derived.eval_s: got {derived.eval_s}, must be at least a clock's tick per evaluation"
        per_round = derived.seconds_per_step * STEPS_PER_ROUND + derived.eval_s * self.every / steps
        least = ROUNDS // 2 * per_round  # half of the rounds are no shorter than the median one
        if self.duration_s is not None and least > self.duration_s + 1e-3:
            yield (
                f"derived.seconds_per_step: got {derived.seconds_per_step} (eval_s {derived.eval_s}), must "
                f"leave the race within the {self.duration_s} s that the measurement took: needs "
                f"{least:.3g} s"
            )


def mean_steps(arrivals: Sequence[int | None]) -> float:
    """Compute the mean steps to the target over seeds, a miss counting +inf."""
    return sum(steps or math.inf for steps in arrivals) / len(arrivals)
