"""Known cases of searches, rates and intervals."""

import math
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bnsuite.calibration._case import SEEDS, KnownCase, absolute, at_most, relative, value_of
from bnsuite.datasets import Dataset
from bnsuite.engine.train import Velocity, training_step
from bnsuite.protocol.climb import Probe, climb
from bnsuite.protocol.search import log_grid
from bnsuite.schemes import SCHEMES
from bnsuite.statistics import ALPHA, median_interval, sign_flip_p
from bnsuite.tasks import Subject
from bnsuite.tasks.time_to_accuracy import TimeToAccuracy


def stable_rate(momentum: float) -> float:
    """Count stable rates of training on λ θ² / 2 and multiply the largest one by λ = 7."""
    sharpness = torch.tensor([7.0, 2.0, 0.5], dtype=torch.float64)
    rates = log_grid(0.1 / 7, 400, 800)
    params = {"theta": torch.ones(len(rates), 3, dtype=torch.float64)}
    velocity: Velocity | None = None
    no_data = torch.zeros(len(rates), 1, dtype=torch.long)
    for _ in range(1500):
        stepped = training_step(
            lambda params, _x: params["theta"].unsqueeze(1),
            params,
            velocity,
            no_data,
            no_data,
            torch.tensor(rates, dtype=torch.float64),
            momentum,
            loss=lambda theta, _y: (sharpness * theta.square()).sum((-1, -2)) / 2,
        )
        velocity = stepped.velocity
    stable = int((params["theta"].norm(dim=1) <= math.sqrt(3)).sum())
    return 7 * rates[stable - 1]


class Countdown(nn.Module):
    """Network that is right about every test example from the 38th training step on; x holds the label."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        steps = self.get_buffer("steps")
        if self.training:
            steps.add_(1)
        right = torch.where(steps >= 38, 1.0, -1.0)
        return x.flatten(1) * right + self.weight


class _Countdowns:
    """Family whose networks are all `Countdown`."""

    name = "countdown"

    def build(self, *args: object, **kwargs: object) -> nn.Module:  # noqa: ARG002
        return Countdown()


def steps_to_target() -> float:
    """Measure the steps of `Countdown` to the target accuracy."""
    y = torch.arange(64) % 4
    x = nn.functional.one_hot(y, 4).float().view(64, 1, 1, 4)
    family: Any = _Countdowns()
    subject = Subject(SCHEMES["none"], family, Dataset("labels", x, y, x, y, 4))
    task = TimeToAccuracy(
        width=1, batch=16, tuning=(1,), confirmation=SEEDS, rates=(1e-3,), target=0.95, steps=60, every=2
    )
    return value_of(task(subject).value)


def searches_inside(trials: int = 2000) -> float:
    """Estimate the share of searches over depth in which every bracket holds its seed's threshold."""
    draw = np.random.default_rng(0)
    inside = 0
    for _ in range(trials):
        thresholds = np.exp(draw.uniform(math.log(4), math.log(100), size=5)).astype(int)

        def passes(probe: Probe, thresholds: Any = thresholds) -> list[bool]:
            return [bool(probe.depth <= threshold) for threshold in thresholds]

        result = climb(4, 128, 1.13, passes)
        inside += all(
            (b.passed or 0) <= threshold and (b.failed is None or threshold < b.failed)
            for b, threshold in zip(result.brackets, thresholds, strict=True)
        )
    return inside / trials


def interval_coverage(trials: int = 20_000) -> float:
    """Estimate how often the interval from 6 draws of a skewed distribution holds its median."""
    interval = median_interval(6)
    draws = np.sort(np.random.default_rng(0).lognormal(size=(trials, 6)))
    return float(((draws[:, interval.low] <= 1) & (draws[:, interval.high] >= 1)).mean())


def false_positives(trials: int = 4000) -> float:
    """Estimate how often the paired test separates 6 pairs of one distribution."""
    draws = np.random.default_rng(0).laplace(size=(trials, 6))
    return float(np.mean([sign_flip_p(differences) < ALPHA for differences in draws]))


CASES: tuple[KnownCase, ...] = (
    KnownCase("stable_lr", "a quadratic: rate · λ, plain SGD", partial(stable_rate, 0.0), relative(2, 0.02)),
    KnownCase(
        "time_to_accuracy",
        "a quadratic: rate · λ, Nesterov .9: 2(1 + m)/(1 + 2m)",
        partial(stable_rate, 0.9),
        relative(3.8 / 2.8, 0.02),
    ),
    KnownCase(
        "time_to_accuracy", "a network that is right from step 38 on", steps_to_target, absolute(38, 0)
    ),
    KnownCase("max_depth", "known thresholds inside their brackets", searches_inside, absolute(1, 0)),
    KnownCase(
        "intervals",
        "coverage of the interval of the median, n = 6",
        interval_coverage,
        absolute(0.96875, 0.015),
    ),
    KnownCase(
        "intervals", "false positives of the paired test, n = 6", false_positives, at_most(ALPHA + 0.015)
    ),
)
