"""time_to_accuracy: how fast does it get there?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from bnsuite.engine.clock import Contestant, race
from bnsuite.engine.lanes import Examples, Lane
from bnsuite.engine.stack import Stack
from bnsuite.engine.train import Sgd, accuracy, train
from bnsuite.protocol.arrival import ROUNDS, STEPS_PER_ROUND, ArrivalSearch, mean_steps
from bnsuite.protocol.search import grid, phase_of
from bnsuite.records import Json, Measurement
from bnsuite.schemes import SCHEMES, Scheme
from bnsuite.specs import SPECS, TaskSpec
from bnsuite.tasks._guessing import majority_reaches
from bnsuite.tasks._task import Subject, Task


@final
@dataclass(frozen=True, kw_only=True)
class TimeToAccuracy(Task):
    """Training steps to the first evaluation at or above `target` test accuracy.

    SGD with Nesterov momentum .9 and `warmup` steps of linear warm-up, then a constant rate: of
    `rates`, the one that is fastest on the tuning seeds. Evaluation uses running statistics, every
    `every` steps. Tuning never uses test data: its accuracy is that on as many training examples as the
    test set has. A seed that misses the target within `steps` is `timeout`, +inf in the median.

    Derived: seconds on this device, of one network trained in turn with `batchnorm`, evaluation apart; and
    joules of training if NVML counts them. Seconds describe the device only if it was idle (`idle`; None:
    not known) and its clock did not drift (`drift`); the ratio to `batchnorm` is meaningful anyway.

    Attributes:
        rates: learning rates of the tuning lanes.
        target: test accuracy to reach.
        steps: training steps per lane, at most.
        every: steps between evaluations.
        depth: number of layers.
        momentum: Nesterov momentum.
        warmup: steps of linear warm-up.
    """

    spec: ClassVar[TaskSpec] = SPECS["time_to_accuracy"]

    rates: tuple[float, ...]
    target: float
    steps: int
    every: int
    depth: int = 8
    momentum: float = 0.9
    warmup: int = 20

    def reached_by_guessing(self, train: Sequence[int], test: Sequence[int]) -> str | None:
        parts = ("training", train), ("test", test)  # tuned on the first, confirmed on the second
        messages = (majority_reaches(self.spec.name, part, counts, self.target) for part, counts in parts)
        return next(filter(None, messages), None)

    def __call__(self, subject: Subject) -> Measurement:
        data = subject.data
        probe = data.train_x[: len(data.test_x)], data.train_y[: len(data.test_y)]
        tried = self._race_to_target(subject, grid(self.rates, self.tuning), *probe)
        rate = self._fastest(tried)
        subject.report(f"fastest at {rate:.3g}")

        lanes = grid([rate], self.confirmation)
        confirmed = self._race_to_target(subject, lanes, data.test_x, data.test_y)
        trace = [self.search.row("tune", *lane, curve) for lane, curve in tried.items()]
        trace += [self.search.row("confirm", *lane, curve) for lane, curve in confirmed.items()]
        rows = zip(phase_of(trace, "confirm"), confirmed.values(), strict=True)
        samples = [self.search.sample(row, _highest(curve)) for row, curve in rows]
        measured = self.measurement(samples, {"rate": rate, "target": self.target}, trace)
        if measured.value is None:
            return measured
        return measured.model_copy(
            update={"derived": {**measured.derived, **self._costs(subject, rate, measured.value)}}
        )

    @property
    def search(self) -> ArrivalSearch:
        """Rules of arrival at these settings."""
        return ArrivalSearch.model_validate(self.settings)

    @property
    def sgd(self) -> Sgd:
        """Optimizer of every lane."""
        return Sgd(momentum=self.momentum, warmup=self.warmup)

    def _race_to_target(
        self, subject: Subject, lanes: Sequence[Lane], x: Tensor, y: Tensor
    ) -> dict[Lane, list[float]]:
        """Measure each lane's accuracies, up to the first at the target; NaN ends those of a dead lane."""
        curves: dict[Lane, list[float]] = {lane: [] for lane in lanes}

        def watch(step: int, stack: Stack, rows: Sequence[Lane], losses: Tensor) -> list[int]:
            if step % self.every:
                return []
            accuracies = accuracy(stack.evaluate(x), y.expand(len(rows), -1)).tolist()
            finite = torch.isfinite(losses[-1]).tolist()
            for lane, value, alive in zip(rows, accuracies, finite, strict=True):
                curves[lane][step // self.every - 1 :] = [value if alive else math.nan]
            return [i for i, lane in enumerate(rows) if self.search.reached(curves[lane]) is not None]

        self.sweep(subject, self.depth, lanes, self.steps, sgd=self.sgd, watch=watch)
        return curves

    def _fastest(self, tried: dict[Lane, list[float]]) -> float:
        """Choose the rate of fewest mean steps over its seeds (a miss: +inf), then of highest accuracy."""

        def order(rate: float) -> tuple[float, float, float]:
            curves = [curve for lane, curve in tried.items() if lane.rate == rate]
            heights = [_highest(curve) for curve in curves]
            return mean_steps([self.search.reached(curve) for curve in curves]), -sum(heights), rate

        return min(self.rates, key=order)

    def _costs(self, subject: Subject, rate: float, steps: float) -> dict[str, Json]:
        """Measure examples, epochs, seconds and joules to the target; ratio of seconds to `batchnorm`."""
        data = subject.data
        examples = Examples(data.train_x, data.train_y, self.batch)
        seed = self.confirmation[0]
        order = examples.order(seed, STEPS_PER_ROUND)
        batches = [(examples.x[chosen], examples.y[chosen]) for chosen in order]

        def contestant(scheme: Scheme) -> Contestant:
            rival = Subject(scheme, subject.family, data)
            network = rival.network(self.depth, self.width, seed)
            return lambda: train(network, batches, min(rate, 0.01), self.sgd)

        evaluated = subject.network(self.depth, self.width, seed).eval()

        def evaluate() -> None:
            with torch.no_grad():
                evaluated(data.test_x)

        own, control = contestant(subject.scheme), contestant(SCHEMES["batchnorm"])
        times = race([own, control, evaluate], ROUNDS, subject.device, energy=True)
        step_s = times.median(0) / STEPS_PER_ROUND
        costs: dict[str, Json] = {
            "examples": steps * self.batch,
            "epochs": steps * self.batch / len(data.train_x),
            "seconds_per_step": step_s,
            "train_s": step_s * steps,
            "eval_s": times.median(2) * steps / self.every,
            "ratio_to_batchnorm": times.ratio(0, 1),
            "drift": times.drift(1),
            "idle": times.idle,
        }
        if times.joules:
            joules = times.joules[0] / STEPS_PER_ROUND
            costs |= {"joules_per_step": joules, "energy_j": joules * steps}
        return costs


def _highest(curve: Sequence[float]) -> float:
    return max((value for value in curve if math.isfinite(value)), default=0.0)
