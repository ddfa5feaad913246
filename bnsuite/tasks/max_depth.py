"""max_depth: how deep can it train?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

from bnsuite.engine.lanes import final_mean
from bnsuite.protocol.max_depth import DepthRow, DepthSearch
from bnsuite.protocol.search import Batch, rounded
from bnsuite.records import Measurement, Outcome
from bnsuite.specs import SPECS, TaskSpec
from bnsuite.tasks._guessing import majority_reaches
from bnsuite.tasks._task import Subject, Task, fates


@final
@dataclass(frozen=True, kw_only=True)
class MaxDepth(Task):
    """Largest depth trainable in `steps` steps of plain SGD.

    A lane is trained when its training accuracy, mean over the last 10 % of steps, is at least `target`.
    At each depth the tuning seeds give the best of `rates` among trained lanes (none: the depth fails);
    each confirmation seed then passes or fails at that rate. Depths follow `protocol.climb`; a
    seed's sample is its deepest pass that has a fail above it.

    Attributes:
        depths: lowest and highest rung of the ladder.
        rates: learning rates of the tuning lanes.
        steps: training steps per lane.
        target: training accuracy at which a lane is trained.
        ratio: bisection ends when fail / pass is at most this.
    """

    spec: ClassVar[TaskSpec] = SPECS["max_depth"]

    depths: tuple[int, int]
    rates: tuple[float, ...]
    steps: int = 200
    target: float = 0.8
    ratio: float = 1.13

    def reached_by_guessing(self, train: Sequence[int], test: Sequence[int]) -> str | None:  # noqa: ARG002
        return majority_reaches(self.spec.name, "training", train, self.target)

    def __call__(self, subject: Subject) -> Measurement:
        search = DepthSearch.model_validate(self.settings)
        trace = search.follow(partial(self.attempt, subject))
        return self.measurement(*search.score(trace), trace)

    def attempt(self, subject: Subject, batch: Batch) -> list[DepthRow]:
        """Train the lanes of a batch at its depth: a row per lane."""
        assert batch.depth is not None
        curves = self.sweep(subject, batch.depth, batch.lanes, self.steps)
        outcomes = fates(curves, lambda _loss, accuracy: accuracy >= self.target)
        if batch.phase != "tune":
            passing = outcomes.count(Outcome.OK)
            subject.report(f"{passing}/{len(outcomes)} seeds train {batch.depth} layers")
        means = zip(final_mean(curves.losses), final_mean(curves.accuracies), strict=True)
        return [
            DepthRow(
                phase=batch.phase,
                depth=batch.depth,
                rate=lane.rate,
                seed=lane.seed,
                accuracy=rounded(accuracy, 4),
                loss=rounded(loss),
                outcome=outcome,
            )
            for lane, (loss, accuracy), outcome in zip(batch.lanes, means, outcomes, strict=True)
        ]
