"""Networks at initialization, their first minibatch and one backward pass, for the diagnostics."""

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
    """Gradients at the L hidden layers after one backward pass, from the input's side."""

    hidden: list[Tensor]  # ∂L/∂h_l
    weights: list[Tensor]  # ∂L/∂W_l, flat; all matrices of a layer in one vector


@dataclass(frozen=True, kw_only=True)
class AtInitialization(Task):
    """Diagnostic of freshly initialized networks, one per confirmation seed.

    Attributes:
        activation: φ, by its name in `bnsuite.activations`; a scheme with its own keeps it.
    """

    activation: str = "relu"

    def __post_init__(self) -> None:
        super().__post_init__()
        activation(self.activation)

    def network(self, subject: Subject, depth: int, seed: int) -> Network:
        """Build the network with a given seed, in float64.

        Args:
            subject: what is measured.
            depth: number of layers.
            seed: seed of its initialization.
        """
        return subject.network(depth, self.width, seed, activation(self.activation)).double()

    def minibatch(self, subject: Subject, seed: int) -> tuple[Tensor, Tensor]:
        """Draw the first minibatch that training would see: (batch, …) in float64, (batch,)."""
        data = subject.data
        (chosen,) = Examples(data.train_x, data.train_y, self.batch).order(seed, 1)
        return data.train_x[chosen].double(), data.train_y[chosen]


def backward(network: Network, x: Tensor, y: Tensor) -> Backward:
    """Differentiate the mean cross-entropy, with batch statistics in training mode.

    ∂L/∂W_l includes weights that training does not change: it is a property of the function.

    Args:
        network: network in training mode, left as it was.
        x: one minibatch (N, …).
        y: its labels (N,).
    """
    hidden: list[Tensor] = []
    layers = network.weights()
    flat = [matrix for layer in layers for matrix in layer]
    frozen = [matrix for matrix in flat if not matrix.requires_grad]
    for matrix in frozen:
        matrix.requires_grad_()
    logits = network.compose(x, lambda part, h: part(h), hidden.append)
    gradients = torch.autograd.grad(mean_cross_entropy(logits, y), [*hidden, *flat])
    for matrix in frozen:
        matrix.requires_grad_(False)
    rest = iter(gradients[len(hidden) :])
    weights = [torch.cat([next(rest).flatten() for _ in layer]) for layer in layers]
    return Backward(list(gradients[: len(hidden)]), weights)


def norm(tensors: Tensor | Sequence[Tensor]) -> float:
    """Compute the Euclidean norm of one tensor, or of several taken together."""
    parts = [tensors] if isinstance(tensors, Tensor) else tensors
    return float(torch.stack([part.detach().double().norm() for part in parts]).norm())


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Fit the least-squares line through the points and return its slope."""
    return float(np.polyfit(x, y, 1)[0])


def ratio(part: float, whole: float) -> float:
    """Divide part by whole; NaN if the whole is 0, as a readout that starts from 0 passes no gradient."""
    return part / whole if whole else math.nan


def finite_sample(seed: int, value: float, detail: Mapping[str, float | None]) -> Sample:
    """Build a sample, `nonfinite` without a finite value; numbers of its detail that are not finite are None.

    Args:
        seed: seed of the network.
        value: its value.
        detail: name → further number; None: there is none.
    """
    finite_detail: dict[str, Json] = {
        name: number if number is not None and math.isfinite(number) else None
        for name, number in detail.items()
    }
    if not math.isfinite(value):
        return Sample(seed=seed, value=None, outcome=Outcome.NONFINITE, detail=finite_detail)
    return Sample(seed=seed, value=value, detail=finite_detail)


def with_medians(measured: Measurement, **more: Json) -> Measurement:
    """Add derived values to a measurement: medians over seeds of its samples' details, and `more`."""
    numbers: dict[str, list[float]] = defaultdict(list)
    for sample in measured.samples:
        for key, value in sample.detail.items():
            if isinstance(value, float):
                numbers[key].append(value)
    medians: dict[str, Json] = {key: median(values) for key, values in numbers.items()}
    return measured.model_copy(update={"derived": {**medians, **more}})
