"""Lanes: networks of one shape that train together, each with its own seed and learning rate."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bnsuite.engine.memory import in_halves, lanes_that_fit
from bnsuite.engine.shapes import check_examples, check_network
from bnsuite.engine.stack import Stack, can_stack
from bnsuite.engine.train import PLAIN, Loss, Sgd, Velocity, accuracy, training_step
from bnsuite.protocol.search import Lane as Lane

TRIED = 32
"""Examples on which `sweep` tries whether networks can be stacked."""

CUDA_CHECK_EVERY = 10
"""Steps between checks for dead lanes on a GPU, where each check waits for the device."""


class Curves(NamedTuple):
    """Learning curves of R lanes, measured before each step: float64 on the CPU, NaN once a lane has ended.

    Attributes:
        losses: (steps, R) mean cross-entropy of the batch.
        accuracies: (steps, R) fraction of the batch classified right; NaN before the last 10 % of steps, and
            where y holds no class indices.
    """

    losses: Tensor
    accuracies: Tensor


def judged_from(steps: int) -> int:
    """Index of the first step that counts for a lane's result: the last 10 % of `steps` do."""
    return steps - max(1, math.ceil(steps / 10))


def final_mean(curve: Tensor) -> list[float]:
    """Mean of a curve (steps, R) over the last 10 % of steps, per lane; not finite for a lane that died."""
    return [float(value) for value in curve[judged_from(len(curve)) :].mean(0)]


Watch = Callable[[int, Stack, list[Lane], Tensor], list[int]]
"""(steps done, stack, lane of each row, losses so far (steps, R)) → rows that have reached their goal.

Lanes that do not fit into memory together start again from step 1, so a watch keeps its state by step number.
"""


@dataclass(frozen=True)
class Examples:
    """Training examples on a device, visited by every seed in its own order.

    Attributes:
        x: inputs (N, …).
        y: labels (N,), or targets (N, …) for a loss of your own.
        batch: examples per step, at least 1.

    Raises:
        ValueError: x and y have different lengths, or the batch is below 1.
    """

    x: Tensor
    y: Tensor
    batch: int

    def __post_init__(self) -> None:
        check_examples(self.x, self.y, labels=False)
        if self.batch < 1:
            raise ValueError(f"a batch has at least 1 example: got {self.batch}")

    def order(self, seed: int, steps: int) -> Tensor:
        """Indices (steps, batch) of the examples of each step: one random permutation per epoch.

        The last batch of an epoch is left out where it would be short.

        Raises:
            ValueError: the batch is larger than the number of examples.
        """
        generator = torch.Generator().manual_seed(seed)
        n = len(self.x)
        if self.batch > n:
            raise ValueError(f"a batch of {self.batch} needs as many examples: got {n}")
        per_epoch = n // self.batch
        epochs = [
            torch.randperm(n, generator=generator)[: per_epoch * self.batch].view(per_epoch, self.batch)
            for _ in range(math.ceil(steps / per_epoch))
        ]
        return torch.cat(epochs)[:steps].to(self.x.device)


def sweep(
    build: Callable[[int], nn.Module],
    lanes: Sequence[Lane],
    examples: Examples,
    steps: int,
    *,
    stacked: bool | None = None,
    sgd: Sgd = PLAIN,
    watch: Watch | None = None,
    loss: Loss | None = None,
) -> Curves:
    """Train every lane for `steps` steps, or until its loss is not finite or `watch` releases it.

    As many lanes train together as fit into memory; their number changes the curves by rounding alone.

    Args:
        build: seed → freshly initialized network, with the device and dtype of the examples.
        lanes: seed and learning rate of each lane; at least one.
        examples: what every lane trains on.
        steps: steps per lane, at least 1.
        stacked: whether the networks may share one call; None: what `can_stack` says of the first lane's
            network.
        sgd: momentum and warm-up.
        watch: called after every step; the rows that it returns have reached their goal and leave.
        loss: (logits (R, N, classes), y (R, N, …)) → loss of each lane (R,); None: mean cross-entropy of
            class indices y (N,).

    Raises:
        ValueError: no lane, no step, labels that are not class indices, or a network with another device or
            dtype than the examples.
    """
    if not lanes or steps < 1:
        raise ValueError(f"a sweep has at least 1 lane and 1 step: got {len(lanes)} lanes and {steps} steps")
    check_examples(examples.x, examples.y, labels=loss is None)
    if stacked is None:
        stacked = can_stack(build(lanes[0].seed), examples.x[:TRIED], examples.y[:TRIED], loss)

    def train(part: Sequence[Lane], steps: int = steps, watch: Watch | None = watch) -> Curves:
        return _together(build, part, examples, steps, stacked=stacked, sgd=sgd, watch=watch, loss=loss)

    if len(lanes) == 1:
        return train(lanes)
    # Two steps: the velocity takes memory from the second step on.
    together = lanes_that_fit(lambda: train(lanes[:1], min(2, steps), None), examples.x.device)
    parts = (lanes[i : i + together] for i in range(0, len(lanes), together))
    curves_of_parts = [curves for part in parts for curves in in_halves(train, part)]
    return Curves(*(torch.cat(curves, 1) for curves in zip(*curves_of_parts, strict=True)))


def _together(
    build: Callable[[int], nn.Module],
    lanes: Sequence[Lane],
    examples: Examples,
    steps: int,
    *,
    stacked: bool,
    sgd: Sgd,
    watch: Watch | None,
    loss: Loss | None,
) -> Curves:
    seeds = sorted({lane.seed for lane in lanes})
    networks = {seed: build(seed) for seed in seeds}
    check_network(networks[seeds[0]], examples.x)
    has_classes = examples.y.dim() == 1 and not examples.y.is_floating_point()
    stack = Stack([networks[lane.seed] for lane in lanes], [lane.seed for lane in lanes], stacked=stacked)
    device, dtype = examples.x.device, examples.x.dtype
    orders = torch.stack([examples.order(seed, steps) for seed in seeds])  # (seeds, steps, batch)
    seed_of = torch.tensor([seeds.index(lane.seed) for lane in lanes], device=device)
    rates = torch.tensor([lane.rate for lane in lanes], device=device, dtype=dtype)
    curves = torch.full((2, steps, len(lanes)), math.nan, device=device, dtype=torch.float64)
    # Lanes that still train, their columns of `curves`, and their own curves.
    rows, columns, own = list(lanes), torch.arange(len(lanes), device=device), curves.clone()
    velocity: Velocity | None = None
    checked = 0  # steps up to the last check for dead lanes
    check_every = CUDA_CHECK_EVERY if device.type == "cuda" else 1

    for step in range(steps):
        chosen = orders[seed_of, step]  # (R, batch)
        x, y, rate = examples.x[chosen], examples.y[chosen], rates * sgd.factor(step)
        stepped = training_step(stack.forward, stack.params, velocity, x, y, rate, sgd.momentum, loss)
        velocity, (losses, accuracies) = stepped.velocity, own
        losses[step] = stepped.losses
        if has_classes and step >= judged_from(steps):
            accuracies[step] = accuracy(stepped.logits, y)

        leaving = watch(step + 1, stack, rows, losses[: step + 1]) if watch else []
        if not leaving and (step + 1) % check_every:
            continue
        unchecked, checked = losses[checked : step + 1], step + 1
        if not leaving and math.isfinite(unchecked.sum()):
            continue
        staying = torch.isfinite(unchecked).all(0)
        staying[leaving] = False
        if not bool(staying.any()):
            break
        curves[..., columns] = own
        stack.keep(staying)
        rows, columns, own = list(compress(rows, staying.tolist())), columns[staying], own[..., staying]
        seed_of, rates = seed_of[staying], rates[staying]
        velocity = velocity and tuple(v[staying] for v in velocity)
    curves[..., columns] = own
    losses, accuracies = curves
    ended = torch.cumsum(~torch.isfinite(losses), 0) > 0
    losses[ended] = accuracies[ended] = math.nan
    return Curves(losses.cpu(), accuracies.cpu())
