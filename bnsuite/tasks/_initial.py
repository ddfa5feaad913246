"""What the diagnostics of a network at initialization share: its first minibatch, one backward pass."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bnsuite.activations import activation
from bnsuite.engine.lanes import Examples
from bnsuite.engine.train import mean_cross_entropy
from bnsuite.networks import Network
from bnsuite.records import Json, Measurement, Outcome, Sample
from bnsuite.tasks._task import Subject, Task


class Backward(NamedTuple):
    """What one backward pass leaves at the L hidden layers, the first at the input's side."""

    hidden: list[Tensor]  # ∂L/∂h_l
    weights: list[Tensor]  # ∂L/∂W_l, flat; with all matrices of a layer that holds several


@dataclass(frozen=True, kw_only=True)
class AtInitialization(Task):
    """A diagnostic of freshly initialized networks, one a confirmation seed.

    Attributes:
        activation: φ, by its name in `bnsuite.activations`; a scheme with its own keeps it.
    """

    activation: str = "relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        activation(self.activation)

    def network(self, subject: Subject, depth: int, seed: int) -> Network:
        """The network of a seed, in float64."""
        return subject.network(depth, self.width, seed, activation(self.activation)).double()

    def minibatch(self, subject: Subject, seed: int) -> tuple[Tensor, Tensor]:
        """The first minibatch that training would see: (batch, …) in float64, (batch,)."""
        data = subject.data
        (chosen,) = Examples(data.train_x, data.train_y, self.batch).order(seed, 1)
        return data.train_x[chosen].double(), data.train_y[chosen]


def backward(network: Network, x: Tensor, y: Tensor) -> Backward:
    """Gradients of the mean cross-entropy, batch statistics in training mode.

    ∂L/∂W_l of weights that training leaves as they are, too: it is a property of the function.
    """
    hidden: list[Tensor] = []
    layers = network.weights()
    flat = [matrix for layer in layers for matrix in layer]
    frozen = [matrix for matrix in flat if not matrix.requires_grad]
    for matrix in frozen:
        matrix.requires_grad_()
    logits = network.compose(x, lambda part, h: part(h), hidden.append)
    found = torch.autograd.grad(mean_cross_entropy(logits, y), [*hidden, *flat])
    for matrix in frozen:
        matrix.requires_grad_(False)
    rest = iter(found[len(hidden) :])
    weights = [torch.cat([next(rest).flatten() for _ in layer]) for layer in layers]
    return Backward(list(found[: len(hidden)]), weights)


def norm(tensors: Tensor | Sequence[Tensor]) -> float:
    """Euclidean norm, of several tensors together."""
    parts = [tensors] if isinstance(tensors, Tensor) else tensors
    return float(torch.stack([part.detach().double().norm() for part in parts]).norm())


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of the least-squares line through the points."""
    return float(np.polyfit(x, y, 1)[0])


def ratio(part: float, whole: float) -> float:
    """part / whole, NaN where the whole is 0: a readout that starts from 0 passes no gradient."""
    return part / whole if whole else math.nan


def finite_sample(seed: int, value: float, detail: Mapping[str, float | None]) -> Sample:
    """A sample, `nonfinite` where the value is; what stands beside it is None there."""
    kept: dict[str, Json] = {
        name: one if one is not None and math.isfinite(one) else None for name, one in detail.items()
    }
    if not math.isfinite(value):
        return Sample(seed=seed, value=None, outcome=Outcome.NONFINITE, detail=kept)
    return Sample(seed=seed, value=value, detail=kept)


def with_medians(measured: Measurement, **more: Json) -> Measurement:
    """The measurement with the medians over seeds of its samples' numbers as what stands beside it."""
    found: dict[str, list[float]] = defaultdict(list)
    for sample in measured.samples:
        for key, value in sample.detail.items():
            if isinstance(value, float):
                found[key].append(value)
    medians: dict[str, Json] = {key: median(values) for key, values in found.items()}
    return measured.model_copy(update={"derived": {**medians, **more}})
