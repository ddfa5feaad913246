"""Protocol: how what was tried becomes samples. No torch.

The ranked tasks follow it with training; `audit` follows it again with the rows of a trace.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median, median_low
from typing import NamedTuple

from bnsuite.protocol.search import Bracket, Lane, Probe, best_rate, climb, grid, log_grid
from bnsuite.records import Json, Outcome, Sample

WINDOW = 5
"""Steps over which the loss is averaged to decide that a checkpoint is reached."""

EDGE = 0.5
"""rate · λ/2 above which the rate, not the loss, sets λ (1 is the edge of stability)."""

HALVINGS = 8
"""Times that the rate of a checkpoint is halved, at most; the steps of its budget double each time."""

ROUNDS, STEPS_A_ROUND = 10, 5
"""Of the race against `batchnorm` that gives the seconds."""

Row = dict[str, Json]
Report = Callable[[str], None]


class Findings(NamedTuple):
    """What a task gives: a sample a confirmation seed, what stands beside, every lane that was tried."""

    samples: list[Sample]
    derived: dict[str, Json]
    trace: list[Row]


def number(value: float, digits: int = 6) -> float | None:
    """A value for the trace: rounded to significant digits, None where it is not finite."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def over_seeds(samples: Sequence[Sample], *path: str) -> list[float]:
    """The numbers that stand in the samples' details at a path of names."""
    found = []
    for sample in samples:
        value: Json = sample.detail
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if isinstance(value, (int, float)):
            found.append(float(value))
    return found


def middle(samples: Sequence[Sample], *path: str) -> float | None:
    """Median over seeds of what stands at a path of names, None where it stands nowhere."""
    found = over_seeds(samples, *path)
    return median(found) if found else None


# max_depth


def deepest(
    *,
    depths: tuple[int, int],
    ratio: float,
    rates: Sequence[float],
    tuning: Sequence[int],
    confirmation: Sequence[int],
    attempt: Callable[[str, int, Sequence[Lane]], list[Row]],
    report: Report,
) -> Findings:
    """Climb to the greatest depth that trains; `attempt(phase, depth, lanes)` gives a row a lane."""
    trace: list[Row] = []
    best: dict[int, float] = {}
    accuracy: dict[tuple[int, int], float | None] = {}

    def rate_for(probe: Probe) -> float | None:
        """The best rate at this depth; without tuning, that of the deepest shallower one that has one."""
        if not probe.tune:
            known = [depth for depth in best if depth < probe.depth]
            return best[max(known)] if known else None
        lanes = grid(rates, tuning)
        rows = attempt("tune", probe.depth, lanes)
        trace.extend(rows)
        losses = [math.inf if row["loss"] is None else float(row["loss"]) for row in rows]  # type: ignore[arg-type]
        rate = best_rate(lanes, losses, [row["outcome"] == Outcome.OK for row in rows])
        if rate is not None:
            best[probe.depth] = rate
        return rate

    def verdicts_at(probe: Probe) -> list[bool]:
        rate = rate_for(probe)
        if rate is None:
            return [False] * len(confirmation)
        lanes = grid([rate], confirmation)
        rows = attempt("confirm" if probe.tune else "probe", probe.depth, lanes)
        trace.extend(rows)
        for lane, row in zip(lanes, rows, strict=True):
            accuracy[probe.depth, lane.seed] = row["accuracy"]  # type: ignore[assignment]
        return [row["outcome"] == Outcome.OK for row in rows]

    search = climb(*depths, ratio)
    probe = next(search)
    while True:
        verdicts = verdicts_at(probe)
        report(f"{sum(verdicts)}/{len(verdicts)} seeds train {probe.depth} layers")
        try:
            probe = search.send(verdicts)
        except StopIteration as stop:
            brackets, non_monotone = stop.value
            break
    samples = [_depth(seed, found, accuracy) for seed, found in zip(confirmation, brackets, strict=True)]
    derived: dict[str, Json] = {
        "non_monotone": non_monotone,
        "accuracy_at_value": middle(samples, "accuracy_passed"),
        "accuracy_above": middle(samples, "accuracy_failed"),
        "best_rates": {str(depth): rate for depth, rate in sorted(best.items())},
    }
    return Findings(samples, derived, trace)


def _depth(seed: int, bracket: Bracket, accuracy: Mapping[tuple[int, int], float | None]) -> Sample:
    passed, failed = bracket
    detail: dict[str, Json] = {}
    if passed is not None:
        detail["accuracy_passed"] = accuracy.get((passed, seed))
    if failed is not None:
        detail["accuracy_failed"] = accuracy.get((failed, seed))
    if passed is None:
        return Sample(seed=seed, value=failed, outcome=Outcome.FLOOR, high=failed, detail=detail)
    outcome = Outcome.CAPPED if failed is None else Outcome.OK
    return Sample(seed=seed, value=passed, outcome=outcome, low=passed, high=failed, detail=detail)


# stable_lr


class Tried(NamedTuple):
    """Lanes that differ in rate and seed: their rows, final losses and outcomes."""

    rows: list[Row]
    losses: list[float]
    outcomes: list[Outcome]

    @property
    def alive(self) -> list[bool]:
        """Which lanes stayed finite."""
        return [outcome is not Outcome.NONFINITE for outcome in self.outcomes]


def stable(
    *,
    rates: Sequence[float],
    per_decade: int,
    tuning: Sequence[int],
    confirmation: Sequence[int],
    attempt: Callable[[str, Sequence[Lane]], Tried],
    report: Report,
) -> Findings:
    """Count the stable rates of the two decades above the best one; `attempt(phase, lanes)` tries them."""
    lanes = grid(rates, tuning)
    tuned = attempt("tune", lanes)
    best = best_rate(lanes, tuned.losses, tuned.alive)
    if best is None:
        dead = [Sample(seed=seed, value=None, outcome=Outcome.NONFINITE) for seed in confirmation]
        return Findings(dead, {"best_rate": None}, tuned.rows)
    report(f"learns best at {best:.3g}")

    above = log_grid(best, per_decade, 2 * per_decade + 1)
    lanes = grid(above, confirmation)
    tried = attempt("confirm", lanes)
    starts = [float(row["first_loss"] or 0.0) for row in tried.rows]  # type: ignore[arg-type]
    falling = [
        ok and loss <= start for ok, loss, start in zip(tried.alive, tried.losses, starts, strict=True)
    ]
    derived: dict[str, Json] = {
        "best_rate": best,
        "largest_finite_rate": _median_of_largest(lanes, tried.alive, confirmation),
        "largest_not_rising_rate": _median_of_largest(lanes, falling, confirmation),
    }
    samples = [_stable(seed, lanes, tried.outcomes, above) for seed in confirmation]
    return Findings(samples, derived, [*tuned.rows, *tried.rows])


def _stable(seed: int, lanes: Sequence[Lane], outcomes: Sequence[Outcome], rates: Sequence[float]) -> Sample:
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


# top_eigenvalue


def sharpness(seed: int, value: float, residual: float, tolerance: float, detail: dict[str, Json]) -> Sample:
    """λ within |λ| · residual; `unconverged` where the residual is above the tolerance."""
    if residual > tolerance:
        return Sample(seed=seed, value=None, outcome=Outcome.UNCONVERGED, detail=detail)
    error = abs(value) * residual
    return Sample(seed=seed, value=value, low=value - error, high=value + error, detail=detail)


def beside_sharpness(samples: Sequence[Sample], best: float | None) -> dict[str, Json]:
    """Medians over seeds of what stands beside the value, and the largest residual of any λ_max."""
    places = (("residual",), ("at_init", "residual"), ("at_best_rate", "residual"))
    return {
        "best_rate": best,
        "at_init": middle(samples, "at_init", "value"),
        "at_best_rate": middle(samples, "at_best_rate", "value"),
        "edge_ratio": middle(samples, "at_best_rate", "edge"),
        "lambda_min": middle(samples, "lambda_min"),
        "max_residual": max((r for place in places for r in over_seeds(samples, *place)), default=None),
    }


# time_to_accuracy


def mean_steps(arrivals: Sequence[int | None]) -> float:
    """Mean steps to the target over seeds, a miss counting +inf."""
    return sum(steps or math.inf for steps in arrivals) / len(arrivals)


def arrival(seed: int, outcome: Outcome, arrived: int | None, best: float, steps: int, every: int) -> Sample:
    """The sample of a seed that came to the target after `arrived` steps; None: not within `steps`."""
    detail: dict[str, Json] = {"best_accuracy": number(best)}
    if outcome is Outcome.NONFINITE:
        return Sample(seed=seed, value=None, outcome=outcome, detail=detail)
    if arrived is None:
        return Sample(seed=seed, value=steps, outcome=outcome, low=steps, detail=detail)
    return Sample(seed=seed, value=arrived, low=arrived - every, high=arrived, detail=detail)
