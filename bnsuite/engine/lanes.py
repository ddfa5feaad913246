"""Lanes: many networks of one shape in training together, one (seed, rate) each."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bnsuite.engine.shapes import check_examples, check_network
from bnsuite.engine.stack import Stack, can_stack
from bnsuite.engine.train import PLAIN, Loss, Sgd, Velocity, accuracy, training_step
from bnsuite.protocol.search import Lane as Lane

CHUNK = 32
"""Lanes that train together on a CPU, for its caches; more run in turn."""

CUDA_CHUNK = 128
"""The same on a GPU, where its memory holds them: kernels are full, and tensors below 2^31 elements."""

MARGIN = 0.2
"""Share of a GPU's free memory that is left for what one step does not show, such as evaluation."""

TRIED = 32
"""Examples on which `sweep` finds out whether networks stack."""

CUDA_CHECK_EVERY = 10
"""Steps between looks for dead lanes on a GPU, where each look waits for the device."""


class Curves(NamedTuple):
    """What lanes went through, before each step: float64 on the CPU, NaN from a lane's end on.

    Attributes:
        losses: (steps, R) mean cross-entropy of the batch.
        accuracies: (steps, R) fraction of the batch classified right; NaN before the last 10 % of steps, and
            where y holds no class indices.
    """

    losses: Tensor
    accuracies: Tensor


def judged_from(steps: int) -> int:
    """The first of the last 10 % of steps, by which a lane is judged."""
    return steps - max(1, math.ceil(steps / 10))


def final(curve: Tensor) -> list[float]:
    """Mean over the last 10 % of steps of (steps, R), a number a lane; not finite for a lane that died."""
    return [float(value) for value in curve[judged_from(len(curve)) :].mean(0)]


Watch = Callable[[int, Stack, list[Lane], Tensor], list[int]]
"""(steps done, stack, lane of each row, losses so far (steps, R)) → rows that have reached their goal.

Lanes that memory does not hold together start again, from step 1: what a watch keeps goes by the step.
"""


@dataclass(frozen=True)
class Examples:
    """Training examples on a device: x (N, …), y (N,); every seed visits them in its own order.

    Raises:
        ValueError: x and y of different lengths, or a batch below 1.
    """

    x: Tensor
    y: Tensor
    batch: int

    def __post_init__(self) -> None:
        check_examples(self.x, self.y, labels=False)
        if self.batch < 1:
            raise ValueError(f"a batch has at least 1 example: got {self.batch}")

    def order(self, seed: int, steps: int) -> Tensor:
        """Indices (steps, batch): epoch after epoch of random permutations, the short batch left out."""
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
    """Train every lane for `steps` steps, or until its loss is not finite or `watch` lets it go.

    As many train together as memory holds; that changes their curves by rounding alone.

    Args:
        build: a freshly initialized network of a seed, with the device and dtype of the examples.
        lanes: seed and learning rate of each; at least one.
        steps: of each lane, at least 1.
        stacked: whether the networks may share one `vmap`; None: as `can_stack` finds for the first lane's.
        sgd: momentum and warm-up.
        watch: called after every step; the rows that it returns have reached their goal and leave.
        loss: of each lane, (logits (R, N, classes), y (R, N, …)) → (R,); None: mean cross-entropy of class
            indices y (N,).

    Raises:
        ValueError: no lane, no step, labels that are not class indices, or a network of another device or
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
    # the velocity is there from the second step on
    at_once = _at_once(lambda: train(lanes[:1], min(2, steps), None), examples.x.device)
    parts = (lanes[i : i + at_once] for i in range(0, len(lanes), at_once))
    return _joined(_halving(train, part) for part in parts)


def _at_once(one: Callable[[], object], device: torch.device) -> int:
    """How many lanes train together; on a GPU by its free memory and the peak of training one."""
    if device.type != "cuda":
        return CHUNK
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    one()
    each = torch.cuda.max_memory_allocated(device) - before
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's, and idle
    free = torch.cuda.mem_get_info(device)[0] + unused
    return max(1, min(CUDA_CHUNK, int((1 - MARGIN) * free / each)))


def _halving(train: Callable[[Sequence[Lane]], Curves], lanes: Sequence[Lane]) -> Curves:
    """Curves of lanes that train together, or, where memory runs out, in halves one after the other."""
    try:
        return train(lanes)
    except torch.OutOfMemoryError:
        if len(lanes) == 1:
            raise
    # only here the error is gone, and with it the tensors that its frames held
    middle = len(lanes) // 2
    return _joined(_halving(train, half) for half in (lanes[:middle], lanes[middle:]))


def _joined(parts: Iterable[Curves]) -> Curves:
    return Curves(*(torch.cat(curves, 1) for curves in zip(*parts, strict=True)))


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
    rows, alive, own = list(lanes), torch.arange(len(lanes), device=device), curves.clone()
    velocity: Velocity | None = None
    looked = 0  # steps up to the last look for dead lanes
    look_every = CUDA_CHECK_EVERY if device.type == "cuda" else 1

    for step in range(steps):
        chosen = orders[seed_of, step]  # (R, batch)
        x, y, rate = examples.x[chosen], examples.y[chosen], rates * sgd.factor(step)
        stepped = training_step(stack.forward, stack.params, velocity, x, y, rate, sgd.momentum, loss)
        velocity, (losses, accuracies) = stepped.velocity, own
        losses[step] = stepped.losses
        if has_classes and step >= judged_from(steps):
            accuracies[step] = accuracy(stepped.logits, y)

        leaving = watch(step + 1, stack, rows, losses[: step + 1]) if watch else []
        if not leaving and (step + 1) % look_every:
            continue
        lately, looked = losses[looked : step + 1], step + 1
        if not leaving and math.isfinite(lately.sum()):
            continue
        staying = torch.isfinite(lately).all(0)
        staying[leaving] = False
        if not bool(staying.any()):
            break
        curves[..., alive] = own
        stack.keep(staying)
        rows, alive, own = list(compress(rows, staying.tolist())), alive[staying], own[..., staying]
        seed_of, rates = seed_of[staying], rates[staying]
        velocity = velocity and tuple(v[staying] for v in velocity)
    curves[..., alive] = own
    losses, accuracies = curves
    ended = torch.cumsum(~torch.isfinite(losses), 0) > 0
    losses[ended] = accuracies[ended] = math.nan
    return Curves(losses.cpu(), accuracies.cpu())
