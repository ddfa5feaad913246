"""Stage: small networks of one scheme in one family, and data for them, to try the scheme on."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bnsuite.networks import FAMILIES, Family, Network, UnsupportedError
from bnsuite.schemes import Factory, Scheme

WIDTH = 16
"""Channels of the hidden layers."""

SIDE = 4
"""Side of an image: 16 positions for `cnn`, 4 tokens for `transformer`."""

CLASSES = 4


@dataclass(frozen=True)
class Stage:
    """Networks of a scheme in a family; the same arguments give the same network and the same data."""

    scheme: Scheme
    family: Family
    dtype: torch.dtype = torch.float64

    def network(
        self,
        depth: int = 3,
        width: int = WIDTH,
        *,
        seed: int = 0,
        side: int = SIDE,
        activation: Factory | None = None,
        moved: bool = False,
    ) -> Network:
        """In training mode; `moved`: N(0, 0.1²) added to each parameter, since a start may hide something.

        Raises UnsupportedError where the family or a part of the scheme refuses to be built.
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

    def data(self, n: int = 8, *, seed: int = 0, side: int = SIDE) -> tuple[Tensor, Tensor]:
        """Images (n, 1, side, side) from N(0, 1), and their classes (n,)."""
        draw = torch.Generator().manual_seed(seed)
        x = torch.randn((n, 1, side, side), generator=draw, dtype=torch.float64)
        return x.to(self.dtype), torch.randint(CLASSES, (n,), generator=draw)

    def refusal(self) -> str | None:
        """Why the family does not take the scheme, or a part of it its data; None where it does."""
        try:
            with torch.no_grad():
                self.network()(self.data()[0])
        except (UnsupportedError, ValueError) as error:
            return str(error)
        return None


def stages(scheme: Scheme) -> list[Stage]:
    """One of each family in which the scheme runs, in the order of `FAMILIES`."""

    def runs(stage: Stage) -> bool:
        try:
            return stage.refusal() is None
        except Exception:  # whatever foreign code raises, there is nothing to try
            return False

    return [stage for family in FAMILIES.values() if runs(stage := Stage(scheme, family))]


@contextmanager
def own_streams(seed: int = 0) -> Iterator[None]:
    """Seeds torch's, numpy's and Python's global streams; after it they are what they were before."""
    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])
        random.setstate(kept[2])
