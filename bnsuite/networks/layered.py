"""Families `mlp` and `cnn`: hidden weight layers with the normalizers of a scheme between them."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from bnsuite.networks.base import Apply, Family, Network, See, Size, branch_scale, unseen
from bnsuite.schemes import Factory, Scheme

POOLED_SIDE = 8
"""Largest height and width behind the stem of `cnn`; larger images are average-pooled there, once."""


class Layered(Network):
    """Network of hidden weight layers, by the equations of `Scheme`.

    Args:
        scheme: the scheme.
        layers: hidden weight layers, the stem first.
        width: channels of a hidden layer.
        classes: number of classes.
        activation: factory of φ, unless the scheme has its own.
        prepare: applied to the input.
        pool: applied behind the stem.
        gather: applied before the readout.
    """

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
        self.branches = nn.ModuleList(branch_scale(scheme, width, depth) for _ in range(depth - 1))
        self.head = nn.Linear(width, classes)
        self.pool = pool
        self.gains = {"stem": "relu", **{f"layers.{i}": "relu" for i in range(depth - 1)}}
        self._prepare, self._gather = prepare, gather

    def forward(self, x: Tensor) -> Tensor:
        return self.compose(x, lambda part, h: part(h))

    def compose(self, x: Tensor, apply: Apply, see: See = unseen) -> Tensor:
        h = apply(self.pool, apply(self.stem, apply(self._prepare, x)))
        *inner, last = self.activations
        for i, (layer, phi, branch) in enumerate(zip(self.layers, inner, self.branches, strict=True)):
            see(h)
            if self.skip == "none":
                h = apply(layer, apply(phi, apply(self.norms[i], h)))
            elif self.skip == "pre":
                h = h + apply(branch, apply(layer, apply(phi, apply(self.norms[i], h))))
            else:
                h = apply(self.norms[i], h + apply(branch, apply(layer, apply(phi, h))))
        see(h)
        if self.skip != "post":
            h = apply(self.norms[-1], h)
        return apply(self.head, apply(self._gather, apply(last, h)))

    def blocks(self) -> list[nn.Module]:
        return [self.stem, *self.layers]


def _mlp(scheme: Scheme, size: Size, activation: Factory) -> Network:
    depth, width, shape, classes = size
    layers: list[nn.Module] = [nn.Linear(width if i else shape.numel(), width) for i in range(depth)]
    return Layered(scheme, layers, width, classes, activation, nn.Flatten(), nn.Identity(), nn.Identity())


def _cnn(scheme: Scheme, size: Size, activation: Factory) -> Network:
    depth, width, shape, classes = size
    layers: list[nn.Module] = [nn.Conv2d(width if i else shape[0], width, 3, padding=1) for i in range(depth)]
    window = math.ceil(shape[1] / POOLED_SIDE), math.ceil(shape[2] / POOLED_SIDE)
    pool = nn.AvgPool2d(window) if max(window) > 1 else nn.Identity()
    mean = partial(torch.mean, dim=(-2, -1))
    return Layered(scheme, layers, width, classes, activation, nn.Identity(), pool, mean)


MLP = Family("mlp", "linear layers", _mlp)
CNN = Family("cnn", "3×3 convolutions, global average before the readout", _cnn, convolutional=True)
