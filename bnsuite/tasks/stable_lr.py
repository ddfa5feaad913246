"""stable_lr: how large a step does it stand?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

from bnsuite.engine.lanes import Curves, final_mean
from bnsuite.protocol.search import Batch, rounded
from bnsuite.protocol.stable_lr import RateRow, RateSearch
from bnsuite.records import Measurement
from bnsuite.specs import SPECS, TaskSpec
from bnsuite.tasks._guessing import frequencies_reach
from bnsuite.tasks._task import Subject, Task, added, fates


@final
@dataclass(frozen=True, kw_only=True)
class StableLr(Task):
    """Largest learning rate at which a network of fixed depth still learns.

    A lane is stable when every loss is finite and its loss, mean over the last 10 % of `steps` steps, is
    at most `loss_ratio` · ln C. From the best rate b of the tuning seeds, the rates
    b · 10^{k / per_decade} up to two decades above b run on each confirmation seed; with n of them stable,
    its sample is b · 10^{(n − 1) / per_decade}. (Counted, because the boundary of stability is ragged and a
    first failure is an extreme value.)

    Attributes:
        rates: learning rates of the tuning lanes.
        depth: number of layers.
        steps: training steps per lane.
        per_decade: number of rates per decade.
        loss_ratio: loss at which a lane has learned, in units of ln C.
    """

    spec: ClassVar[TaskSpec] = SPECS["stable_lr"]

    rates: tuple[float, ...]
    depth: int = 8
    steps: int = 100
    per_decade: int = 12
    loss_ratio: float = added(0.5)

    def reached_by_guessing(self, train: Sequence[int], test: Sequence[int]) -> str | None:  # noqa: ARG002
        return frequencies_reach(self.spec.name, train, self.loss_ratio)

    def __call__(self, subject: Subject) -> Measurement:
        search = RateSearch.model_validate({**self.settings, "classes": subject.data.classes})
        trace = search.follow(partial(self.attempt, subject))
        return self.measurement(*search.score(trace), trace)

    def attempt(self, subject: Subject, batch: Batch) -> list[RateRow]:
        """Train the lanes of a batch: a row per lane."""
        if batch.phase == "confirm":
            subject.report(f"learns best at {batch.lanes[0].rate:.3g}")
        limit = self.loss_ratio * math.log(subject.data.classes)
        return rate_rows(self.sweep(subject, self.depth, batch.lanes, self.steps), batch, limit)


def rate_rows(curves: Curves, batch: Batch, limit: float) -> list[RateRow]:
    """Build the rows of lanes that differ in rate and seed.

    Args:
        curves: losses of the lanes.
        batch: the lanes and their phase.
        limit: final loss, in nats, up to which a lane has learned.
    """
    outcomes = fates(curves, lambda loss, _accuracy: loss <= limit)
    return [
        RateRow(
            phase=batch.phase,
            rate=lane.rate,
            seed=lane.seed,
            loss=rounded(loss),
            first_loss=rounded(float(first)),
            outcome=outcome,
        )
        for lane, loss, first, outcome in zip(
            batch.lanes, final_mean(curves.losses), curves.losses[0], outcomes, strict=True
        )
    ]
