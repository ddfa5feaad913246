"""One training step of SGD, and the training loop of a single network.

A step takes the parameters of one network, or the stacked parameters of R networks (lanes), each (R, *shape):
the gradient of the summed losses is, lane by lane, the gradient of each lane's own loss. Shapes write
(*lanes, …) for both.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from bnsuite.engine.shapes import check_examples, check_network

Parameters = dict[str, Tensor]
"""Parameters by name, each (*lanes, *shape)."""

Velocity = tuple[Tensor, ...]
"""Velocity of each parameter, in their order and with their shapes."""

Forward = Callable[[Parameters, Tensor], Tensor]
"""Forward pass (params, x (*lanes, N, …)) → logits (*lanes, N, classes)."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Loss function (logits (*lanes, N, classes), y (*lanes, N)) → losses (*lanes,)."""


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent with Nesterov momentum m: v ← m v + g, θ ← θ − η_t (g + m v).

    η_t rises linearly over the first `warmup` steps and is constant after them.
    """

    momentum: float = 0.0
    warmup: int = 0

    def factor(self, step: int) -> float:
        """η_t / η at step t, counted from 0."""
        return min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0


PLAIN = Sgd()
"""Plain SGD at a constant rate: θ ← θ − η g."""


class Stepped(NamedTuple):
    """Result of one step: the next velocity, and losses and logits from before the step."""

    velocity: Velocity | None
    losses: Tensor  # (*lanes,)
    logits: Tensor  # (*lanes, N, classes)


def training_step(
    forward: Forward,
    params: Parameters,
    velocity: Velocity | None,
    x: Tensor,
    y: Tensor,
    rate: Tensor,
    momentum: float,
    loss: Loss | None = None,
) -> Stepped:
    """Take one step of SGD; changes the parameters in place, and buffers as the forward pass does.

    Args:
        forward: forward pass.
        params: parameters by name, each (*lanes, *shape).
        velocity: velocity from the last step; None before the first one.
        x: inputs (*lanes, N, …).
        y: labels (*lanes, N).
        rate: learning rates (*lanes,).
        momentum: Nesterov momentum; 0: none.
        loss: loss function; None: mean cross-entropy.

    Raises:
        ValueError: the loss does not give one number per lane.
    """
    leaves = {name: p.detach().requires_grad_() for name, p in params.items()}
    logits = forward(leaves, x)
    losses = (loss or mean_cross_entropy)(logits, y)
    if losses.dim() != rate.dim():
        raise ValueError(
            f"a loss gives one number per lane, {tuple(rate.shape)}: got {tuple(losses.shape)}. Average over "
            "the examples of each lane alone."
        )
    gradient = torch.autograd.grad(losses.sum(), list(leaves.values()), materialize_grads=True)
    with torch.no_grad():
        if momentum:
            velocity = torch._foreach_add(gradient, velocity, alpha=momentum) if velocity else gradient
            gradient = torch._foreach_add(gradient, velocity, alpha=momentum)
        dims = {p.dim() for p in params.values()}
        etas = {dim: rate.view(rate.shape + (1,) * (dim - rate.dim())) for dim in dims}
        for p, g in zip(params.values(), gradient, strict=True):
            p.addcmul_(g, etas[p.dim()], value=-1)
        return Stepped(velocity, losses.detach(), logits.detach())


def mean_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean over N of −log softmax(logits)_y, in nats: (*lanes, N, classes), (*lanes, N) → (*lanes,)."""
    # Transposed, since softmax over few classes takes three times as long along the last axis.
    columns = logits.reshape(-1, *logits.shape[-2:]).mT
    return F.cross_entropy(columns, y.reshape(-1, y.shape[-1]), reduction="none").mean(-1).view(y.shape[:-1])


def accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Fraction of the N examples classified correctly: (*lanes, N, classes), (*lanes, N) → (*lanes,)."""
    return (logits.argmax(-1) == y).double().mean(-1)  # in float64, where 342 of 360 is 0.95 and not less


def trainable(network: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters with `requires_grad` by name; a parameter with several names appears once.

    Raises:
        ValueError: a parameter has a hook, which this engine would skip; or no parameter requires a gradient.
    """
    named = dict(network.named_parameters())
    for name, p in named.items():
        if p._backward_hooks or p._post_accumulate_grad_hooks:
            raise ValueError(
                f"parameter {name} has a hook, which training here would skip. Change the gradient in an "
                "autograd.Function, or freeze the parameter by requires_grad_(False)."
            )
    moving = {name: p for name, p in named.items() if p.requires_grad}
    if not moving:
        raise ValueError(
            f"none of {len(named)} parameters is trainable. Leave requires_grad=True for one at least."
        )
    return moving


def parameters_of(network: nn.Module) -> Parameters:
    """Detached `trainable` parameters of a network, by name."""
    return {name: p.detach() for name, p in trainable(network).items()}


def vector_of(network: nn.Module) -> Tensor:
    """Detached `trainable` parameters of a network as one vector (P,)."""
    return torch.cat([p.flatten() for p in parameters_of(network).values()])


def train(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], rate: float, sgd: Sgd = PLAIN
) -> Tensor:
    """Train one network in place; returns the losses (steps,) before each step.

    Args:
        network: in training mode.
        batches: (x (N, …), y (N,)) of each step; at least one.
        rate: learning rate.
        sgd: momentum and warm-up.

    Raises:
        ValueError: no batch; or sizes, labels, device or dtype do not match.
    """
    params = parameters_of(network)
    velocity: Velocity | None = None
    losses = []
    for step, (x, y) in enumerate(batches):
        if step == 0:
            check_examples(x, y, wait=False)
            check_network(network, x)
        eta = x.new_full((), rate * sgd.factor(step))  # new_tensor would wait for a GPU
        stepped = training_step(
            lambda params, x: functional_call(network, params, (x,)),
            params,
            velocity,
            x,
            y,
            eta,
            sgd.momentum,
        )
        velocity = stepped.velocity
        losses.append(stepped.losses)
    if not losses:
        raise ValueError("training takes at least 1 batch: got none")
    return torch.stack(losses)
