"""max_depth: how deep can it train?"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import ClassVar, final

from bnsuite.engine.lanes import Lane
from bnsuite.engine.lanes import final as final_mean
from bnsuite.engine.search import Bracket, Climb, Probe, climb
from bnsuite.records import Better, Json, Measurement, Outcome, Sample
from bnsuite.tasks._task import Subject, Task, best_rate, fates, grid, number


@final
@dataclass(frozen=True, kw_only=True)
class MaxDepth(Task):
    """Largest depth trainable in `steps` steps of plain SGD.

    A lane is trained when its training accuracy, mean over the last 10 % of steps, is at least `target`.
    At each depth the tuning seeds give the best of `rates` among trained lanes (none: the depth fails);
    each confirmation seed then passes or fails at that rate. Depths follow `engine.search.climb`; a
    seed's sample is its deepest pass that has a fail above it.

    Attributes:
        depths: lowest and highest rung of the ladder.
        ratio: where bisection ends.
    """

    name: ClassVar[str] = "max_depth"
    version: ClassVar[int] = 1
    unit: ClassVar[str] = "layers"
    better: ClassVar[Better] = "higher"
    question: ClassVar[str] = "How deep can it train?"
    weight: ClassVar[float] = 5.0

    depths: tuple[int, int]
    rates: tuple[float, ...]
    steps: int = 200
    target: float = 0.8
    ratio: float = 1.13

    def __call__(self, subject: Subject) -> Measurement:
        trace: list[dict[str, Json]] = []
        accuracy: dict[tuple[int, int], float | None] = {}
        best: dict[int, float] = {}
        search = climb(*self.depths, self.ratio)
        probe = next(search)
        while True:
            rate = self._rate_for(probe, subject, best, trace)
            verdicts = [False] * len(self.confirmation)
            if rate is not None:
                lanes = [Lane(seed, rate) for seed in self.confirmation]
                rows = self._try(subject, probe.depth, lanes, "confirm" if probe.tune else "probe")
                trace += rows
                verdicts = [row["outcome"] == Outcome.OK for row in rows]
                accuracy |= {
                    (probe.depth, lane.seed): row["accuracy"]  # type: ignore[misc]
                    for lane, row in zip(lanes, rows, strict=True)
                }
            found = f"{sum(verdicts)}/{len(verdicts)} seeds train {probe.depth} layers"
            subject.report(found)
            try:
                probe = search.send(verdicts)
            except StopIteration as stop:
                result: Climb = stop.value
                break
        samples = [
            _sample(seed, bracket, accuracy)
            for seed, bracket in zip(self.confirmation, result.brackets, strict=True)
        ]
        derived: dict[str, Json] = {
            "non_monotone": result.non_monotone,
            "accuracy_at_value": _middle(samples, "accuracy_passed"),
            "accuracy_above": _middle(samples, "accuracy_failed"),
            "best_rates": {str(depth): rate for depth, rate in sorted(best.items())},
        }
        return self.measurement(samples, derived, trace)

    def _rate_for(
        self, probe: Probe, subject: Subject, best: dict[int, float], trace: list[dict[str, Json]]
    ) -> float | None:
        """The best rate at this depth; without tuning, that of the deepest shallower one that has one."""
        if not probe.tune:
            known = [depth for depth in best if depth < probe.depth]
            return best[max(known)] if known else None
        lanes = grid(self.rates, self.tuning)
        rows = self._try(subject, probe.depth, lanes, "tune")
        trace += rows
        losses = [float("inf") if row["loss"] is None else float(row["loss"]) for row in rows]  # type: ignore[arg-type]
        rate = best_rate(lanes, losses, [row["outcome"] == Outcome.OK for row in rows])
        if rate is not None:
            best[probe.depth] = rate
        return rate

    def _try(self, subject: Subject, depth: int, lanes: Sequence[Lane], phase: str) -> list[dict[str, Json]]:
        curves = self.sweep(subject, depth, lanes, self.steps)
        outcomes = fates(curves, lambda loss, accuracy: accuracy >= self.target)
        return [
            {
                "phase": phase,
                "depth": depth,
                "rate": lane.rate,
                "seed": lane.seed,
                "accuracy": number(accuracy, 4),
                "loss": number(loss),
                "outcome": outcome,
            }
            for lane, loss, accuracy, outcome in zip(
                lanes, final_mean(curves.losses), final_mean(curves.accuracies), outcomes, strict=True
            )
        ]


def _middle(samples: Sequence[Sample], name: str) -> float | None:
    """Median over seeds of a number in their detail."""
    found = [value for sample in samples if isinstance(value := sample.detail.get(name), float)]
    return median(found) if found else None


def _sample(seed: int, bracket: Bracket, accuracy: dict[tuple[int, int], float | None]) -> Sample:
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
