"""Lanes: many networks of one shape in training together, one (seed, rate) each."""

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bnsuite.engine.shapes import check_examples, check_network
from bnsuite.engine.stacked import StackedCall, laid
from bnsuite.engine.train import (
    PLAIN,
    Loss,
    Parameters,
    Sgd,
    Velocity,
    accuracy,
    parameters_of,
    training_step,
)
from bnsuite.protocol.search import Lane as Lane

CHUNK = 32
"""Lanes that train together on a CPU, for its caches; more run in turn."""

CUDA_CHUNK = 128
"""The same on a GPU, where its memory holds them: kernels are full, and tensors below 2^31 elements."""

MARGIN = 0.2
"""Share of a GPU's free memory that is left for what one step does not show, such as evaluation."""

EVALUATED = 512
"""Examples that `Stack.evaluate` takes at a time: activations of a whole test set would not fit."""

TRIED = 32
"""Examples on which `sweep` finds out whether networks stack."""

CUDA_CHECK_EVERY = 10
"""Steps between looks for dead lanes on a GPU, where each look waits for the device."""


class Stack:
    """R networks of one architecture behind one call, their trainable parameters (R, *shape) by name.

    Stacked, they share one call (`engine.stacked`); otherwise each network is called in turn with its own
    Python state and random numbers of its own (seed, call), so that dropping lanes shifts nobody's stream.
    """

    def __init__(self, networks: Sequence[nn.Module], seeds: Sequence[int], *, stacked: bool) -> None:
        if not networks or len(networks) != len(seeds):
            raise ValueError(
                f"a stack has at least 1 network and a seed of each: got {len(networks)} networks and "
                f"{len(seeds)} seeds"
            )
        self.params = _stack([parameters_of(network) for network in networks])
        self.stacked = stacked
        if stacked:
            self.params = laid(self.params)
            self._frozen = laid(_stack([_frozen(network) for network in networks]))
            self._template = networks[0]
            self._buffers = _stack([dict(network.named_buffers()) for network in networks])
            self._call = StackedCall(self._template)
        else:
            self._networks = [copy.deepcopy(network) for network in networks]
            self._seeds, self._calls = list(seeds), 0

    def __len__(self) -> int:
        return len(next(iter(self.params.values())))

    def forward(self, params: Parameters, x: Tensor) -> Tensor:
        """params (R, *shape) each, x (R, N, …) → logits (R, N, classes)."""
        if self.stacked:
            return self._call({**self._frozen, **params}, self._buffers, x)
        self._calls += 1
        return torch.stack([self._call_one(i, _row(params, i), x[i]) for i in range(len(x))])

    def _call_one(self, i: int, params: Parameters, x: Tensor) -> Tensor:
        with torch.random.fork_rng():
            torch.manual_seed(self._seeds[i] * 1_000_003 + self._calls)
            logits: Tensor = functional_call(self._networks[i], params, (x,))
            return logits

    def keep(self, staying: Tensor) -> None:
        """Drop every lane but those that the mask (R,) names."""
        self.params = _row(self.params, staying)
        if self.stacked:
            self._frozen, self._buffers = (_row(each, staying) for each in (self._frozen, self._buffers))
        else:
            self._networks = list(compress(self._networks, staying.tolist()))
            self._seeds = list(compress(self._seeds, staying.tolist()))

    def network(self, i: int) -> nn.Module:
        """A network of its own with the parameters and buffers of lane i."""
        network = copy.deepcopy(self._template if self.stacked else self._networks[i])
        state = _row({**self.params, **self._frozen, **self._buffers} if self.stacked else self.params, i)
        with torch.no_grad():
            for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
                tensor.copy_(state.get(name, tensor))
        return network

    @cached_property
    def _evaluating(self) -> StackedCall:
        """Of a template that stays in evaluation mode: to switch one to and fro takes longer than a layer."""
        return StackedCall(copy.deepcopy(self._template).eval())

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> Tensor:
        """Logits (R, N, classes) of every lane on the same x (N, …), in evaluation mode."""
        parts = (part.expand(len(self), *part.shape) for part in torch.split(x, EVALUATED))
        if self.stacked:
            params = {**self._frozen, **self.params}
            return torch.cat([self._evaluating(params, self._buffers, part) for part in parts], 1)
        for network in self._networks:
            network.eval()
        logits = torch.cat([self.forward(self.params, part) for part in parts], 1)
        for network in self._networks:
            network.train()
        return logits


def _frozen(network: nn.Module) -> Parameters:
    return {name: p.detach() for name, p in network.named_parameters() if not p.requires_grad}


def _stack(named: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([each[name] for each in named]) for name in named[0]}


def _row(named: dict[str, Tensor], rows: int | Tensor) -> dict[str, Tensor]:
    """Of every tensor the row, or the rows that a mask names."""
    return {name: tensor[rows] for name, tensor in named.items()}


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


def can_stack(network: nn.Module, x: Tensor, y: Tensor, loss: Loss | None = None) -> bool:
    """Whether copies, stacked, take the same two steps as the loop over each; x (N, …), y (N,).

    Modules that branch on their data, keep Python state or draw random numbers do not. One of three
    copies is dropped between the steps: state that is no buffer would not be dropped with it.

    Args:
        network: in training mode, with the device and dtype of x; left as it was.
        x, y: examples to try it on.
        loss: as that of `sweep`.

    Raises:
        ValueError: sizes, labels, device or dtype that cannot be.
    """
    check_examples(x, y, labels=loss is None)
    check_network(network, x)

    def two_steps(stacked: bool) -> Tensor:
        stack = Stack([network] * 3, [0] * 3, stacked=stacked)
        rates = torch.tensor([1e-3, 3e-3, 1e-2], device=x.device, dtype=x.dtype)
        for staying in ([True, False, True], [True, True]):
            xs, ys = (tensor.expand(len(stack), *tensor.shape) for tensor in (x, y))
            training_step(stack.forward, stack.params, None, xs, ys, rates, 0.0, loss)
            mask = torch.tensor(staying, device=x.device)
            stack.keep(mask)
            rates = rates[mask]
        tensors = [*stack.params.values(), stack.evaluate(x)]
        return torch.cat([tensor.reshape(len(stack), -1) for tensor in tensors], 1)

    alone = two_steps(False)
    try:
        return torch.allclose(two_steps(True), alone, rtol=1e-3, atol=1e-4, equal_nan=True)
    except Exception:  # whatever foreign code raises under vmap, the answer is the same
        return False
