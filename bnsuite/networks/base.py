"""Base of every family: what a network has, and how it is initialized."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from bnsuite.engine.train import trainable
from bnsuite.schemes import Factory, Scheme

N = TypeVar("N", bound=nn.Module)

Apply = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
"""(part of a network, h) → what the part makes of h"""

See = Callable[[Tensor], object]
"""Takes h_l."""

Gain = Literal["relu", "linear"]
"""How a weight starts: He normal (before φ) or LeCun normal."""


def unseen(h: Tensor) -> None:
    """Takes h_l and forgets it: a tensor that nobody keeps gives its place in the caches to the next."""


class UnsupportedError(Exception):
    """The scheme cannot be built for this family: a result, not a failure."""


class Size(NamedTuple):
    """What a network is built to."""

    depth: int
    width: int
    shape: torch.Size  # (channels, height, width) of one input
    classes: int


class Network(nn.Module):
    """x (N, *shape) → logits (N, classes).

    Attributes:
        gains: every hidden weight layer by its name, in the order in which they are drawn.
        head: the readout.
    """

    gains: dict[str, Gain]
    head: nn.Linear

    def compose(self, x: Tensor, apply: Apply, see: See = unseen) -> Tensor:
        """The forward pass with every part called by `apply`, for one network or for stacked ones.

        `see` is called with h_1 … h_L.
        """
        raise NotImplementedError

    def initialize_own(self, generator: torch.Generator) -> None:
        """Draw what a family has besides weight layers and the readout, after these."""

    def weights(self) -> list[list[nn.Parameter]]:
        """Of each of the L hidden layers, or blocks, the weights: parameters of more than one dimension."""
        return [[p for p in block.parameters() if p.dim() > 1] for block in self.blocks()]

    def blocks(self) -> list[nn.Module]:
        """The L hidden weight layers, or blocks."""
        raise NotImplementedError


class Scale(nn.Module):
    """A fixed branch scale: α x."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * x


def branch_scale(scheme: Scheme, width: int, depth: int) -> nn.Module:
    if callable(scheme.branch):
        return scheme.branch(width, depth)
    return nn.Identity() if scheme.branch == 1.0 else Scale(scheme.branch)


@dataclass(frozen=True)
class Family:
    """A way to build networks."""

    name: str
    about: str
    network: Callable[[Scheme, Size, Factory], Network]

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
        """A network of `depth` hidden weight layers, or blocks, initialized by `seed` alone.

        Weights before φ are He normal (fan-in), all others LeCun normal, biases 0. They are drawn after
        everything else was built, so that two schemes at one seed start from the same weights.

        Args:
            shape: (channels, height, width) of one input.
            activation: φ from `num_features`; ReLU by default. A scheme with its own keeps it.

        Raises:
            UnsupportedError: the family or the scheme's parts refuse this size, with a ValueError; or its
                parameters cannot be trained (see `checked`).
            ValueError: depth below 1.
        """
        if depth < 1:
            raise ValueError(f"a network has at least 1 hidden layer: got depth {depth}")
        size = Size(depth, width, shape, classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                network = self.network(scheme, size, activation or relu)
            except ValueError as error:
                raise UnsupportedError(f"{scheme.name} cannot be built for {self.name}: {error}") from error
            _initialize(network, seed)
            if scheme.init is not None:
                scheme.init(network)
            if scheme.weight is not None:
                for name in network.gains:
                    network.set_submodule(name, scheme.weight(network.get_submodule(name)))
        refuse_unbatched(network)
        return checked(network, scheme)


def checked(network: N, scheme: Scheme) -> N:
    """The network, where its parameters can be trained (see `engine.train.trainable`).

    Raises:
        UnsupportedError: they cannot; names the parameter.
    """
    try:
        trainable(network)
    except ValueError as error:
        raise UnsupportedError(f"{scheme.name} cannot be trained: {error}") from error
    return network


def refuse_unbatched(network: nn.Module) -> None:
    """Let torch modules of a scheme raise ValueError where they would read (N, C, *S) as one example.

    Torch's instance norms, convolutions and channelwise dropouts also take an input without a batch
    dimension, with one dimension less: (N, C) would be (channels, positions), silently. Its pools and
    pads do so too, but compute the same for each row.
    """
    for name, module in network.named_modules():
        if re.match(r"(norms|activations|branches)\.|.*\.activation\b", name) and _positions(module):
            module.register_forward_pre_hook(_with_batch)


def _positions(module: nn.Module) -> int | None:
    """Dimensions of S, where `module` is one of torch's whose (C, *S) means another thing than (N, C, *S)."""
    for kind in type(module).__mro__:
        found = re.fullmatch(r"(?:InstanceNorm|Conv|ConvTranspose|Dropout)([123])d", kind.__name__)
        if found and kind.__module__.startswith("torch.nn.modules."):
            return None if kind is nn.Dropout2d else int(found[1])
    return None


def _with_batch(module: nn.Module, given: tuple[Tensor, ...]) -> None:
    if given and given[0].dim() == (_positions(module) or 0) + 1:
        name = type(module).__name__
        raise ValueError(f"{name} reads {tuple(given[0].shape)} as one example without a batch dimension")


def relu(num_features: int) -> nn.Module:
    """φ(x) = max(x, 0), of every task but the curvature ones."""
    return nn.ReLU()


def softplus(num_features: int) -> nn.Module:
    """φ(x) = ln(1 + e^{10 x}) / 10, the smooth stand-in for ReLU of the curvature tasks."""
    return nn.Softplus(beta=10)


def _initialize(network: Network, seed: int) -> None:
    """Weights in their order, the readout, then what else the family has, all from one stream."""
    generator = torch.Generator().manual_seed(seed)
    for name, gain in [*network.gains.items(), ("head", "linear")]:
        layer = network.get_submodule(name)
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        nn.init.kaiming_normal_(weight, nonlinearity=gain, generator=generator)
        nn.init.zeros_(bias)
    network.initialize_own(generator)
