"""Race over one depth of a sweep: a plain loop with torch.optim.SGD against lanes.

MLP of 32 layers, width 64, digits, batch 128: 9 half-decade rates × 2 seeds. Both sides train equal networks
on equal batches, and take turns in one process. Networks are drawn once, outside the clock. On a CPU each
side runs on one thread and on all threads; on a GPU the loop runs with each of torch's two fast kernels for
SGD; the better setting counts. Both sides run in the environment that `bnsuite` gives its workers.
"""

import copy
import math
import os
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import NamedTuple

import torch
import torch.nn.functional as F
from as_worker import start_again_as_a_worker
from options import Options, count, machine, write
from torch import Tensor, nn

from bnsuite.datasets import digits
from bnsuite.engine.clock import race
from bnsuite.engine.lanes import CUDA_CHECK_EVERY, Curves, Examples, Lane, judged_from, sweep
from bnsuite.engine.train import accuracy
from bnsuite.execute.provenance import reproducible
from bnsuite.networks import FAMILIES
from bnsuite.protocol.search import grid
from bnsuite.schemes import SCHEMES, Scheme

BATCH = 128
LOWEST, DECADES = 1e-3, 4
"""Lowest learning rate, and the number of decades that the rates span."""

SEEDS = (1, 2)

EARLY = 5
"""Steps over which both sides' losses must agree, in float64; training amplifies rounding after."""

TOLERANCE = 1e-6
"""Largest relative difference of losses that counts as agreement."""

Build = Callable[[int], nn.Module]
Side = Callable[[Build, Examples, Sequence[Lane], int], Curves]


class Size(NamedTuple):
    """Size of the networks, and their number, which is even."""

    depth: int = 32
    width: int = 64
    lanes: int = 18

    def __str__(self) -> str:
        return f"{self.lanes} lanes, {self.depth} layers of width {self.width}"

    def grid(self) -> list[Lane]:
        """Lanes at rates that are evenly spaced in their logarithm, one lane per rate and seed."""
        n = self.lanes // len(SEEDS)
        rates = [LOWEST * 10 ** (DECADES * k / max(n - 1, 1)) for k in range(n)]
        return grid(rates, SEEDS)


def pairs(text: str) -> int:
    """Parse a number of lanes: a multiple of the number of seeds."""
    if count(text) % len(SEEDS):
        raise ArgumentTypeError(f"wanted an even number: got {text!r}")
    return int(text)


def loop(build: Build, examples: Examples, lanes: Sequence[Lane], steps: int, **sgd: bool) -> Curves:
    """Train networks one after the other, until the loss is not finite; checks that as often as lanes do.

    Args:
        build: seed → network.
        examples: what they train on.
        lanes: seed and learning rate of each network.
        steps: steps per network.
        sgd: options of torch.optim.SGD.
    """
    losses = torch.full((steps, len(lanes)), math.nan, device=examples.x.device, dtype=torch.float64)
    accuracies = losses.clone()
    look_every = CUDA_CHECK_EVERY if examples.x.is_cuda else 1
    for i, lane in enumerate(lanes):
        network = build(lane.seed)
        optimizer = torch.optim.SGD(network.parameters(), lr=lane.rate, **sgd)
        for step, chosen in enumerate(examples.order(lane.seed, steps)):
            x, y = examples.x[chosen], examples.y[chosen]
            logits = network(x)
            loss = F.cross_entropy(logits, y)
            losses[step, i] = loss.detach()
            if step >= judged_from(steps):
                accuracies[step, i] = accuracy(logits, y)
            if (step + 1) % look_every == 0 and not torch.isfinite(loss):
                break
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return Curves(losses.cpu(), accuracies.cpu())


def together(build: Build, examples: Examples, lanes: Sequence[Lane], steps: int) -> Curves:
    """Train all networks together, as stacked lanes.

    Args:
        build: seed → network.
        examples: what they train on.
        lanes: seed and learning rate of each network.
        steps: steps per network.
    """
    return sweep(build, lanes, examples, steps, stacked=True)


class Rung(NamedTuple):
    """Training problem: seed → network, examples, and lanes."""

    build: Build
    examples: Examples
    lanes: Sequence[Lane]


@dataclass
class Contestant:
    """Loop or lanes in one setting, with the losses of the last run."""

    name: str
    setting: str
    side: Side
    rung: Rung
    steps: int
    threads: int = 1
    losses: Tensor = field(default_factory=lambda: torch.empty(0))  # (steps, lanes)

    def __call__(self) -> None:
        torch.set_num_threads(self.threads)
        self.losses = self.side(*self.rung, self.steps).losses


class Entry(NamedTuple):
    """Side in its better setting; spread is (slowest − fastest) / median over the rounds."""

    place: int  # among the contestants
    setting: str
    seconds: float
    fastest: float
    spread: float
    losses: Tensor  # (steps, lanes)


def rung(scheme: Scheme, size: Size, device: torch.device, dtype: torch.dtype = torch.float32) -> Rung:
    """Build networks, examples and lanes of one scheme.

    Args:
        scheme: the scheme.
        size: size and number of the networks.
        device: where they train.
        dtype: their precision.
    """
    data = digits().to(device)

    def draw(seed: int) -> nn.Module:
        network = FAMILIES["mlp"].build(
            scheme, size.depth, width=size.width, shape=data.shape, classes=data.classes, seed=seed
        )
        return network.to(device, dtype)

    drawn = {seed: draw(seed) for seed in SEEDS}
    examples = Examples(data.train_x.to(dtype), data.train_y, BATCH)
    return Rung(lambda seed: copy.deepcopy(drawn[seed]), examples, size.grid())


def contestants(rung: Rung, steps: int) -> list[Contestant]:
    """List both sides in every setting."""
    if rung.examples.x.is_cuda:
        return [
            Contestant("loop", "foreach", partial(loop, foreach=True), rung, steps),
            Contestant("loop", "fused", partial(loop, fused=True), rung, steps),
            Contestant("lanes", "–", together, rung, steps),
        ]
    return [
        Contestant(name, str(threads), side, rung, steps, threads)
        for threads in sorted({1, os.cpu_count() or 1})
        for name, side in (("loop", loop), ("lanes", together))
    ]


def measure(
    scheme: Scheme, size: Size, steps: int, rounds: int, device: torch.device
) -> tuple[Entry, Entry, float]:
    """Results of loop and lanes, and the median over rounds of the ratio of their seconds.

    Args:
        scheme: the scheme.
        size: size and number of the networks.
        steps: steps per network.
        rounds: turns of each contestant.
        device: where they train.
    """
    trained = rung(scheme, size, device)
    race(contestants(trained, min(steps, 3)), 1, device, warmup=0)
    rivals = contestants(trained, steps)
    times = race(rivals, rounds, device, warmup=0)

    def best(name: str) -> Entry:
        i = min((i for i, rival in enumerate(rivals) if rival.name == name), key=times.median)
        spread = (max(times.seconds[i]) - min(times.seconds[i])) / median(times.seconds[i])
        return Entry(i, rivals[i].setting, times.median(i), min(times.seconds[i]), spread, rivals[i].losses)

    a, b = best("loop"), best("lanes")
    return a, b, times.ratio(a.place, b.place)


def early_difference(scheme: Scheme, size: Size, device: torch.device) -> float:
    """Largest relative difference of early losses, in float64; inf if one side alone is finite.

    Args:
        scheme: the scheme.
        size: size and number of the networks.
        device: where they train.
    """
    both = rung(scheme, size, device, torch.float64)
    one, other = (side(*both, EARLY).losses for side in (loop, together))
    ended = ~torch.isfinite(one) & ~torch.isfinite(other)
    return float(_difference(one, other).masked_fill(ended, 0.0).nan_to_num(nan=math.inf).max())


@dataclass(frozen=True)
class Row:
    """Result of a scheme on both sides, each in its better setting."""

    scheme: str
    loop_s: float
    loop_setting: str
    lanes_s: float
    lanes_setting: str
    ratio: float  # loop / lanes, the median over rounds
    fastest: float  # ratio of the fastest rounds
    early_difference: float
    late_difference: float
    finite: int  # lanes, of both sides


def late_difference(one: Tensor, other: Tensor) -> tuple[float, int]:
    """Median difference of losses (steps, lanes) at the last step, and the number of lanes that it is over.

    Lanes count that are finite on both sides.
    """
    survivors = _difference(one[-1], other[-1])
    survivors = survivors[torch.isfinite(survivors)]
    return float(survivors.median()) if len(survivors) else math.nan, len(survivors)


def _difference(one: Tensor, other: Tensor) -> Tensor:
    """Relative difference of losses; a loss below 1e-3 counts as 1e-3."""
    return (one - other).abs() / one.abs().clamp(min=1e-3)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and write it as JSON; returns 1 if the sides disagree."""
    parser = Options(__doc__, rounds=9)
    parser.add_argument("--steps", type=count, default=20, help="of each network, in each round")
    default = Size()
    parser.add_argument("--depth", type=count, default=default.depth, help="layers of a network")
    parser.add_argument("--width", type=count, default=default.width, help="of a layer")
    parser.add_argument("--lanes", type=pairs, default=default.lanes, help="networks, two a rate")
    options, device = parser.on_device(arguments)
    size = Size(options.depth, options.width, options.lanes)
    threads = torch.get_num_threads()

    setting = "SGD" if device.type == "cuda" else "threads"
    print(machine(device, f"{os.cpu_count()} cores"))
    print(f"{size}, {options.steps} steps, n = {options.rounds} rounds")
    print(
        f"{'scheme':<20}{'loop s':>9}{setting:>9}{'spread':>8}{'lanes s':>9}{setting:>9}{'spread':>8}"
        f"{'ratio':>7}{'fastest':>9}{'early diff':>12}{'late diff':>11}{'finite':>8}"
    )
    rows: list[Row] = []
    for name in options.schemes:
        with reproducible(device):
            early = early_difference(SCHEMES[name], size, device)
            a, b, ratio = measure(SCHEMES[name], size, options.steps, options.rounds, device)
        late, survivors = late_difference(a.losses, b.losses)
        fastest = a.fastest / b.fastest
        rows.append(
            Row(name, a.seconds, a.setting, b.seconds, b.setting, ratio, fastest, early, late, survivors)
        )
        print(
            f"{name:<20}{a.seconds:>9.2f}{a.setting:>9}{a.spread:>8.0%}"
            f"{b.seconds:>9.2f}{b.setting:>9}{b.spread:>8.0%}"
            f"{ratio:>7.2f}{fastest:>9.2f}{early:>12.1e}{late:>11.1e}{survivors:>8}",
            flush=True,
        )
    torch.set_num_threads(threads)
    write(rows, options.json)
    agree = all(row.early_difference <= TOLERANCE for row in rows)
    print(
        "ratio: loop / lanes, median over rounds. fastest: the same of the fastest rounds, which a busy\n"
        "machine disturbs least. spread: (slowest - fastest) / median. Differences of losses are relative:\n"
        f"early the largest over {EARLY} steps in float64 (at most {TOLERANCE:g}: "
        f"{'yes' if agree else 'NO'}), late the median\nat the last step over the lanes finite on both sides."
    )
    return 0 if agree else 1


if __name__ == "__main__":
    start_again_as_a_worker()
    raise SystemExit(main())
