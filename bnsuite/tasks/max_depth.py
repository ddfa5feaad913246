"""max_depth: how deep can it train?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from bnsuite.engine.lanes import Lane, final_mean
from bnsuite.protocol import Row, deepest, number
from bnsuite.records import Better, Measurement
from bnsuite.tasks._guessing import majority_reaches
from bnsuite.tasks._task import Subject, Task, fates


@final
@dataclass(frozen=True, kw_only=True)
class MaxDepth(Task):
    """Largest depth trainable in `steps` steps of plain SGD.

    A lane is trained when its training accuracy, mean over the last 10 % of steps, is at least `target`.
    At each depth the tuning seeds give the best of `rates` among trained lanes (none: the depth fails);
    each confirmation seed then passes or fails at that rate. Depths follow `protocol.search.climb`; a
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

    def reached_by_guessing(self, train: Sequence[int], test: Sequence[int]) -> str | None:
        return majority_reaches(self.name, "training", train, self.target)

    def __call__(self, subject: Subject) -> Measurement:
        found = deepest(
            depths=self.depths,
            ratio=self.ratio,
            rates=self.rates,
            tuning=self.tuning,
            confirmation=self.confirmation,
            attempt=lambda phase, depth, lanes: self._try(subject, depth, lanes, phase),
            report=subject.report,
        )
        return self.measurement(*found)

    def _try(self, subject: Subject, depth: int, lanes: Sequence[Lane], phase: str) -> list[Row]:
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
