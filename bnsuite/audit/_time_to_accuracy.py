"""time_to_accuracy: arrivals are read again from the curves; seconds are such as a clock can give."""

import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field

from bnsuite.audit._trace import Count, Positive, Row, Settings, Share, Strict, Trace, differences, read
from bnsuite.protocol import ROUNDS, STEPS_A_ROUND, arrival, mean_steps, number
from bnsuite.protocol.search import grid
from bnsuite.records import Json, Measurement, Outcome, Sample

Flag = Annotated[bool, Field(strict=True)]


class _Settings(Settings):
    target: Share
    every: Count
    batch: Count


class _Row(Row):
    outcome: Literal[Outcome.OK, Outcome.TIMEOUT, Outcome.NONFINITE]
    steps: Count | None


class _Confirmed(_Row):
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


def objections(
    measured: Measurement, settings: Mapping[str, Json], *, duration_s: float | None = None, **_: object
) -> Iterator[str]:
    """What does not follow from the curves, and seconds that cannot be.

    Which of two rates of equal mean steps is taken the accuracies of tuning say, which no trace has.
    """
    own = read(_Settings, settings, "settings")
    beside = read(_Derived if measured.value is None else _Costs, measured.derived, "derived")
    trace = Trace(measured.trace)
    tried: dict[float, list[int | None]] = {}
    for row in trace.take(_Row, "tune", grid(own.rates, own.tuning)):
        _arrived(trace, row, own)
        tried.setdefault(row.rate, []).append(row.steps)
    means = {rate: mean_steps(arrivals) for rate, arrivals in tried.items()}
    fastest = [rate for rate, mean in means.items() if mean == min(means.values())]
    if beside.rate not in fastest:
        yield f"derived.rate: got {beside.rate}, must be the fastest in tuning, {fastest}"
    if beside.target != own.target:
        yield f"derived.target: got {beside.target}, must be {own.target}"
    samples = []
    best = [sample.detail.get("best_accuracy") for sample in measured.samples]
    lanes = grid([beside.rate], own.confirmation)
    for row, said in zip(trace.take(_Confirmed, "confirm", lanes, every=own.every), best, strict=False):
        _arrived(trace, row, own)
        _curve(trace, row, own)
        samples.append(_sample(row, own, said))
    trace.end()
    yield from differences(measured, samples)
    if isinstance(beside, _Costs) and measured.value is not None:
        yield from _costs(beside, own, measured.value, duration_s)


def _arrived(trace: Trace, row: _Row, own: _Settings) -> None:
    trace.expect(
        (row.outcome is Outcome.OK) == (row.steps is not None), "outcome", row.outcome, "ok iff steps"
    )
    if row.steps is not None:
        on_grid = row.steps % own.every == 0 and row.steps <= own.steps
        trace.expect(on_grid, "steps", row.steps, f"a multiple of {own.every} up to {own.steps}")


def _curve(trace: Trace, row: _Confirmed, own: _Settings) -> None:
    """The curve ends with the first evaluation at the target, with the budget, or with a death."""
    target = number(own.target, 4) or 0.0  # points are rounded so: one at the target may have been below
    *before, last = row.accuracy or [None]
    most = own.steps // own.every
    early = [value for value in (before if row.steps else row.accuracy) if value is not None]
    trace.expect(len(row.accuracy) <= most, "accuracy", len(row.accuracy), f"at most {most} points")
    trace.expect(
        all(value <= target for value in early),
        "accuracy",
        max(early, default=None),
        f"below {target} earlier",
    )
    if row.steps is not None:
        steps = len(row.accuracy) * own.every
        trace.expect(row.steps == steps, "steps", row.steps, f"{steps}, where the accuracies end")
        trace.expect(
            last is not None and last >= target, "accuracy", last, f"at least {own.target} at the end"
        )
    alive = len(row.accuracy) == most and last is not None
    if row.steps is None:
        must = "timeout iff the accuracies are numbers to the last step, else nonfinite"
        trace.expect(alive == (row.outcome is Outcome.TIMEOUT), "outcome", row.outcome, must)
    gone = row.accuracy[len(row.accuracy) - row.accuracy.count(None) :]
    trace.expect(not any(v is not None for v in gone), "accuracy", None, "a number before a death")


def _sample(row: _Confirmed, own: _Settings, said: Json) -> Sample:
    """The sample of a curve; its best accuracy is as it was said where that rounds to the curve's."""
    best = max((value for value in row.accuracy if value is not None), default=0.0)
    if isinstance(said, float) and number(said, 4) == best:
        best = said
    return arrival(row.seed, row.outcome, row.steps, best, own.steps, own.every)


def _costs(beside: _Costs, own: _Settings, steps: float, duration_s: float | None) -> Iterator[str]:
    """Seconds follow from one another, are no shorter than a clock tells and no longer than the measuring."""
    joules = beside.joules_per_step
    must = {
        "examples": steps * own.batch,
        "train_s": beside.seconds_per_step * steps,
        "energy_j": None if joules is None else joules * steps,
    }
    for name, value in must.items():
        if (got := getattr(beside, name)) != value:
            yield f"derived.{name}: got {got}, must be {value}"
    size = beside.examples / beside.epochs
    if size < own.batch - 0.5 or abs(size - round(size)) > 1e-6:
        yield f"derived.epochs: got {beside.epochs}, must be examples over a whole number of them"
    tick = time.get_clock_info("perf_counter").resolution
    if beside.seconds_per_step < tick:
        yield f"derived.seconds_per_step: got {beside.seconds_per_step}, must be at least a tick, {tick}"
    if beside.eval_s * own.every / steps < tick:
        yield f"derived.eval_s: got {beside.eval_s}, must be at least a clock's tick an evaluation"
    a_round = beside.seconds_per_step * STEPS_A_ROUND + beside.eval_s * own.every / steps
    least = ROUNDS // 2 * a_round  # half of the rounds are no shorter than the median one
    if duration_s is not None and least > duration_s + 1e-3:
        yield (
            f"derived.seconds_per_step: got {beside.seconds_per_step} (eval_s {beside.eval_s}), "
            f"must leave the race within the {duration_s} s that the measurement took: needs {least:.3g} s"
        )
