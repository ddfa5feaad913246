"""Families: how a network is built from a scheme and a depth, exactly by the protocol's equations."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from bnsuite.schemes import Factory, Scheme

POOL_ABOVE = 16
"""Image side above which the `cnn` pools once, 2×2, after its stem."""


Apply = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
"""(part of a network, h) → what the part makes of h"""


class UnsupportedError(Exception):
    """The scheme cannot be built for this family: a result, not a failure."""


class Network(nn.Module):
    """depth hidden weight layers around a scheme: x (N, *input) → logits (N, classes)."""

    def __init__(
        self,
        scheme: Scheme,
        layers: list[nn.Module],
        width: int,
        classes: int,
        activation: Factory,
        prepare: Callable[[Tensor], Tensor],
        pool: nn.Module,
        gather: Callable[[Tensor], Tensor],
    ) -> None:
        super().__init__()
        depth = len(layers)
        norm = scheme.norm or nn.Identity
        self.skip = scheme.skip
        self.stem, self.layers = layers[0], nn.ModuleList(layers[1:])
        self.norms = nn.ModuleList(norm(width) for _ in range(depth - (self.skip == "post")))
        self.activations = nn.ModuleList((scheme.activation or activation)(width) for _ in range(depth))
        self.branches = nn.ModuleList(_branch(scheme, width, depth) for _ in range(depth - 1))
        self.head = nn.Linear(width, classes)
        self.pool = pool
        self._prepare, self._gather = prepare, gather

    def forward(self, x: Tensor) -> Tensor:
        return self.compose(x, lambda part, h: part(h))

    def compose(self, x: Tensor, apply: Apply, hidden: list[Tensor] | None = None) -> Tensor:
        """The forward pass with every part called by `apply`, for one network or for stacked ones.

        `hidden`, where one is given, takes h_1 … h_L.
        """
        hidden = [] if hidden is None else hidden
        h = apply(self.pool, apply(self.stem, apply(self._prepare, x)))
        *inner, last = self.activations
        for i, (layer, phi, branch) in enumerate(zip(self.layers, inner, self.branches, strict=True)):
            hidden.append(h)
            if self.skip == "none":
                h = apply(layer, apply(phi, apply(self.norms[i], h)))
            elif self.skip == "pre":
                h = h + apply(branch, apply(layer, apply(phi, apply(self.norms[i], h))))
            else:
                h = apply(self.norms[i], h + apply(branch, apply(layer, apply(phi, h))))
        hidden.append(h)
        if self.skip != "post":
            h = apply(self.norms[-1], h)
        return apply(self.head, apply(self._gather, apply(last, h)))


class Scale(nn.Module):
    """A fixed branch scale: α x."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * x


def _branch(scheme: Scheme, width: int, depth: int) -> nn.Module:
    if callable(scheme.branch):
        return scheme.branch(width, depth)
    return nn.Identity() if scheme.branch == 1.0 else Scale(scheme.branch)


@dataclass(frozen=True)
class Family:
    """A way to build networks; `layers` makes the depth hidden weight layers."""

    name: str
    about: str
    layers: Callable[[int, int, torch.Size], list[nn.Module]]
    prepare: Callable[[Tensor], Tensor]
    gather: Callable[[Tensor], Tensor]
    pools: bool = False

    def build(
        self,
        scheme: Scheme,
        depth: int,
        *,
        width: int,
        shape: torch.Size,
        classes: int,
        seed: int,
        activation: Factory | None = None,
    ) -> Network:
        """A network of `depth` hidden weight layers, initialized by `seed` alone.

        Hidden weights are He normal (fan-in), the readout's LeCun normal, biases 0. They are drawn
        after everything else was built, so that two schemes at one seed start from the same weights.

        Args:
            shape: (channels, height, width) of one input.
            activation: φ from `num_features`; ReLU by default. A scheme with its own keeps it.

        Raises:
            UnsupportedError: the scheme's parts refuse this width, with a ValueError.
            ValueError: depth below 1.
        """
        if depth < 1:
            raise ValueError(f"a network has at least 1 hidden layer: got depth {depth}")
        pool = nn.AvgPool2d(2) if self.pools and shape[-1] > POOL_ABOVE else nn.Identity()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                layers = self.layers(depth, width, shape)
                network = Network(
                    scheme,
                    layers,
                    width,
                    classes,
                    activation or relu,
                    self.prepare,
                    pool,
                    self.gather,
                )
            except ValueError as error:
                raise UnsupportedError(f"{scheme.name} cannot be built for {self.name}: {error}") from error
            _initialize(layers, network.head, seed)
            if scheme.init is not None:
                scheme.init(network)
            if scheme.weight is not None:
                network.stem = scheme.weight(network.stem)
                network.layers = nn.ModuleList(map(scheme.weight, network.layers))
        return network


def relu(num_features: int) -> nn.Module:
    """φ(x) = max(x, 0), of every task but the curvature ones."""
    return nn.ReLU()


def softplus(num_features: int) -> nn.Module:
    """φ(x) = ln(1 + e^{10 x}) / 10, the smooth stand-in for ReLU of the curvature tasks."""
    return nn.Softplus(beta=10)


def _initialize(hidden: list[nn.Module], head: nn.Linear, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for layer, gain in [*((layer, "relu") for layer in hidden), (head, "linear")]:
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        nn.init.kaiming_normal_(weight, nonlinearity=gain, generator=generator)  # type: ignore[arg-type]
        nn.init.zeros_(bias)


def _linear_layers(depth: int, width: int, shape: torch.Size) -> list[nn.Module]:
    return [nn.Linear(shape.numel() if i == 0 else width, width) for i in range(depth)]


def _conv_layers(depth: int, width: int, shape: torch.Size) -> list[nn.Module]:
    return [nn.Conv2d(shape[0] if i == 0 else width, width, 3, padding=1) for i in range(depth)]


def _as_is(x: Tensor) -> Tensor:
    return x


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("mlp", "linear layers", _linear_layers, partial(torch.flatten, start_dim=1), _as_is),
        Family(
            "cnn",
            "3×3 convolutions, global average before the readout",
            _conv_layers,
            _as_is,
            partial(torch.mean, dim=(-2, -1)),
            pools=True,
        ),
    )
}
"""Every family by name."""
