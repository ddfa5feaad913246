"""Timing: contestants take turns on one device, so that a drift of its speed affects all of them alike."""

import math
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import torch

from bnsuite.engine.monitor import Gpu, Processors, watch

DRIFT = 0.1
"""Relative change of a contestant's median time between the halves of a race that counts as drift."""

FASTER = 0.05
"""Relative gain over its best time so far by which a contestant shows that the device is not warm yet."""

WARM_ROUNDS, WARM_S = 10, 5.0
"""Upper limits of a warm-up: number of rounds, and seconds."""

BLOCKS, BLOCK_S = 2, 1.0
"""Blocks per contestant in which energy is measured, and seconds per block: NVML updates its energy counter
some ten times per second."""

Contestant = Callable[[], object]


class Race(NamedTuple):
    """Seconds per round of each contestant.

    Seconds describe the device only if it was idle and the contestant did not drift; ratios hold either way.
    """

    seconds: list[list[float]]  # [contestant][round]
    idle: bool | None = None  # whether nothing else used the device; None: not known
    joules: list[float] | None = None  # [contestant], mean per turn; None without an energy counter

    def median(self, contestant: int) -> float:
        """Median seconds of one round."""
        return median(self.seconds[contestant])

    def ratio(self, a: int, b: int) -> float:
        """Median over rounds of (seconds of contestant a) / (seconds of contestant b)."""
        return median(x / y for x, y in zip(self.seconds[a], self.seconds[b], strict=True))

    def drift(self, contestant: int) -> bool:
        """Whether the contestant's median time differs by more than 10 % between the halves of the race."""
        times = self.seconds[contestant]
        half = len(times) // 2
        first, second = median(times[:half]), median(times[half:])
        return abs(second / first - 1) > DRIFT


def race(
    contestants: Sequence[Contestant],
    rounds: int,
    device: torch.device,
    warmup: int = WARM_ROUNDS,
    energy: bool = False,
) -> Race:
    """Warm the device up, then run the contestants in turn for a number of rounds.

    On CUDA a turn is timed by events on the current stream, elsewhere by wall time.

    Args:
        contestants: functions to time.
        rounds: turns per contestant.
        device: where the contestants compute.
        warmup: largest number of warm-up rounds; the warm-up ends earlier once turns get no faster.
        energy: also measure energy, over two more seconds per contestant.
    """
    monitor = watch(device)
    _warm_up(contestants, warmup, device)
    seconds: list[list[float]] = [[] for _ in contestants]
    for _ in range(rounds):
        for contestant, times in zip(contestants, seconds, strict=True):
            times.append(_turn(contestant, device))
    joules = _joules(contestants, device, monitor) if energy else None
    return Race(seconds, monitor.idle(), joules)


def _turn(contestant: Contestant, device: torch.device) -> float:
    """Seconds of one turn; the host waits for the device before and after the turn, never during it."""
    if device.type != "cuda":
        began = time.perf_counter()
        contestant()
        return time.perf_counter() - began
    start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    stream = torch.cuda.current_stream(device)
    torch.cuda.synchronize(device)
    start.record(stream)
    contestant()
    end.record(stream)
    torch.cuda.synchronize(device)
    return float(start.elapsed_time(end)) / 1e3  # from ms


def _warm_up(contestants: Sequence[Contestant], rounds: int, device: torch.device) -> None:
    best, end = [math.inf] * len(contestants), time.perf_counter() + WARM_S
    for _ in range(rounds):
        times = [_turn(contestant, device) for contestant in contestants]
        settled = all(now >= (1 - FASTER) * before for now, before in zip(times, best, strict=True))
        if settled or time.perf_counter() >= end:
            return
        best = list(map(min, best, times))


def _joules(
    contestants: Sequence[Contestant], device: torch.device, monitor: Processors | Gpu
) -> list[float] | None:
    """Mean energy per turn of each contestant, in joules."""
    if math.isnan(monitor.joules()):
        return None
    spent, turns = [0.0] * len(contestants), [0] * len(contestants)
    for _ in range(BLOCKS):
        for i, contestant in enumerate(contestants):
            before, end = monitor.joules(), time.perf_counter() + BLOCK_S
            while True:
                _turn(contestant, device)
                turns[i] += 1
                if time.perf_counter() >= end:
                    break
            spent[i] += monitor.joules() - before
    if min(spent) <= 0:  # the counter does not move
        return None
    return [joules / n for joules, n in zip(spent, turns, strict=True)]
