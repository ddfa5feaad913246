"""stable_lr: how large a step does it stand?"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from bnsuite.engine.lanes import Curves, Lane, final_mean
from bnsuite.protocol import Row, Tried, number, stable
from bnsuite.records import Better, Measurement
from bnsuite.tasks._guessing import frequencies_reach
from bnsuite.tasks._task import Subject, Task, added, fates


@final
@dataclass(frozen=True, kw_only=True)
class StableLr(Task):
    """Largest learning rate at which a network of fixed depth still learns.

    A lane is stable when every loss is finite and its loss, mean over the last 10 % of `steps` steps, is
    at most `loss_ratio` · ln C. From the best rate b of the tuning seeds, the rates
    b · 10^{k / per_decade} up to two decades above b run on each confirmation seed; with n of them stable,
    its sample is b · 10^{(n − 1) / per_decade}. (Counted, since the boundary of stability is ragged and a
    first failure is an extreme value.)
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
    loss_ratio: float = added(0.5)

    def reached_by_guessing(self, train: Sequence[int], test: Sequence[int]) -> str | None:
        return frequencies_reach(self.name, train, self.loss_ratio)

    def __call__(self, subject: Subject) -> Measurement:
        limit = self.loss_ratio * math.log(subject.data.classes)

        def attempt(phase: str, lanes: Sequence[Lane]) -> Tried:
            curves = self.sweep(subject, self.depth, lanes, self.steps)
            return rate_rows(curves, lanes, phase, lambda loss, accuracy: loss <= limit)

        found = stable(
            rates=self.rates,
            per_decade=self.per_decade,
            tuning=self.tuning,
            confirmation=self.confirmation,
            attempt=attempt,
            report=subject.report,
        )
        return self.measurement(*found)


def rate_rows(
    curves: Curves, lanes: Sequence[Lane], phase: str, passes: Callable[[float, float], bool]
) -> Tried:
    """Trace rows, final losses and outcomes of lanes that differ in rate and seed."""
    outcomes = fates(curves, passes)
    losses = final_mean(curves.losses)
    rows: list[Row] = [
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
    return Tried(rows, losses, outcomes)
