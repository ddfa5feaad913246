"""Small networks of a scheme in a family, with data for them, on which the scheme is tried."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bnsuite.networks import FAMILIES, Family, Network, UnsupportedError
from bnsuite.schemes import Factory, Scheme

WIDTH = 16
"""Channels of the hidden layers."""

IMAGE_SIDE = 4
"""Side of an image: 16 positions for `cnn`, 4 tokens for `transformer`."""

CLASSES = 4
"""Number of classes."""

EXACT, COARSEST = 1e-9, 1e-2
"""Smallest and largest relative rounding error to allow for, whatever the precision of a scheme."""


class _Epsilons(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Recorder of the largest machine epsilon among results of operations, except single numbers like ε."""

    largest: float = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.numel() > 1:
                self.largest = max(self.largest, torch.finfo(leaf.dtype).eps)
        return out


def epsilon(module: Callable[[Tensor], object], x: Tensor) -> float:
    """Machine epsilon of the precision in which `module` computes on x.

    Machine epsilon of the coarsest floating-point type among the operations: a normalizer may compute in
    float32 whatever the type of its input.
    """
    epsilons: _Epsilons = _Epsilons()  # type: ignore[no-untyped-call]
    with epsilons:
        module(x)
    return epsilons.largest


def rounding(epsilon: float) -> float:
    """Relative rounding error to allow for: 100 ε, at least 1e-9 and at most 1 %."""
    return min(COARSEST, max(EXACT, 100 * epsilon))


@dataclass(frozen=True)
class Stage:
    """Small networks of a scheme in a family, and data; equal arguments give equal networks and data."""

    scheme: Scheme
    family: Family
    dtype: torch.dtype = torch.float64

    def network(
        self,
        depth: int = 3,
        width: int = WIDTH,
        *,
        seed: int = 0,
        side: int = IMAGE_SIDE,
        activation: Factory | None = None,
        moved: bool = False,
    ) -> Network:
        """Build a network, in training mode.

        Args:
            depth: hidden weight layers, or blocks.
            width: channels of a hidden layer.
            seed: seed of the initialization.
            side: side of an image.
            activation: factory of φ; None: ReLU.
            moved: add N(0, 0.1²) to each parameter, since initial values may hide what they multiply.

        Raises:
            UnsupportedError: the family, or a part of the scheme, refuses to be built.
        """
        shape = torch.Size((1, side, side))
        network = self.family.build(
            self.scheme, depth, width=width, shape=shape, classes=CLASSES, seed=seed, activation=activation
        ).to(self.dtype)
        if moved:
            draw = torch.Generator().manual_seed(seed)
            with torch.no_grad():
                for p in network.parameters():
                    p.add_(0.1 * torch.randn(p.shape, generator=draw, dtype=p.dtype))
        return network

    def data(self, n: int = 8, *, seed: int = 0, side: int = IMAGE_SIDE) -> tuple[Tensor, Tensor]:
        """Images (n, 1, side, side) from N(0, 1), and their classes (n,).

        Args:
            n: number of images.
            seed: seed of the random numbers.
            side: side of an image.
        """
        draw = torch.Generator().manual_seed(seed)
        x = torch.randn((n, 1, side, side), generator=draw, dtype=torch.float64)
        return x.to(self.dtype), torch.randint(CLASSES, (n,), generator=draw)

    @cached_property
    def epsilon(self) -> float:
        """Machine epsilon of the precision in which the network computes (see function `epsilon`)."""
        return epsilon(self.network(), self.data()[0])

    @property
    def rounding(self) -> float:
        """Relative error of an output that rounding may cause (see function `rounding`)."""
        return rounding(self.epsilon)

    @property
    def steps(self) -> list[float]:
        """Steps of finite differences, of which the best counts: 1e-6, 1e-5, … up to 0.1 ∛ε.

        Short steps suffer from rounding, long steps from curvature. In precisions below float32 the best of
        them may agree by chance, so that a gradient of the scheme's own is missed.
        """
        return [h for h in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2) if h <= max(1e-6, 0.1 * self.epsilon ** (1 / 3))]

    @property
    def tolerance(self) -> float:
        """Relative error that the best finite difference may have: 2 ∛ε, at least 1e-3."""
        return max(1e-3, 2 * float(self.epsilon ** (1 / 3)))

    def refusal(self) -> str | None:
        """Reason why the family refuses the scheme, or the scheme refuses its data; None: neither does."""
        try:
            self.network()(self.data()[0])
        except (UnsupportedError, ValueError) as error:
            return str(error)
        return None


def stages(scheme: Scheme) -> list[Stage]:
    """Stages of the families in which the scheme runs, in the order of `FAMILIES`."""

    def runs(stage: Stage) -> bool:
        try:
            return stage.refusal() is None
        except Exception:  # foreign code may raise anything; there is nothing to try then
            return False

    return [stage for family in FAMILIES.values() if runs(stage := Stage(scheme, family))]


@contextmanager
def own_streams(seed: int = 0) -> Iterator[None]:
    """Context with seeded global generators of torch, numpy and Python; restores them at its end."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
