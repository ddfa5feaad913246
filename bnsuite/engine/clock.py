"""Timing: contestants take turns on one device, so that a drift of its speed hits both alike."""

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import torch

DRIFT = 0.1
"""Relative change of a contestant's own time between the halves of a race that raises the flag."""


class Race(NamedTuple):
    """Seconds a round of each contestant, in turn."""

    seconds: list[list[float]]  # [contestant][round]

    def median(self, contestant: int) -> float:
        """Median seconds of one round."""
        return median(self.seconds[contestant])

    def ratio(self, a: int, b: int) -> float:
        """Median over rounds of the seconds of a over those of b."""
        return median(x / y for x, y in zip(self.seconds[a], self.seconds[b], strict=True))

    def drift(self, contestant: int) -> bool:
        """Whether the contestant's median moved by more than 10 % between the halves."""
        times = self.seconds[contestant]
        half = len(times) // 2
        first, second = median(times[:half]), median(times[half:])
        return abs(second / first - 1) > DRIFT


def race(
    contestants: Sequence[Callable[[], object]], rounds: int, device: torch.device, warmup: int = 1
) -> Race:
    """Run the contestants in turn for a number of rounds after a warm-up; wall time, device synchronized."""
    seconds: list[list[float]] = [[] for _ in contestants]
    for round_ in range(warmup + rounds):
        for contestant, times in zip(contestants, seconds, strict=True):
            _synchronize(device)
            start = time.perf_counter()
            contestant()
            _synchronize(device)
            if round_ >= warmup:
                times.append(time.perf_counter() - start)
    return Race(seconds)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
