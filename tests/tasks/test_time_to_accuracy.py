"""time_to_accuracy on stubs whose accuracy crosses the target at a known step."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from bnsuite.engine.clock import Race
from bnsuite.engine.lanes import Curves, Lane
from bnsuite.records import Outcome
from bnsuite.tasks import Subject, Task
from bnsuite.tasks.time_to_accuracy import TimeToAccuracy

SEEDS = (101, 102, 103)
TASK = TimeToAccuracy(
    width=8,
    batch=8,
    tuning=(1, 2),
    confirmation=SEEDS,
    rates=(0.25, 0.5, 1.0),
    target=0.75,
    steps=40,
    every=4,
)
Crossing = Callable[[Lane], float]


class Stack:
    """Networks that are right about all examples from their own step on, and about `before` until then."""

    def __init__(self, lanes: list[Lane], crossing: Crossing, labels: Any, before: float) -> None:
        self.lanes, self.crossing, self.labels, self.before, self.step = lanes, crossing, labels, before, 0

    def evaluate(self, x: Tensor) -> Tensor:
        y = self.labels(x)
        logits = torch.nn.functional.one_hot(y, 4).double().repeat(len(self.lanes), 1, 1)
        wrong = torch.arange(len(y)) >= round(self.before * len(y))
        for i, lane in enumerate(self.lanes):
            if self.step < self.crossing(lane):
                logits[i, wrong] = 1 - logits[i, wrong]
        return logits


@pytest.fixture
def crossing_at(monkeypatch: pytest.MonkeyPatch, subject: Subject) -> Callable[..., list[list[Lane]]]:
    """Replace training: each lane has a step from which its accuracy is 1; NaN: its loss is never finite."""

    def install(crossing: Crossing, before: float = 0.5) -> list[list[Lane]]:
        asked: list[list[Lane]] = []
        data = subject.data

        def labels(x: Tensor) -> Tensor:
            tuning = asked[-1][0].seed in (1, 2)
            assert torch.equal(x, data.train_x[:32] if tuning else data.test_x), "tuning sees training data"
            return data.train_y[:32] if tuning else data.test_y

        def sweep(
            self: Task, subject: Subject, depth: int, lanes: Sequence[Lane], steps: int, **more: Any
        ) -> Curves:
            asked.append(list(lanes))
            assert (depth, steps, more["sgd"].momentum, more["sgd"].warmup) == (8, 40, 0.9, 20)
            rows = list(lanes)
            for step in range(1, steps + 1):
                losses = torch.ones(step, len(rows), dtype=torch.float64)
                dead = [i for i, lane in enumerate(rows) if math.isnan(crossing(lane))]
                losses[-1, dead] = math.nan
                stack = Stack(rows, crossing, labels, before)
                stack.step = step
                leaving = {*more["watch"](step, stack, rows, losses), *dead}
                rows = [lane for i, lane in enumerate(rows) if i not in leaving]
                if not rows:
                    break
            return Curves(torch.empty(0), torch.empty(0))

        monkeypatch.setattr(Task, "sweep", sweep)
        return asked

    return install


def test_the_value_is_the_first_evaluation_at_or_above_the_target(subject: Subject, crossing_at: Any) -> None:
    crossing_at(lambda lane: {101: 12, 102: 13, 103: 16}.get(lane.seed, 8))
    measured = TASK(subject)
    assert [s.value for s in measured.samples] == [12, 16, 16]
    assert [(s.low, s.high) for s in measured.samples] == [(8, 12), (12, 16), (12, 16)]
    assert (measured.value, measured.outcome) == (16, Outcome.OK)


def test_exactly_the_target_is_enough(subject: Subject, crossing_at: Any) -> None:
    crossing_at(lambda lane: 1000, before=0.75)
    assert TASK(subject).value == 4
    crossing_at(lambda lane: 1000, before=0.7)
    assert TASK(subject).outcome is Outcome.TIMEOUT


def test_the_fastest_rate_is_that_of_fewest_mean_steps(subject: Subject, crossing_at: Any) -> None:
    steps = {(0.25, 1): 20, (0.25, 2): 20, (0.5, 1): 4, (0.5, 2): 28, (1.0, 1): 4, (1.0, 2): 1000}
    asked = crossing_at(lambda lane: steps.get((lane.rate, lane.seed), 12))
    measured = TASK(subject)
    assert measured.derived["rate"] == 0.5
    assert asked[1] == [Lane(seed, 0.5) for seed in SEEDS]
    tuned = [(row["rate"], row["seed"], row["steps"]) for row in measured.trace if row["phase"] == "tune"]
    assert set(tuned) == {(rate, seed, n if n < 40 else None) for (rate, seed), n in steps.items()}


def test_a_tie_goes_to_the_smaller_rate(subject: Subject, crossing_at: Any) -> None:
    crossing_at(lambda lane: 12)
    assert TASK(subject).derived["rate"] == 0.25


def test_a_miss_is_a_timeout_at_the_budget(subject: Subject, crossing_at: Any) -> None:
    crossing_at(lambda lane: 41 if lane.seed in (101, 102) else 8)
    measured = TASK(subject)
    assert [(s.value, s.outcome) for s in measured.samples] == [
        (40, Outcome.TIMEOUT),
        (40, Outcome.TIMEOUT),
        (8, Outcome.OK),
    ]
    assert (measured.value, measured.outcome, measured.low, measured.high) == (40, Outcome.TIMEOUT, 8, None)
    assert measured.samples[0].detail["best_accuracy"] == 0.5


def test_the_last_evaluation_counts(subject: Subject, crossing_at: Any) -> None:
    crossing_at(lambda lane: 40)
    assert (TASK(subject).value, TASK(subject).outcome) == (40, Outcome.OK)


def test_a_death_is_nonfinite(subject: Subject, crossing_at: Any) -> None:
    crossing_at(lambda lane: math.nan if lane.seed in (101, 102) else 8)
    measured = TASK(subject)
    assert [s.outcome for s in measured.samples] == [Outcome.NONFINITE, Outcome.NONFINITE, Outcome.OK]
    assert (measured.value, measured.outcome) == (None, Outcome.NONFINITE)
    assert "train_s" not in measured.derived


def test_costs_stand_beside(subject: Subject, crossing_at: Any) -> None:
    crossing_at(lambda lane: 12)
    derived = TASK(subject).derived
    assert (derived["examples"], derived["epochs"]) == (12 * 8, 12 * 8 / 64)
    for name in ("train_s", "eval_s", "seconds_per_step", "ratio_to_batchnorm"):
        value = derived[name]
        assert isinstance(value, float)
        assert value > 0
    assert derived["train_s"] == pytest.approx(12 * derived["seconds_per_step"])  # type: ignore[operator]
    assert isinstance(derived["drift"], bool)
    assert derived["idle"] in (True, False, None)
    assert "energy_j" not in derived


def test_joules_are_of_the_scheme_and_of_training(
    subject: Subject, crossing_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raced(contestants: Sequence[object], rounds: int, device: torch.device, energy: bool) -> Race:
        assert energy
        return Race([[0.5, 0.5], [0.25, 0.25], [2.0, 2.0]], idle=False, joules=[10.0, 5.0, 3.0])

    monkeypatch.setattr("bnsuite.tasks.time_to_accuracy.race", raced)
    crossing_at(lambda lane: 12)
    derived = TASK(subject).derived
    assert (derived["joules_per_step"], derived["energy_j"]) == (2.0, 24.0)
    assert (derived["seconds_per_step"], derived["eval_s"], derived["ratio_to_batchnorm"]) == (0.1, 6.0, 2.0)
    assert (derived["idle"], derived["drift"]) == (False, False)
