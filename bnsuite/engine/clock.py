"""Timing: contestants take turns on one device, so that a drift of its speed hits both alike."""

import math
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import NamedTuple

import torch

from bnsuite.engine.monitor import Gpu, Processors, watch

DRIFT = 0.1
"""Relative change of a contestant's own time between the halves of a race that raises the flag."""

FASTER = 0.05
"""A device is warm after a round in which no contestant was faster than ever before by more than this."""

WARM_ROUNDS, WARM_S = 10, 5.0
"""A warm-up ends after so many rounds, or the round in which so many seconds have passed, in any case."""

BLOCKS, BLOCK_S = 2, 1.0
"""Blocks of turns in a row, of which the energy is read: NVML's counter moves some ten times a second."""

Contestant = Callable[[], object]


class Race(NamedTuple):
    """Seconds a round of each contestant, in turn.

    They are figures of the device where it was idle and the contestant did not drift; ratios stand anyhow.
    """

    seconds: list[list[float]]  # [contestant][round]
    idle: bool | None = None  # None: not known
    joules: list[float] | None = None  # [contestant], mean of a turn; None where nobody counts

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
    contestants: Sequence[Contestant],
    rounds: int,
    device: torch.device,
    warmup: int = WARM_ROUNDS,
    energy: bool = False,
) -> Race:
    """Run the contestants in turn for a number of rounds, once the device is warm.

    On CUDA a turn is timed by events on the current stream, elsewhere by wall time.

    Args:
        warmup: rounds at most; fewer where the turns do not get faster any more.
        energy: whether to read it too, over two seconds of more turns of each contestant.
    """
    watched = watch(device)
    _warm_up(contestants, warmup, device)
    seconds: list[list[float]] = [[] for _ in contestants]
    for _ in range(rounds):
        for contestant, times in zip(contestants, seconds, strict=True):
            times.append(_turn(contestant, device))
    joules = _joules(contestants, device, watched) if energy else None
    return Race(seconds, watched.idle(), joules)


def _turn(contestant: Contestant, device: torch.device) -> float:
    """Seconds of one turn; the host waits for the device before and after, never within."""
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
    contestants: Sequence[Contestant], device: torch.device, watched: Processors | Gpu
) -> list[float] | None:
    """Mean energy of a turn of each."""
    if math.isnan(watched.joules()):
        return None
    spent, turns = [0.0] * len(contestants), [0] * len(contestants)
    for _ in range(BLOCKS):
        for i, contestant in enumerate(contestants):
            before, end = watched.joules(), time.perf_counter() + BLOCK_S
            while True:
                _turn(contestant, device)
                turns[i] += 1
                if time.perf_counter() >= end:
                    break
            spent[i] += watched.joules() - before
    found = [energy / n for energy, n in zip(spent, turns, strict=True)]
    return found if all(energy > 0 for energy in found) else None  # a counter that stands still tells nothing
