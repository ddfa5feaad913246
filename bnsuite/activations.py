"""Activations by name: elementwise functions, and the modules that networks are built from."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnsuite.names import lookup

Function = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Function] = {
    "linear": lambda x: x,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "softplus": lambda x: F.softplus(x, beta=10),
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "hardtanh": F.hardtanh,
    "softsign": F.softsign,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "erf": torch.erf,
    "sin": torch.sin,
}
"""Activations by name; softplus is ln(1 + e^{10x}) / 10."""


class Activation(nn.Module):
    """φ by its name in `ACTIVATIONS`, applied to each element."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = ACTIVATIONS[self.name](x)
        return y

    def stacked(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The rule of `engine.stacked`: elements do not know of lanes."""
        return self.forward(x)

    def extra_repr(self) -> str:
        return self.name


def activation(name: str) -> Callable[[int], nn.Module]:
    """A factory (num_features) → module of the activation of that name, or `UnknownNameError`."""
    lookup("activation", name, ACTIVATIONS)
    return lambda num_features: Activation(name)
