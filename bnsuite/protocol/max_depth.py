"""Search of `max_depth`: climb over depths, with rates tuned at each."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bnsuite.protocol.climb import Bracket, Probe, climbed, next_probe
from bnsuite.protocol.search import (
    AtLeast0,
    Batch,
    Fate,
    Fault,
    Findings,
    LaneRow,
    Real,
    Search,
    Share,
    Whole,
    best_rate,
    differences,
    grid,
    middle,
    rounded,
)
from bnsuite.records import Json, Measurement, Outcome, Sample


class DepthRow(LaneRow):
    """Lane of `max_depth` with its mean loss and accuracy over the last 10 % of steps; None: not finite."""

    outcome: Fate
    depth: Whole
    accuracy: Share | None
    loss: AtLeast0 | None


class _State(NamedTuple):
    """State of a climb after its trace."""

    passes: dict[int, list[bool]]  # depth → whether each confirmation seed trains
    best: dict[int, float]  # depth → best rate of the tuning seeds
    wanted: Batch | None


class DepthSearch(Search[DepthRow]):
    """Climb to the greatest depth that trains.

    At each depth the tuning seeds choose the best of `rates` among lanes that trained (none: the depth
    fails); each confirmation seed then passes or fails at that rate.

    Attributes:
        depths: lowest and highest rung of the ladder.
        ratio: bisection ends when fail / pass is at most this.
        target: accuracy at which a lane is trained.
    """

    depths: tuple[Whole, Whole]
    ratio: Real
    target: Real

    def row_type(self, phase: str) -> type[DepthRow]:  # noqa: ARG002
        return DepthRow

    def faults(self, row: DepthRow) -> Iterator[Fault]:
        for field, value in (("loss", row.loss), ("accuracy", row.accuracy)):
            if row.dead != (value is None):
                yield Fault(field, value, "None iff nonfinite")
        if row.accuracy is not None:
            target = rounded(self.target, 4) or 0.0  # like accuracies: one at the target may lie below it
            ok = row.outcome is Outcome.OK
            if row.accuracy < target if ok else row.accuracy > target:
                must = f"ok iff the accuracy {row.accuracy} is at least {self.target}"
                yield Fault("outcome", row.outcome, must)

    def wanted(self, trace: Sequence[DepthRow]) -> Batch | None:
        return self._replay(trace).wanted

    def objections(self, measured: Measurement, trace: Sequence[DepthRow]) -> Iterator[str]:
        return differences(measured, self.score(trace))

    def score(self, trace: Sequence[DepthRow]) -> Findings:
        """Read the bracket of each seed from the trace of a climb that has ended."""
        passes, best, _ = self._replay(trace)
        brackets, non_monotone = climbed(passes, *self.depths)
        accuracy = {(row.depth, row.seed): row.accuracy for row in trace if row.phase != "tune"}
        samples = [
            _sample(seed, bracket, accuracy)
            for seed, bracket in zip(self.confirmation, brackets, strict=True)
        ]
        derived: dict[str, Json] = {
            "non_monotone": non_monotone,
            "accuracy_at_value": middle(samples, "accuracy_passed"),
            "accuracy_above": middle(samples, "accuracy_failed"),
            "best_rates": {str(depth): rate for depth, rate in sorted(best.items())},
        }
        return Findings(samples, derived)

    def _replay(self, trace: Sequence[DepthRow]) -> _State:
        rows: dict[tuple[str, int], list[DepthRow]] = {}
        for row in trace:
            rows.setdefault((row.phase, row.depth), []).append(row)
        passes: dict[int, list[bool]] = {}
        best: dict[int, float] = {}
        while probe := next_probe(passes, *self.depths, self.ratio):
            depth = probe.depth
            if probe.tune and ("tune", depth) not in rows:
                return _State(passes, best, Batch("tune", grid(self.rates, self.tuning), depth))
            rate = self._rate(probe, rows, best)
            phase = "confirm" if probe.tune else "probe"
            if rate is None:
                passes[depth] = [False] * len(self.confirmation)
            elif (phase, depth) in rows:
                passes[depth] = [row.outcome is Outcome.OK for row in rows[phase, depth]]
            else:
                return _State(passes, best, Batch(phase, grid([rate], self.confirmation), depth))
        return _State(passes, best, None)

    def _rate(
        self, probe: Probe, rows: dict[tuple[str, int], list[DepthRow]], best: dict[int, float]
    ) -> float | None:
        """Find the best rate at a depth and note it in `best`; untuned, that of the next shallower depth."""
        if not probe.tune:
            known = [depth for depth in best if depth < probe.depth]
            return best[max(known)] if known else None
        tuned = rows["tune", probe.depth]
        trained = [row.outcome is Outcome.OK for row in tuned]
        rate = best_rate([row.lane for row in tuned], [row.loss for row in tuned], trained)
        if rate is not None:
            best[probe.depth] = rate
        return rate


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
