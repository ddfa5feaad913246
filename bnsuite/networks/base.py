"""Base of all families: what every network has, and how it is built and initialized."""

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
"""(part of a network, h) → output of the part at h."""

See = Callable[[Tensor], object]
"""Callback that gets h_l."""

Gain = Literal["relu", "linear"]
"""Initialization of a weight: He normal ("relu", before φ) or LeCun normal ("linear")."""


def unseen(_h: Tensor) -> None:
    """Ignore h_l. Nothing keeps the tensor, so that the next one can take its place in the caches."""


class UnsupportedError(Exception):
    """A scheme cannot be built for a family: a result of its cell, not a failure."""


class Size(NamedTuple):
    """Size of a network, of its inputs and of its output."""

    depth: int  # hidden weight layers, or blocks
    width: int  # channels of a hidden layer
    shape: torch.Size  # (channels, height, width) of one input
    classes: int


class Network(nn.Module):
    """Network x (N, *shape) → logits (N, classes), with L hidden weight layers or blocks.

    Attributes:
        gains: name of each hidden weight layer → its initialization, in the order in which they are drawn.
        head: readout.
    """

    gains: dict[str, Gain]
    head: nn.Linear

    def compose(self, x: Tensor, apply: Apply, see: See = unseen) -> Tensor:
        """Forward pass in which every part is called by `apply`, for one network or for stacked networks.

        Args:
            x: inputs (N, *shape), or (R, N, *shape) for R stacked networks.
            apply: calls a part of the network.
            see: called with each of h_1 … h_L.
        """
        raise NotImplementedError

    def initialize_own(self, generator: torch.Generator) -> None:
        """Draw the family's parameters other than weight layers and readout, which are drawn before."""

    def weights(self) -> list[list[nn.Parameter]]:
        """Weights of each of the L hidden layers, or blocks: their parameters of more than one dimension."""
        return [[p for p in block.parameters() if p.dim() > 1] for block in self.blocks()]

    def blocks(self) -> list[nn.Module]:
        """List the L hidden weight layers, or blocks."""
        raise NotImplementedError


class Scale(nn.Module):
    """Fixed branch scale x → α x."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * x


def branch_scale(scheme: Scheme, width: int, depth: int) -> nn.Module:
    """Build the branch scale α_l of a scheme.

    Args:
        scheme: the scheme.
        width: channels of the branch.
        depth: hidden layers, or blocks, of the network.
    """
    if callable(scheme.branch):
        return scheme.branch(width, depth)
    return nn.Identity() if scheme.branch == 1.0 else Scale(scheme.branch)


@dataclass(frozen=True)
class Family:
    """Kind of network.

    Attributes:
        name: name of the family.
        about: description, in a few words.
        network: (scheme, size, factory of φ) → network that is not initialized yet; refuses by ValueError.
        convolutional: whether hidden layers keep the positions of images, (N, C, height, width).
    """

    name: str
    about: str
    network: Callable[[Scheme, Size, Factory], Network]
    convolutional: bool = False

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
        """Build a network and initialize it from `seed` alone.

        Weights before φ are He normal (fan-in), all others LeCun normal, biases 0. They are drawn after
        everything else is built, so that two schemes with one seed start from equal weights.

        Args:
            scheme: scheme around which the network is built.
            depth: hidden weight layers, or blocks; at least 1.
            width: channels of a hidden layer.
            shape: (channels, height, width) of one input.
            classes: number of classes.
            seed: seed of the initialization.
            activation: factory of φ; None: ReLU. A scheme with an activation of its own keeps that.

        Raises:
            UnsupportedError: the family or a part of the scheme refuses this size by a ValueError, or the
                parameters cannot be trained (see `checked`).
            ValueError: depth below 1.
        """
        if depth < 1:
            raise ValueError(f"a network has at least 1 hidden layer: got depth {depth}")
        size = Size(depth, width, shape, classes)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
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
    """Check that the parameters of a network can be trained (see `engine.train.trainable`); returns it.

    Raises:
        UnsupportedError: they cannot; the message names the parameter.
    """
    try:
        trainable(network)
    except ValueError as error:
        raise UnsupportedError(f"{scheme.name} cannot be trained: {error}") from error
    return network


def refuse_unbatched(network: nn.Module) -> None:
    """Make torch modules of a scheme raise ValueError where they would take (N, C, *S) for a single example.

    torch's instance norms, convolutions and channelwise dropouts also accept an input without a batch
    dimension, and would silently read (N, C) as (channels, positions). Its pools and pads do so too, but
    compute the same for each row.
    """
    for name, module in network.named_modules():
        if re.match(r"(norms|activations|branches)\.|.*\.activation\b", name) and _positions(module):
            module.register_forward_pre_hook(_with_batch)


def _positions(module: nn.Module) -> int | None:
    """Number of dimensions of S, for torch modules that also accept (C, *S); None for all others."""
    for kind in type(module).__mro__:
        match = re.fullmatch(r"(?:InstanceNorm|Conv|ConvTranspose|Dropout)([123])d", kind.__name__)
        if match and kind.__module__.startswith("torch.nn.modules."):
            return None if kind is nn.Dropout2d else int(match[1])
    return None


def _with_batch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if inputs and inputs[0].dim() == (_positions(module) or 0) + 1:
        name = type(module).__name__
        raise ValueError(f"{name} reads {tuple(inputs[0].shape)} as one example without a batch dimension")


def relu(_num_features: int) -> nn.Module:
    """Build φ(x) = max(x, 0), the activation of every task except the curvature tasks."""
    return nn.ReLU()


def softplus(_num_features: int) -> nn.Module:
    """Build φ(x) = ln(1 + e^{10 x}) / 10, which replaces ReLU where a task needs second derivatives."""
    return nn.Softplus(beta=10)


def _initialize(network: Network, seed: int) -> None:
    """Draw weights in their order, then the readout, then what else the family has, from one generator."""
    generator = torch.Generator().manual_seed(seed)
    for name, gain in [*network.gains.items(), ("head", "linear")]:
        layer = network.get_submodule(name)
        weight, bias = layer.weight, layer.bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        nn.init.kaiming_normal_(weight, nonlinearity=gain, generator=generator)
        nn.init.zeros_(bias)
    network.initialize_own(generator)
