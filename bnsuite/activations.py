"""Activations by name: elementwise functions, and modules of them for networks."""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnsuite.names import lookup

Function = Callable[[Tensor], Tensor]
"""Elementwise function of a tensor."""

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
"""Name → activation; softplus is ln(1 + e^{10x}) / 10."""


class Activation(nn.Module):
    """Module that applies an activation of `ACTIVATIONS` to each element."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = ACTIVATIONS[self.name](x)
        return y

    def stacked(self, _params: Mapping[str, Tensor], _buffers: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Stacked formula of `engine.stacked`: an elementwise function needs no change."""
        return self.forward(x)

    def extra_repr(self) -> str:
        return self.name


def activation(name: str) -> Callable[[int], nn.Module]:
    """Factory num_features → module of an activation by name.

    Raises:
        UnknownNameError: there is no activation of that name.
    """
    lookup("activation", name, ACTIVATIONS)
    return lambda _: Activation(name)
