"""One pure training step, and the loop over one network.

The step works on a flat parameter vector (P,) of one network or on a matrix (R, P) of R stacked ones:
the gradient of the summed losses is, row by row, the gradient of each lane's own loss.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

Forward = Callable[[Tensor, Tensor], Tensor]
"""(params (*lanes, P), x (*lanes, N, …)) → logits (*lanes, N, classes)"""


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent with Nesterov momentum m: v ← m v + g, θ ← θ − η_t (g + m v).

    η_t rises linearly over the first `warmup` steps and is constant after.
    """

    momentum: float = 0.0
    warmup: int = 0

    def factor(self, step: int) -> float:
        """η_t / η at step t, from 0."""
        return min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0


PLAIN = Sgd()
"""Plain SGD at a constant rate: θ ← θ − η g."""


class Stepped(NamedTuple):
    """What one step returns: the next parameters and velocity; loss and accuracy before the step."""

    params: Tensor  # (*lanes, P)
    velocity: Tensor | None  # (*lanes, P)
    losses: Tensor  # (*lanes,)
    accuracies: Tensor  # (*lanes,)


def training_step(
    forward: Forward,
    params: Tensor,
    velocity: Tensor | None,
    x: Tensor,
    y: Tensor,
    rate: Tensor,
    momentum: float,
) -> Stepped:
    """One step of SGD on mean cross-entropy; x (*lanes, N, …), y (*lanes, N), rate (*lanes,).

    Pure but for buffers: a forward pass in training mode updates running statistics where they lie.
    """
    params = params.detach().requires_grad_()
    logits = forward(params, x)
    losses = mean_cross_entropy(logits, y)
    (gradient,) = torch.autograd.grad(losses.sum(), params)
    with torch.no_grad():
        if momentum:
            velocity = gradient if velocity is None else momentum * velocity + gradient
            gradient = gradient + momentum * velocity
        moved = torch.addcmul(params, gradient, rate.unsqueeze(-1), value=-1)
        return Stepped(moved, velocity, losses.detach(), accuracy(logits, y))


def mean_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean over N of −log softmax(logits)_y, in nats: (*lanes, N, classes), (*lanes, N) → (*lanes,)."""
    return F.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction="none").view(y.shape).mean(-1)


def accuracy(logits: Tensor, y: Tensor) -> Tensor:
    """Fraction of N classified right: (*lanes, N, classes), (*lanes, N) → (*lanes,)."""
    return (logits.argmax(-1) == y).to(logits.dtype).mean(-1)


def parameter_vector(network: nn.Module) -> Tensor:
    """All parameters of a network as one vector (P,), in the order of `named_parameters`."""
    return torch.cat([p.detach().flatten() for p in network.parameters()])


class Layout(NamedTuple):
    """Where each parameter of a network lies in its vector, so that no step has to walk the modules."""

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    sizes: tuple[int, ...]
    tied: bool  # a parameter goes by several names

    @classmethod
    def of(cls, network: nn.Module) -> "Layout":
        named = dict(network.named_parameters())
        shapes = tuple(p.shape for p in named.values())
        names = [name for name, _ in network.named_parameters(remove_duplicate=False)]
        return cls(tuple(named), shapes, tuple(map(torch.Size.numel, shapes)), len(names) > len(named))


def unflatten(params: Tensor, layout: Layout) -> dict[str, Tensor]:
    """Views of a vector (*lanes, P) as parameters by name, each (*lanes, *shape)."""
    parts = torch.split(params, list(layout.sizes), dim=-1)
    lanes = params.shape[:-1]
    named = zip(layout.names, parts, layout.shapes, strict=True)
    return {name: part.view(lanes + shape) for name, part, shape in named}


def call(network: nn.Module, params: Tensor, x: Tensor, layout: Layout | None = None) -> Tensor:
    """Logits of one network at the parameters given as a vector (P,)."""
    layout = layout or Layout.of(network)
    named = unflatten(params, layout)
    logits: Tensor = functional_call(network, named, (x,), tie_weights=layout.tied)
    return logits


def train(
    network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], rate: float, sgd: Sgd = PLAIN
) -> Tensor:
    """The loop over one network, which is changed in place: losses (steps,) before each step."""
    params, velocity, layout = parameter_vector(network), None, Layout.of(network)
    losses = []
    for step, (x, y) in enumerate(batches):
        eta = params.new_tensor(rate * sgd.factor(step))
        stepped = training_step(
            lambda params, x: call(network, params, x, layout), params, velocity, x, y, eta, sgd.momentum
        )
        params, velocity = stepped.params, stepped.velocity
        losses.append(stepped.losses)
    load_vector(network, params)
    return torch.stack(losses)


def load_vector(network: nn.Module, params: Tensor) -> None:
    """Write a vector (P,) into a network's parameters."""
    with torch.no_grad():
        named = dict(network.named_parameters())
        for name, value in unflatten(params, Layout.of(network)).items():
            named[name].copy_(value)
